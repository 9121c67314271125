"""The scene that is timed, and a frame of it in every way that is compared."""

from dataclasses import dataclass

import torch
from torch import Tensor

from app.bench_baselines import (
    Geometry,
    langsplat_decoder,
    langsplat_query,
    materialised_query,
    torch_rasterize_rgb,
)
from app.bench_clock import Lap, Work, no_lap
from splat.gaussians import spatial_order
from splat.rasterize import rasterize_codes, rasterize_features, rasterize_relevancy, rasterize_rgb


@dataclass(frozen=True)
class BenchConfig:
    """What is timed. The defaults are the table of the README.

    Attributes:
        dense: numbers of channels for dense splatting. levels * dim is what splatting features themselves takes,
            levels * atoms what a map of codes would cost that were not sparse.
        phrases: phrases of a query, beside LERF's four negatives.
        repeats: rounds.
        slow: time the torch renderer too.
        device: "cpu" or "cuda".
    """

    gaussians: int = 100_000
    width: int = 640
    height: int = 480
    levels: int = 3
    nonzeros: int = 4
    atoms: int = 64
    dim: int = 512
    dense: tuple[int, ...] = (3, 32, 192, 512, 1536)
    phrases: int = 1
    repeats: int = 5
    slow: bool = True
    seed: int = 0
    device: str = "cpu"


class Scene:
    """A room whose walls, floor and content are covered by Gaussians of the sizes a trained scene has.

    Everything is drawn on the CPU, so that it is the same on every device.
    """

    def __init__(self, config: BenchConfig):
        g = torch.Generator().manual_seed(config.seed)
        n = config.gaussians
        self.config = config

        def ready(tensor: Tensor) -> Tensor:
            return tensor.to(config.device)

        means = torch.rand(n, 3, generator=g) * torch.tensor([4.0, 3.0, 3.0]) - torch.tensor([2.0, 1.5, -1.5])
        face = torch.randint(0, 3, (n,), generator=g)
        means[face == 0, 2], means[face == 1, 1], means[face == 2, 0] = 4.5, 1.5, 2.0
        means = means[spatial_order(means)]  # as a trained scene is stored; nothing else depends on the place
        quats = torch.randn(n, 4, generator=g)
        scales = torch.exp(torch.randn(n, 3, generator=g) * 0.5 - 4.3) * (100_000 / n) ** 0.5
        opacities = torch.sigmoid(torch.randn(n, generator=g) * 1.5)
        self.geometry: Geometry = (ready(means), ready(quats), ready(scales), ready(opacities))
        self.sh = ready(torch.randn(n, 16, 3, generator=g) * 0.2)
        focal = 0.78 * config.width
        self.viewmats = ready(torch.eye(4)[None])
        self.Ks = ready(torch.tensor([[[focal, 0, config.width / 2], [0, focal, config.height / 2], [0, 0, 1]]]))
        shape = (n, config.levels, config.nonzeros)
        self.indices = ready(torch.randint(0, config.atoms, shape, generator=g).to(torch.uint8))
        weights = torch.rand(shape, generator=g)
        self.weights = ready(weights / weights.sum(-1, keepdim=True))

        def unit(*size: int) -> Tensor:
            return ready(torch.nn.functional.normalize(torch.randn(*size, generator=g), dim=-1))

        self.dictionary = unit(config.levels, config.atoms, config.dim)
        self.texts = unit(config.phrases + 4, config.dim)
        self.latents = ready(torch.rand(config.levels, n, 3, generator=g))
        torch.manual_seed(config.seed)
        self.decoders = [langsplat_decoder(config.dim).to(config.device) for _ in range(config.levels)]

    @property
    def view(self) -> tuple[Tensor, Tensor, int, int]:
        """viewmats, Ks, width, height."""
        return self.viewmats, self.Ks, self.config.width, self.config.height

    @torch.inference_mode()
    def rgb(self, lap: Lap = no_lap) -> Tensor:
        """Colours [1, H, W, 3]."""
        image, _, _, _ = rasterize_rgb(*self.geometry, self.sh, *self.view)
        lap("rendering")
        return image

    @torch.inference_mode()
    def codes(self, lap: Lap = no_lap) -> Tensor:
        """Codes [1, H, W, levels * atoms]."""
        codes, _ = rasterize_codes(*self.geometry, self.indices, self.weights, *self.view, atoms=self.config.atoms)
        lap("rendering")
        return codes

    def dense(self, channels: int) -> Work:
        """A frame of dense splatting, [1, H, W, channels]."""
        g = torch.Generator().manual_seed(channels)
        features = torch.randn(self.config.gaussians, channels, generator=g).to(self.config.device)

        @torch.inference_mode()
        def work(lap: Lap) -> Tensor:
            image, _ = rasterize_features(*self.geometry, features, *self.view)
            lap("rendering")
            return image

        return work

    @torch.inference_mode()
    def query(self, lap: Lap = no_lap) -> Tensor:
        """Everything a query frame costs once the phrase is encoded: relevancy [phrases, levels, H, W].

        "decoding" is all that is left of it: the scores of atoms and their Gram matrix, which a viewer would
        compute once per phrase and once per scene. Relevancy comes out of the rendering.
        """
        scores = torch.einsum("lad,td->lta", self.dictionary, self.texts)
        gram = self.dictionary @ self.dictionary.transpose(1, 2)
        lap("decoding")
        relevancy, _ = rasterize_relevancy(
            *self.geometry, self.indices, self.weights, scores, gram, self.config.phrases, *self.view
        )
        lap("rendering")
        return relevancy[0]

    def langsplat(self, lap: Lap = no_lap) -> Tensor:
        """`langsplat_query` of this scene."""
        phrases = self.config.phrases
        return langsplat_query(self.geometry, self.latents, self.decoders, self.texts, phrases, *self.view, lap)

    def materialised(self, lap: Lap = no_lap) -> Tensor:
        """`materialised_query` of this scene."""
        return materialised_query(
            self.geometry, self.indices, self.weights, self.dictionary, self.texts, self.config.phrases, *self.view, lap
        )

    def leaves(self) -> tuple[Geometry, Tensor]:
        """Geometry and harmonics that take a gradient."""
        means, quats, scales, opacities, sh = (tensor.clone().requires_grad_() for tensor in (*self.geometry, self.sh))
        return (means, quats, scales, opacities), sh

    def rgb_training_step(self, lap: Lap = no_lap) -> None:
        """Colours and the gradient of all that they depend on."""
        geometry, sh = self.leaves()
        rasterize_rgb(*geometry, sh, *self.view)[0].square().mean().backward()
        lap("rendering")

    def torch_training_step(self, lap: Lap = no_lap) -> None:
        """The same through `torch_rasterize_rgb`."""
        geometry, sh = self.leaves()
        width, height = self.config.width, self.config.height
        torch_rasterize_rgb(geometry, sh, self.viewmats[0], self.Ks[0], width, height).square().mean().backward()
        lap("rendering")
