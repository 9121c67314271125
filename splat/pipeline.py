"""Photos in, a scene that can be asked for things out: the stages of a training, in order, resumable.

Each stage writes what the next one reads into the run folder (`splat.run`), so a training that was killed
continues where it was, and a stage whose inputs did not change is not run again.
"""

import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import encoders
from encoders.devices import pick_device
from encoders.errors import InputError
from encoders.files import atomic_path
from encoders.progress import Report, silent
from encoders.storage import storage_errors
from splat.device import splat_device
from splat.features import FeatureStore, extract_features
from splat.fit_language import LanguageConfig, fit_language
from splat.fit_rgb import RgbConfig, fit_rgb
from splat.gaussians import load_ply, save_ply
from splat.image_metrics import WINDOW
from splat.interchange.gaussian_files import is_plain_ply, read_gaussians
from splat.interchange.given_gaussians import complaint, in_frame_of, is_moved
from splat.interchange.langsplat_features import REGIONS, check_encoder, features_digest, import_features
from splat.run import STAGES, Run, file_digest
from splat.same_training import had, refuse_other, refuse_without_photos
from splat.scene import Scene, load_scene, save_cameras
from splat.scene.scale import automatic_scale
from splat.score import score_run
from splat.stage import RunningStage
from splat.train_config import TrainConfig

StageReport = Callable[[str], Report]
"""Gives the `Report` that a stage, by its name, tells its progress to."""


Scorer = Callable[[Run, Scene, str, Report], dict[str, Any]]
"""Scores a run with a ``--device`` and writes `metrics.json`; `splat.score.score_run`, or something around it."""


def _silent_stages(_stage: str) -> Report:
    return silent


def train(
    folder: Path, config: TrainConfig, reports: StageReport = _silent_stages, scorer: Scorer = score_run
) -> dict[str, Any]:
    """Train into the run folder ``folder`` and score the result; continues what is there already.

    Returns:
        The content of `metrics.json`.

    Raises:
        InputError: an option, the scene or the run folder cannot be used, the folder holds a training with
            other options or is being written by another process, or the disk is full. Results of earlier
            stages stay intact.
    """
    config.check()
    if not config.scene.exists():
        raise InputError(f"There is no scene at {config.scene}; check the path.")
    if config.scene.resolve() == folder.resolve():
        raise InputError(f"--out is the scene folder {folder} itself; choose another --out.")
    with storage_errors(folder), Run.locked(folder) as run:
        training = _Training(run, config, reports)
        training.run_stages()
        return scorer(run, training.scene, config.device, reports("score"))


