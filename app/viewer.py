"""The app: one page in a browser, a file per tab, served by Gradio on this machine only unless asked otherwise."""

import contextlib
import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import gradio as gr
from starlette.middleware import Middleware
from starlette.routing import Route

from app.about_tab import about_tab
from app.anomaly_job import Inspector
from app.anomaly_tab import anomaly_tab
from app.frame_route import frame_route
from app.frames import Painter
from app.guard import Guard
from app.new_scene_tab import new_scene_tab
from app.scene_api import SceneApi
from app.scene_events import SceneEvents
from app.scene_tab import scene_tab
from app.scenes import Scenes
from app.scratch import Scratch
from app.theme import CSS, theme
from app.visits import Visits
from encoders.errors import InputError

QUEUE = 200
"""Events that may wait at a time, of all visitors together; one more is told to come back."""
UPLOAD = "2gb"
"""Of one file."""
HOUR = 3600


@dataclass(frozen=True)
class Address:
    """Where the app listens and who may use it.

    Attributes:
        port: TCP port; None takes ``GRADIO_SERVER_PORT`` or the first free one from 7860.
        auth: "USER:PASSWORD" that visitors must give; nobody is asked if None.
        share: also open a public address through Gradio's servers.
        names: of hosts by which visitors reach it through a proxy, besides this machine's own.
    """

    port: int | None = None
    auth: str | None = None
    share: bool = False
    names: Sequence[str] = ()

    def login(self) -> tuple[str, str] | None:
        """User and password.

        Raises:
            InputError: it is not of that form, or missing although the whole world could come in.
        """
        if self.auth is None:
            if self.share:
                raise InputError(
                    "--share opens this machine to everyone who has the address; give --auth USER:PASSWORD as well."
                )
            return None
        user, colon, password = self.auth.partition(":")
        if not (user and colon and password):
            raise InputError("--auth takes USER:PASSWORD, for example: --auth anna:secret")
        return user, password

    def hosts(self) -> set[str]:
        """The names, as `app.guard.Guard` knows them.

        Raises:
            InputError: one of them is no name of a host.
        """
        for name in self.names:
            if not re.fullmatch(r"[A-Za-z0-9.-]+", name):
                raise InputError("--host-name takes a name without http:// and port, for example: lab.example.org")
        return {name.lower() for name in self.names}


def build(scenes: Scenes, root: Path, device: str = "auto") -> tuple[gr.Blocks, list[Route]]:
    """The page, and the routes that are served beside it.

    Args:
        scenes: what the Scene tab shows.
        root: where the New scene tab makes run folders. device: of all that runs, "auto", "cpu", "cuda" or "cuda:N".
    """
    painter, scratch = Painter(), Scratch()
    visits = Visits(scenes, over=scratch.drop)
    with gr.Blocks(title="dictsplat", analytics_enabled=False, delete_cache=(HOUR, 4 * HOUR)) as page:
        # First, so that no event of the page takes a name that programs know.
        with gr.Row(visible=False):
            SceneApi(scenes, scratch).endpoints()
        gr.Markdown("# dictsplat")
        gr.Markdown(
            "Ask 3D scenes for things by name; find what is wrong with parts by a few good ones.", elem_id="tagline"
        )
        with gr.Tabs(selected="scene" if len(scenes) else "new"):
            with gr.Tab("Scene", id="scene") as tab:
                scene_tab(scenes, SceneEvents(scenes, visits, painter), scratch, tab)
            with gr.Tab("New scene", id="new"):
                new_scene_tab(scenes, root, device)
            with gr.Tab("Anomaly", id="anomaly"):
                anomaly_tab(Inspector(device=device))
            with gr.Tab("About", id="about") as about:
                about_tab(scenes, root, about, device)
    return page, [frame_route(visits, painter)]


def serve(
    folders: Sequence[Path], address: Address = Address(), device: str = "auto", root: Path = Path("out")
) -> None:
    """Open the app and serve until interrupted.

    Args:
        folders: run folders to show; without any, the page begins with making one.
        root: where new runs go.

    Raises:
        InputError: no run can be used, the port is taken, or the address is not as it should be.
    """
    scenes = Scenes(folders, device)
    for sentence in scenes.left_out:
        print(f"Left out: {sentence}", file=sys.stderr)
    page = launch(*build(scenes, root, device), address)
    Thread(target=_warm, args=(scenes,), daemon=True).start()
    # A service that is stopped cleans up as one that is interrupted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    page.block_thread()


def launch(page: gr.Blocks, routes: list[Route], address: Address) -> gr.Blocks:
    """Begin to serve a page and the routes beside it, in the background.

    Raises:
        InputError: the port is taken, or the address is not as it should be.
    """
    login, names = address.login(), address.hosts()
    # Nobody gets past the queue: the work that is done at a time is bounded for programs as well.
    page.queue(max_size=QUEUE, default_concurrency_limit=2, api_open=False)
    try:
        page.launch(
            server_name="127.0.0.1",
            server_port=address.port,
            auth=login,
            share=address.share,
            show_error=True,
            max_file_size=UPLOAD,
            app_kwargs={"routes": routes, "middleware": [Middleware(Guard, names=names)]},
            # Whatever the environment asks for: these would serve files beside the guard.
            ssr_mode=False,
            num_workers=0,
            footer_links=["api"],
            theme=theme(),
            css=CSS,
            prevent_thread_lock=True,
            # Not Gradio's look at its own page: on a busy machine it gives up after seconds and calls that a fault.
            _frontend=False,
        )
    except OSError as error:
        raise InputError(f"The app cannot listen there ({error}); choose another --port.") from error
    if page.share_url:
        names.add(str(urlsplit(page.share_url).hostname))
    return page


def _warm(scenes: Scenes) -> None:
    """Load the encoders while visitors look around; what is wrong with one is said to whoever asks."""
    for _, position in scenes.names():
        with contextlib.suppress(Exception):  # it is only for speed
            scenes.encoder(position).encode_text(["object"])
