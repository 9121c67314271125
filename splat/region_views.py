"""Training views as the language solvers see them: region maps, embeddings, and the splat in both directions.

Geometry is frozen while language is fitted, so a view is a fixed linear map between Gaussians and pixels,
``W_p = sum_i omega_pi c_i``. `RegionViews.codes` applies it, `RegionViews.lift` applies its transpose. Both
solvers are written against these two calls only.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from encoders.errors import InputError
from splat.features import FeatureStore
from splat.gaussians import Gaussians
from splat.rasterize import FrozenSplats
from splat.scene import Camera, stack

CACHE_BYTES = 1 << 30
"""Region maps are kept in memory up to this size and read from the store again beyond it."""

FROZEN_BYTES = {"cpu": 512 << 20, "cuda": 2 << 30}
"""Splat lists of views are kept in memory up to this size and made again at every use beyond it. They are 36 bytes per
Gaussian and view and 8 per tile that one touches, at most."""

SPLAT_BYTES = 512 << 20
"""Splat all levels together while one view's channels fit in this, else one level at a time."""

NO_REGIONS = "No training view has a region; run the features stage with other --regions."

FIT_PIXELS = 50_000
"""About as many pixels of a view are fitted to: regions are large, and a quarter of the pixels says the same."""

MAX_STRIDE = 4
"""Views are never shrunk more than this, so that small Gaussians keep their place in front of others."""


@dataclass(frozen=True)
class RegionView:
    """What one view says should be seen where.

    Attributes (on the device of the Gaussians):
        ids: row of `embeddings` per level and pixel, -1 where there is no region. int64 [levels, H * W]
        embeddings: unit vectors. float32 [R, D]
    """

    ids: torch.Tensor
    embeddings: torch.Tensor

    def areas(self, level: int) -> torch.Tensor:
        """How many pixels each region has at a level. int64 [R]"""
        ids = self.ids[level]
        return torch.bincount(ids[ids >= 0], minlength=len(self.embeddings))


