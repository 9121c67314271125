"""The files of one judged photo, written by several threads at once while the model goes on.

::

    OUT/maps/NAME.png        the map, 16 bit, value = pixel / 65535 (or NAME.npz with the array ``map``, float16)
    OUT/overlays/NAME.jpg    heat over the photo
    OUT/masks/NAME.png       255 = anomalous, as large as the photo
    OUT/thumbnails/NAME.jpg  photo, overlay and mask side by side, for report.html

NAME is the photo's path without its suffix.
"""

import io
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dictas.overlay import overlay, strip
from dictas.thresholds import LEVELS, Threshold
from dictas.tiles import Judgement
from encoders.errors import InputError
from encoders.files import short_stem

FOLDERS = ("maps", "overlays", "masks", "thumbnails")
SUFFIXES = (".png", ".jpg", ".npz")
"""Of all files written for a photo."""
OK, UNREADABLE = "ok", "unreadable"
"""What `Row.status` may be."""
MAPS = ("png16", "npz", "none")
JPEG = (cv2.IMWRITE_JPEG_QUALITY, 85)
SMOOTH_PNG = (
    cv2.IMWRITE_PNG_COMPRESSION, 1,
    cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP,
    cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY,
)  # fmt: skip
"""Maps need no search for repetitions: a third of the default's time, files up to a third larger."""
FLAT_PNG = (
    cv2.IMWRITE_PNG_COMPRESSION, 1,
    cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE,
    cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE,
)  # fmt: skip
"""Masks are runs of equal pixels: a seventh of the default's time, files a third as large."""
LONGEST_JPEG = 65000
"""Pixels; the format has no room for more."""
THUMBNAIL = (200, 160)
"""Largest width and height of one picture of a thumbnail strip."""

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Row:
    """A photo's line in results.csv. Without a result (``status`` `UNREADABLE`) numbers are None.

    Attributes:
        path: relative to the query folder.
        score: see `dictas.tiles.Judgement`, 0..1.
        anomalous: the score reaches the threshold of images.
        area_fraction: share of pixels that reach the threshold of pixels.
        peak_x: column of the map's maximum in pixels from the left. peak_y: its row from the top.
        output: NAME of the files above; "" if there are none.
    """

    path: str
    score: float | None = None
    anomalous: bool | None = None
    area_fraction: float | None = None
    peak_x: int | None = None
    peak_y: int | None = None
    width: int | None = None
    height: int | None = None
    status: str = OK
    error: str = ""
    output: str = ""


@dataclass(frozen=True)
class Writer:
    """Where and how results are written; safe to use from several threads.

    Attributes:
        maps: one of `MAPS`.
    """

    folder: Path
    threshold: Threshold
    maps: str = "png16"

    def __post_init__(self) -> None:
        if self.maps not in MAPS:
            raise InputError(f"--maps is {self.maps!r}; give one of {', '.join(MAPS)}.")

    def write(self, row: Row, image: Image, found: Judgement) -> Row:
        """Write the files of a photo uint8 [H, W, 3]; the row with its numbers filled in."""
        values = found.map
        mask = values >= self.threshold.pixel
        heat = overlay(image, values, self.threshold.pixel)
        if self.maps == "png16":
            levels = np.clip(values * LEVELS, 0, LEVELS).astype(np.uint16)
            write_bytes(self._path("maps", row, ".png"), _encoded(".png", levels, SMOOTH_PNG))
        elif self.maps == "npz":
            buffer = io.BytesIO()
            np.savez_compressed(buffer, map=values.astype(np.float16))
            write_bytes(self._path("maps", row, ".npz"), buffer.getvalue())
        white = mask.astype(np.uint8) * 255
        write_bytes(self._path("masks", row, ".png"), _encoded(".png", white, FLAT_PNG))
        write_bytes(self._path("overlays", row, ".jpg"), _encoded(".jpg", heat, JPEG))
        thumbnails = strip([image, heat, np.repeat(white[..., None], 3, axis=2)], *THUMBNAIL)
        write_bytes(self._path("thumbnails", row, ".jpg"), _encoded(".jpg", thumbnails, JPEG))
        peak_y, peak_x = np.unravel_index(int(values.argmax()), values.shape)
        return replace(
            row,
            score=round(found.score, 6),
            anomalous=found.score >= self.threshold.image,
            area_fraction=round(float(mask.mean()), 6),
            peak_x=int(peak_x),
            peak_y=int(peak_y),
            width=values.shape[1],
            height=values.shape[0],
        )

    def _path(self, kind: str, row: Row, suffix: str) -> Path:
        return self.folder / kind / f"{row.output}{suffix}"


