"""The app: one page in a browser, a file per tab, served by Gradio on this machine only unless asked otherwise."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import gradio as gr
from starlette.routing import Route

from app.about_tab import about_tab
from app.anomaly_job import Inspector
from app.anomaly_tab import anomaly_tab
from app.frame_route import frame_route
from app.frames import Painter
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
    """

    port: int | None = None
    auth: str | None = None
    share: bool = False

    def login(self) -> tuple[str, str] | None:
        """User and password.

        Raises:
            InputError: it is not of that form.
        """
        if self.auth is None:
            return None
        user, colon, password = self.auth.partition(":")
        if not (user and colon and password):
            raise InputError("--auth takes USER:PASSWORD, for example: --auth anna:secret")
        return user, password


def build(scenes: Scenes, root: Path, device: str = "auto") -> tuple[gr.Blocks, list[Route]]:
    """The page, and the routes that are served beside it.

    Args:
        scenes: what the Scene tab shows.
        root: where the New scene tab makes run folders. device: of all that runs, "auto", "cpu", "cuda" or "cuda:N".
    """
    visits, painter, scratch = Visits(scenes), Painter(), Scratch()
    with gr.Blocks(title="dictsplat", analytics_enabled=False, delete_cache=(HOUR, 4 * HOUR)) as page:
        gr.Markdown("# dictsplat")
        with gr.Tabs(selected="scene" if len(scenes) else "new"):
            with gr.Tab("Scene", id="scene") as tab:
                scene_tab(scenes, SceneEvents(scenes, visits, painter), scratch, tab)
            with gr.Tab("New scene", id="new"):
                new_scene_tab(scenes, root, device)
            with gr.Tab("Anomaly", id="anomaly"):
                anomaly_tab(Inspector(device=device))
            with gr.Tab("About", id="about") as about:
                about_tab(scenes, root, about, device)
        with gr.Row(visible=False):
            SceneApi(scenes, scratch).endpoints()
    return page, [frame_route(visits, painter)]


def serve(
    folders: Sequence[Path], address: Address = Address(), device: str = "auto", root: Path = Path("out")
) -> None:
    """Open the app and serve until interrupted.

    Args:
        folders: run folders to show; without any, the page begins with making one.
        root: where new runs go.

    Raises:
        InputError: a run cannot be used, the port is taken, or the address is not as it should be.
    """
    scenes = Scenes(folders, device)
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
    login = address.login()
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
            app_kwargs={"routes": routes},
            footer_links=["api"],
            theme=theme(),
            css=CSS,
            prevent_thread_lock=True,
            # Not Gradio's look at its own page: on a busy machine it gives up after seconds and calls that a fault.
            _frontend=False,
        )
    except OSError as error:
        raise InputError(f"The app cannot listen there ({error}); choose another --port.") from error
    return page


def _warm(scenes: Scenes) -> None:
    """Load the encoders while visitors look around; what is wrong with one is said to whoever asks."""
    for _, position in scenes.names():
        try:
            scenes.encoder(position).encode_text(["object"])
        except Exception:  # it is only for speed
            return
