"""`dictsplat demo`: from nothing to a scored scene with seven queries, in one command."""

from pathlib import Path
from typing import Any

from app.score import score
from encoders.storage import storage_errors
from splat.pipeline import StageReport, train
from splat.scene.demo import write_demo_scene
from splat.train_config import TrainConfig

SCENE_FOLDER = "demo_scene"
"""Where in the run folder the demo scene is kept; its photos go in like anyone's."""


def run_demo(out: Path, reports: StageReport, device: str = "auto", preset: str = "fast") -> dict[str, Any]:
    """Make the demo scene, train on it and score it; `out` becomes a run folder with `report.html`.

    Raises:
        InputError: as `splat.pipeline.train`.
    """
    with storage_errors(out):
        scene = write_demo_scene(out / SCENE_FOLDER, reports("demo"))
    config = TrainConfig(scene, scale=1.0, preset=preset, device=device)
    return train(out, config, reports, score)
