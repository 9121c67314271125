"""What every request passes before Gradio sees it: who asks, by which name, and how much is sent.

A page of another site that somebody has open in the same browser can send requests to this machine, too, and a name of
its own can be made to lead here. Neither is the app's business. What is sent is held against the limits and the disk's
free room before it is written, and again while it comes.
"""

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from gradio.utils import get_upload_folder
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.training_uploads import LIMITS
from app.uploads import GIB, MIB, size_text

OWN_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
"""This machine's, by which it can only be asked from itself, or through a tunnel to it."""
READING = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""
UPLOAD = "/upload"
"""Where files are sent to; the path ends like this, whatever it begins with."""


@dataclass(frozen=True)
class Allowance:
    """How much may be sent.

    Attributes:
        upload_bytes: in one request with files, what the form adds to them included.
        other_bytes: in any other request.
        spare_bytes: of the disk that uploads go to, which stay free.
    """

    upload_bytes: int = LIMITS.total_bytes + 16 * MIB
    other_bytes: int = 64 * MIB
    spare_bytes: int = GIB


# Of this class, because Gradio then removes what it has written of the files.
class Refusal(MultiPartException):
    """Why a request goes no further.

    Attributes:
        status: HTTP's number for it. sentence: for people.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Guard:
    """ASGI middleware; passes bodies on as they come.

    Args:
        app: what is guarded.
        names: of hosts by which visitors may ask, besides `OWN_NAMES`; looked at anew for each request.
        allowance: how much they may send.
    """

    def __init__(self, app: ASGIApp, names: Collection[str] = (), allowance: Allowance = Allowance()) -> None:
        self._app, self._names, self._allowance = app, names, allowance

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, by the app or with a refusal."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            self._check_asker(scope)
            if scope["type"] == "http":
                await self._bounded(scope, receive, send)
            else:
                await self._app(scope, receive, send)
        except Refusal as refusal:
            await _answer(refusal, scope)(scope, receive, send)

    def _check_asker(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        name = _name(f"//{headers.get('host', '')}")
        if name not in OWN_NAMES and name not in self._names:
            raise Refusal(
                400,
                "This app answers only to the names of its own machine; if it is meant to be reached by another one, "
                "start it with --host-name NAME.",
            )
        # A page may read only what it asks for with its origin; without one it can do no more than follow a link.
        reads = scope["type"] == "http" and scope["method"] in READING and "origin" not in headers
        if not reads and self._from_elsewhere(headers):
            raise Refusal(
                403,
                "Pages of other sites may not use this app; if this is its own page behind a proxy, start it with "
                "--host-name NAME.",
            )

    def _from_elsewhere(self, headers: Headers) -> bool:
        """Whether a page of another site asks; programs that are no browsers say nothing of themselves."""
        site = headers.get("sec-fetch-site")
        if site is not None:  # no page can forge it, and it holds behind a proxy as well
            return site not in ("same-origin", "none")
        origin = headers.get("origin")
        own = (None, f"http://{headers['host']}", f"https://{headers['host']}")
        return origin not in own and _name(origin or "") not in self._names

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on while what comes is not too much."""
        allowance, headers = self._allowance, Headers(scope=scope)
        uploads = _uploads(scope)
        most = allowance.upload_bytes if uploads else allowance.other_bytes
        announced = int(headers.get("content-length", 0))
        _check_size(announced, most)
        if uploads:
            _check_room(2 * announced + allowance.spare_bytes)
        came = looked = 0
        begun = False
        refusal: Refusal | None = None

        async def counted() -> Message:
            nonlocal came, looked, refusal
            message = await receive()
            if begun:  # the answer does not depend on the rest
                return message
            came += len(message.get("body", b""))
            try:
                if uploads and message["type"] == "http.disconnect":
                    raise Refusal(400, "The upload was broken off; send it again.")
                _check_size(came, most)
                if uploads and came - looked > 16 * MIB:
                    looked = came
                    _check_room(allowance.spare_bytes)
            except Refusal as caught:
                refusal = caught
                raise
            return message

        async def heard(message: Message) -> None:
            nonlocal begun
            if refusal is None:
                begun = True
                await send(message)

        try:
            await self._app(scope, counted, heard)
        finally:
            # Whatever the app has made of it.
            if refusal is not None:
                raise refusal


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise Refusal(413, f"That is too much at a time; {size_text(most)} are the most.")


def _check_room(needed: int) -> None:
    folder = Path(get_upload_folder())
    place = next(path for path in (folder, *folder.parents) if path.exists())
    if (free := shutil.disk_usage(place).free) < needed:
        raise Refusal(
            507,
            f"{size_text(free)} are free on the server's disk, {size_text(needed)} are needed; make some room first.",
        )


def _name(address: str) -> str | None:
    """The host's name in an address, without a port; None if there is none."""
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _uploads(scope: Scope) -> bool:
    return scope["method"] == "POST" and scope["path"].endswith(UPLOAD)


def _answer(refusal: Refusal, scope: Scope) -> ASGIApp:
    """The refusal in the form in which whoever asked can read it: Gradio's page shows an error of its queue as JSON."""
    if scope["type"] == "http" and (scope["method"] in READING or _uploads(scope)):
        return PlainTextResponse(refusal.sentence, refusal.status)
    return JSONResponse({"error": refusal.sentence}, refusal.status)
