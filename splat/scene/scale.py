"""How much to shrink photos when nobody said."""

from collections.abc import Sequence
from pathlib import Path

import cv2

from encoders.errors import InputError
from splat.scene import colmap, photos, transforms_json
from splat.scene.images import image_size

COMFORTABLE_SIDE = 1000
"""Longest image side, in pixels, up to which photos are used as they are."""


def automatic_scale(path: Path) -> float:
    """1, 1/2, 1/4, ...: the largest that brings the scene's first image to `COMFORTABLE_SIDE` or below.

    The first of the images that `load_scene` would read and that opens; whatever else lies in the folder, a run
    for instance, does not count. 1.0 where there is none; `load_scene` then says what is wrong.

    Raises:
        InputError: the list of images (`transforms.json`, a COLMAP model) cannot be read.
    """
    if path.is_file() and path.suffix.lower() != ".json":
        video = cv2.VideoCapture(str(path))
        longest = max(video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT))
        video.release()
    else:
        longest = _longest_side(_images(path))
    scale = 1.0
    while longest * scale > COMFORTABLE_SIDE:
        scale /= 2
    return scale


def _images(path: Path) -> Sequence[Path]:
    """The image files of a scene that is no video, by the rules of `load_scene`."""
    listing = path if path.is_file() else path / "transforms.json"
    if listing.is_file():
        return transforms_json.image_files(listing)
    model = colmap.find_model(path)
    return photos.scene_files(path) if model is None else colmap.image_files(model, path)


def _longest_side(files: Sequence[Path]) -> int:
    """Of the first image that opens; 0 when none does."""
    for file in files:
        try:
            return max(image_size(file))
        except InputError:
            continue  # whether the scene can do without it is the reader's to say
    return 0
