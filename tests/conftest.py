"""Fixtures that several test files share: a scene and a run so small that they take seconds, and commands."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import app  # noqa: F401 - before torch, because it sets up OpenMP
from splat.scene.demo import write_demo_scene

pytest_plugins = ["browser", "clusters", "judging", "scene_visits", "tab_uploads"]


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
        config = TrainConfig(tiny_scene, preset="fast", encoder="colour", dictionary="kmeans", device="cpu")
        train(out, config, scorer=score)
    return out


@pytest.fixture
def scene(tiny_scene: Path, tmp_path: Path) -> Path:
    """A copy of the tiny scene that a test may spoil."""
    return shutil.copytree(tiny_scene, tmp_path / "scene")


@pytest.fixture
def spoiled(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the tiny run that a test may spoil."""
    return shutil.copytree(tiny_run, tmp_path / "run")


@pytest.fixture
def dictsplat(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process, with the encoder of `driver`: (exit status, stdout, stderr)."""
    import driver

    from app.cli import main

    driver.install(monkeypatch.setattr)

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run


@pytest.fixture
def refused(dictsplat: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """Runs a command that must end with status 2 and exactly one line on stderr, which it returns."""

    def run(*arguments: object) -> str:
        code, _, err = dictsplat(*arguments)
        assert code == 2, err
        assert err.count("\n") == 1, err
        return err

    return run
