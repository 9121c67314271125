"""The Anomaly tab as programs use it, over HTTP."""

import csv
import threading
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import httpx
import pytest
from gradio_client import Client, handle_file
from inspection import ColourDistance, backbone, save, texture
from tab_uploads import Uploads, broken, direct, files, unzipped

from app.anomaly_job import Inspector
from app.anomaly_sessions import Sessions
from app.anomaly_tab import anomaly_tab
from dictas.predict import PredictOptions


class FakeInspector(Inspector):
    """Has a detector without weights."""

    _model = (backbone(), ColourDistance())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a page with nothing but the tab."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        with gr.Blocks() as page:
            anomaly_tab(FakeInspector())
        page.queue(max_size=32, default_concurrency_limit=2)
        # Not gradio's look at its own page, which fails on a busy machine.
        _, url, _ = page.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, _frontend=False)
        yield url
        page.close()


def test_programs_get_rows_and_files(server: str, uploads: Uploads, tmp_path: Path) -> None:
    good, judge = uploads
    client = Client(server, verbose=False, download_files=tmp_path / "downloads")
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert list(endpoints) == ["/anomaly"]
    given = [[handle_file(str(path)) for path in paths] for paths in uploads]
    rows, packed = client.predict(*given, None, api_name="/anomaly")
    out = unzipped(Path(packed), tmp_path / "unzipped")
    assert files(out) == files(direct(tmp_path / "direct", good, judge))
    table = list(csv.DictReader((out / "results.csv").open()))
    assert [row["photo"] for row in rows] == [row["path"] for row in table]
    assert [f"{row['score']:.6f}" for row in rows] == [row["score"] for row in table]
    bad = handle_file(str(broken(judge[0].parent)[0]))
    rows, _ = client.predict(given[0], [given[1][3], bad], 0.99, api_name="/anomaly")
    assert {row["photo"]: row["anomalous"] for row in rows} == {
        "part 3.png": rows[0]["score"] >= 0.9,
        "notes.jpg": None,
    }
    for arguments, reason in (
        ((given[0], [bad], None), "None of the photos"),
        (([bad], given[1], None), "notes.jpg is no image"),
        ((given[0], given[1], 7.0), "0 to 1"),
    ):
        with pytest.raises(Exception, match=reason):
            client.predict(*arguments, api_name="/anomaly")


def test_files_of_the_server_are_out_of_reach(server: str, uploads: Uploads, tmp_path: Path) -> None:
    secret = save(tmp_path / "secret.png", texture(1))
    entry = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    event = httpx.post(f"{server}gradio_api/call/anomaly", json={"data": [[entry], [entry], None]}).json()["event_id"]
    answer = httpx.get(f"{server}gradio_api/call/anomaly/{event}", timeout=30).text
    assert "error" in answer
    assert "complete" not in answer
    assert httpx.get(f"{server}gradio_api/file={secret}").status_code in (403, 404)


def test_many_programs_at_once_get_answers(server: str, uploads: Uploads) -> None:
    good, judge = ([handle_file(str(path)) for path in paths] for paths in uploads)
    answers: list[int] = []

    def ask(number: int) -> None:
        rows, _ = Client(server, verbose=False).predict(good, judge[: number + 1], None, api_name="/anomaly")
        answers.append(len(rows))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(answers) == [1, 2, 3, 4]


@pytest.mark.slow
def test_the_example_works_with_the_detector_that_is_shipped(tmp_path: Path) -> None:
    sessions = Sessions(Inspector(device="cpu"))
    good, judge = sessions.example()
    assert sessions.example() == (good, judge)
    found = sessions.inspect("a", good, judge, PredictOptions(workers=0), lambda *_: None)
    for row in found.rows:
        assert row.anomalous == ("fine" not in row.path), row
    sessions._scratch.close()
