"""Files that nobody should upload: each looks like a photo or a zip of photos, and is something else."""

import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 30_000
"""Of the large PNG, in pixels: 2.7 GB decoded to RGB."""
ESCAPED = "escaped.png"
"""What the zip would write outside of its folder."""


def write_text(folder: Path) -> Path:
    """Text that is called .jpg."""
    path = folder / "notes.jpg"
    path.write_text("Dear diary, today I was renamed.\n" * 20)
    return path


def write_empty(folder: Path) -> Path:
    """Nothing that is called .jpg."""
    path = folder / "nothing.jpg"
    path.touch()
    return path


def write_escaping_zip(folder: Path) -> Path:
    """A zip with a photo that would land two folders up."""
    path, photo = folder / "photos.zip", folder / ESCAPED
    Image.fromarray(np.full((60, 60, 3), 90, np.uint8)).save(photo)
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(photo, f"../../{ESCAPED}")
    photo.unlink()
    return path


def huge_png(path: Path, side: int = SIDE, depth: int = 8) -> Path:
    """A grey PNG of ``side`` squared pixels, all black: at most a megabyte, written without decoding anything.

    Args:
        side: in hundreds.
        depth: bits of a pixel, 8 or 16.
    """
    # Deflate's blocks are the same wherever they stand after a full flush: one is packed, and written many times.
    rows, line = 100, 1 + side * depth // 8
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = packer.compress(bytes(rows * line)) + packer.flush(zlib.Z_FULL_FLUSH)
    adler = (side * line) % 65521 << 16 | 1  # of zeros
    pixels = b"\x78\xda" + block * (side // rows) + packer.flush() + struct.pack(">I", adler)
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        header = struct.pack(">IIBBBBB", side, side, depth, 0, 0, 0, 0)
        for kind, data in ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")):
            file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
    return path


def write_large_png(folder: Path) -> Path:
    """A photo of `SIDE` squared pixels in a megabyte."""
    return huge_png(folder / "poster.png")
