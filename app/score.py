"""Scoring a run with pictures of it: `metrics.json` and `report.html`, for train, demo and eval alike."""

from pathlib import Path
from typing import Any

from app.report import Pictures, write_report
from encoders.errors import InputError
from encoders.progress import Report
from encoders.storage import storage_errors
from splat.pipeline import StageReport
from splat.protocols import protocol_called
from splat.run import Run
from splat.scene import Scene, load_scene
from splat.score import score_run
from splat.train_config import TrainConfig


def score(
    run: Run,
    scene: Scene,
    device: str,
    report: Report,
    labels: Path | None = None,
    protocol: str | None = None,
) -> dict[str, Any]:
    """As `splat.score.score_run`, and write `report.html` beside `metrics.json`."""
    galleries: list[Pictures] = []

    def gallery(render: Any) -> Pictures:
        galleries.append(Pictures(render))
        return galleries[-1]

    metrics = score_run(run, scene, device, report, labels, gallery, protocol)
    if galleries:
        write_report(run.folder, metrics, galleries[0], details=_details(run, scene))
        report(1, 1, "report.html is written")
    return metrics


def evaluate(
    folder: Path,
    reports: StageReport,
    scene: Path | None = None,
    labels: Path | None = None,
    device: str = "auto",
    protocol: str | None = None,
) -> dict[str, Any]:
    """Score a run against the photos it was trained from.

    Args:
        scene: where these are now, if not where they were.
        protocol: how labels are scored, see `splat.protocols.read_benchmark`.

    Raises:
        InputError: the run or its scene cannot be used, or the scene is not the one of the run.
    """
    if protocol is not None:
        protocol_called(protocol)  # before the views are rendered
    run = Run.open(folder)
    run.require("rgb")
    assert run.record is not None
    config = TrainConfig.from_json(run.record.config, run.record_path)
    source = scene or config.scene
    if not source.exists():
        raise InputError(f"The scene {source} of {folder} is gone; say where it is now with --scene.")
    with storage_errors(folder), Run.locked(folder) as run:
        assert run.record is not None
        cache, report = run.scene_cache_path, reports("scene")
        loaded = load_scene(source, config.scale or 1.0, cache, report, with_points=False, hold_out=config.hold_out)
        if loaded.fingerprint != run.record.dataset:
            raise InputError(f"The photos or cameras in {source} are not those that {folder} was trained with.")
        return score(run, loaded, device, reports("score"), labels, protocol)


def _details(run: Run, scene: Scene) -> dict[str, str]:
    config = run.record.config if run.record else {}
    views = {"views": f"{len(scene.train)} to train on, {len(scene.test)} held out"}
    names = ("scene", "scale", "preset", "encoder", "regions", "solver", "atoms", "nonzeros")
    return views | {name: str(config[name]) for name in names if name in config}
