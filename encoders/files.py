"""Reading images that people really have, and writing files that are never half there."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import struct
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageOps

from encoders.errors import InputError

MAX_PIXELS = 200_000_000
"""Larger images are refused before they are decoded (decompression bombs). Phones take photos of nearly so many."""

Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
"""Pillow's own limit would be lower. It warns above this one, where a sentence is said, and refuses twice as many."""

STRIP_PIXELS = 1 << 20
"""Pixels that are converted at a time."""

WHITES = (1023, 4095, 16383, 65535)
"""White levels of cameras with 10, 12, 14 and 16 bits, which all write files of 16 bits."""

LONGEST_STEM = 120
"""Bytes that `short_stem` allows: file systems take 255, some of which suffixes and temporary names need."""


def short_stem(stem: str) -> str:
    """``stem`` itself up to `LONGEST_STEM` bytes; a longer one is cut and ends in a hash of all of it."""
    content = stem.encode()
    if len(content) <= LONGEST_STEM:
        return stem
    digest = hashlib.blake2b(content, digest_size=8).hexdigest()
    return f"{content[: LONGEST_STEM - len(digest) - 1].decode(errors='ignore')}-{digest}"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; on success fsync it and rename it to ``path``.

    If the block raises, the temporary file is removed and an existing ``path`` is left as it was.
    The suffix is kept, because many writers choose the format by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=f".tmp{path.suffix}")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _fsync(temporary)
        temporary.chmod(0o666 & ~_UMASK)
        temporary.replace(path)
        _fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new temporary folder beside ``path``; on success rename it to ``path``.

    If the block raises, or ``path`` exists already (another process was faster), the temporary folder
    is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _fsync(file)
        temporary.chmod(0o777 & ~_UMASK)
        if not path.exists():
            temporary.rename(path)
            _fsync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _current_umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


_UMASK = _current_umask()
"""Read once, here: it can only be read by changing it, which two threads at a time may leave changed."""


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def parse_json(text: str | bytes) -> Any:
    """The value that JSON stands for.

    Raises:
        ValueError: it is no JSON, or has lists within lists so deep that Python gives up.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically. NaN and infinity are refused, as JSON has neither."""
    text = json.dumps(value, indent=2, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def write_png(path: Path, image: np.ndarray) -> None:
    """Write uint8 [H, W], uint8 [H, W, 3|4] or uint16 [H, W] as PNG, atomically."""
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")


def read_image(path: Path, upright: bool = True, white: int | None = None) -> np.ndarray:
    """Read a photo as uint8 RGB [H, W, 3], turned upright by its EXIF tag.

    Grey, palette, RGBA (alpha dropped), CMYK, 16-bit and floating-point images are converted, some rows at a time: at
    most about three times the memory of the result is taken meanwhile.

    Args:
        path: any image file that Pillow reads.
        upright: False leaves the pixels as they lie in the file, as programs see them that ignore EXIF.
        white: what becomes 255 in grey images of 16 bits (65535 if not given), see `white_level`; what is brighter
            is clipped. Other images do not need it.

    Raises:
        InputError: the file is missing, empty, truncated, not an image, or larger than `MAX_PIXELS`.
    """

    def convert(image: Image.Image) -> np.ndarray:
        if upright:
            _turn(image)
        return _in_bytes(image, white)

    return _decoded(path, convert)


def white_level(paths: Iterable[Path]) -> int | None:
    """The white level of the camera that took these images: the smallest of `WHITES` that no pixel exceeds.

    A camera of 12 bits fills a sixteenth of the 16 bits that its files have, and shown as they are its images are
    nearly black. One image cannot tell (it may be dark), so ask once for the images that others are compared with,
    and read all of them with the answer.

    Returns:
        None if no image is grey with 16 bits.

    Raises:
        InputError: see `read_image`.
    """

    def peak(image: Image.Image) -> int | None:
        return int(np.asarray(image).max(initial=0)) if image.mode.startswith("I;16") else None

    peaks = [found for path in paths if (found := _decoded(path, peak)) is not None]
    return next(white for white in WHITES if max(peaks) <= white) if peaks else None


_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, MemoryError)
"""What Pillow raises for damaged files; their headers may ask for more memory than there is."""

_Result = TypeVar("_Result")


class WithinFile(io.BufferedReader):
    """A file for Pillow, which asks for as many bytes as a block claims; Python makes room for all first."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any file."""
        return super().read(size if size is None or size < 0 else min(size, max(self._size - self.tell(), 0)))


def _decoded(path: Path, convert: Callable[[Image.Image], _Result]) -> _Result:
    """What ``convert`` makes of an image; whatever is wrong with the file becomes an `InputError`."""
    try:
        with WithinFile(path) as file, Image.open(file) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(
                    f"{path} has {image.width}x{image.height} pixels, more than dictsplat reads; shrink it first."
                )
            try:
                image.load()
            except TypeError as error:  # a tag of a TIFF is of another type than Pillow takes it for
                raise ValueError(str(error)) from error
            return convert(image)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"The image {path} does not exist.") from None
    except (*_BROKEN, Image.DecompressionBombError) as error:
        reason = str(error) or "it asks for too much memory"
        raise InputError(f"The image {path} cannot be read ({reason}); replace or remove it.") from error


def _turn(image: Image.Image) -> None:
    # Where its EXIF block is damaged, its pixels are not.
    with contextlib.suppress(SyntaxError, ValueError, KeyError, TypeError, EOFError, struct.error):
        ImageOps.exif_transpose(image, in_place=True)


def _strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """Rows, and the image of them: a large one is not copied as a whole for a conversion."""
    step = max(1, STRIP_PIXELS // max(1, image.width))
    for top in range(0, image.height, step):
        rows = slice(top, min(top + step, image.height))
        yield rows, image.crop((0, rows.start, image.width, rows.stop))


def _in_bytes(image: Image.Image, white: int | None) -> np.ndarray:
    """A decoded image as uint8 RGB [H, W, 3]; what is darker than black or brighter than white is clipped.

    Without ``white``, which is for "I;16" only, the white level of a one-channel image of more than 8 bits is the
    smallest of 1 (floats only), 255 and 65535 that no pixel exceeds; "I;16" always has 65535.
    """
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    if image.mode.startswith("I;16"):
        shades = _shades(np.arange(1 << 16), float(white or WHITES[-1]))
        for rows, strip in _strips(image):
            pixels[rows] = shades[np.asarray(strip)][:, :, None]
    elif image.mode in ("I", "F"):  # Pillow would clip them at 255
        brightest = max((float(_finite(strip).max(initial=0.0)) for _, strip in _strips(image)), default=0.0)
        levels = [1.0, 255.0, 65535.0] if image.mode == "F" else [255.0, 65535.0]
        level = next((level for level in levels if brightest <= level), brightest)
        for rows, strip in _strips(image):
            pixels[rows] = _shades(_finite(strip), level)[:, :, None]
    else:
        for rows, strip in _strips(image):
            pixels[rows] = np.asarray(strip.convert("RGB"))
    return pixels


def _shades(values: np.ndarray, white: float) -> np.ndarray:
    return np.clip(values * (255.0 / white), 0, 255).round().astype(np.uint8)


def _finite(image: Image.Image) -> np.ndarray:
    return np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
