"""The app over HTTP, as a program or a browser uses it, against the same question asked directly."""

import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import driver
import gradio as gr
import httpx
import numpy as np
import pytest
from gradio_client import Client
from http_page import Page
from PIL import Image
from typer.testing import CliRunner

from app.cli import app
from app.scenes import Scenes
from app.viewer import Address, build, launch
from encoders.errors import InputError
from splat.gaussians import load_ply
from splat.query import query_view, select_gaussians

HERE = Path(__file__).parent
STARTING_SECONDS = 120


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(*arguments: str, said: Path = Path(os.devnull)) -> Iterator[str]:
    """`dictsplat view` in a process of its own, with the encoder of `driver`; what it says goes to a file."""
    port = free_port()
    command = [sys.executable, str(HERE / "driver.py"), "view", *arguments]
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port)}
    with said.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        for _ in range(10 * STARTING_SECONDS):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, f"it ended with status {process.returncode}"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def server(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(str(tiny_run), "--root", str(tmp_path_factory.mktemp("out"))) as address:
        yield address


@pytest.fixture(scope="module")
def client(server: str, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(server, verbose=False, download_files=tmp_path_factory.mktemp("downloads"))


@pytest.fixture
def scenes(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> Scenes:
    driver.install(monkeypatch.setattr)
    return Scenes([tiny_run], "cpu")


def test_an_answer_is_the_one_of_the_library(client: Client, scenes: Scenes) -> None:
    (listed,) = client.predict(api_name="/scenes")
    trained = scenes.get(0).trained
    view = listed["views"][0]
    assert view in trained.test_names
    assert (listed["scene"], listed["encoder"], listed["gaussians"]) == (0, "colour", len(trained.gaussians))
    picture, relevancy, numbers = client.predict(0, view, "red", "", "auto", 0.4, api_name="/query")
    (direct,) = query_view(trained.gaussians, trained.field, trained.camera(view), ["red"], scenes.encoder(0))
    assert numbers["point"] == list(direct.point)
    assert numbers["pixels"] == int(direct.mask.sum())
    assert np.asarray(Image.open(picture)).shape[:2] == direct.mask.shape
    assert np.asarray(Image.open(relevancy)).shape[:2] == direct.mask.shape
    assert np.asarray(Image.open(client.predict(0, view, api_name="/render"))).shape[:2] == direct.mask.shape


def test_a_program_gets_gaussians_and_words(client: Client, scenes: Scenes) -> None:
    trained = scenes.get(0).trained
    chosen = select_gaussians(trained.gaussians, trained.field, "red", scenes.encoder(0))
    for rest in (False, True):
        file, counts = client.predict(0, "red", rest, "", "auto", 0.4, api_name="/select")
        written = load_ply(Path(file))
        np.testing.assert_allclose(written.means, trained.gaussians.means[~chosen if rest else chosen])
        assert counts == {"selected": int(chosen.sum()), "written": len(written), "total": len(chosen)}
    words = client.predict(0, "test_000", 40, 40, "red, green, blue", api_name="/describe")
    assert {word["phrase"] for word in words} == {"red", "green", "blue"}


def test_mistakes_are_messages_and_the_page_lives_on(client: Client) -> None:
    wrong = {
        "empty": (0, "test_000", "  ", "", "auto", 0.4),
        r"no view|not in the list": (0, "../../etc/passwd", "red", "", "auto", 0.4),
        "no scene 7": (7, "test_000", "red", "", "auto", 0.4),
        "no scene -1": (-1, "test_000", "red", "", "auto", 0.4),
        "threshold": (0, "test_000", "red", "", "auto", 1.5),
        "more than 5 words": (0, "test_000", "one two three four five six", "", "auto", 0.4),
    }
    for sentence, arguments in wrong.items():
        with pytest.raises(Exception, match=sentence):
            client.predict(*arguments, api_name="/query")
    assert client.predict(0, "test_000", "red", "", "whole", 0.4, api_name="/query")[2]["level"] == "whole"


def test_a_page_is_shown_frames_and_only_an_open_page(server: str, scenes: Scenes) -> None:
    first, second = (Page.open(server, session).token() for session in ("first", "second"))
    assert first != second
    asked = {"token": first, "sequence": 1, "width": 96}
    reply = httpx.post(f"{server}/frame", json=asked)
    assert reply.status_code == 200
    assert Image.open(io.BytesIO(reply.content)).size == (96, 72)
    turned = httpx.post(f"{server}/frame", json={**asked, "sequence": 2, "turn": [0.2, 0.0]})
    other = httpx.post(f"{server}/frame", json={**asked, "token": second})
    assert turned.content != reply.content == other.content
    for wrong, status in (({"token": "x" * 32}, 404), ({"width": 1921}, 400), ({"file": "run.json"}, 400)):
        assert httpx.post(f"{server}/frame", json={**asked, **wrong}).status_code == status
    assert httpx.get(f"{server}/frame").status_code == 405


def test_private_events_are_not_for_programs(client: Client) -> None:
    named = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert {"/scenes", "/render", "/query", "/describe", "/select"} <= named.keys()
    for handler in ("/ask", "/begin", "/pick", "/cut", "/written", "/handler"):
        assert handler not in named


def test_nobody_gets_past_the_queue(server: str) -> None:
    body = {"data": [0, "red", False, "", "auto", 0.4]}
    for place in ("run", "api"):
        assert httpx.post(f"{server}/gradio_api/{place}/select", json=body).status_code == 404


def test_one_program_asks_several_things_at_a_time(client: Client) -> None:
    jobs = [client.submit(0, "red", rest, "", "auto", 0.4, api_name="/select") for rest in (False, True) * 4]
    for job in jobs:
        file, counts = job.result()
        assert len(load_ply(Path(file))) == counts["written"]


def test_nothing_is_told_to_gradios_makers(scenes: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRADIO_ANALYTICS_ENABLED", raising=False)
    page, _ = build(scenes, tmp_path)
    assert page.analytics_enabled is False


def test_files_of_the_server_are_out_of_reach(server: str, tiny_run: Path) -> None:
    for path in (tiny_run / "gaussians.ply", Path("/etc/passwd"), HERE / "conftest.py"):
        for route in ("file=", "gradio_api/file="):
            assert httpx.get(f"{server}/{route}{path}").status_code in (403, 404)


def test_without_a_run_the_page_offers_to_make_one(tmp_path: Path) -> None:
    page = launch(*build(Scenes([], "cpu"), tmp_path, "cpu"), Address(free_port(), "anna:secret"))
    try:
        address = page.local_url.rstrip("/")
        assert httpx.get(f"{address}/config").status_code == 401
        assert httpx.post(f"{address}/login", data={"username": "anna", "password": "wrong"}).status_code == 400
        login = httpx.post(f"{address}/login", data={"username": "anna", "password": "secret"})
        config = httpx.get(f"{address}/config", cookies=login.cookies).raise_for_status().json()
        assert httpx.post(f"{address}/frame", json={"token": "x", "sequence": 1, "width": 96}).status_code == 404
    finally:
        page.close()
    (tabs,) = [one for one in config["components"] if one["type"] == "tabs"]
    assert tabs["props"]["selected"] == "new"
    labels = [one["props"].get("value") for one in config["components"] if one["type"] == "button"]
    assert "Make the demo scene" in labels
    assert list(tmp_path.iterdir()) == []


def test_only_finished_runs_are_shown(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["view", str(tmp_path)])
    assert isinstance(result.exception, InputError)


def test_runs_that_are_spoilt_are_left_out_and_said(tiny_run: Path, tmp_path: Path) -> None:
    spoilt = tmp_path / "spoilt"
    spoilt.mkdir()
    (spoilt / "run.json").write_text("{")
    said = tmp_path / "said.txt"
    with serving(str(spoilt), str(tiny_run), str(tmp_path / "none"), "--root", str(tmp_path), said=said) as address:
        assert [one["name"] for one in Client(address, verbose=False).predict(api_name="/scenes")] == [tiny_run.name]
    left_out = [line for line in said.read_text().splitlines() if line.startswith("Left out: ")]
    assert [name in line for name, line in zip(("spoilt/run.json", "none"), left_out, strict=True)] == [True, True]


def test_a_shared_page_has_a_login() -> None:
    with gr.Blocks() as page, pytest.raises(InputError, match="give --auth USER:PASSWORD"):
        launch(page, [], Address(share=True))
    assert Address(share=True, auth="anna:secret").login() == ("anna", "secret")


@pytest.mark.parametrize("name", ["https://lab.example.org", "lab.example.org:80", "*", ""])
def test_a_host_has_a_plain_name(name: str) -> None:
    with pytest.raises(InputError, match="without http:// and port"):
        Address(names=[name]).hosts()


def test_the_address_that_is_shared_is_answered_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradio.networking.setup_tunnel", lambda **_options: "https://abc.gradio.live")
    with gr.Blocks(analytics_enabled=False) as page:
        gr.Textbox()
    launch(page, [], Address(free_port(), "anna:secret", share=True))
    try:
        for host, status in (("abc.gradio.live", 200), ("other.gradio.live", 400)):
            headers = {"Host": host, "Origin": f"https://{host}"}
            login = {"username": "anna", "password": "secret"}
            assert httpx.post(f"{page.local_url}login", data=login, headers=headers).status_code == status
    finally:
        page.close()


@pytest.mark.parametrize("auth", ["", "anna", "anna:", ":secret"])
def test_a_login_has_a_name_and_a_password(auth: str) -> None:
    with pytest.raises(InputError, match="USER:PASSWORD"):
        Address(auth=auth).login()
    assert Address(auth="anna:se:cret").login() == ("anna", "se:cret")
    assert Address().login() is None


def test_a_port_that_is_taken_is_said() -> None:
    with socket.socket() as other, gr.Blocks() as page:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(InputError, match="choose another --port"):
            launch(page, [], Address(other.getsockname()[1]))
