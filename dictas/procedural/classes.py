"""A class of product: what all its photos share, and how they differ."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dictas.procedural.camera import Camera
from dictas.procedural.colours import colours
from dictas.procedural.noise import Field, Shape
from dictas.procedural.parts_flat import PARTS
from dictas.procedural.patterns import PATTERNS
from dictas.procedural.photos import PHOTOS
from dictas.procedural.surfaces import SURFACES

MATERIALS = SURFACES | PATTERNS | PHOTOS
GROUNDS = ("plain", "rolled", "brushed", "concrete", "cast", "specked", "fur", "wood", "cloth", "stripes")
"""Materials that parts lie on."""
FAMILIES = (*MATERIALS, *PARTS)
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
        angle = float(look.choice([0.0, np.pi / 2, look.uniform(0, np.pi)]))
        if self.family in MATERIALS:
            return camera.fill(MATERIALS[self.family], look, rng, shape, angle), np.ones(shape, bool)
        loose, scale, shadow = look.random() < 0.3, look.uniform(0.6, 1.1), look.uniform(0, 0.5)
        ground = self._ground(camera, look, rng, shape)
        part, opaque = PARTS[self.family](look, rng, min(shape))
        turn = rng.uniform(0, 2 * np.pi) if loose else angle
        return camera.place(part, opaque, ground, rng, turn, scale, shadow)

    def _ground(self, camera: Camera, look: np.random.Generator, rng: np.random.Generator, shape: Shape) -> Field:
        """What a part lies on: black, white or one colour in half of the classes, else another material."""
        kind, own = look.integers(6), np.random.default_rng(int(look.integers(2**32)))
        if kind < 3:
            colour = (np.full(3, 0.03, np.float32), np.full(3, 0.92, np.float32), colours(own, 1)[0])[kind]
            return np.broadcast_to(colour, (*shape, 3)).astype(np.float32)
        name = GROUNDS[int(own.integers(len(GROUNDS)))]
        return camera.fill(MATERIALS[name], own, rng, shape, 0.0)


def draw_class(rng: np.random.Generator) -> ProceduralClass:
    """Invent a class; families are equally likely."""
    return ProceduralClass(FAMILIES[rng.integers(len(FAMILIES))], int(rng.integers(2**32)))
