"""Splatting of 3D Gaussians: colours, sparse codes, dense features, text relevancy, and values back onto the Gaussians.

All functions take plain tensors with gsplat's names and conventions:

- ``means`` [N, 3] world positions, ``quats`` [N, 4] rotations (w, x, y, z) of any length, ``scales``
  [N, 3] standard deviations, ``opacities`` [N] in 0..1;
- ``viewmats`` [C, 4, 4] world-to-camera in OpenCV axes, ``Ks`` [C, 3, 3] intrinsics in pixels, the
  centre of the first pixel at (0.5, 0.5).

They work, and return, on the device of ``means``: the native kernels on a CPU (`splat.rasterize_cpu`), gsplat and our
own kernels on a GPU (`splat.rasterize_cuda`). Both take contiguous float32 tensors on that device; anything else is
converted. Blending follows 3DGS: front to back, contributions with alpha below 1/255 skipped, a pixel finished when its
transmittance would fall to 1e-4. On the CPU, results do not depend on the number of threads.
"""

from typing import Any

from torch import Tensor

from splat import rasterize_cpu
from splat.raster_inputs import plain, plain_indices, plain_inputs


class FrozenSplats:
    """Gaussians seen by cameras, projected and sorted once and splatted as often as wanted; no gradient goes to them.

    Args:
        means, quats, scales, opacities, viewmats, Ks, width, height: as everywhere in this module; not kept, so that
            changing them later changes nothing.

    Raises:
        ValueError: a shape does not fit.
    """

    def __init__(
        self,
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        opacities: Tensor,
        viewmats: Tensor,
        Ks: Tensor,
        width: int,
        height: int,
    ) -> None:
        geometry, self._view = plain_inputs(means, quats, scales, opacities, viewmats, Ks, width, height)
        self._splats = _backend(means).Splats(geometry, self._view)
        self._gaussians, self._device = len(means), means.device

    @property
    def nbytes(self) -> int:
        """Memory that is held, on the device of the Gaussians."""
        return self._splats.nbytes

    def codes(self, indices: Tensor, weights: Tensor, *, atoms: int = 64) -> tuple[Tensor, Tensor]:
        """`rasterize_codes`."""
        indices = plain_indices(indices, self._gaussians, self._device)
        return self._splats.codes(indices, plain(weights, self._device, *indices.shape), atoms)

    def features(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """`rasterize_features`."""
        features = plain(features, self._device, self._gaussians, -1)
        if not features.shape[1]:
            raise ValueError("features must have at least one channel")
        return self._splats.features(features)

    def lift(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """`lift`."""
        view = self._view
        return self._splats.lift(plain(values, self._device, view.cameras, view.height, view.width, -1))

    def relevancy(
        self,
        indices: Tensor,
        weights: Tensor,
        scores: Tensor,
        gram: Tensor,
        positives: int,
        *,
        temperature: float = 10.0,
    ) -> tuple[Tensor, Tensor]:
        """`rasterize_relevancy`."""
        device, indices = self._device, plain_indices(indices, self._gaussians, self._device)
        levels, _, atoms = scores.shape
        if levels != indices.shape[1]:
            raise ValueError(f"scores have {levels} levels, the codes {indices.shape[1]}")
        return self._splats.relevancy(
            indices,
            plain(weights, device, *indices.shape),
            plain(scores, device, levels, -1, atoms),
            plain(gram, device, levels, atoms, atoms),
            positives,
            temperature,
        )


def _backend(means: Tensor) -> Any:
    """The module that splats where the Gaussians are: a class `Splats` and a function `rgb`."""
    if means.device.type == "cpu":
        return rasterize_cpu
    if means.device.type != "cuda":
        raise ValueError(f"the Gaussians are on {means.device}; they can be splatted on cpu or cuda")
    from splat import rasterize_cuda  # imports gsplat, which nobody on a CPU waits for

    return rasterize_cuda


def rasterize_rgb(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    sh: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    *,
    sh_degree: int = 3,
    background: Tensor | None = None,
    packed: bool = False,
    absgrad: bool = False,
) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
    """Render colours, differentiable in all five Gaussian parameters.

    Args:
        sh: spherical-harmonics coefficients [N, (degree + 1)^2 or more, 3].
        sh_degree: degree used, 0..3.
        background: colour [3] behind the Gaussians; black when None.
        packed: GPU only: keep intermediate results of visible Gaussians only (nnz of them). Less memory for scenes of
            which a view sees a small part, a little slower otherwise.
        absgrad: GPU only: the backward pass leaves the sum of absolute gradients in ``info["means2d"].absgrad``, which
            `gsplat.DefaultStrategy(absgrad=True)` refines by (AbsGS).

    Returns:
        ``rgb`` [C, H, W, 3] (not clipped above 1); ``depth`` [C, H, W, 1], the blended camera z (divide by alpha
        for a mean); ``alphas`` [C, H, W, 1]; ``info`` with the intermediate ``means2d`` [C, N, 2] or [nnz, 2],
        ``depths``, ``conics``, ``radii`` [C, N, 2] (0 where invisible) or [nnz, 2], ``width``, ``height``,
        ``n_cameras`` and ``gaussian_ids`` [nnz] (None unless packed), which is what gsplat's densification strategies
        ask for.

    Raises:
        ValueError: a shape does not fit, or packed or absgrad were asked for on a CPU.
    """
    geometry, view = plain_inputs(means, quats, scales, opacities, viewmats, Ks, width, height)
    sh = plain(sh, means.device, len(means), -1, 3)
    rgb, depth, alphas, info = _backend(means).rgb(geometry, sh, view, sh_degree, packed, absgrad)
    if background is not None:
        rgb = rgb + (1.0 - alphas) * background
    return rgb, depth, alphas, info


def rasterize_codes(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    indices: Tensor,
    weights: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    *,
    atoms: int = 64,
) -> tuple[Tensor, Tensor]:
    """Splat sparse codes (LangSplatV2, section 3.3), differentiable in ``weights``.

    Args:
        indices: uint8 [N, levels, nonzeros], each below ``atoms``; repeated indices add up.
        weights: [N, levels, nonzeros].
        atoms: size of each level's dictionary, at most 256.

    Returns:
        ``codes`` [C, H, W, levels * atoms], level-major: the pixel code W_p = sum_i w_pi c_i per level;
        ``alphas`` [C, H, W, 1].
    """
    splats = FrozenSplats(means, quats, scales, opacities, viewmats, Ks, width, height)
    return splats.codes(indices, weights, atoms=atoms)


def rasterize_features(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    features: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
) -> tuple[Tensor, Tensor]:
    """Splat a dense vector per Gaussian, of any length; no gradient.

    Args:
        features: [N, D], D of 1 or more.

    Returns:
        ``features`` [C, H, W, D]: sum_i w_pi features_i; ``alphas`` [C, H, W, 1].
    """
    return FrozenSplats(means, quats, scales, opacities, viewmats, Ks, width, height).features(features)


def lift(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    values: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
) -> tuple[Tensor, Tensor]:
    """Splat pixel values back onto the Gaussians that show them: the adjoint of blending.

    Args:
        values: [C, H, W, V], any V.

    Returns:
        ``sums`` [N, V] = sum_p w_pi values_p and ``mass`` [N] = sum_p w_pi over all pixels of all cameras.
    """
    _, height, width, _ = values.shape
    return FrozenSplats(means, quats, scales, opacities, viewmats, Ks, width, height).lift(values)


def rasterize_relevancy(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    indices: Tensor,
    weights: Tensor,
    scores: Tensor,
    gram: Tensor,
    positives: int,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    *,
    temperature: float = 10.0,
) -> tuple[Tensor, Tensor]:
    """Text relevancy of every pixel and level, straight from the code splat.

    ``cos(F_p, t) = (W_p . A t) / sqrt(W_p^T G W_p)`` with G = A A^T is exact, so no feature map exists.
    Relevancy is LERF's ``min_n softmax(temperature [s_phrase, s_negative_n])[0]``.

    Args:
        scores: [levels, T, atoms], A t for each text; the first ``positives`` texts are phrases, the others
            negatives (at least one of each).
        gram: [levels, atoms, atoms], A A^T.

    Returns:
        ``relevancy`` [C, positives, levels, H, W] in 0..1, 0 where no code reaches the pixel; ``alphas``
        [C, H, W, 1].
    """
    splats = FrozenSplats(means, quats, scales, opacities, viewmats, Ks, width, height)
    return splats.relevancy(indices, weights, scores, gram, positives, temperature=temperature)
