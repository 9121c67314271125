"""Is a PLY file as long as its header promises? Readers of such files take memory for all of it first."""

from pathlib import Path

from encoders.errors import InputError

_HEADER = 1 << 16
_SIZES = {
    b"char": 1, b"uchar": 1, b"int8": 1, b"uint8": 1, b"short": 2, b"ushort": 2, b"int16": 2, b"uint16": 2,
    b"double": 8, b"float64": 8,
}  # fmt: skip
"""Bytes of a property; all others have 4."""


def check_promise(path: Path) -> None:
    """Refuse a PLY that is shorter than its header says. What has no header's end is left to its reader.

    Lists may be empty and numbers in text short, so that such files may be somewhat shorter than they should be.

    Raises:
        InputError: the file ends before that.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        header, ends, _ = file.read(_HEADER).partition(b"end_header")
    if ends and _promised(header) > path.stat().st_size:
        raise InputError(f"{path} ends too early: its header promises more than it holds.")


def _promised(header: bytes) -> int:
    text = False
    promised = count = 0
    for line in header.splitlines():
        kind, *words = line.split() or [b""]
        if kind == b"format":
            text = words[:1] == [b"ascii"]
        elif kind == b"element" and len(words) == 2 and words[1].isdigit():
            count = int(words[1][:20])
        elif kind == b"property" and words:
            of_list = words[0] == b"list" and len(words) > 1
            promised += count * (1 if text else _SIZES.get(words[1 if of_list else 0], 4))
    return promised
