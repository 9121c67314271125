"""Are COLMAP's binary files as long as their counts promise?

pycolmap does not ask: it goes on past the end of a damaged file, for hours or until all memory is full.
"""

import mmap
import struct
from collections.abc import Callable
from pathlib import Path

from encoders.errors import InputError

_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


def check_lengths(model: Path) -> None:
    """Refuse a model with a file that ends before what it promises.

    Raises:
        InputError: names the file.
    """
    for name, record_end in _RECORD_ENDS.items():
        path = model / name
        if path.is_file() and not _is_whole(path, record_end):
            raise InputError(f"The COLMAP model in {model} cannot be read ({name} ends too early).")


def _is_whole(path: Path, record_end: Callable[[mmap.mmap, int], int]) -> bool:
    if not path.stat().st_size:  # which cannot be mapped
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _holds_all(content, record_end)


def _holds_all(content: mmap.mmap, record_end: Callable[[mmap.mmap, int], int]) -> bool:
    left, place = int.from_bytes(content[:8], "little"), 8
    try:
        while left and place < len(content):
            place = record_end(content, place)
            left -= 1
    except struct.error:
        return False
    return not left and place <= len(content)


def _camera_end(_content: mmap.mmap, place: int) -> int:
    """Id, model, width and height; how many parameters follow, pycolmap knows."""
    return place + 24


def _rig_end(content: mmap.mmap, place: int) -> int:
    """Id and number of sensors; a reference sensor, and others that may have poses."""
    (sensors,) = _U32.unpack_from(content, place + 4)
    place += 16 if sensors else 8
    for _ in range(sensors - 1):
        if place + 9 > len(content):
            break
        place += 65 if content[place + 8] else 9
    else:
        return place
    return len(content) + 1


def _frame_end(content: mmap.mmap, place: int) -> int:
    """Ids of frame and rig, pose, and what was recorded."""
    return place + 68 + 16 * int(_U32.unpack_from(content, place + 64)[0])


def _image_end(content: mmap.mmap, place: int) -> int:
    """Id, pose, camera, name up to a zero, and observations."""
    name_end = content.find(b"\0", place + 64)
    if name_end < 0:
        return len(content) + 1
    return name_end + 9 + 24 * int(_U64.unpack_from(content, name_end + 1)[0])


def _point_end(content: mmap.mmap, place: int) -> int:
    """Id, place, colour, error, and the observations that show it."""
    return place + 51 + 8 * int(_U64.unpack_from(content, place + 43)[0])


_RECORD_ENDS = {
    "cameras.bin": _camera_end,
    "rigs.bin": _rig_end,
    "frames.bin": _frame_end,
    "images.bin": _image_end,
    "points3D.bin": _point_end,
}
