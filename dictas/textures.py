"""Where the foreign textures come from that synthetic anomalies are made of."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from dictas.procedural import draw_class
from encoders.errors import InputError
from encoders.files import read_image

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
LONGEST = 640
"""Larger images of a folder are shrunk to it, so that the cache stays small (32 images take 40 MB at most)."""
CACHED = 32
SMALLEST = 32
"""Smaller pieces than that are cut from one of this size."""


class TextureSource(Protocol):
    """Gives textures without end."""

    def texture(self, rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """A random texture, uint8 [H, W, 3] of ``shape`` (H, W)."""
        ...


class ProceduralTextures:
    """Every texture is another class of `dictas.procedural`."""

    def texture(self, rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.uint8]:
        side = max(*shape, SMALLEST)
        return draw_class(rng).sample(rng, (side, side))[0][: shape[0], : shape[1]]


class GivenTextures:
    """Random pieces of given images, each uint8 [H, W, 3]."""

    def __init__(self, images: Sequence[NDArray[np.uint8]]) -> None:
        if not images:
            raise ValueError("at least one texture is needed")
        self._images = images

    def texture(self, rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.uint8]:
        return piece(self._images[int(rng.integers(len(self._images)))], rng, shape)


class FolderTextures:
    """Random pieces of the images below a folder, read when they are asked for.

    Unreadable files are passed over. The most recently used images are kept in memory, `CACHED` of them.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(f"The texture folder {folder} does not exist; give a folder of images such as DTD's.")
        self._folder = folder
        self._paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        self._cache: OrderedDict[Path, NDArray[np.uint8] | None] = OrderedDict()

    def texture(self, rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """See `TextureSource`.

        Raises:
            InputError: no file of the folder can be read as an image.
        """
        first = int(rng.integers(max(len(self._paths), 1)))
        for path in self._paths[first:] + self._paths[:first]:
            image = self._read(path)
            if image is not None:
                return piece(image, rng, shape)
        raise InputError(f"The texture folder {self._folder} holds no readable image; give one such as DTD's.")

    def _read(self, path: Path) -> NDArray[np.uint8] | None:
        if path not in self._cache:
            try:
                image = read_image(path)
            except InputError:
                self._cache[path] = None
            else:
                scale = LONGEST / max(image.shape[:2])
                if scale < 1:
                    image = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
                self._cache[path] = image
            while len(self._cache) > CACHED:
                self._cache.popitem(last=False)
        self._cache.move_to_end(path)
        return self._cache[path]


def piece(image: NDArray[np.uint8], rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """A random piece of ``image``, flipped and magnified at random, uint8 [H, W, 3] of ``shape`` (H, W)."""
    fit = max(shape[0] / image.shape[0], shape[1] / image.shape[1])
    scale = max(fit, float(rng.uniform(0.5, 1.5)))
    resized = cv2.resize(
        image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    padded = np.pad(
        resized, [(0, max(shape[0] - resized.shape[0], 0)), (0, max(shape[1] - resized.shape[1], 0)), (0, 0)], "edge"
    )
    top, left = (int(rng.integers(padded.shape[axis] - shape[axis] + 1)) for axis in (0, 1))
    cut = padded[top : top + shape[0], left : left + shape[1]]
    return np.asarray(cut[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])], np.uint8)
