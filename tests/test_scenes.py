"""Scenes by position: what of them is loaded and when, and what becomes of runs that are spoilt."""

import gc
import shutil
import threading
from collections import Counter
from pathlib import Path

import driver
import pytest

from app import scenes as scenes_module
from app.frames import Painter
from app.scene_events import SceneEvents
from app.scenes import KEPT, Scenes
from app.visits import Visits
from encoders.errors import InputError
from splat.outline import Outline
from splat.trained import Trained


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each run was loaded."""
    counted: Counter[str] = Counter()
    load = Trained.load

    def count(folder: Path, device: str = "cpu") -> Trained:
        counted[folder.name] += 1
        return load(folder, device)

    driver.install(monkeypatch.setattr)
    monkeypatch.setattr(scenes_module.Trained, "load", staticmethod(count))
    return counted


@pytest.fixture
def folders(tiny_run: Path, tmp_path: Path) -> list[Path]:
    """More runs than stay loaded."""
    folders = [tmp_path / f"run {number}" for number in range(KEPT + 3)]
    for folder in folders:
        folder.mkdir()
        for name in ("run.json", "gaussians.ply", "language.safetensors", "cameras.json"):
            shutil.copyfile(tiny_run / name, folder / name)
    return folders


def spoil(folder: Path, name: str = "gaussians.ply") -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_an_outline_says_what_loading_would(tiny_run: Path) -> None:
    trained = Trained.load(tiny_run)
    outline = Outline.read(tiny_run)
    assert outline == Outline.of(trained)
    assert (outline.encoder, outline.gaussians) == ("colour", len(trained.gaussians))
    assert outline.views[:2] == ("test_000", "test_001")
    assert len(outline.views) == len(trained.cameras) == 10


@pytest.mark.parametrize("name", ["run.json", "gaussians.ply", "language.safetensors", "cameras.json"])
def test_a_spoilt_run_has_no_outline(folders: list[Path], name: str) -> None:
    spoil(folders[0], name)
    with pytest.raises(InputError, match=rf"run 0/{name}"):
        Outline.read(folders[0])
    (folders[0] / name).unlink()
    with pytest.raises(InputError, match=r"run 0"):
        Outline.read(folders[0])


def test_gaussians_and_codes_of_different_scenes_have_no_outline(folders: list[Path]) -> None:
    path = folders[0] / "gaussians.ply"
    head, end, points = path.read_bytes().partition(b"end_header\n")
    count = int(head.split(b"element vertex ")[1].split(b"\n")[0])
    fewer = head.replace(b"vertex %d" % count, b"vertex %d" % (count - 1))
    path.write_bytes(fewer + end + points[: len(points) // count * (count - 1)])
    with pytest.raises(InputError, match=f"has {count - 1} Gaussians but .* codes for {count}"):
        Outline.read(folders[0])


def test_a_scene_is_loaded_when_it_is_shown(folders: list[Path], loads: Counter[str]) -> None:
    scenes = Scenes(folders, "cpu")
    assert loads == {"run 0": 1}, "every page begins with it"
    assert scenes.names() == [(folder.name, position) for position, folder in enumerate(folders)]
    assert [scenes.outline(position).folder for position in range(len(scenes))] == folders
    scenes.encoder(3).encode_text(["red"])
    assert loads == {"run 0": 1}
    assert scenes.get(3) is scenes.get(3)
    assert scenes.get(3).trained.folder == folders[3]
    assert loads == {"run 0": 1, "run 3": 1}


def test_few_scenes_stay_loaded_and_the_first_always(folders: list[Path], loads: Counter[str]) -> None:
    scenes = Scenes(folders, "cpu")
    for position in range(1, len(folders)):
        scenes.get(position)
    gc.collect()
    newest = range(len(folders) - KEPT, len(folders))
    for position in (0, *newest):
        scenes.get(position)
    assert set(loads.values()) == {1}
    scenes.get(1)
    assert loads["run 1"] == 2
    gc.collect()
    scenes.get(newest[0])
    assert loads[f"run {newest[0]}"] == 2, "it was the one that was left alone for longest"


def test_what_somebody_looks_at_stays_the_same_scene(folders: list[Path], loads: Counter[str]) -> None:
    scenes = Scenes(folders, "cpu")
    held = scenes.get(1)
    for position in range(2, len(folders)):
        scenes.get(position)
    gc.collect()
    assert scenes.get(1) is held
    assert loads["run 1"] == 1
    scenes.add(folders[1])
    assert scenes.get(1) is not held, "it may have been trained anew"
    assert len(scenes) == len(folders)


def test_a_visitor_stays_in_a_scene_that_others_let_go_of(folders: list[Path], loads: Counter[str]) -> None:
    scenes = Scenes(folders, "cpu")
    visits = Visits(scenes)
    events = SceneEvents(scenes, visits, Painter())
    here, there = (visits.begin(name).token for name in ("here", "there"))
    events.enter(here, 1)
    for position in range(2, len(folders)):
        events.enter(there, position)
    gc.collect()
    assert events.is_in(here, 1)
    assert events.is_in(there, len(folders) - 1)
    scenes.add(folders[1])
    assert not events.is_in(here, 1), "what is shown there is out of date"


def test_many_visitors_load_a_scene_once(folders: list[Path], loads: Counter[str]) -> None:
    scenes, found = Scenes(folders, "cpu"), []
    ready = threading.Barrier(8)

    def look() -> None:
        ready.wait()
        found.append(scenes.get(2))

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1
    assert loads["run 2"] == 1


def test_spoilt_runs_are_left_out_and_named(folders: list[Path], loads: Counter[str]) -> None:
    for number, name in ((0, "gaussians.ply"), (2, "cameras.json"), (3, "language.safetensors")):
        spoil(folders[number], name)
    scenes = Scenes([*folders[:5], folders[0].parent / "none"], "cpu")
    assert scenes.names() == [("run 1", 0), ("run 4", 1)]
    assert [
        name in sentence for name, sentence in zip(("run 0", "run 2", "run 3", "none"), scenes.left_out, strict=True)
    ]
    assert scenes.get(1).trained.folder == folders[4]


def test_without_any_run_that_can_be_used_there_is_nothing_to_show(folders: list[Path]) -> None:
    for folder in folders[:2]:
        spoil(folder)
    for some in (folders[:1], folders[:2]):
        with pytest.raises(InputError, match=r"run 0/gaussians\.ply"):
            Scenes(some, "cpu")


def test_a_run_that_is_spoilt_later_is_a_sentence_without_its_place(folders: list[Path], tmp_path: Path) -> None:
    scenes = Scenes(folders, "cpu")
    for folder in folders[:2]:
        spoil(folder)
    with pytest.raises(InputError, match=r"^run 1/gaussians\.ply is not a readable PLY") as caught:
        scenes.get(1)
    assert str(tmp_path) not in str(caught.value)
    assert scenes.get(0).trained.folder == folders[0]
    assert scenes.outline(1).gaussians > 0


def test_scenes_that_are_called_alike_are_numbered(folders: list[Path], tmp_path: Path) -> None:
    places = [tmp_path / "a" / "desk", tmp_path / "b" / "desk", tmp_path / "c" / "desk (2)", tmp_path / "d" / "desk"]
    for folder, place in zip(folders, places, strict=False):
        place.parent.mkdir()
        folder.rename(place)
    labels = [label for label, _ in Scenes(places, "cpu").names()]
    assert labels == ["desk", "desk (2)", "desk (2) (2)", "desk (3)"]
