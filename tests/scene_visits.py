"""Visits of the Scene tab without a page: events, and folders for what is saved."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import driver
import pytest

from app.frames import Painter
from app.scene_events import SceneEvents
from app.scenes import Scenes
from app.scratch import Scratch
from app.visits import Visits


@pytest.fixture(scope="module")
def scenes(tiny_run: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        driver.install(patch.setattr)
        yield Scenes([tiny_run], "cpu")


@pytest.fixture
def events(scenes: Scenes) -> SceneEvents:
    return SceneEvents(scenes, Visits(scenes), Painter())


@pytest.fixture
def two_scenes(scenes: Scenes, tiny_run: Path, tmp_path: Path) -> SceneEvents:
    """Events of a tab with a second scene, which is like the first."""
    both = Scenes([tiny_run, shutil.copytree(tiny_run, tmp_path / "other")], "cpu")
    return SceneEvents(both, Visits(both), Painter())


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Scratch]:
    scratch = Scratch(parent=tmp_path)
    yield scratch
    scratch.close()


@pytest.fixture
def token(events: SceneEvents) -> str:
    return events.visits.begin("page").token
