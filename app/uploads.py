"""What visitors upload, looked at before anything else opens it: how many files, how large, and what they really are.

Sizes are held against what headers declare, before a pixel is decoded or a byte unpacked, and again against what
comes out. Messages call a file by the name it was uploaded under, never by its place on the server.
"""

import contextlib
import errno
import io
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from PIL import Image

from encoders.errors import InputError
from encoders.files import WithinFile

MIB, GIB = 2**20, 2**30
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM")
"""Of Pillow's formats, those that cameras and scanners write; some others start programs or fetch more files."""
ENTRY_BYTES = 1024
"""What a zip's table of contents may take per file that it may hold."""
DEEPEST = 16
"""Folders within folders in a zip."""
SMALL_ZIP = 16 * MIB
"""Unpacked; up to it `Limits.expansion` does not matter: a drawing of few colours may well shrink to nothing."""
CHUNK = MIB

_BROKEN_IMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, KeyError, IndexError, TypeError, MemoryError)
_BROKEN_ZIP = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError,
    struct.error,
)  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """What one visitor may upload at a time.

    Attributes:
        files: how many files, those in zips counted.
        file_bytes: of one file, unpacked. total_bytes: of all.
        pixels: of one image.
        expansion: how many times as large as a zip its contents may be.
    """

    files: int = 500
    file_bytes: int = 64 * MIB
    total_bytes: int = 1024 * MIB
    pixels: int = 64_000_000
    expansion: int = 100


def is_zip(path: Path) -> bool:
    """Whether an upload is to be unpacked, by its name."""
    return path.suffix.lower() == ".zip"


def check_amount(paths: Sequence[Path], limits: Limits) -> None:
    """Refuse more files, or more bytes in all of them together, than allowed.

    Raises:
        InputError: says which of the two, and how much is allowed.
    """
    if len(paths) > limits.files:
        raise InputError(f"{len(paths):,} files are too many; give {limits.files:,} at most.")
    total = sum(_bytes(path, path.name) for path in paths)
    if total > limits.total_bytes:
        raise InputError(f"{size_text(total)} are too much; give {size_text(limits.total_bytes)} at most.")


def check_image(path: Path, limits: Limits, name: str | None = None) -> None:
    """Refuse what is no image or too large a one, by its header; nothing is decoded.

    Args:
        name: what its owner calls it; by default the file's own name.

    Raises:
        InputError: the file is gone, empty, too large, not of `FORMATS`, or has too many pixels.
    """
    with _opened(path, limits, name or path.name):
        pass


def checked_images(paths: Sequence[Path], limits: Limits) -> list[Path]:
    """The same paths, once every one is known to be an image that can be decoded to its end.

    Raises:
        InputError: there are too many, or one of them is not like that; names it.
    """
    check_amount(paths, limits)
    for path in paths:
        with _opened(path, limits, path.name) as image:
            image.draft("RGB", (1, 1))  # a JPEG then comes at an eighth of its size, in a fraction of the time
            try:
                image.load()
            except (*_BROKEN_IMAGE, Image.DecompressionBombError):
                raise InputError(f"{path.name} is damaged: its end is missing or unreadable; replace it.") from None
    return list(paths)


@contextlib.contextmanager
def _opened(path: Path, limits: Limits, name: str) -> Iterator[Image.Image]:
    """An image whose header is in order, not yet decoded."""
    size = _bytes(path, name)
    if not size:
        raise InputError(f"{name} is empty; upload it again.")
    if size > limits.file_bytes:
        raise InputError(f"{name} has {size_text(size)}; {size_text(limits.file_bytes)} are the most.")
    large = f"{name} has more than {limits.pixels / 1e6:g} megapixels; shrink it first."
    with contextlib.ExitStack() as kept:
        try:
            image = kept.enter_context(Image.open(kept.enter_context(WithinFile(path)), formats=FORMATS))
        except Image.DecompressionBombError:
            raise InputError(large) from None
        except _BROKEN_IMAGE:
            raise InputError(f"{name} is no image that can be read; give JPEG, PNG, WebP, TIFF or BMP.") from None
        if image.width * image.height > limits.pixels:
            raise InputError(large)
        yield image


def unpack_zip(path: Path, into: Path, limits: Limits) -> list[Path]:
    """Unpack a zip of photos into a folder that does not exist yet.

    Hidden files and the "__MACOSX" folder that one system adds are left out.

    Returns:
        Paths of the unpacked files, in the zip's order.

    Raises:
        InputError: it is no zip, damaged or encrypted; it holds another zip, a link, or a name that leads out of the
            folder; or it holds too much. Then there is no folder ``into``.
    """
    name = path.name
    if _bytes(path, name) > limits.total_bytes:
        raise InputError(f"{name} is too large; {size_text(limits.total_bytes)} are the most.")
    into.mkdir(parents=True)
    try:
        with _Guarded(path, limits) as file, zipfile.ZipFile(file) as archive:
            members = _members(archive, name, limits)
            return [_unpacked(archive, member, into, place, name) for member, place in members]
    except BaseException as error:
        shutil.rmtree(into, ignore_errors=True)
        # A table of contents that names impossible places in the file.
        nowhere = isinstance(error, OSError) and error.errno == errno.EINVAL
        if (isinstance(error, _BROKEN_ZIP) or nowhere) and not isinstance(error, InputError):
            raise InputError(f"The zip {name} is damaged or encrypted; make it again, without a password.") from None
        raise


class _Guarded(io.BufferedReader):
    """A zip of which only so much is read at once as the table of contents of so many files may take.

    zipfile reads that table as a whole and makes an object of each of its entries before anyone can count them.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        super().__init__(io.FileIO(path))
        self._most = max(MIB, limits.files * ENTRY_BYTES)
        self._refusal = f"The zip {path.name} lists too many files; {limits.files:,} are the most."

    def read(self, size: int | None = -1, /) -> bytes:
        everything = size is None or size < 0
        content = super().read(self._most + 1 if everything else min(size or 0, self._most + 1))
        if len(content) > self._most:
            raise InputError(self._refusal)
        return content


def _members(archive: zipfile.ZipFile, name: str, limits: Limits) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """What to unpack, and where to; refuses the whole zip if there is anything wrong with a part of it."""
    members = []
    for info in archive.infolist():
        place = _place(info, name)
        hidden = any(part.startswith(".") for part in place.parts) or place.parts[:1] == ("__MACOSX",)
        if not place.parts or info.is_dir() or hidden:
            continue
        if is_zip(Path(place.name)):
            raise InputError(f"The zip {name} holds another zip, {place.name}; put its photos there instead.")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # Others may ask for gigabytes of memory to unpack a few bytes.
            raise InputError(f"The zip {name} is packed in an uncommon way; make it again with the usual compression.")
        if info.file_size > limits.file_bytes:
            raise InputError(f"{place.name} in {name} is too large; {size_text(limits.file_bytes)} are the most.")
        members.append((info, place))
    if len(members) > limits.files:
        raise InputError(f"The zip {name} holds {len(members):,} files; {limits.files:,} are the most.")
    total = sum(info.file_size for info, _ in members)
    packed = max(sum(info.compress_size for info, _ in members), 1)
    if total > limits.total_bytes or (total > SMALL_ZIP and total > limits.expansion * packed):
        raise InputError(f"The zip {name} would unpack to {size_text(total)}, which is too much; give fewer photos.")
    return members


def _place(info: zipfile.ZipInfo, name: str) -> PurePosixPath:
    """Where a member belongs, relative to the folder of all."""
    place = PurePosixPath(info.filename.replace("\\", "/"))
    windows = PureWindowsPath(info.filename)
    if place.is_absolute() or windows.drive or windows.root or ".." in place.parts:
        raise InputError(f"The zip {name} holds a file that would lie outside of its folder; it is not unpacked.")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise InputError(f"The zip {name} holds a link or a device, {place.name}; give the file itself.")
    if len(place.parts) > DEEPEST or any(len(part.encode()) > 200 for part in place.parts):
        raise InputError(f"A name in the zip {name} is too long; rename that file or folder.")
    return place


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo, into: Path, place: PurePosixPath, name: str) -> Path:
    path = into / place
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        target = path.open("xb")
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"The zip {name} holds two things called {place}; rename one of them.") from None
    with target, archive.open(info) as source:
        # At most info.file_size bytes: zipfile stops there, whatever else is packed.
        shutil.copyfileobj(source, target, CHUNK)
    return path


def _bytes(path: Path, name: str) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        raise InputError(f"{name} is no longer kept here; upload it again.") from None


def size_text(size: int) -> str:
    """A number of bytes for people."""
    if size >= GIB:
        return f"{size / GIB:,.1f} GiB"
    return f"{size / MIB:,.0f} MiB" if size >= MIB else f"{size / 1024:,.0f} KiB"
