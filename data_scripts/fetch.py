"""Getting archives from the web and out of their wrapping: resumed, verified, and never outside their folder."""

import gzip
import hashlib
import http.client
import lzma
import os
import stat
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from encoders.errors import InputError
from encoders.progress import Report, silent

ATTEMPTS = 4
PAUSE = 2.0
"""Seconds before the second attempt; each further one waits twice as long."""
CHUNK = 1 << 20

BROKEN = (tarfile.TarError, zipfile.BadZipFile, EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile)


def download(url: str, path: Path, report: Report = silent, pause: float = PAUSE) -> None:
    """Fetch ``url`` into ``path``. What came before an interruption is kept in "PATH.part" and not fetched again.

    Raises:
        InputError: the server refuses, or the connection broke `ATTEMPTS` times; says what to do.
    """
    if urlsplit(url).scheme not in ("https", "http", "ftp", "file"):
        raise InputError(f"{url} is no address; give one that begins with https://.")
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(pause * 2 ** (attempt - 1))
        try:
            have, total = _fetch(url, part, report)
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise InputError(f"{url} cannot be fetched ({error.code} {error.reason}).") from error
            problem = f"{error.code} {error.reason}"
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            problem = str(getattr(error, "reason", error))
        else:
            if total is None or have == total:
                part.replace(path)
                return
            problem = f"it stopped at {have >> 20} of {total >> 20} MB"
    raise InputError(f"{url} cannot be fetched ({problem}); run the same command again to go on from there.")


def _fetch(url: str, part: Path, report: Report) -> tuple[int, int | None]:
    """One attempt. Returns how many bytes there are now, and how many there should be if the server tells."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "dictsplat"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        served = (error.headers.get("Content-Range") or "").rpartition("/")[2]
        if served == str(have):
            return have, have
        part.unlink()  # longer than what is served now
        return _fetch(url, part, report)
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:  # None for file://
            have = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        with part.open("ab" if have else "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                have += len(chunk)
                report(have, total or have, "downloading")
    return have, total


def verify(path: Path, checksum: str) -> None:
    """Compare a file with its checksum, "sha256:..." or "md5:...".

    Raises:
        InputError: they differ, or the checksum is of no such form.
    """
    method, _, expected = checksum.partition(":")
    if method not in ("sha256", "md5") or not expected:
        raise InputError(f'The checksum "{checksum}" has not the form sha256:DIGITS or md5:DIGITS.')
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, method).hexdigest()
    if actual != expected.lower():
        raise InputError(f"{path} is damaged or another version: its {method} is {actual}, not {expected}.")


def unpack(archive: Path, folder: Path, skip: Collection[str] = (), report: Report = silent) -> None:
    """Unpack a zip, or a tar with any compression.

    Args:
        skip: names of folders whose contents are not wanted.

    Raises:
        InputError: it is no such archive, is damaged, or has a member that would be written outside ``folder``.
    """
    try:
        if zipfile.is_zipfile(archive):
            _unzip(archive, folder, skip, report)
        else:
            _untar(archive, folder, skip, report)
    except tarfile.FilterError as error:
        raise InputError(f"{archive} is not safe to unpack: {error}.") from error
    except BROKEN as error:
        raise InputError(f"{archive} is damaged or no archive ({error}); get it again.") from error


def _unwanted(name: str, skip: Collection[str]) -> bool:
    return not set(PurePosixPath(name).parts[:-1]).isdisjoint(skip)


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
        if error.errno is not None or isinstance(error, gzip.BadGzipFile):
            raise
        raise EOFError(str(error)) from error


def _unzip(archive: Path, folder: Path, skip: Collection[str], report: Report) -> None:
    with zipfile.ZipFile(archive) as bundle:
        members = bundle.infolist()
        total, done = sum(member.file_size for member in members), 0
        for member in members:
            path = PurePosixPath(member.filename.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or _is_link(member):
                raise InputError(f"{archive} is not safe to unpack: {member.filename!r} leads out of the folder.")
            if member.flag_bits & 1:
                raise InputError(f"{archive} is encrypted; unpack it yourself and pack it again without a password.")
        for member in members:
            if not _unwanted(member.filename, skip):
                bundle.extract(member, folder)
            done += member.file_size
            report(done, total, "unpacking")


def _is_link(member: zipfile.ZipInfo) -> bool:
    return stat.S_ISLNK(member.external_attr >> 16)
