"""Reading images that people really have, and writing files that are never half there."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from encoders.errors import InputError

MAX_PIXELS = 200_000_000
"""Larger images are refused before they are decoded (decompression bombs)."""


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
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        _fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically. NaN and infinity are refused, as JSON has neither."""
    text = json.dumps(value, indent=2, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def write_png(path: Path, image: np.ndarray) -> None:
    """Write uint8 [H, W], uint8 [H, W, 3|4] or uint16 [H, W] as PNG, atomically."""
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")


def read_image(path: Path) -> np.ndarray:
    """Read a photo as uint8 RGB [H, W, 3], turned upright by its EXIF tag.

    Grey, palette, RGBA (alpha dropped), CMYK and 16-bit images are converted.

    Raises:
        InputError: the file is missing, empty, truncated, not an image, or larger than `MAX_PIXELS`.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(f"{path} has {image.width}x{image.height} pixels, more than dictsplat reads; shrink it first.")
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith(("I", "F")):
                # PIL clips 16-bit values at 255 when asked for RGB; keep the picture instead.
                deep = np.asarray(upright, dtype=np.float64)
                top = 65535.0 if deep.max(initial=0.0) > 255.0 else 255.0
                grey = np.clip(deep * (255.0 / top), 0, 255).round().astype(np.uint8)
                return np.repeat(grey[:, :, None], 3, axis=2)
            return np.array(upright.convert("RGB"))
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"The image {path} does not exist.") from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(f"The image {path} cannot be read ({error}); replace or remove it.") from error
