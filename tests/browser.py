"""The app in a process of its own, and a real browser to visit it with: fixtures of all tests.

    python tests/browser.py RUN --root DIR

As a program it is `dictsplat view` whose trainings are small ones (`small_trainer`).
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request

HERE = Path(__file__).parent
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
"""What the browser is called, by system."""
STARTING_SECONDS = 120
LEFT = "AbortError: BodyStreamBuffer was aborted"
"""Said by Gradio's script when the stream of its events ends on this side: the page is left, or all answers are there
before the server has closed the stream. If an answer is lost by it, that is another message."""
RELOADED = "Unexpected error Connection errored out."
"""Said by Gradio's script when the page is loaded again while it asks the server for something, as its timers do."""
UPLOAD_BYTES = 32 * 2**20
"""That the app takes at a time."""


@dataclass(frozen=True)
class Site:
    """A running app.

    Attributes:
        address: with http://.
        painted: folder of `painted.write_painted_run`, whose run is scene 0.
        root: where the page makes runs. uploads: where Gradio keeps what is uploaded and offered.
    """

    address: str
    painted: Path
    root: Path
    uploads: Path


@pytest.fixture(scope="session")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `painted.write_painted_run` in it, made once for all workers; tests leave it as it is."""
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent
    folder = place / "painted"
    with FileLock(place / "painted.lock"):
        if not (folder / "whole").exists():
            from painted import write_painted_run

            write_painted_run(folder)
            (folder / "whole").touch()
    return folder


@pytest.fixture(scope="session")
def site(painted: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The app, started as `dictsplat view` starts it."""
    with serving(painted, tmp_path_factory.mktemp("site")) as site:
        yield site


@contextmanager
def serving(painted: Path, place: Path) -> Iterator[Site]:
    """The app in a process of its own, which shows ``painted/run``; what it writes goes to an empty folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    root, uploads, log = place / "out", place / "uploads", place / "log.txt"
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(uploads), "TMPDIR": str(place)}
    command = [sys.executable, __file__, str(painted / "run"), "--root", str(root), "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + STARTING_SECONDS
        while not _listens(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield Site(f"http://127.0.0.1:{port}", painted, root, uploads)
        assert process.poll() is None, log.read_text()
        process.send_signal(signal.SIGINT)  # Ctrl-C
        process.wait(30)
        assert "Traceback" not in log.read_text(), log.read_text()
        assert not list(place.glob("dictsplat-*")), "scratch folders are left behind"
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# For a module only: while Playwright is at work, nothing else in its thread may run an event loop.
@pytest.fixture(scope="module")
def chromium() -> Iterator["Browser"]:
    """The system's Chromium without a window."""
    api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("needs Chromium (Debian, Ubuntu: apt install chromium)")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: "Browser", site: Site) -> Iterator[Callable[..., "Page"]]:
    """Opens the app for another visitor: ``visit(width=1440, dark=False)``; in the end nothing may have gone wrong.

    Nothing may have been asked of any other server, and the console holds no error but those that begin with one of
    ``expected``.
    """
    contexts, complaints = [], []
    host = urlsplit(site.address).netloc

    def heard(message: "ConsoleMessage", expected: tuple[str, ...]) -> None:
        if message.type == "error" and not message.text.startswith((LEFT, *expected)):
            complaints.append(f"{message.text} ({message.location})")

    def asked(request: "Request") -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != host:
            complaints.append(f"asked {request.url}")

    def opened(width: int = 1440, height: int = 900, dark: bool = False, expected: tuple[str, ...] = ()) -> "Page":
        size = {"width": width, "height": height}
        context = chromium.new_context(viewport=size, color_scheme="dark" if dark else "light")
        contexts.append(context)
        context.set_default_timeout(60_000)
        page = context.new_page()
        page.on("console", lambda message: heard(message, expected))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", asked)
        page.goto(site.address)
        page.get_by_role("tab", name="Scene", exact=True).wait_for()
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not complaints, "\n".join(complaints)


@pytest.fixture
def page(visit: Callable[..., "Page"]) -> "Page":
    """The Scene tab, as a visitor who just came sees it."""
    from page import at_rest

    page = visit()
    page.set_default_timeout(30_000)
    at_rest(page)
    return page


def main() -> None:
    """`dictsplat view` with small trainings, and small uploads."""
    import driver

    from app import training_process, viewer
    from app.cli import main as dictsplat
    from app.guard import Allowance, Guard

    viewer.Guard = partial(Guard, allowance=Allowance(upload_bytes=UPLOAD_BYTES))
    training_process.TRAINER = (sys.executable, str(HERE / "small_trainer.py"))
    driver.install()
    dictsplat(["view", *sys.argv[1:]])


if __name__ == "__main__":
    main()
