"""Finding photos in a folder, and reading them ahead of the model in processes of their own."""

import os
import re
import stat
import warnings
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from dictas import journal
from encoders.errors import InputError
from encoders.files import read_image
from encoders.workers import begin_worker

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
"""Files that are taken for images, in lower case."""
AHEAD = 2
"""Images that each reading process prepares in advance."""
BATCH_PIXELS = 2**25
"""Originals of one batch have at most this many pixels together (or it is one image), which bounds memory."""
BLOCK = 64
"""About how many consecutive photos make a block; see `block_size`."""

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Photo:
    """An image file.

    Attributes:
        name: path relative to the folder it was looked for in, with "/"; bytes that are no text are escaped.
    """

    name: str
    path: Path


@dataclass(frozen=True)
class Loaded:
    """What became of reading one photo.

    Attributes:
        index: its place in the list.
        image: the photo, upright. uint8 [H, W, 3], None if it cannot be read
        prepared: the same as the model is shown it. uint8 [h, w, 3], None if nothing was asked for
        error: why it cannot be read, a sentence; "" if it can.
    """

    index: int
    image: Image | None = None
    prepared: Image | None = None
    error: str = ""


def find_images(folder: Path, skip: Collection[Path] = (), closed: bool = False) -> list[Photo]:
    """The images in a folder and the folders below it, in the order a person would list them (2 before 10).

    Hidden files and folders are left out, and so are files and folders below in ``skip`` and those that hold results
    of `dictas.predict`. Links to folders elsewhere are followed once; a link to a folder within (or around) the one
    searched is not, because its images have their own names already or it would never end. Empty files and dangling
    links belong to the list: who reads them learns why they are unreadable. A path to a file is a list of one.

    Args:
        closed: folders that may not be opened belong to the list too.

    Raises:
        InputError: there is no such folder, or one may not be opened.
    """
    if folder.is_file():
        return [Photo(text_of(folder.name), folder)]
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; give a folder of images.")
    root = folder.resolve()
    known = {path.resolve() for path in skip} | {root}
    left_out = {os.path.realpath(path) for path in skip if path.is_file()}
    found: list[tuple[list, Path]] = []
    waiting = [folder]
    while waiting:
        place, below = waiting.pop(), []
        try:
            entries = sorted(place.iterdir(), key=_order)
        except OSError as error:
            if place == folder or not closed:
                raise InputError(
                    f"The folder {place} cannot be opened ({error.strerror}); give the permission to, or remove it."
                ) from error
            found.append((_order(place.relative_to(folder)), place))
            continue
        for path in entries:
            if path.name.startswith("."):
                continue
            if _is_folder(path):
                real = path.resolve()
                inside = real.is_relative_to(root) or root.is_relative_to(real)
                if real in known or (path.is_symlink() and inside) or _holds_results(path):
                    continue
                known.add(real)
                below.append(path)
            elif path.suffix.lower() in SUFFIXES and _is_file(path):
                if left_out and os.path.realpath(path) in left_out:
                    continue
                found.append((_order(path.relative_to(folder)), path))
        waiting += reversed(below)
    found.sort()
    return [Photo(text_of(path.relative_to(folder).as_posix()), path) for _, path in found]


def load(
    photos: Sequence[Photo],
    prepare: Callable[[Image], Image] | None = None,
    workers: int = 0,
    start: int = 0,
    white: int | None = None,
) -> Generator[Loaded]:
    """Read ``photos[start:]`` one after the other; those that cannot be read come as errors, in their place.

    At most ``AHEAD * workers`` images wait in memory. They come from the workers through pipes, not through shared
    memory: nothing is left in /dev/shm by a kill, and a small /dev/shm, as in containers, does not matter.

    Args:
        prepare: makes `Loaded.prepared`; runs in the workers, so it should not drag a model along.
        workers: processes that read; 0 reads in this one.
        white: see `encoders.files.read_image`.
    """
    yield from DataLoader(
        _Photos(photos, prepare, start, white),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        collate_fn=_unchanged,
        worker_init_fn=_begin_worker,
    )


