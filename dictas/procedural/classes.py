"""A class of product: what all its photos share, and how they differ."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dictas.procedural.camera import Camera
from dictas.procedural.noise import Field, Shape
from dictas.procedural.patterns import PATTERNS
from dictas.procedural.surfaces import SURFACES

MATERIALS = SURFACES | PATTERNS
FAMILIES = tuple(MATERIALS)
"""Names of the kinds of class."""


@dataclass(frozen=True)
class ProceduralClass:
    """One material or kind of part under one camera.

    Attributes:
        family: one of `FAMILIES`.
        seed: everything its specimens share follows from it.
    """

    family: str
    seed: int

    def sample(self, rng: np.random.Generator, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Photograph another specimen.

        Args:
            rng: makes the specimen and the photo; the same state gives the same photo.
            size: (H, W) in pixels, at least 32 each. Structures keep their size relative to the shorter side.

        Returns:
            uint8 [H, W, 3]; bool [H, W], True where the product is, False on the background.
        """
        look = np.random.default_rng(self.seed)
        camera = Camera.draw(look)
        scene, product = self._scene(camera, look, rng, size)
        return camera.photograph(scene, rng), product

    def _scene(
        self, camera: Camera, look: np.random.Generator, rng: np.random.Generator, shape: Shape
    ) -> tuple[Field, NDArray[np.bool_]]:
        angle = look.choice([0.0, np.pi / 2, look.uniform(0, np.pi)])
        return camera.fill(MATERIALS[self.family], look, rng, shape, float(angle)), np.ones(shape, bool)


def draw_class(rng: np.random.Generator) -> ProceduralClass:
    """Invent a class; families are equally likely."""
    return ProceduralClass(FAMILIES[rng.integers(len(FAMILIES))], int(rng.integers(2**32)))
