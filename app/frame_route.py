"""The route that the viewport asks for frames: one POST per frame, a JPEG back.

It answers to the token of an open page and to nothing else, and renders in a few threads of its own: however many
people drag at the same time, no more pictures are in the making than that.
"""

import asyncio
import json
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.exits import is_out_of_memory
from app.frames import LARGEST, Frame, Painter, Stale
from app.pictures import encoded
from app.visits import OVER, Gesture, Stand, Visit, Visits, at_home, moved
from encoders.errors import InputError

PATH = "/frame"
BODY = 4096
"""Bytes of a request, at most."""
QUALITY = {True: 80, False: 92}
"""Of the JPEG, by whether the camera moves."""

_log = logging.getLogger(__name__)

_Share = Annotated[float, Field(ge=-4.0, le=4.0, allow_inf_nan=False)]


class FrameRequest(BaseModel):
    """What the viewport sends; see `app.visits.Gesture`.

    Attributes:
        token: of the page. sequence: grows from request to request.
        width: of the wanted picture in pixels.
        moving: whether the picture is soon replaced by another one.
        reset: go back to where the page's camera was set last, before the gesture.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    token: Annotated[str, Field(min_length=1, max_length=64)]
    sequence: Annotated[int, Field(ge=0, le=2**53)]
    width: Annotated[int, Field(ge=16, le=LARGEST)]
    moving: bool = False
    reset: bool = False
    turn: Annotated[list[_Share], Field(min_length=2, max_length=2)] = [0.0, 0.0]
    pan: Annotated[list[_Share], Field(min_length=2, max_length=2)] = [0.0, 0.0]
    zoom: Annotated[float, Field(ge=0.01, le=100.0, allow_inf_nan=False)] = 1.0
    roll: _Share = 0.0


def frame_route(visits: Visits, painter: Painter) -> Route:
    """The route, to be served beside the page.

    Answers 200 with a JPEG and what there is to say about it as JSON in the header ``X-Frame``; 204 if a newer frame
    was asked for meanwhile; 400 for a request that is not as it should be, 404 for a token that is not valid, 503 if
    memory does not suffice, and 500 for faults, of which only the server's log says more.
    """
    threads = ThreadPoolExecutor(max(2, (os.cpu_count() or 2) // 4), thread_name_prefix="frame")

    async def answer(request: Request) -> Response:
        try:
            asked = FrameRequest.model_validate_json(await _body(request))
        except ClientDisconnect:
            return Response(status_code=204)
        except (ValidationError, ValueError):
            return _refusal("This is no request for a frame.", 400)
        visit = visits.get(asked.token)
        if visit is None:
            return _refusal(OVER, 404)
        stale = visit.announce(asked.sequence)
        try:
            stand = _stand(visit, asked)
            return await asyncio.get_running_loop().run_in_executor(threads, _draw, painter, visit, stand, asked, stale)
        except Stale:
            return Response(status_code=204)
        except Exception as error:
            return _failure(error)

    return Route(PATH, answer, methods=["POST"])


def _refusal(sentence: str, status: int) -> Response:
    return JSONResponse({"error": sentence}, status)


def _failure(error: Exception) -> Response:
    """What a page is told when its frame could not be drawn; it asks again after a while."""
    if isinstance(error, InputError):
        return _refusal(str(error), 400)
    if is_out_of_memory(error):
        return _refusal("The server has too little memory for this picture at the moment.", 503)
    # What an OSError says names the server's files, and is for the log as well.
    _log.error("A frame could not be drawn.", exc_info=error)
    return _refusal("The picture could not be drawn because of a fault on the server.", 500)


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY:
            raise ValueError("too long")
    return body


def _stand(visit: Visit, asked: FrameRequest) -> Stand:
    """Move the visitor's camera; a gesture is never lost, even if its frame is not drawn."""
    turn, pan = (asked.turn[0], asked.turn[1]), (asked.pan[0], asked.pan[1])
    gesture = Gesture(turn, pan, asked.zoom, asked.roll)
    if not asked.reset and gesture == Gesture():
        return visit.stand

    def how(stand: Stand) -> Stand:
        stand = at_home(stand) if asked.reset else stand
        return stand if gesture == Gesture() else moved(stand, gesture)

    return visit.change(how)


def _draw(painter: Painter, visit: Visit, stand: Stand, asked: FrameRequest, stale: Callable[[], bool]) -> Response:
    if stale():  # it waited for its turn, and the camera has moved on
        raise Stale
    frame = painter.draw(stand, asked.width, asked.moving, stale)
    if frame.results and not asked.moving:
        levels = tuple(result.level for result in frame.results)
        visit.change(lambda now: replace(now, levels=levels) if now.prepared is stand.prepared else now)
    picture = encoded(frame.picture, "jpg", QUALITY[asked.moving])
    return Response(picture, media_type="image/jpeg", headers=_headers(frame))


def _headers(frame: Frame) -> dict[str, str]:
    # JSON escapes what is not ASCII, so that phrases in any writing fit a header.
    return {"X-Frame": json.dumps(frame.info), "Cache-Control": "no-store"}
