"""Image files and databases for COLMAP in a temporary folder, and what it means when they cannot be written."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from encoders.errors import InputError
from encoders.storage import FULL_DISK

BYTES_PER_IMAGE = 1 << 20
"""Room for one image's 2048 features (0.3 MB) and its matches in COLMAP's database, generously."""

_DATABASE_SIGNS = ("database", "sqlite", "disk", "no space", "i/o error")
"""COLMAP does not say why its database failed; in a folder of our own making it is the disk."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a temporary folder that is removed afterwards.

    Raises:
        InputError: its disk is full, as the system or COLMAP (with a RuntimeError about its database) says.
    """
    with tempfile.TemporaryDirectory(prefix="dictsplat-") as name:
        try:
            yield Path(name)
        except OSError as error:
            if error.errno in FULL_DISK:
                raise _no_room(Path(name), str(error.strerror)) from error
            raise
        except RuntimeError as error:
            text = " ".join(str(error).split())
            if any(sign in text.lower() for sign in _DATABASE_SIGNS):
                raise _no_room(Path(name), text) from error
            raise


def check_room(folder: Path, images: int) -> None:
    """Raise `InputError` when the database of so many images will not fit on the disk of ``folder``.

    COLMAP ends the whole process when the disk fills up inside one of its threads, so that is asked first.
    """
    free, needed = shutil.disk_usage(folder).free, images * BYTES_PER_IMAGE
    if free < needed:
        raise _no_room(folder, f"{free >> 20} MB are free and {needed >> 20} MB are needed")


def write_image(path: Path, image: np.ndarray, options: Sequence[int] = ()) -> None:
    """Write uint8 BGR [H, W, 3] in the format of ``path``'s suffix.

    Raises:
        OSError: the file cannot be written.
    """
    path.touch()  # says why, where the name is the trouble
    # OpenCV returns False, and leaves a part of the file, when a write fails.
    if not cv2.imwrite(str(path), image, options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _no_room(folder: Path, why: str) -> InputError:
    return InputError(
        f"The temporary folder {folder.parent} could not hold what finding cameras and points writes ({why}); "
        "make free space there, or set TMPDIR to a folder on a larger disk."
    )