class RegionViews:
    """The training views of a scene with their features, and the frozen Gaussians.

    Args:
        gaussians: frozen geometry, N of them; everything is done on their device.
        cameras: training cameras; every one must have features in `store`, of the camera's own size.
        store: features per view.
        stride: fit to every stride-th pixel of every stride-th row, splatting views that much smaller; None
            chooses by `FIT_PIXELS`.

    Attributes:
        cameras: the cameras that are splatted, shrunk by `stride`.

    Raises:
        InputError: there are no cameras, or a view's features are missing or have another size.
    """

    def __init__(
        self, gaussians: Gaussians, cameras: Sequence[Camera], store: FeatureStore, stride: int | None = None
    ) -> None:
        if not cameras:
            raise InputError("The scene has no training views; a language field needs at least one.")
        self._full = list(cameras)
        largest = max(camera.width * camera.height for camera in cameras)
        self.stride = stride or min(MAX_STRIDE, max(1, round((largest / FIT_PIXELS) ** 0.5)))
        self.cameras = [_shrunk(camera, self.stride) for camera in cameras]
        self.store = store
        self.means = gaussians.means.detach()
        self._stored = (gaussians.means, gaussians.quats, gaussians.log_scales, gaussians.logit_opacities)
        means, quats, scales, opacities = gaussians.geometry
        self._geometry = means.detach(), quats.detach(), scales.detach(), opacities.detach()
        self._cache: dict[int, RegionView] = {}
        self._room = CACHE_BYTES
        self._frozen: dict[int, FrozenSplats] = {}
        self._frozen_room = FROZEN_BYTES[self.device.type]

    def __len__(self) -> int:
        return len(self.cameras)

    def identity(self) -> str:
        """Text that differs when the Gaussians, the views or their features do, and not from device to device."""
        digest = hashlib.sha256()
        for tensor in self._stored:
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        for camera in self.cameras:
            digest.update(f"{camera.name} {camera.width} {camera.height}".encode())
            digest.update(camera.K.tobytes() + camera.viewmat.tobytes())
        digest.update(self.store.read(self.cameras[0].name).embeddings.tobytes())
        return f"{self.store.encoder} {self.stride} {digest.hexdigest()}"

    @property
    def device(self) -> torch.device:
        """Where the Gaussians are."""
        return self.means.device

    @property
    def gaussians(self) -> int:
        """Number of Gaussians, N."""
        return self.means.shape[0]

    def view(self, index: int) -> RegionView:
        """Regions and embeddings of one view."""
        if index in self._cache:
            return self._cache[index]
        camera, small = self._full[index], self.cameras[index]
        if not self.store.has(camera.name):
            raise InputError(f"View {camera.name} has no features; run the features stage again.")
        features = self.store.read(camera.name)
        ids = torch.as_tensor(features.region_ids)
        if tuple(ids.shape[1:]) != (camera.height, camera.width):
            raise InputError(
                f"The features of view {camera.name} are {ids.shape[2]}x{ids.shape[1]} pixels but its camera is "
                f"{camera.width}x{camera.height}; run the features stage again."
            )
        middle = self.stride // 2
        ids = ids[:, middle :: self.stride, middle :: self.stride][:, : small.height, : small.width]
        embeddings = torch.as_tensor(features.embeddings).to(self.device)
        view = _valid_regions(ids.to(self.device).reshape(len(ids), -1).long(), embeddings.float())
        size = 8 * view.ids.numel() + 4 * view.embeddings.numel()
        if size <= self._room:
            self._cache[index] = view
            self._room -= size
        return view

    def level_groups(self, levels: int, atoms: int) -> list[range]:
        """Which levels to splat together so that one view's pixels x channels stay small."""
        pixels = max(camera.width * camera.height for camera in self.cameras)
        if pixels * levels * (atoms + 1) * 4 <= SPLAT_BYTES:
            return [range(levels)]
        return [range(level, level + 1) for level in range(levels)]

    def codes(self, index: int, indices: torch.Tensor, weights: torch.Tensor, atoms: int) -> torch.Tensor:
        """Splat codes into a view; differentiable in `weights`. [N, levels, K] twice -> [H * W, levels, L]"""
        image, _ = self._splats(index).codes(indices, weights, atoms=atoms)
        return image.reshape(-1, indices.shape[1], atoms)

    def lift(self, index: int, values: torch.Tensor) -> torch.Tensor:
        """Splat pixel values back: ``sum_p omega_pi values_p`` per Gaussian. [H * W, V] -> [N, V]"""
        camera = self.cameras[index]
        return self._splats(index).lift(values.reshape(1, camera.height, camera.width, -1))[0]

    def _splats(self, index: int) -> FrozenSplats:
        """A view's splat lists, which a solver asks for in every round or epoch."""
        if index in self._frozen:
            return self._frozen[index]
        camera = self.cameras[index]
        splats = FrozenSplats(*self._geometry, *stack([camera]), camera.width, camera.height)
        if splats.nbytes <= self._frozen_room:
            self._frozen[index] = splats
            self._frozen_room -= splats.nbytes
        return splats


def _shrunk(camera: Camera, stride: int) -> Camera:
    """The camera of every stride-th pixel; incomplete pixels at the right and bottom are left out."""
    width, height = max(1, camera.width // stride), max(1, camera.height // stride)
    intrinsics = camera.K.copy()
    intrinsics[:2] /= stride
    return replace(camera, width=width, height=height, K=intrinsics)


def _valid_regions(ids: torch.Tensor, embeddings: torch.Tensor) -> RegionView:
    """Unit embeddings again (fp16 rounds them), and no region where an encoder left the vector at zero."""
    if len(embeddings) == 0:
        return RegionView(torch.full_like(ids, -1), embeddings.new_zeros(1, embeddings.shape[1]))
    norms = embeddings.norm(dim=1)
    ids = torch.where((ids >= 0) & (norms[ids.clamp_min(0)] > 0.5), ids, -1)
    return RegionView(ids, embeddings / norms.clamp_min(1e-6)[:, None])


def pixel_cosines(splatted: torch.Tensor, along: torch.Tensor, ids: torch.Tensor, atoms: torch.Tensor) -> torch.Tensor:
    """Cosine between a pixel's feature ``W A`` and its region's embedding, in code space.

    Args:
        splatted: pixel codes W. [M, L]
        along: inner products of the embeddings with the atoms. [R, L]
        ids: each pixel's region. int64 [M]
        atoms: [L, D]

    Returns:
        cosines, 0 where a pixel has no code; differentiable in all float arguments. [M]
    """
    norm2 = ((splatted @ (atoms @ atoms.T)) * splatted).sum(1)
    return (splatted * along[ids]).sum(1) / norm2.clamp_min(1e-12).sqrt()
