"""How much to shrink photos when nobody said."""

from pathlib import Path

import cv2

from splat.scene.images import IMAGE_SUFFIXES, image_size

COMFORTABLE_SIDE = 1000
"""Longest image side, in pixels, up to which photos are used as they are."""


def automatic_scale(path: Path) -> float:
    """1, 1/2, 1/4, ...: the largest that brings the scene's first image to `COMFORTABLE_SIDE` or below.

    1.0 where no image is found; `load_scene` then says what is wrong.
    """
    folder = path if path.is_dir() else path.parent
    if path.is_file() and path.suffix.lower() != ".json":
        video = cv2.VideoCapture(str(path))
        longest = max(video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT))
        video.release()
    else:
        photos = (p for p in sorted(folder.rglob("*")) if p.suffix.lower() in IMAGE_SUFFIXES)
        first = next(photos, None)
        longest = max(image_size(first)) if first is not None else 0
    scale = 1.0
    while longest * scale > COMFORTABLE_SIDE:
        scale /= 2
    return scale
