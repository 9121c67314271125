"""How many frames per second the viewport of the app gets while somebody drags it.

    python benchmarks/viewport_rate.py RUN [--width 480] [--seconds 5] [--device auto|cpu|cuda|cuda:N] [--out FILE]

The route of the app is served by a process of its own, and this one asks it as the page does: one request after the
other, each with what the pointer did meanwhile, for frames of one fixed width (the page asks for narrower ones where
frames take long). A frame's time is from the request to the last byte of its JPEG; what a browser takes to show it is
not in it. The three ways of looking take turns, so that what slows the machine down for a while slows them all.
"""

import argparse
import multiprocessing
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
import uvicorn
from starlette.applications import Starlette

from app.bench import machine
from app.frame_route import PATH, frame_route
from app.frames import Painter
from app.scene_events import SceneEvents
from app.scenes import Scenes
from app.visits import Look, Visits
from encoders.errors import InputError
from encoders.files import write_json
from splat.device import splat_device

WIDTH = 480
"""Pixels; the widest that the page asks for while the camera moves."""
PHRASES = ("cat", "coffee cup", "rocket")
WAYS = {"picture": 0, "relevancy, 1 phrase": 1, "relevancy, 3 phrases": 3}
"""How many things are looked for, by what the way is called."""
ROUNDS = 5
FIRST = 5
"""Frames of each round that do not count."""
TURN = 0.01
"""Of each frame, as a share of the picture's width."""
BACK = 20
"""After so many frames the pointer turns round."""


@dataclass(frozen=True)
class Served:
    """What the serving process says.

    Attributes:
        address: of the route. tokens: of a page for each of `WAYS`.
        machine: what it runs on. scene: how large the scene is.
    """

    address: str
    tokens: dict[str, str]
    machine: dict[str, Any]
    scene: dict[str, Any]


def serve(run: Path, device: str, found: Connection) -> None:
    """Serve the route with a page for each way, and say so; or say what is wrong with the run."""
    try:
        device = splat_device(device)
        scenes = Scenes([run], device)
        visits, painter = Visits(scenes), Painter()
        events = SceneEvents(scenes, visits, painter)
        tokens = {way: visits.begin(way).token for way in WAYS}
        for way, count in WAYS.items():
            if count:
                events.ask(tokens[way], PHRASES[:count], "")
                events.look(tokens[way], "relevancy", Look.opacity, "auto", Look.threshold, True)
    except InputError as error:
        found.send(str(error))
        return
    # Its name says where an "auto" has led.
    here = {"device": str(torch.empty(0, device=device).device), **machine(device)}
    trained = scenes.get(0).trained
    size = {"gaussians": len(trained.gaussians), "levels": trained.field.levels}
    app = Starlette(routes=[frame_route(visits, painter)])
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))

    def tell() -> None:
        while not server.started:
            time.sleep(0.01)
        # Only uvicorn's own sockets send small packets at once, as they do in the app.
        port = server.servers[0].sockets[0].getsockname()[1]
        found.send(Served(f"http://127.0.0.1:{port}{PATH}", tokens, here, size))

    threading.Thread(target=tell, daemon=True).start()
    server.run()


@contextmanager
def serving(run: Path, device: str) -> Iterator[Served]:
    """`serve` in a process of its own.

    Raises:
        InputError: the run or the device cannot be used.
    """
    context = multiprocessing.get_context("spawn")  # CUDA does not outlive a fork
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(run, device, there), daemon=True)
    process.start()
    there.close()
    try:
        said = here.recv()
    except EOFError:
        said = "The process that serves frames ended before it began."
    if not isinstance(said, Served):
        process.join()
        raise InputError(said)
    try:
        yield said
    finally:
        process.terminate()
        process.join()


class Visitor:
    """Somebody who drags the viewport of one page to and fro."""

    def __init__(self, http: httpx.Client, served: Served, way: str, width: int) -> None:
        self._http, self._address, self._asked = http, served.address, {"token": served.tokens[way], "width": width}
        self._sequence = 0

    def rest(self) -> None:
        """Get a full picture, as a page does before and after a drag: it says which levels answer."""
        self._ask({})

    def drag(self) -> float:
        """Milliseconds of a frame while the camera moves."""
        forth = self._sequence // BACK % 2 == 0
        started = time.perf_counter()
        self._ask({"moving": True, "turn": [TURN if forth else -TURN, 0.0]})
        return 1000 * (time.perf_counter() - started)

    def _ask(self, more: dict[str, Any]) -> None:
        self._sequence += 1
        reply = self._http.post(self._address, json={**self._asked, "sequence": self._sequence, **more})
        reply.raise_for_status()


def measure(served: Served, width: int, seconds: float) -> dict[str, dict[str, float]]:
    """For each way, ``frames``, ``frames_per_second``, and ``median`` and ``p95`` in milliseconds."""
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    with httpx.Client(timeout=60) as http:
        visitors = {way: Visitor(http, served, way, width) for way in WAYS}
        for _ in range(ROUNDS):
            for way, visitor in visitors.items():
                visitor.rest()
                for _ in range(FIRST):
                    visitor.drag()
                until = time.perf_counter() + seconds / ROUNDS
                while not times[way] or time.perf_counter() < until:
                    times[way].append(visitor.drag())
    return {
        way: {
            "frames": len(one),
            "frames_per_second": round(1000 * len(one) / sum(one), 1),
            "median": round(float(np.median(one)), 2),
            "p95": round(float(np.percentile(one, 95)), 2),
        }
        for way, one in times.items()
    }


def markdown(rows: dict[str, dict[str, float]]) -> str:
    """A table with a row per way."""
    lines = ["| | frames per second | median, ms | 95 % within, ms |", "|---|--:|--:|--:|"]
    lines += [f"| {way} | {row['frames_per_second']} | {row['median']} | {row['p95']} |" for way, row in rows.items()]
    return "\n".join(lines)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--width", type=int, default=WIDTH, help="of frames in pixels (default 480)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of dragging, for each row (default 5)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--out", type=Path, help="also write the numbers here, as JSON")
    options = parser.parse_args()
    try:
        with serving(options.run, options.device) as served:
            rows = measure(served, options.width, options.seconds)
    except InputError as error:
        sys.exit(str(error))
    where = served.machine
    sys.stdout.write(
        f"{served.scene['gaussians']:,} Gaussians, {options.width} pixels wide, on {where['device']}: "
        f"{where['processor']}, {where['threads']} threads\n\n{markdown(rows)}\n"
    )
    if options.out:
        write_json(options.out, {"width": options.width, "scene": served.scene, "machine": where, "rows": rows})


if __name__ == "__main__":
    main()
