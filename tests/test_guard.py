"""Who may use the app and how much may be sent to it, over HTTP: other sites' pages, other names, too many bytes."""

import asyncio
import http.client
import json
import socket
import time
from collections import namedtuple
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import gradio as gr
import httpx
import pytest
from gradio_client import Client
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient, WebSocketDenialResponse

from app import guard
from app.guard import Allowance, Guard
from app.scenes import Scenes
from app.uploads import GIB, MIB
from app.viewer import Address, build, launch

NAME = "lab.example.org"
EVIL = "https://evil.example"
SENT = {"files": ("a.txt", b"hello")}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guarded")


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[str]:
    """The app without a scene, known as `NAME` as well, as `dictsplat view` serves it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(place / "uploads"))
        page = launch(*build(Scenes([], "cpu"), place / "out", "cpu"), Address(free_port(), names=[NAME.upper()]))
        yield page.local_url.rstrip("/")
        page.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def post(server: str, **headers: str) -> httpx.Response:
    """A file sent by somebody with these headers."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(f"{server}/gradio_api/upload", files=SENT, headers=names)


def test_pages_of_other_sites_change_nothing(server: str, place: Path) -> None:
    netloc = urlsplit(server).netloc
    port = netloc.partition(":")[2]
    foreign = [
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},  # another program's page on this machine
        {"Origin": f"http://127.0.0.1.evil.example:{port}"},
        {"Origin": f"http://[::1]:{port}"},
        {"Origin": f"http://{netloc}", "Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "cross-site"},
    ]
    for headers in foreign:
        reply = post(server, **headers)
        assert (reply.status_code, "Pages of other sites" in reply.text) == (403, True), headers
    for path in ("frame", "gradio_api/queue/join", "gradio_api/call/train"):
        reply = httpx.post(f"{server}/{path}", json={}, headers={"Origin": EVIL})
        assert reply.status_code == 403
        assert reply.json()["error"].startswith("Pages of other sites")
    assert not (place / "uploads").exists()
    assert not (place / "out").exists()


def test_pages_of_other_sites_read_nothing_but_may_link(server: str) -> None:
    assert httpx.get(f"{server}/config", headers={"Origin": EVIL}).status_code == 403
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert httpx.get(server, headers=link).status_code == 200


def test_the_own_page_and_programs_are_let_in(server: str) -> None:
    netloc = urlsplit(server).netloc
    own = [
        {},
        {"Origin": f"http://{netloc}"},
        {"Origin": f"http://{netloc}", "Sec_Fetch_Site": "same-origin"},
        {"Host": "localhost:9000", "Origin": "http://localhost:9000"},  # through a tunnel to another port
        {"Host": "[::1]:7860", "Origin": "http://[::1]:7860"},
        {"Host": NAME, "Origin": f"https://{NAME}"},
        {"Host": f"{NAME}:8443", "Origin": f"https://{NAME}:8443"},
        # Proxies that ask by a name of their own.
        {"Host": "127.0.0.1:7860", "Origin": f"https://{NAME}"},
        {"Host": "127.0.0.1:7860", "Origin": "https://other.example", "Sec_Fetch_Site": "same-origin"},
    ]
    for headers in own:
        assert post(server, **headers).status_code == 200, headers
    assert Client(server, verbose=False).predict(api_name="/trainings") == []


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "a..b", "["])
def test_other_names_are_not_answered_to(server: str, host: str) -> None:
    for reply in (httpx.get(server, headers={"Host": host}), post(server, Host=host, Origin=f"http://{host}")):
        assert reply.status_code == 400
        assert reply.text.startswith("This app answers only to the names of its own machine")
        assert "--host-name" in reply.text


def announced(server: str, size: int, path: str = "/gradio_api/upload") -> tuple[int, str]:
    """The answer to who announces so many bytes, before one of them is sent."""
    connection = http.client.HTTPConnection(urlsplit(server).netloc, timeout=30)
    connection.putrequest("POST", path)
    connection.putheader("Content-Type", "multipart/form-data; boundary=x")
    connection.putheader("Content-Length", str(size))
    connection.endheaders()
    reply = connection.getresponse()
    answer = reply.status, reply.read().decode()
    connection.close()
    return answer