def block_size(size: int) -> int:
    """Consecutive photos that can be judged apart from all others, in groups of ``size``: about `BLOCK`."""
    return max(size, BLOCK // size * size)


def batches(loaded: Iterable[Loaded], size: int) -> Iterator[list[Loaded]]:
    """Group consecutive photos whose prepared images have one size; unreadable ones go with their neighbours.

    Where a group ends depends on its own photos only: to begin again behind a group gives the same groups. No group
    reaches over the border of a block (`block_size`), so that blocks may be judged in different places.

    Args:
        size: most photos of a group; see also `BATCH_PIXELS`.
    """
    group: list[Loaded] = []
    shape: tuple[int, ...] | None = None
    pixels = 0
    for photo in loaded:
        if group and photo.index % block_size(size) == 0:
            yield group
            group, shape, pixels = [], None, 0
        if photo.image is not None:
            its_shape = photo.image.shape if photo.prepared is None else photo.prepared.shape
            its_pixels = photo.image.shape[0] * photo.image.shape[1]
            if shape is not None and (its_shape != shape or pixels + its_pixels > BATCH_PIXELS):
                yield group
                group, pixels = [], 0
            shape, pixels = its_shape, pixels + its_pixels
        group.append(photo)
        if len(group) == size:
            yield group
            group, shape, pixels = [], None, 0
    if group:
        yield group


def read(
    photo: Photo, index: int = 0, prepare: Callable[[Image], Image] | None = None, white: int | None = None
) -> Loaded:
    """Read one photo, whatever is wrong with it; see `load`."""
    if _is_folder(photo.path):
        sentence = f"The folder {photo.path} cannot be opened; give the permission to, or remove it."
        return Loaded(index, error=text_of(sentence))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata, one for each of thousands
            image = read_image(photo.path, white=white)
    except InputError as error:
        return Loaded(index, error=text_of(str(error)))
    except MemoryError:
        raise
    except Exception as error:
        # Decoders meet damaged files with any exception; one of them must not end the night's work.
        sentence = f"The image {photo.path} cannot be read ({error!r}); replace or remove it."
        return Loaded(index, error=text_of(sentence))
    return Loaded(index, image, prepare(image) if prepare else None)


class _Photos(Dataset[Loaded]):
    def __init__(
        self, photos: Sequence[Photo], prepare: Callable[[Image], Image] | None, start: int, white: int | None
    ) -> None:
        self._photos, self._prepare, self._start, self._white = photos, prepare, start, white

    def __len__(self) -> int:
        return len(self._photos) - self._start

    def __getitem__(self, item: int) -> Loaded:
        index = self._start + item
        return read(self._photos[index], index, self._prepare, self._white)


def _unchanged(loaded: Any) -> Any:
    return loaded


def _begin_worker(number: int) -> None:
    begin_worker(number)
    cv2.setNumThreads(0)


def _order(path: Path) -> list[list[str | int]]:
    """Sorts numbers in names as numbers; names that differ only in case or zeros keep a fixed order."""
    parts = [part.casefold() for part in path.parts]
    keys: list[list[str | int]] = [
        [int(piece) if place % 2 else piece for place, piece in enumerate(re.split(r"([0-9]+)", part))]
        for part in parts
    ]
    return [*keys, [os.fspath(path)]]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _holds_results(folder: Path) -> bool:
    try:
        return (folder / journal.NAME).exists()
    except OSError:
        return False  # it may not be opened; whoever looks into it will say so


def _is_file(path: Path) -> bool:
    """A file, or a link to nowhere; opening a pipe or a device would wait forever."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def text_of(name: str) -> str:
    """A name, or a sentence with one in it, that can be written as text: bytes that are none are escaped."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
