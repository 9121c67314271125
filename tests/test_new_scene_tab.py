"""The New scene tab over HTTP, as a page and as programs use it."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from PIL import Image
from scene_corner import shots

from app import training_process
from app.new_scene_tab import POINTS, Look, new_scene_tab
from app.progress_file import ProgressFile, Stage, read_progress
from app.scenes import Scenes
from app.training_folder import Job, Record
from app.training_jobs import TrainingJobs
from app.training_status import duration, label, preview_html, status_html
from splat.run import Run

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("app") / "out"


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return Scenes()


@pytest.fixture(scope="module")
def page(root: Path, scenes: Scenes) -> Iterator[str]:
    """The tab alone on a page, with a trainer that only pretends."""
    with pytest.MonkeyPatch.context() as patch, gr.Blocks() as blocks:
        patch.setattr(training_process, "TRAINER", (sys.executable, str(HERE / "pretend_trainer.py")))
        patch.setenv("PYTHONPATH", str(HERE.parent))
        patch.setenv("GRADIO_TEMP_DIR", str(root.parent / "uploads"))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        with gr.Tab("New scene"):
            jobs = new_scene_tab(scenes, root, "cpu")
        blocks.queue()
        _, address, _ = blocks.launch(prevent_thread_lock=True, quiet=True)
        yield address
        jobs.close()
        blocks.close()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("photos")
    for number, shot in enumerate(shots(6)):
        Image.fromarray(shot.image).save(folder / f"shot {number}.jpg", quality=95)
    return [str(path) for path in sorted(folder.iterdir())]


def wait(client: Client, name: str, until: Callable[[dict[str, Any]], bool], seconds: float = 60.0) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while not until(told := client.predict(name, api_name="/training")):
        assert time.monotonic() < deadline, told
        time.sleep(0.2)
    return told


def test_a_training_is_started_watched_by_others_stopped_and_resumed(page: str, root: Path, photos: list[str]) -> None:
    client = Client(page, verbose=False)
    assert client.predict([handle_file(photo) for photo in photos], "Desk", "fast", api_name="/train") == "desk"
    told = wait(client, "desk", lambda told: told["stage"] == "rgb" and told["done"] > 2)
    assert told["state"] == "running"
    assert told["total"] == 1000
    assert 0 < told["loss"] < 0.5
    assert told["psnr"] >= 10.0
    other = Client(page, verbose=False)
    assert other.predict(api_name="/trainings") == [{"name": "desk", "state": "running"}]
    assert other.predict("desk", api_name="/stop_training") == "stopping"
    wait(client, "desk", lambda told: told["state"] == "stopped")
    assert client.predict("desk", api_name="/resume_training") == "running"
    wait(client, "desk", lambda told: "from step" in told["log"][-1] and not told["log"][-1].endswith("step 0"))
    client.predict("desk", api_name="/stop_training")
    wait(client, "desk", lambda told: told["state"] == "stopped")


def test_who_sends_the_same_photo_keeps_it(page: str, root: Path, photos: list[str]) -> None:
    """Gradio keeps a file that two people send once for both of them."""
    ours, theirs = Client(page, verbose=False), Client(page, verbose=False)
    sent = [[{"path": path, "meta": {"_type": "gradio.FileData"}} for path in upload(page, photos)] for _ in range(2)]
    assert sent[0] == sent[1]
    for client, name in ((ours, "first"), (theirs, "second")):
        assert client.predict(sent[0], name, "fast", api_name="/train") == name
    for name in ("second", "first"):
        assert len(list((root / name / "photos").iterdir())) == len(photos)
        discard(ours, root / name)


def discard(client: Client, folder: Path) -> None:
    """Stop a training and forget it."""
    client.predict(folder.name, api_name="/stop_training")
    wait(client, folder.name, lambda told: told["state"] == "stopped")
    shutil.rmtree(folder)


def upload(page: str, photos: list[str]) -> list[str]:
    """Send photos as a page does; returns what they are called on the server."""
    files = [("files", (Path(photo).name, Path(photo).read_bytes())) for photo in photos]
    return httpx.post(f"{page}gradio_api/upload", files=files, timeout=60).raise_for_status().json()


def test_a_scene_without_a_name_is_called_after_its_files(page: str, root: Path, photos: list[str]) -> None:
    client = Client(page, verbose=False)
    files = [handle_file(photo) for photo in photos]
    names = [client.predict(files, wanted, "fast", api_name="/train") for wanted in ("", "  ")]
    assert names == ["scene", "scene-2"]
    for name in reversed(names):
        discard(client, root / name)


def test_a_training_is_removed_when_the_page_was_asked_twice(root: Path) -> None:
    """Until then nothing but the question comes up, and it goes when another training is looked at."""
    for name in ("kept", "lost"):
        (root / name).mkdir(parents=True)
        record = Record(kind="photos", count=3, created=1.0, outcome="stopped")
        (root / name / "job.json").write_text(record.model_dump_json())
    jobs = TrainingJobs(root, print)
    first = Look(jobs, "lost", {}).updates()
    asked = Look(jobs, "lost", first[-1], "lost").updates()
    assert [update for update in asked[:-1] if update != gr.skip()] == [asked[10]]
    assert asked[10].visible
    assert "Remove lost" in first[11]
    other = Look(jobs, "kept", asked[-1], "lost").updates()
    assert not other[10].visible
    assert "Remove kept" in other[11]
    for name in ("kept", "lost"):
        jobs.remove(name)


def test_broken_uploads_are_a_sentence_and_the_page_lives_on(page: str, photos: list[str], tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("text")
    client = Client(page, verbose=False)
    before = {told["name"] for told in client.predict(api_name="/trainings")}
    with pytest.raises(
        Exception, match=r"^text\.jpg is no image that can be read; give JPEG, PNG, WebP, TIFF or BMP\.$"
    ):
        client.predict([handle_file(name) for name in (*photos, tmp_path / "text.jpg")], "x", "fast", api_name="/train")
    with pytest.raises(Exception, match=r"^Give a name of"):
        client.predict([handle_file(name) for name in photos], "../x", "fast", api_name="/train")
    for name in ("x", "", "../x"):
        with pytest.raises(Exception, match=r"^There is nothing to train on"):
            client.predict([], name, "fast", api_name="/train")
    for endpoint in ("/training", "/stop_training", "/resume_training"):
        with pytest.raises(Exception, match=r"^There is no training"):
            client.predict("../../etc", api_name=endpoint)
    assert {told["name"] for told in client.predict(api_name="/trainings")} == before


def test_programs_see_functions_and_nothing_of_the_page(page: str) -> None:
    described = Client(page, verbose=False).view_api(return_format="dict")
    assert isinstance(described, dict)
    functions = {"/train", "/make_demo", "/trainings", "/training", "/stop_training", "/resume_training"}
    assert set(described["named_endpoints"]) == functions
    assert [each["parameter_name"] for each in described["named_endpoints"]["/training"]["parameters"]] == ["name"]


def test_a_page_that_outlived_its_server_finds_the_trainings(page: str) -> None:
    """It sends a choice that this server never offered to it, and gets the list as it is now."""
    config = httpx.get(f"{page}config", timeout=10).json()
    tick = next(each for each in config["dependencies"] if each["targets"] and each["targets"][0][1] == "tick")
    for choice in ("gone", None, ["desk"], 3, "desk"):
        call = {"data": [choice, None, None], "fn_index": tick["id"], "session_hash": f"stale-{choice}"}
        answer = httpx.post(f"{page}gradio_api/run/predict", json=call, timeout=10)
        assert answer.status_code == 200, answer.text
        listed = answer.json()["data"][0]
        assert listed["value"] == "desk"
        assert listed["choices"] == [["desk (stopped)", "desk"]]


def test_only_what_changed_is_sent(root: Path, page: str) -> None:
    jobs = TrainingJobs(root, print)
    first = Look(jobs, "desk", {}).updates()
    again = Look(jobs, "desk", first[-1]).updates()
    assert sum(update == gr.skip() for update in first) == 0
    assert all(update == gr.skip() for update in again[:-1])
    assert again[-1] == first[-1]
    # Another training's curve and picture replace this one's.
    nobody = Look(TrainingJobs(root / "none", print), "desk", first[-1]).updates()
    assert all(update != gr.skip() for update in nobody[:2])
    assert not nobody[3].visible
    jobs.close()


def test_curves_are_thinned_and_end_with_the_newest_point(tmp_path: Path) -> None:
    file = ProgressFile(tmp_path / "out" / "a" / "progress.jsonl")
    (tmp_path / "out" / "a").mkdir(parents=True)
    record = Record(kind="photos", count=3, created=1.0, outcome="stopped")
    (tmp_path / "out" / "a" / "job.json").write_text(record.model_dump_json())
    for step in range(1, 4 * POINTS):
        file._last = float("-inf")
        file.report("rgb", step, 4 * POINTS, f"loss {1 / step:.4f}  PSNR 10.0 dB")
    loss = Look(TrainingJobs(tmp_path / "out", print), "a", {}).updates()[3]
    points = loss.value["data"] if isinstance(loss.value, dict) else loss.value.data
    assert POINTS / 2 < len(points) <= POINTS
    assert list(points[-1]) == [4 * POINTS - 1, round(1 / (4 * POINTS - 1), 4)]


def test_the_status_tells_stages_and_trusts_no_text(tmp_path: Path) -> None:
    record = Record(kind="photos", count=20, created=0.0)
    file = ProgressFile(tmp_path / "progress.jsonl")
    file.report("scene", 1, 1, "<script>alert(1)</script>")
    file.report("rgb", 500, 2000, "loss 0.1  PSNR 20.0 dB")
    job = Job("desk", "running", "<b>why", 0, record)
    shown = status_html(job, read_progress(tmp_path / "progress.jsonl"))
    assert "<script" not in shown
    assert "<b>why" not in shown
    assert "20 photos" in shown
    assert 'value="0.250"' in shown
    assert shown.count('class="done"') == 1
    assert "Make the demo scene" not in shown
    assert label(Job("desk", "waiting", "", 1, record)) == "desk (next in line)"
    assert label(Job("desk", "waiting", "", 3, record)) == "desk (3 go before it)"
    assert [duration(seconds) for seconds in (0.2, 89, 600, 3 * 3600)] == [
        "about 1 s", "about 89 s", "about 10 min", "about 3.0 h",
    ]  # fmt: skip
    assert preview_html(tmp_path / "none.jpg") == ""


@pytest.mark.slow
def test_photos_become_a_scene_although_the_trainer_is_killed(
    root: Path, page: str, scenes: Scenes, photos: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From uploads to the Scene tab by the program that everyone uses, only with fewer steps."""
    monkeypatch.setattr(training_process, "TRAINER", (sys.executable, str(HERE / "small_trainer.py")))
    client = Client(page, verbose=False)
    name = client.predict([handle_file(photo) for photo in photos], "corner", "fast", api_name="/train")
    (root / name / "slow").touch()
    wait(client, name, lambda told: told["stage"] == "rgb" and told["done"] > 1, 240)
    process = int((root / name / "process").read_text())
    os.kill(process, signal.SIGKILL)
    told = wait(client, name, lambda told: told["state"] == "failed")
    assert "SIGKILL" in told["sentence"]
    assert 1 < told["done"] < told["total"] == 60
    (root / name / "slow").unlink()
    client.predict(name, api_name="/resume_training")
    told = wait(client, name, lambda told: told["state"] in ("finished", "failed"), 240)
    assert scenes.names() == [("corner", 0)], told
    folder = TrainingJobs(root, print).folder(name)
    progress = folder.progress()
    assert [stage.name for stage in progress.stages] == ["scene", "rgb", "features", "language", "score"]
    assert all(stage.done == stage.total for stage in progress.stages)
    assert progress.stages[0] == Stage("scene", 1, 1, "5 views to train on, 1 held out")
    stage = Run.open(folder.path).stage("rgb")
    assert stage is not None
    assert progress.psnrs[-1] == pytest.approx(stage.stats["train_psnr"], abs=0.06)
    pair = np.asarray(Image.open(folder.preview_path), dtype=float)
    unlike = sorted(np.abs(pair[:, 320:] - np.asarray(Image.open(photo), dtype=float)).mean() for photo in photos)
    assert unlike[0] < 0.7 * unlike[1], "the right half is one of the photos, undistorted"
