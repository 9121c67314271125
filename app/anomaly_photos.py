"""From a visitor's uploads to the two folders that an inspection reads; what cannot be judged is told apart here."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from app.uploads import MIB, Limits, check_amount, check_image, checked_images, is_zip, unpack_zip
from dictas.images import SUFFIXES
from dictas.outputs import UNREADABLE, Row
from encoders.errors import InputError

GOOD_LIMITS = Limits(files=16, total_bytes=256 * MIB)
JUDGE_LIMITS = Limits(files=500)


def stage_good(uploads: Sequence[Path], folder: Path) -> None:
    """Put photos of good parts, or zips of them, into a folder that does not exist yet.

    Raises:
        InputError: there is none, there are more than 16, or one of them cannot be read.
    """
    found = [path for path in _gathered(uploads, folder, GOOD_LIMITS) if _named_like_an_image(path)]
    if not found:
        raise InputError("There is no photo of a good part; give 1 to 16.")
    checked_images(found, GOOD_LIMITS)


def stage_judge(uploads: Sequence[Path], folder: Path) -> list[Row]:
    """Put photos to judge, or zips of them, into a folder that does not exist yet.

    Returns:
        A row for each file that is no image or too large a one; those files are not in the folder.

    Raises:
        InputError: there are too many or none, a zip cannot be used, or nothing is left to judge.
    """
    refused = []
    found = _gathered(uploads, folder, JUDGE_LIMITS)
    for path in found:
        name = path.relative_to(folder).as_posix()
        try:
            if not _named_like_an_image(path):
                raise InputError(f"{name} is not named like a photo; give .jpg, .png, .webp, .tif or .bmp.")
            check_image(path, JUDGE_LIMITS, name)
        except InputError as error:
            refused.append(Row(name, status=UNREADABLE, error=str(error)))
            path.unlink()
    if not found:
        raise InputError("There is no photo to judge; give one or more.")
    if len(refused) == len(found):
        raise InputError(f"None of the photos to judge can be read: {refused[0].error}")
    return refused


def _gathered(uploads: Sequence[Path], folder: Path, limits: Limits) -> list[Path]:
    """All uploads in one folder, the contents of each zip in a folder of its own; of these only what may be photos."""
    check_amount(uploads, limits)
    folder.mkdir(parents=True)
    taken: set[str] = set()
    found: list[Path] = []
    left = limits
    for upload in uploads:
        if is_zip(upload):
            new = unpack_zip(upload, folder / _free(upload.stem, taken), left)
        else:
            new = [_linked(upload, folder / _free(upload.name, taken))]
        used = sum(path.stat().st_size for path in new)
        left = replace(left, files=left.files - len(new), total_bytes=left.total_bytes - used)
        found += [path for path in new if not is_zip(upload) or _named_like_an_image(path)]
    check_amount(found, limits)
    return found


def _free(name: str, taken: set[str]) -> str:
    """A name for an upload that no other one has; people upload "1.jpg" from two folders."""
    shown = PurePosixPath(name.lstrip(".") or "photo")  # a name that starts with a dot would be hidden
    free, number = shown.name, 1
    while free.casefold() in taken:
        number += 1
        free = f"{shown.stem} ({number}){shown.suffix}"
    taken.add(free.casefold())
    return free


def _linked(upload: Path, path: Path) -> Path:
    try:
        os.link(upload, path)
    except OSError:  # another file system, or one without links
        shutil.copyfile(upload, path)
    return path


def _named_like_an_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES
