"""Getting archives out of their wrapping: whole or not at all, and never outside their folder."""

import errno
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

from encoders.errors import InputError
from encoders.progress import Report, silent

CHUNK = 1 << 20
NOISE = "__MACOSX"
"""The folder that one system adds to its zips."""
DEFLATE64 = 9
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
"""How members of a zip may be packed; Python reads no others."""

BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, EOFError, lzma.LZMAError, zlib.error, struct.error, NotImplementedError,
    RuntimeError, ValueError, OverflowError, KeyError, IndexError,
)  # fmt: skip
"""What Python's readers raise for damage; the last ones where they believed a header."""
IMPOSSIBLE = (
    errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EFBIG, errno.EINVAL, errno.ELOOP, errno.EILSEQ
)  # fmt: skip
"""Of the errors of a disk, those that the archive is to blame for: its names or sizes cannot be."""


class Damaged(InputError):
    """The file ``archive`` is no archive, or not all of one."""

    def __init__(self, archive: Path, why: str) -> None:
        super().__init__(f"{archive} is damaged or no archive ({why}); get it again.")
        self.archive = archive


def unpack(archive: Path, folder: Path, skip: Collection[str] = (), report: Report = silent) -> None:
    """Unpack a zip, or a tar with any compression. Hidden files are left out.

    Args:
        skip: names of folders whose contents are not wanted.

    Raises:
        Damaged: it is no such archive, or not whole.
        InputError: it is encrypted or packed in a way that cannot be read, or has a member that would be written
            outside ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if zipfile.is_zipfile(archive):
            _unzip(archive, folder, skip, report)
        else:
            _untar(archive, folder, skip, report)
    except InputError:
        raise
    except tarfile.FilterError as error:
        raise InputError(f"{archive} is not safe to unpack: {error}.") from error
    except BROKEN as error:
        raise Damaged(archive, str(error)) from error
    except OSError as error:
        if error.errno not in IMPOSSIBLE:
            raise
        name = Path(error.filename or "").name[:80]
        raise InputError(f"{archive} has a file {name} that cannot be written ({error.strerror}).") from error


def _unwanted(name: str, skip: Collection[str]) -> bool:
    parts = PurePosixPath(name).parts
    hidden = any(part.startswith(".") and part != ".." for part in parts)
    return not parts or hidden or not {NOISE, *skip}.isdisjoint(parts[:-1])


def _untar(archive: Path, folder: Path, skip: Collection[str], report: Report) -> None:
    size = archive.stat().st_size
    with archive.open("rb") as file, _bz2_errors(), tarfile.open(fileobj=file, mode="r:*") as tar:
        for member in tar:
            if not _unwanted(member.name, skip):
                tar.extract(member, folder, filter="data")
            report(file.tell(), size, "unpacking")
        stream = tar.fileobj
        if stream is file:
            # Without compression only the block of zeros at its end shows that an archive is whole.
            file.seek(-tarfile.BLOCKSIZE, os.SEEK_END)
            if file.read().strip(b"\0"):
                raise EOFError("it ends too early")
        while stream is not None and stream.read(CHUNK):
            pass  # checksums come at the end, where tarfile does not look


@contextmanager
def _bz2_errors() -> Iterator[None]:
    """bz2 tells of damage by an OSError like that of a full disk, but without a number."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            raise
        raise EOFError(str(error)) from error


def _unzip(archive: Path, folder: Path, skip: Collection[str], report: Report) -> None:
    with zipfile.ZipFile(archive) as bundle:
        members = [(member, _place(archive, member)) for member in bundle.infolist()]
        wanted = [(member, place) for member, place in members if not _unwanted(str(place), skip)]
        for member, _ in wanted:
            _refuse_unreadable(archive, member)
        total, done = sum(member.file_size for member, _ in wanted), 0
        for member, place in wanted:
            path = folder / place
            if member.filename.endswith(("/", "\\")):
                path.mkdir(parents=True, exist_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                with bundle.open(member) as source, path.open("xb") as target:
                    shutil.copyfileobj(source, target, CHUNK)
            done += member.file_size
            report(done, total, "unpacking")


def _place(archive: Path, member: zipfile.ZipInfo) -> PurePosixPath:
    """Where a member belongs; some programs write the backslashes of their system. "." if it has no name."""
    place, windows = PurePosixPath(member.filename.replace("\\", "/")), PureWindowsPath(member.filename)
    outside = place.is_absolute() or windows.drive or windows.root or ".." in place.parts
    if outside or stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise InputError(f"{archive} is not safe to unpack: {member.filename!r} leads out of the folder.")
    return place


def _refuse_unreadable(archive: Path, member: zipfile.ZipInfo) -> None:
    if member.flag_bits & 1:
        raise InputError(f"{archive} is encrypted; unpack it yourself and pack it again without a password.")
    if member.compress_type not in PACKED:
        way = "Deflate64, as Windows packs large zips" if member.compress_type == DEFLATE64 else "an uncommon method"
        raise InputError(
            f"{archive} is packed with {way}, which cannot be read here; unpack it with another program and pack it "
            "again with tar (tar -cf)."
        )
