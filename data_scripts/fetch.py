"""Getting archives from the web: resumed, never mixed of two files, and compared with their checksum."""

import hashlib
import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from http import HTTPStatus
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from part import Part, Source

from encoders.errors import InputError
from encoders.progress import Report, silent

ATTEMPTS = 4
PAUSE = 2.0
"""Seconds before the second attempt; each further one waits twice as long."""
CHUNK = 1 << 20


def download(url: str, path: Path, report: Report = silent, pause: float = PAUSE) -> None:
    """Fetch ``url`` into ``path``. What came before an interruption is kept in "PATH.part" and not fetched again.

    It is only added to if the server still has the same file there: of the same address, and with the same ETag, or
    date and length, as noted in "PATH.part.json".

    Raises:
        InputError: the server refuses, the connection broke `ATTEMPTS` times, or another process fetches into the
            same place; says what to do.
    """
    if urlsplit(url).scheme not in ("https", "http", "ftp", "file"):
        raise InputError(f"{url} is no address; give one that begins with https://.")
    problem = ""
    with Part.locked(path) as part:
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(pause * 2 ** (attempt - 1))
            try:
                total = _fetch(url, part, report)
            except urllib.error.HTTPError as error:
                if error.code < 500:
                    raise InputError(f"{url} cannot be fetched ({error.code} {error.reason}).") from error
                problem = f"{error.code} {error.reason}"
            except (ConnectionError, http.client.HTTPException) as error:
                problem = str(error) or type(error).__name__
            else:
                if total is None or part.size == total:
                    part.finish(path)
                    return
                problem = f"it stopped at {part.size >> 20} of {total >> 20} MB"
    raise InputError(f"{url} cannot be fetched ({problem}); run the same command again to go on from there.")


def _fetch(url: str, part: Part, report: Report) -> int | None:
    """One attempt. Returns how many bytes there should be now, if the server tells."""
    source = part.source() or Source("")
    have = part.size if source.url == url else 0
    request = urllib.request.Request(url, headers={"User-Agent": "dictsplat"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if source.validator:
            request.add_header("If-Range", source.validator)
    try:
        response = _opened(request)
    except urllib.error.HTTPError as error:
        if not have or error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        if _served(error.headers) == (None, have) and _same(source, error.headers):
            return have
        return _afresh(url, part, report)  # longer than what is served now
    with response:
        if not have or response.status != HTTPStatus.PARTIAL_CONTENT:  # None for file://
            length = response.headers.get("Content-Length", "")
            source = Source(
                url,
                response.headers.get("ETag", ""),
                response.headers.get("Last-Modified", ""),
                int(length) if length.isdecimal() else None,
            )
            part.begin(source)
            have = 0
        elif _served(response.headers)[0] != have or not _same(source, response.headers):
            return _afresh(url, part, report)
        for chunk in _chunks(response):
            part.write(chunk)
            have += len(chunk)
            report(have, source.length or have, "downloading")
    return source.length


def _afresh(url: str, part: Part, report: Report) -> int | None:
    part.begin(Source(url))
    return _fetch(url, part, report)


def _served(headers: Message) -> tuple[int | None, int | None]:
    """The first byte of a partial answer and the length of the whole, as far as Content-Range tells."""
    told = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", headers.get("Content-Range", "").strip())
    first, total = told.groups() if told else (None, None)
    return int(first) if first else None, int(total) if total and total != "*" else None


def _same(source: Source, headers: Message) -> bool:
    """Whether a partial answer is of the file that was begun, as far as one can see; False if one cannot."""
    length = _served(headers)[1]
    pairs = [
        (source.etag, headers.get("ETag", "")),
        (source.modified, headers.get("Last-Modified", "")),
        (source.length, length),
    ]
    told = [(ours, theirs) for ours, theirs in pairs if ours and theirs]
    return bool(told) and all(ours == theirs for ours, theirs in told)


def _opened(request: urllib.request.Request) -> http.client.HTTPResponse:
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError:
        raise
    except OSError as error:
        raise _broken(error) from error
    return response


def _chunks(response: IO[bytes] | http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := response.read(CHUNK):
            yield chunk
    except OSError as error:
        # A broken TLS connection, for one, is no ConnectionError; and an OSError elsewhere is one of the disk.
        raise _broken(error) from error


def _broken(error: OSError) -> ConnectionError:
    return ConnectionError(str(getattr(error, "reason", "") or error) or type(error).__name__)


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
