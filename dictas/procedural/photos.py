"""Classes of real photos: those that scikit-image and scikit-learn ship, which may be redistributed."""

from functools import cache

import cv2
import numpy as np
import skimage.data
import sklearn.datasets

from dictas.procedural.noise import Field, Shape, between, blur

Generator = np.random.Generator

TEXTURES = ("brick", "grass", "gravel")
"""The same everywhere: each specimen is another place."""
SCENES = ("astronaut", "camera", "chelsea", "coffee", "coins", "rocket", "china.jpg", "flower.jpg")
"""Each specimen shows the same place, moved a little."""


@cache
def _photo(name: str) -> Field:
    """Colours [H, W, 3] in 0..1."""
    if name.endswith(".jpg"):
        image = np.asarray(sklearn.datasets.load_sample_image(name))
    else:
        image = np.asarray(getattr(skimage.data, name)())
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    return np.asarray(image.astype(np.float32) / 255, np.float32)


def photo_texture(look: Generator, rng: Generator, shape: Shape, unit: float) -> Field:
    """Brick, grass or gravel: any place of the photo, with its colours changed."""
    photo = _photo(TEXTURES[int(look.integers(len(TEXTURES)))])
    scale = between(look, 0.35, 0.9) * min(photo.shape[:2]) / 256 / unit
    reach = scale * np.asarray(shape)
    middle = [
        rng.uniform(min(half, side - half), max(half, side - half))
        for half, side in zip(reach / 2, photo.shape, strict=False)
    ]
    cut = _cut(photo, middle, scale, shape, float(rng.choice([-1, 1])))
    return np.asarray(cut * look.uniform(0.7, 1.3, 3).astype(np.float32), np.float32)


def photo_scene(look: Generator, rng: Generator, shape: Shape, unit: float) -> Field:
    """One place of a photo of things, seen again and again."""
    photo = _photo(SCENES[int(look.integers(len(SCENES)))])
    part, spread = between(look, 0.25, 0.95), look.uniform(0, 0.03)
    side = min(photo.shape[:2])
    scale = part * side / 256 / unit
    room = np.maximum(np.asarray(photo.shape[:2]) - part * side, 0)
    middle = part * side / 2 + look.random(2) * room + rng.normal(0, spread * side, 2)
    return _cut(photo, middle, scale, shape, 1.0)


def _cut(photo: Field, middle: "np.ndarray | list[float]", scale: float, shape: Shape, mirror: float) -> Field:
    """``shape`` pixels around ``middle`` (row, column), each ``scale`` photo pixels large; edges are mirrored."""
    matrix = np.asarray(
        [[mirror * scale, 0, middle[1] - mirror * scale * shape[1] / 2], [0, scale, middle[0] - scale * shape[0] / 2]]
    )
    source = blur(photo, 0.4 * scale) if scale > 1.3 else photo
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(
        cv2.warpAffine(source, matrix, shape[::-1], flags=flags, borderMode=cv2.BORDER_REFLECT_101), np.float32
    )


PHOTOS = {painter.__name__: painter for painter in (photo_texture, photo_scene)}
