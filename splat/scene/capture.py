"""What every reader (transforms.json, COLMAP, photos) hands to `load_scene`: views as they were taken."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from encoders.errors import InputError
from splat.scene.undistort import Lens


@dataclass(frozen=True)
class View:
    """One photo with its pose and the lens it was taken with.

    Attributes:
        name: unique name of the camera to be.
        path: the image file.
        lens: distorted camera model at the size the calibration speaks of.
        viewmat: float64 [4, 4], world to camera, OpenCV axes.
        upright: whether the calibration speaks of the image turned by its EXIF tag (COLMAP's does not).
    """

    name: str
    path: Path
    lens: Lens
    viewmat: NDArray[np.float64]
    upright: bool = True


@dataclass
class Capture:
    """A whole scene as it was taken.

    Attributes:
        views: sorted by name.
        test_names, train_names: the split the data set asks for, or None for the standard one.
        points: float32 [P, 3] and point_colors uint8 [P, 3], or None when the source has none.
        keepalive: whatever must live as long as the image files do (a temporary folder).
    """

    views: list[View]
    test_names: set[str] | None = None
    train_names: set[str] | None = None
    points: NDArray[np.float32] | None = None
    point_colors: NDArray[np.uint8] | None = None
    keepalive: object = field(default=None, repr=False)


def view_names(files: list[str], where: Path) -> list[str]:
    """Names for image ``files`` (paths as the data set spells them): the stem where that is unique.

    Photos of several folders with equal stems get their folders into the name, joined by "_"; photos
    that only differ in the extension keep it.

    Raises:
        InputError: one file is listed twice.
    """
    paths = [PurePosixPath(file.replace("\\", "/")) for file in files]
    stems = Counter(path.stem for path in paths)
    names = [path.stem if stems[path.stem] == 1 else _joined(path) for path in paths]
    taken = Counter(names)
    names = [name if taken[name] == 1 else _joined(path) + path.suffix for name, path in zip(names, paths, strict=True)]
    for name, count in Counter(names).items():
        if count > 1:
            file = files[names.index(name)]
            raise InputError(f"{where} lists the image {file} {count} times; give every view its own image.")
    return names


def _joined(path: PurePosixPath) -> str:
    # A name becomes part of file names, and the root of a path may be written as "//".
    return "_".join(part for part in path.with_suffix("").parts if part != ".." and "/" not in part)