def test_what_is_announced_is_weighed_before_it_is_sent(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    assert announced(server, 5 * GIB) == (413, "That is too much at a time; 4.0 GiB are the most.")
    status, text = announced(server, 65 * MIB, "/gradio_api/queue/join")
    assert (status, json.loads(text)["error"]) == (413, "That is too much at a time; 64 MiB are the most.")
    for free in (GIB // 2, 2 * GIB):
        monkeypatch.setattr(guard.shutil, "disk_usage", lambda _path, free=free: usage(9 * GIB, 0, free))
        status, text = announced(server, 3 * GIB // 4)
        assert status == 507
        assert text.endswith("are free on the server's disk, 2.5 GiB are needed; make some room first.")


def sent(allowance: Allowance, path: str, *pieces: bytes) -> httpx.Response:
    """The answer of a program of the test's own behind a guard, which tells how many bytes have come."""

    async def count(scope, receive, send):
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        await PlainTextResponse(str(size))(scope, receive, send)

    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(Guard(count, (), allowance))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post(path, content=body())

    return asyncio.run(ask())


def test_what_is_not_announced_is_counted() -> None:
    allowance = Allowance(upload_bytes=1000, other_bytes=100)
    for path, most in (("/proxied/upload", 1000), ("/upload/more", 100), ("/join", 100)):
        for size in (most, most + 1):
            reply = sent(allowance, path, b"x" * (size - 1), b"x")
            assert "content-length" not in reply.request.headers
            assert (reply.status_code, reply.text == str(size)) == ((200, True) if size == most else (413, False))


def test_a_disk_that_fills_up_meanwhile_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    free = iter([3 * GIB, 2 * GIB, GIB - 1])
    monkeypatch.setattr(guard.shutil, "disk_usage", lambda _path: usage(9 * GIB, 0, next(free)))
    reply = sent(Allowance(), "/upload", *[bytes(17 * MIB)] * 3)
    assert (reply.status_code, next(free, None)) == (507, None)


HEAD = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\n'


@pytest.fixture
def small_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A page of the test's own that takes a megabyte at a time."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    with gr.Blocks(analytics_enabled=False) as page:
        gr.File()
    allowance = Middleware(Guard, allowance=Allowance(upload_bytes=MIB))
    _, address, _ = page.launch(
        prevent_thread_lock=True, quiet=True, app_kwargs={"middleware": [allowance]}, _frontend=False
    )
    yield address.rstrip("/")
    page.close()


def kept(folder: Path) -> list[Path]:
    return [path for path in (folder / "uploads").rglob("*") if path.is_file()]


def test_a_proxy_may_serve_it_below_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As nginx does that takes the path away and passes the name on."""
    monkeypatch.setenv("GRADIO_ROOT_PATH", "/splat")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    with gr.Blocks(analytics_enabled=False) as page:
        gr.File()
    launch(page, [], Address(free_port(), "anna:secret", names=[NAME]))
    try:
        passed = {"Host": NAME, "X-Forwarded-Host": NAME, "X-Forwarded-Proto": "https"}
        browser = httpx.Client(base_url=page.local_url, headers={**passed, "Origin": f"https://{NAME}"})
        assert browser.post("login", data={"username": "anna", "password": "secret"}).status_code == 200
        browser.headers.pop("Origin")
        assert browser.get("config").json()["root"] == f"https://{NAME}/splat"
        for origin, status in ((f"https://{NAME}", 200), (EVIL, 403)):
            reply = browser.post("gradio_api/upload", files=SENT, headers={"Origin": origin})
            assert reply.status_code == status
        assert len(kept(tmp_path)) == 1
    finally:
        page.close()


def test_what_was_written_of_a_refused_upload_is_removed(small_server: str, tmp_path: Path) -> None:
    reply = httpx.post(
        f"{small_server}/gradio_api/upload",
        content=iter([HEAD, *[bytes(MIB // 4)] * 8]),
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    assert (reply.status_code, reply.text) == (413, "That is too much at a time; 1 MiB are the most.")
    assert kept(tmp_path) == []


def test_what_was_written_of_an_upload_that_is_broken_off_is_removed(small_server: str, tmp_path: Path) -> None:
    connection = http.client.HTTPConnection(urlsplit(small_server).netloc, timeout=30)
    connection.putrequest("POST", "/gradio_api/upload")
    connection.putheader("Content-Type", "multipart/form-data; boundary=x")
    connection.putheader("Content-Length", str(MIB))
    connection.endheaders()
    connection.send(HEAD + bytes(MIB // 2))
    until(lambda: any(path.stat().st_size for path in kept(tmp_path)))
    connection.close()
    until(lambda: kept(tmp_path) == [])


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_answers_are_passed_on_as_they_come() -> None:
    """Gradio's events come through a stream that never ends."""
    sent: list[dict] = []

    async def stream(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        assert [message.get("body") for message in sent] == [None, b"one"]
        await send({"type": "http.response.body", "body": b"two"})

    TestClient(_Recorded(Guard(stream), sent), "http://localhost").get("/")
    assert len(sent) == 3


class _Recorded:
    """Notes what an app sends."""

    def __init__(self, app, sent) -> None:
        self._app, self._sent = app, sent

    async def __call__(self, scope, receive, send):
        async def note(message):
            self._sent.append(message)
            await send(message)

        await self._app(scope, receive, note)


def test_sockets_are_for_the_own_page_only() -> None:
    async def greet(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "hello"})
        await send({"type": "websocket.close"})

    client = TestClient(Guard(greet), "http://localhost")
    with client.websocket_connect("ws://localhost/", headers={"Origin": "http://localhost"}) as session:
        assert session.receive_text() == "hello"
    with (
        pytest.raises(WebSocketDenialResponse) as caught,
        client.websocket_connect("ws://localhost/", headers={"Origin": EVIL}),
    ):
        pass
    assert caught.value.status_code == 403
