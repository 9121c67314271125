"""What a visitor uploads to be trained on, checked and copied to where the training reads it."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from app.uploads import MIB, Limits, check_amount, checked_images, is_zip, unpack_zip
from encoders.errors import InputError
from splat.scene.images import IMAGE_SUFFIXES
from splat.scene.photos import FEWEST
from splat.scene.video import VIDEO_SUFFIXES, is_video

LIMITS = Limits(files=1000, file_bytes=64 * MIB, total_bytes=4096 * MIB)
"""Of the photos of one scene."""

VIDEO_LIMITS = replace(LIMITS, files=1, file_bytes=2048 * MIB, total_bytes=2048 * MIB)

ACCEPTED = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES, ".zip")
"""Names of files that may be uploaded end like this."""


@dataclass(frozen=True)
class Material:
    """What was received.

    Attributes:
        kind: "photos" or "video".
        count: of files.
        place: the scene to train on, relative to the folder it was received in.
    """

    kind: Literal["photos", "video"]
    count: int
    place: str


def check_kinds(files: Sequence[Path]) -> None:
    """Refuse what cannot be trained on by its name.

    Raises:
        InputError: there is nothing, or something that is neither photo, video nor zip, or a mixture of these.
    """
    if not files:
        raise InputError("There is nothing to train on; choose some photos, a video or a zip of photos.")
    for file in files:
        if file.suffix.lower() not in ACCEPTED:
            raise InputError(f"{file.name} is no photo, video or zip; give JPEG or PNG files, or a zip of them.")
    alone = [file for file in files if _comes_alone(file)]
    if alone and len(files) > 1:
        raise InputError(f"{alone[0].name} came together with other files; give it alone, or photos only.")


def suggested_name(files: Sequence[Path]) -> str:
    """What to call a scene that was given no name: like its zip or video, and "scene" if it comes as photos."""
    stem = files[0].stem.lower() if _comes_alone(files[0]) else ""
    return re.sub(r"[^a-z0-9]+", "-", stem)[:30].strip("-") or "scene"


def receive(files: Sequence[Path], folder: Path) -> Material:
    """Copy photos, or what a zip of photos holds, or a video, into ``folder``, which exists.

    Args:
        files: which `check_kinds` lets pass.

    Raises:
        InputError: there are too few photos or too much of anything, or a file is empty, damaged, or not what its
            name says.
    """
    if not _comes_alone(files[0]):
        return _photos(files, folder)
    if is_video(files[0]):
        return _video(files[0], folder)
    unpacked = folder / "unpacked"
    found = [path for path in unpack_zip(files[0], unpacked, LIMITS) if path.suffix.lower() in IMAGE_SUFFIXES]
    material = _photos(found, folder, f"{files[0].name} has")
    shutil.rmtree(unpacked)
    return material


def _comes_alone(file: Path) -> bool:
    return is_zip(file) or is_video(file)


def _photos(files: Sequence[Path], folder: Path, giver: str = "you gave") -> Material:
    if len(files) < FEWEST:
        raise InputError(f"Finding cameras takes {FEWEST} photos, better 20 or more; {giver} {len(files)}.")
    checked_images(files, LIMITS)
    photos = folder / "photos"
    photos.mkdir()
    taken: set[str] = set()
    for file in files:
        shutil.copyfile(file, photos / _free_name(file, taken))
    return Material("photos", len(files), photos.name)


def _video(file: Path, folder: Path) -> Material:
    check_amount([file], VIDEO_LIMITS)
    if not file.stat().st_size:
        raise InputError(f"{file.name} is empty; upload it again.")
    name = _free_name(file, set())
    shutil.copyfile(file, folder / name)
    return Material("video", 1, name)


def _free_name(file: Path, taken: set[str]) -> str:
    """The file's name without anything that is special anywhere, and unlike those ``taken``, to which it is added."""
    stem = re.sub(r"[^\w-]+", "_", file.stem)[:80].strip("_") or "photo"
    number, name = 1, stem
    while name.lower() in taken:
        number += 1
        name = f"{stem}_{number}"
    taken.add(name.lower())
    return name + file.suffix.lower()
