"""The viewer over HTTP, as a browser or a program uses it, against the same question asked directly."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client
from PIL import Image
from typer.testing import CliRunner

from app.cli import app
from app.viewer import Scenes
from encoders.errors import InputError
from splat.query import query_view

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def server(tiny_run: Path) -> Iterator[str]:
    """`dictsplat view` in a process of its own, with the encoder of `driver`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(HERE / "driver.py"), "view", str(tiny_run)]
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, process.stdout.read() if process.stdout else ""
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def test_an_answer_is_the_one_of_the_library(server: str, tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import driver

    driver.install(monkeypatch.setattr)
    scenes = Scenes([tiny_run])
    view = scenes.views(0)[0]
    trained = scenes.trained[0]
    assert view in trained.test_names
    client = Client(server, verbose=False)
    picture, relevancy, numbers = client.predict(0, view, "cat", "", "auto", 0.4, api_name="/query")
    encoder = scenes.encoder(trained.field.encoder)
    (direct,) = query_view(trained.gaussians, trained.field, trained.camera(view), ["cat"], encoder)
    assert numbers["point"] == list(direct.point)
    assert numbers["pixels"] == int(direct.mask.sum())
    assert np.asarray(Image.open(picture)).shape[:2] == direct.mask.shape
    assert np.asarray(Image.open(relevancy)).shape[:2] == direct.mask.shape


def test_mistakes_are_messages_and_the_page_lives_on(server: str) -> None:
    client = Client(server, verbose=False)
    with pytest.raises(Exception, match="empty"):
        client.predict(0, "test_000", "  ", "", "auto", 0.4, api_name="/query")
    with pytest.raises(Exception, match=r"no view|not in the list"):
        client.predict(0, "../../etc/passwd", "cat", "", "auto", 0.4, api_name="/query")
    assert client.predict(0, "test_000", "cat", "", "whole", 0.4, api_name="/query")[2]["level"] == "whole"


def test_only_finished_runs_are_shown(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="dictsplat view out/demo"):
        Scenes([])
    result = CliRunner().invoke(app, ["view", str(tmp_path)])
    assert isinstance(result.exception, InputError)
