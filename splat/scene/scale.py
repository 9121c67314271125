"""How much to shrink photos when nobody said."""

from collections.abc import Sequence
from pathlib import Path

import cv2

from encoders.errors import InputError
from splat.scene import colmap, photos, transforms_json
from splat.scene.images import image_size

COMFORTABLE_SIDE = 1000
"""Longest image side, in pixels, up to which photos are used as they are."""

PUBLISHED_WIDTH = 1600
"""Widest image, in pixels, that the training code of 3DGS uses as it is, and that of what is built on it."""


def automatic_scale(path: Path) -> float:
    """1, 1/2, 1/4, ...: the largest that brings the scene's first image to `COMFORTABLE_SIDE` or below.

    The first of the images that `load_scene` would read and that opens; whatever else lies in the folder, a run
    for instance, does not count. 1.0 where there is none; `load_scene` then says what is wrong.

    Raises:
        InputError: the list of images (`transforms.json`, a COLMAP model) cannot be read.
    """
    longest = max(_first_size(path))
    scale = 1.0
    while longest * scale > COMFORTABLE_SIDE:
        scale /= 2
    return scale


def published_scale(path: Path) -> float:
    """What 3DGS shrinks a scene's images by when nobody says: to a width of `PUBLISHED_WIDTH`, narrower ones not.

    Kerbl et al. 2023 do so for each image; here the first one, as in `automatic_scale`, stands for all. Their sizes are
    cut to whole pixels and ours rounded, so a view may be a pixel higher.

    Raises:
        InputError: as `automatic_scale`.
    """
    width, _ = _first_size(path)
    return min(1.0, PUBLISHED_WIDTH / max(width, 1))


def _first_size(path: Path) -> tuple[int, int]:
    """Width and height of the first image of a scene; (0, 0) if there is none."""
    if path.is_file() and path.suffix.lower() != ".json":
        video = cv2.VideoCapture(str(path))
        size = int(video.get(cv2.CAP_PROP_FRAME_WIDTH)), int(video.get(cv2.CAP_PROP_FRAME_HEIGHT))
        video.release()
        return size
    for file in _images(path):
        try:
            return image_size(file)
        except InputError:
            continue  # whether the scene can do without it is the reader's to say
    return 0, 0


def _images(path: Path) -> Sequence[Path]:
    """The image files of a scene that is no video, by the rules of `load_scene`."""
    listing = path if path.is_file() else path / "transforms.json"
    if listing.is_file():
        return transforms_json.image_files(listing)
    model = colmap.find_model(path)
    return photos.scene_files(path) if model is None else colmap.image_files(model, path)
