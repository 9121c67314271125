"""`metrics.json`: what a run is worth and what it cost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import encoders
from encoders.devices import pick_device
from encoders.errors import InputError
from encoders.files import write_json
from encoders.progress import Report, silent
from splat.codes import LanguageField
from splat.device import splat_device
from splat.evaluate import QueryScore, Renderer, ViewScore, evaluate_language, evaluate_views, renderer
from splat.gaussians import Gaussians, load_ply
from splat.run import STAGES, Run, peak_rss_mb
from splat.scene import Scene

SCORED = "scored"
"""Key of `metrics.json` for `results_of` the run when it was scored."""


class Gallery(Protocol):
    """Is shown everything that is scored, for instance to keep pictures of it."""

    def add_view(self, score: ViewScore) -> None:
        """A held-out view."""

    def add_query(self, score: QueryScore) -> None:
        """A query in a view."""


def results_of(run: Run) -> dict[str, Any]:
    """What a run's scores belong to: digest of the Gaussians, inputs of the language stage, bytes of both files.

    It is told by content, not by the time of files, which clocks and copies change.
    """
    rgb, language = run.stage("rgb"), run.stage("language")
    return {
        "gaussians": None if rgb is None else rgb.stats.get("digest"),
        "language": None if language is None else language.inputs,
        "bytes": {path.name: path.stat().st_size for path in (run.gaussians_path, run.language_path) if path.is_file()},
    }


def score_run(
    run: Run,
    scene: Scene,
    device: str = "auto",
    report: Report = silent,
    labels: Path | None = None,
    gallery: Callable[[Renderer], Gallery] | None = None,
    protocol: str | None = None,
) -> dict[str, Any]:
    """Score what a run has so far and write its `metrics.json`.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N".
        labels: folder of labels (`splat.protocols.read_benchmark`); by default the scene's own ``labels`` or
            ``segmentations``, if it has some.
        gallery: makes a `Gallery` from the function that renders the run.
        protocol: how labels are scored (`splat.protocols.PROTOCOLS`); by default what their folder asks for.

    Returns:
        ``gaussians``; ``psnr`` and ``ssim`` on held-out views; with labels also ``protocol``,
        ``miou``, ``localization_accuracy`` and ``per_query`` (`splat.evaluate.evaluate_answers`); ``seconds`` per stage
        and, with labels, per query; ``peak_rss_mb``; ``scored``, see `results_of`. Keys that do not apply are absent.

    Raises:
        InputError: the run or the labels are damaged, or a protocol is asked for and there are no labels.
    """
    record = run.record
    seconds: dict[str, float] = {}
    for name in STAGES:
        stage = run.stage(name)
        if stage is not None:
            seconds[name] = stage.seconds
    metrics: dict[str, Any] = {}
    if run.gaussians_path.is_file():
        gaussians = load_ply(run.gaussians_path).to(splat_device(device))
        render = renderer(gaussians)
        pictures = gallery(render) if gallery else None
        metrics["gaussians"] = len(gaussians)
        metrics |= evaluate_views(render, scene, report, pictures.add_view if pictures else None)
        metrics |= _score_language(run, scene, gaussians, device, report, labels, pictures, protocol)
    if "query_seconds" in metrics:
        seconds["query"] = metrics.pop("query_seconds")
    metrics["seconds"] = seconds
    metrics[SCORED] = results_of(run)
    metrics["peak_rss_mb"] = round(max(peak_rss_mb(), record.peak_rss_mb if record else 0.0), 1)
    write_json(run.metrics_path, metrics)
    report(1, 1, "metrics.json is written")
    return metrics


def _score_language(
    run: Run,
    scene: Scene,
    gaussians: Gaussians,
    device: str,
    report: Report,
    labels: Path | None,
    pictures: Gallery | None,
    protocol: str | None,
) -> dict[str, Any]:
    folder = labels or _own_labels(scene)
    wanted = labels is not None or protocol is not None
    stage = run.stage("language")
    if stage is None or stage.status != "done" or not run.language_path.is_file():
        if wanted:
            run.require("language")
        return {}
    if folder is None:
        if wanted:
            raise InputError(f"The scene {scene.path} has no labels to score by {protocol}; give some with --labels.")
        return {}
    field = LanguageField.load(run.language_path).to(gaussians.device)
    watch = pictures.add_query if pictures else None
    try:
        run.check_language()
        run.check_counts(len(gaussians), len(field))
    except InputError as error:
        if wanted:
            raise
        # The other scores are still right, and whoever trains stage by stage gets here with old codes.
        report(1, 1, f"answers are not scored: {error}")
        return {}
    encoder = encoders.create(field.encoder, device=pick_device(device))
    lenses = {camera.name: lens for camera, lens in zip(scene.cameras, scene.lenses, strict=False)}
    try:
        return evaluate_language(gaussians, field, scene.cameras, folder, encoder, report, watch, protocol, lenses)
    except InputError as error:
        if wanted:
            raise
        # Nobody asked for these labels: a scene may have a folder of that name for something else.
        report(1, 1, f"not scored against {folder}: {error}")
        return {}


def _own_labels(scene: Scene) -> Path | None:
    root = scene.path if scene.path.is_dir() else scene.path.parent
    places = (root / name for name in ("labels", "segmentations"))
    return next((folder for folder in places if folder.is_dir()), None)