def output_names(names: Sequence[str]) -> list[str]:
    """A NAME for each photo: its path without the suffix; with it where two photos would share one.

    Names that differ only in case count as shared, since the results may be copied to a disk where they do.
    """
    paths = [PurePosixPath(name) for name in names]
    stems = [str(path.with_name(short_stem(path.stem))) for path in paths]
    shared = Counter(stem.casefold() for stem in stems)
    folders = {str(folder).casefold() for path in paths for folder in path.parents}
    taken = {stem.casefold() for stem in stems}
    # A folder called "a.png" is in the way of the mask of "a.jpg".
    taken |= {folder.removesuffix(suffix) for folder in folders for suffix in SUFFIXES if folder.endswith(suffix)}
    result = []
    for path, stem in zip(paths, stems, strict=True):
        if shared[stem.casefold()] > 1 or any(stem.casefold() + suffix in folders for suffix in SUFFIXES):
            full = str(path.with_name(short_stem(path.name)))
            stem, number = full, 1
            while stem.casefold() in taken:
                number += 1
                stem = f"{full}-{number}"
            taken.add(stem.casefold())
        result.append(stem)
    return result


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that is whole or not there, also after a power cut once its folder is synced.

    Unlike `encoders.files.atomic_path` it may be used from several threads and leaves the folder's fsync to
    `sync_folders`, once for many files.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync_folders(folder: Path, rows: Sequence[Row]) -> None:
    """Make sure that the names of these photos' files are on the disk."""
    for place in {(folder / kind / row.output).parent for kind in FOLDERS for row in rows if row.output}:
        if place.is_dir():
            handle = os.open(place, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def remove(folder: Path) -> None:
    """Remove every photo's files."""
    for kind in FOLDERS:
        shutil.rmtree(folder / kind, ignore_errors=True)


def remove_others(folder: Path, rows: Sequence[Row]) -> None:
    """Remove the files of photos that are no longer among the judged ones, and folders that are left empty."""
    judged = {PurePosixPath(row.output) for row in rows if row.status == OK}
    for kind in FOLDERS:
        top = folder / kind
        for place, _, names in os.walk(top, topdown=False):
            below = Path(place)
            for name in names:
                path = below / name
                if path.suffix in SUFFIXES and PurePosixPath(path.relative_to(top).with_suffix("")) not in judged:
                    path.unlink()
            if not any(below.iterdir()):
                below.rmdir()


def sweep(folder: Path) -> None:
    """Remove what was being written when a process was killed."""
    for left in [*folder.glob(".*.tmp*"), *(path for kind in FOLDERS for path in (folder / kind).rglob(".*.tmp"))]:
        left.unlink(missing_ok=True)


def _encoded(suffix: str, picture: NDArray[Any], options: Sequence[int]) -> bytes:
    """A picture, RGB or one channel, as the bytes of a file."""
    if picture.ndim == 3:
        picture = picture[..., ::-1]
    longest = max(picture.shape[:2])
    if suffix == ".jpg" and longest > LONGEST_JPEG:
        factor = LONGEST_JPEG / longest
        picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    done, content = cv2.imencode(suffix, np.ascontiguousarray(picture), options)
    if not done:
        raise RuntimeError(f"cannot encode a picture of {picture.shape} {picture.dtype} as {suffix}")
    return bytes(content)
