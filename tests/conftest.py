"""Fixtures that several test files share: a scene and a run so small that they take seconds."""

from pathlib import Path

import pytest

import app  # noqa: F401 - before torch, because it sets up OpenMP
from splat.scene.demo import write_demo_scene

pytest_plugins = ["browser"]


@pytest.fixture(scope="session")
def tiny_scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo scene as thumbnails: 8 training and 2 held-out views of 96 x 72 pixels, with labels."""
    folder = tmp_path_factory.mktemp("scene") / "tiny"
    return write_demo_scene(folder, width=96, height=72, train_views=8, test_views=2, samples=1)


@pytest.fixture(scope="session")
def tiny_run(tiny_scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run trained on `tiny_scene` with the encoder of `driver`; tests leave it as it is."""
    import driver

    from app.score import score
    from splat.pipeline import train
    from splat.train_config import TrainConfig

    out = tmp_path_factory.mktemp("run") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        driver.install(patch.setattr)
        train(out, TrainConfig(tiny_scene, preset="fast", encoder="colour", device="cpu"), scorer=score)
    return out
