"""What the Scene tab saves: files, videos and models, and the folders that they lie in."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import gradio as gr
import numpy as np
import pytest
import torch
from PIL import Image

from app.scene_events import SceneEvents
from app.scene_files import (
    KINDS,
    MINE,
    PATHS,
    PICTURE,
    RATE,
    RELEVANCY,
    REST,
    SELECTION,
    SWAY,
    VIEWS,
    camera_path,
    relevancy_colors,
    write_file,
    write_model,
    write_video,
)  # fmt: skip
from app.scene_handlers import SceneHandlers
from app.scene_tab import scene_tab
from app.scenes import Scenes
from app.scratch import Scratch
from app.selection import EVERYTHING, ONLY
from encoders.errors import InputError
from splat.gaussians import load_ply
from splat.web_splat import ROW


def test_files_hold_what_is_seen(events: SceneEvents, token: str, tmp_path: Path) -> None:
    visit = events.visit(token)
    for kind, missing in ((RELEVANCY, "Look for"), (SELECTION, "Nothing is selected"), ("all files", "no file")):
        with pytest.raises(InputError, match=missing):
            write_file(tmp_path, kind, visit.stand, events.painter, 96)
    stand = events.ask(token, ["red", "green"], "").stand
    selection = events.select(token, "")
    events.show(token, EVERYTHING, "#ff0000")
    stand = visit.stand
    paths = {kind: write_file(tmp_path, kind, stand, events.painter, 96) for kind in KINDS}
    assert {path.parent for path in paths.values()} == {tmp_path}
    frame = events.painter.draw(stand, 96)
    np.testing.assert_array_equal(np.asarray(Image.open(paths[PICTURE])), frame.picture)
    gaussians = stand.scene.trained.gaussians
    for kind, kept in ((SELECTION, selection.chosen), (REST, ~selection.chosen)):
        written = load_ply(paths[kind])
        torch.testing.assert_close(written.means, gaussians.means[kept])
        torch.testing.assert_close(written.sh, gaussians.sh[kept])
    with np.load(paths[RELEVANCY], allow_pickle=False) as found:
        assert found["names"].tolist() == ["red", "green"]
        assert found["relevancy"].shape == (2, 3, 72, 96)
        np.testing.assert_array_equal(found["mask"], [result.mask for result in frame.results])
        np.testing.assert_allclose(found["confidence"], [result.confidence for result in frame.results])
        np.testing.assert_array_equal(found["viewmat"], stand.camera.viewmat)
    nothing = replace(selection, chosen=torch.zeros_like(selection.chosen))
    with pytest.raises(InputError, match="Nothing is left"):
        write_file(tmp_path, SELECTION, replace(stand, selection=nothing), events.painter, 96)


def test_names_of_files_are_words(events: SceneEvents, token: str, tmp_path: Path) -> None:
    stand = events.ask(token, ["../../etc/passwd", "a b"], "").stand
    path = write_file(tmp_path, PICTURE, stand, events.painter, 48)
    assert path.parent == tmp_path
    assert path.name == "tiny-etc-passwd-a-b.png"


def test_a_video_is_the_frames_of_its_path(events: SceneEvents, token: str, tmp_path: Path) -> None:
    stand = events.visit(token).stand
    cameras = camera_path(stand, SWAY, 2)
    assert len(cameras) == 2 * RATE
    seen: list[tuple[int, int]] = []
    write_video(tmp_path / "video.mp4", stand, cameras[:7], events.painter, 95, lambda *step: seen.append(step))
    assert seen[0] == (0, 7)
    assert seen[-1] == (7, 7)
    video = cv2.VideoCapture(str(tmp_path / "video.mp4"))
    frames = []
    while (read := video.read())[0]:
        frames.append(read[1][..., ::-1])
    assert len(frames) == 7
    assert frames[0].shape == (70, 94, 3)
    for frame, camera in ((frames[0], cameras[0]), (frames[6], cameras[6])):
        expected = events.painter.draw(replace(stand, camera=camera), 95).picture[:70, :94]
        assert np.abs(frame.astype(int) - expected).mean() < 8
    assert list(tmp_path.iterdir()) == [tmp_path / "video.mp4"]


def test_videos_go_where_they_are_told(events: SceneEvents, token: str) -> None:
    visit = events.visit(token)
    path = camera_path(visit.stand, VIEWS, 3)
    cameras = visit.stand.scene.trained.cameras
    np.testing.assert_allclose(path[0].viewmat, cameras[0].viewmat, atol=1e-9)
    np.testing.assert_allclose(path[-1].viewmat, cameras[-1].viewmat, atol=1e-9)
    with pytest.raises(InputError, match="two views"):
        camera_path(visit.stand, MINE, 3)
    assert events.remember(token) == 1
    events.jump(token, "train_003")
    assert events.remember(token) == 2
    path = camera_path(visit.stand, MINE, 2)
    np.testing.assert_allclose(path[-1].viewmat, visit.stand.scene.trained.camera("train_003").viewmat, atol=1e-9)
    events.forget(token)
    assert visit.stand.path == ()
    for way, seconds, sentence in (
        (PATHS[0], 11, "seconds"),
        (PATHS[0], float("nan"), "seconds"),
        ("up", 3, "no video"),
    ):
        with pytest.raises(InputError, match=sentence):
            camera_path(visit.stand, way, seconds)


def test_the_model_has_the_visitors_selection_and_colours(events: SceneEvents, token: str, tmp_path: Path) -> None:
    stand = events.ask(token, ["red"], "").stand
    selection = events.select(token, "")
    events.show(token, ONLY, "#ff0000")
    stand = events.visit(token).stand
    write_model(tmp_path / "a.splat", stand)
    rows = np.fromfile(tmp_path / "a.splat", ROW)
    visible = stand.scene.trained.gaussians.opacities > 1 / 255
    assert len(rows) == int((visible & selection.chosen).sum())
    # A selection that is shown alone is in the middle of the viewer.
    np.testing.assert_allclose(np.median(rows["mean"], axis=0), 0.0, atol=0.05)
    stand = replace(stand, selection=None, look=replace(stand.look, mode="relevancy", opacity=1.0))
    write_model(tmp_path / "b.splat", stand)
    heat = np.fromfile(tmp_path / "b.splat", ROW)
    assert len(heat) == int(visible.sum())
    colors = relevancy_colors(stand)
    most, least = colors[selection.chosen].mean(0), colors[~selection.chosen].mean(0)
    assert most[0] - most[2] > least[0] - least[2]  # redder
    expected = {tuple(color) for color in (colors * 255 + 0.5).byte().tolist()}
    assert {tuple(row) for row in heat["rgba"][:, :3].tolist()} <= expected


def test_a_video_ends_with_its_visit(events: SceneEvents, token: str, scratch: Scratch) -> None:
    handlers = SceneHandlers(events, scratch)
    drawn: list[int] = []

    def progress(step: tuple[int, int], **_: Any) -> None:
        drawn.append(step[0])
        if len(drawn) == 3:
            events.visits.end("page")

    with pytest.raises(InputError, match="reload"):
        handlers.film(token, SWAY, 2, progress)  # type: ignore[arg-type]
    assert drawn == [0, 1, 2]
    assert [path.name for path in scratch.root.iterdir()] == [".lock"]


def test_only_open_pages_have_folders(
    events: SceneEvents, token: str, scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers = SceneHandlers(events, scratch)

    def folders() -> list[Path]:
        return [path for path in scratch.root.iterdir() if path.is_dir()]

    for act in (lambda: handlers.save("guessed", PICTURE), lambda: handlers.hand("guessed")):
        with pytest.raises(InputError, match="reload"):
            act()
        assert not folders()
    handlers.save(token, PICTURE)
    assert len(folders()) == 1
    scratch.drop(token)

    def closed(folder: Path, *_: Any) -> Path:
        events.visits.end("page")
        assert folder.exists()
        return folder / "picture.png"

    monkeypatch.setattr("app.scene_handlers.write_file", closed)
    with pytest.raises(InputError, match="reload"):
        handlers.save(token, PICTURE)
    assert not folders()


def test_no_file_waits_for_a_video(scenes: Scenes, events: SceneEvents, scratch: Scratch) -> None:
    with gr.Blocks() as page:
        scene_tab(scenes, events, scratch)
    queues = {fn.name: (fn.concurrency_id, fn.concurrency_limit) for fn in page.fns.values()}
    assert queues["film"] == ("video", 1)
    assert queues["save"] == queues["hand"] == ("files", 1)