class _Training:
    """One call of `train`: the run, the scene, and what every stage shares."""

    def __init__(self, run: Run, config: TrainConfig, reports: StageReport) -> None:
        self.run = run
        self.config = config
        self.reports = reports
        self.device = splat_device(config.device)
        refuse_without_photos(run)
        if "rgb" in config.stages and not self._has_gaussians():
            self._rgb_config()  # which may be impossible on this device: say so before the scene is read
        self._check_given_features()
        self.scale = config.scale or self._recorded_scale() or automatic_scale(config.scene)
        self.language = LanguageConfig(
            atoms=config.atoms,
            nonzeros=config.nonzeros,
            solver=config.solver,
            coding=config.coding,
            dictionary=config.dictionary,
            seed=config.seed,
        )
        self.scene = self._load_scene(with_points="rgb" in config.stages and not self._has_gaussians())
        self._refuse_views_too_small_to_score()
        rgb = {"preset": config.preset, "strategy": config.strategy, "seed": config.seed}
        self.inputs: dict[str, dict[str, Any]] = {
            "rgb": {"scale": self.scale, **rgb},
            "features": {"scale": self.scale, "encoder": config.encoder, "regions": config.regions},
        }
        if config.features is not None and "features" in config.stages:
            content = features_digest(config.features, [self.scene.cameras[i].name for i in self.scene.train])
            self.inputs["features"] |= {"regions": REGIONS, "features": content}

    def _check_given_features(self) -> None:
        """Say before the scene is read that --features are not of --encoder; nothing would work in the end."""
        folder, stage = self.config.features, self.run.stage("features")
        if folder is None or "features" not in self.config.stages or (stage is not None and stage.status == "done"):
            return
        check_encoder(folder, encoders.create(self.config.encoder, device=pick_device(self.config.device)))

    def _recorded_scale(self) -> float | None:
        """The scale of the training that the run holds, which a new guess must not change."""
        record = self.run.record
        return None if record is None else TrainConfig.from_json(record.config, self.run.record_path).scale

    def _load_scene(self, with_points: bool) -> Scene:
        report = self.reports("scene")
        config, cache = self.config, self.run.scene_cache_path
        scene = load_scene(config.scene, self.scale, cache, report, with_points, config.hold_out)
        report(1, 1, f"{len(scene.train)} views to train on, {len(scene.test)} held out")
        return scene

    def _refuse_views_too_small_to_score(self) -> None:
        for camera in (self.scene.cameras[i] for i in self.scene.test):
            if min(camera.width, camera.height) < WINDOW:
                raise InputError(
                    f"The held-out view {camera.name} has {camera.width} x {camera.height} pixels at --scale "
                    f"{self.scale:g}, and scoring takes at least {WINDOW} x {WINDOW}; use a larger --scale or photos."
                )

    def _has_gaussians(self) -> bool:
        stage = self.run.stage("rgb")
        finished = self.run.gaussians_path.is_file() and (stage is None or stage.status == "done")
        return finished or self.config.gaussians is not None

    def run_stages(self) -> None:
        refuse_other(self.run, self.config, self.scale, self.scene.fingerprint, self.inputs)
        asked = {"rgb", "features"} <= set(self.config.stages)
        if asked and self.config.features is None and not self._has_gaussians():
            # A name that is wrong should not be found out after hours of fitting; the models themselves would
            # only take memory from the fit, and are made again for their stage.
            self._create_encoders()
        self.run.begin(self.config.to_json() | {"scale": self.scale}, self.scene.fingerprint)
        save_cameras(self.run.cameras_path, self.scene.cameras, self.scene.test_names)
        work = {"rgb": self._rgb, "features": self._features, "language": self._language}
        for stage in STAGES:
            if stage in self.config.stages:
                work[stage]()

    def _rgb(self) -> None:
        run, stage, path = self.run, self.run.stage("rgb"), self.run.gaussians_path
        if self.config.gaussians is not None:
            self._copy_gaussians(self.config.gaussians)
        digest = file_digest(path) if path.is_file() else None
        if stage is not None and stage.status == "done" and digest == stage.stats.get("digest"):
            self.reports("rgb")(1, 1, "done before")
            return
        if digest is not None and (stage is None or stage.status == "done"):
            # Not ours, or not any more: Gaussians trained elsewhere, which replace this stage.
            given = load_ply(path)
            run.mark("rgb", "done", {"digest": digest}, 0.0, {"digest": digest, "gaussians": len(given)})
            told = [f"took the {len(given)} Gaussians of {self.config.gaussians or path}"]
            told.append(complaint(given.to(self.device), self.scene))
            self.reports("rgb")(1, 1, "; ".join(filter(None, told)))
            return
        with RunningStage(self.run, "rgb", self.inputs["rgb"], self.reports("rgb")) as step:
            gaussians, stats = fit_rgb(
                self.scene,
                self._rgb_config(),
                run.checkpoints_path / "rgb",
                step.report,
            )
            save_ply(path, gaussians)
            step.stats = {**_numbers(stats), "digest": file_digest(path), "gaussians": len(gaussians)}

    def _rgb_config(self) -> RgbConfig:
        config = self.config
        return RgbConfig.preset(config.preset, seed=config.seed, device=self.device, strategy=config.strategy)

    def _copy_gaussians(self, source: Path) -> None:
        stage, path = self.run.stage("rgb"), self.run.gaussians_path
        if stage is not None and "digest" not in stage.inputs:
            raise InputError(f"{self.run.folder} trains its own Gaussians; choose another --out for {source}.")
        moved = is_moved(source)
        if not moved and path.is_file() and file_digest(path) == file_digest(source):
            return
        gaussians = in_frame_of(read_gaussians(source), source, self.config.scene)
        if is_plain_ply(source) and not moved:
            with atomic_path(path) as temporary:
                shutil.copyfile(source, temporary)
        else:
            save_ply(path, gaussians)

    def _features(self) -> None:
        if self.run.imported is not None and "language" in self.config.stages:
            self.reports("features")(1, 1, "not needed: the language field was imported")
            return
        names = [self.scene.cameras[i].name for i in self.scene.train]
        store = FeatureStore(self.run.features_path)
        inputs = self.inputs["features"]
        if self.run.is_done("features", inputs) and all(store.has(name) for name in names):
            self.reports("features")(1, 1, "done before")
            return
        config = self.config
        if config.features is not None:
            with RunningStage(self.run, "features", inputs, self.reports("features")) as step:
                views = [(self.scene.cameras[i], self.scene.lenses[i]) for i in self.scene.train]
                import_features(config.features, views, config.encoder, store, inputs["features"], step.report)
            return
        encoder, regions = self._create_encoders()
        with RunningStage(self.run, "features", inputs, self.reports("features")) as step:
            extract_features(self.scene, encoder, regions, store, step.report)

    def _create_encoders(self) -> tuple[encoders.Encoder, encoders.Regions]:
        device = pick_device(self.config.device)
        encoder = encoders.create(self.config.encoder, device=device)
        return encoder, encoders.create_regions(self.config.regions, device=device)

    def _language(self) -> None:
        run = self.run
        if run.imported is not None:
            self.reports("language")(1, 1, f"imported from {run.imported}")
            return
        run.require("rgb", "features")
        inputs = {
            "gaussians": file_digest(run.gaussians_path),
            **{key: value for key, value in self.run.finished("features").inputs.items() if key != "scale"},
            **{key: getattr(self.language, key) for key in ("solver", "atoms", "nonzeros", "seed")},
            "coding": self.language.coding,
            "dictionary": self.language.start,
        }
        stage = run.stage("language")
        same = stage is not None and had("language", stage) == inputs
        if same and stage is not None and stage.status == "done" and run.language_path.is_file():
            self.reports("language")(1, 1, "done before")
            return
        checkpoints = run.checkpoints_path / "language"
        if not same:
            shutil.rmtree(checkpoints, ignore_errors=True)
        with RunningStage(self.run, "language", inputs, self.reports("language")) as step:
            field, stats = fit_language(
                load_ply(run.gaussians_path).to(self.device),
                [self.scene.cameras[i] for i in self.scene.train],
                FeatureStore(run.features_path),
                self.language,
                step.report,
                checkpoints,
            )
            field.save(run.language_path)
            step.stats = _numbers(stats)


def _numbers(stats: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a stage's statistics that JSON and a reader of `run.json` can use."""
    return {
        key: value
        for key, value in stats.items()
        if isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value))
    }
