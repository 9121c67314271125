"""What a run has, for LangSplat and LangSplatV2."""

from pathlib import Path

from encoders.errors import InputError
from encoders.files import write_png
from encoders.progress import Report, silent
from splat.features import FeatureStore
from splat.interchange.langsplat_features import CAMERAS, check_name, write_view
from splat.interchange.langsplat_v2 import ITERATION, own_scripts, write_levels
from splat.run import Run
from splat.scene import Scene, load_cameras, load_scene, save_cameras
from splat.train_config import TrainConfig
from splat.trained import Trained


def export_langsplat_v2(run: Path, out: Path, report: Report = silent) -> None:
    """Write checkpoints as its scripts expect them: ``OUT_1/chkpnt10000.pth`` for subparts, then parts and wholes.

    Raises:
        InputError: the run is not finished, its codes are signed, or ``out`` ends with no name.
    """
    if out.name in ("", ".."):
        raise InputError(f"{out} is no name that folders could begin with; write it as {out / 'exported'}.")
    trained = Trained.load(run)
    paths = [
        out.with_name(f"{out.name}_{1 + level}") / f"chkpnt{ITERATION}.pth" for level in range(trained.field.levels)
    ]
    report(0, 1, "writing checkpoints")
    missed = write_levels(paths, trained.gaussians, trained.field)
    worst = max(missed, default=0.0)
    told = f"{len(paths)} checkpoints; weights are a softmax there, which changes lengths of features by {worst:.1%}"
    report(1, 1, "; ".join(filter(None, (told, own_scripts(trained.field)))))


def export_features(run: Path, out: Path, report: Report = silent) -> None:
    """Write regions and embeddings of the training views as LangSplat's ``preprocess.py`` does, and what they are of.

    They fit the photos as the run saw them, straightened and at its scale. These lie beside them in ``images``, and
    ``cameras.json`` has their cameras.

    Raises:
        InputError: the run has no features, or a view has a name that no file may have.
    """
    opened = Run.open(run)
    opened.require("features")
    store = FeatureStore(opened.features_path)
    cameras, held_out = load_cameras(opened.cameras_path)
    cameras = [camera for camera in cameras if camera.name not in set(held_out)]
    for camera in cameras:
        check_name(camera.name)
    if not any(store.has(camera.name) for camera in cameras):
        raise InputError(f"{run} has no features of its views; run: dictsplat train --out {run} --resume")
    scene, missing = _photos(opened, report)
    index = {} if scene is None else {camera.name: i for i, camera in enumerate(scene.cameras)}
    # First of all, as without it the maps would be taken for those of the photos as they lie in their files.
    save_cameras(out / CAMERAS, cameras, [])
    for done, camera in enumerate(cameras):
        report(done, len(cameras), f"writing features of {camera.name}")
        write_view(out, camera.name, store.read(camera.name))
        if scene is not None:
            write_png(out / "images" / f"{camera.name}.png", scene.image(index[camera.name]))
    report(len(cameras), len(cameras), f"features of {store.encoder} for {len(cameras)} views in {out}{missing}")


def _photos(run: Run, report: Report) -> tuple[Scene | None, str]:
    """The scene that a run was trained on; None, and why, where it is not there any more."""
    assert run.record is not None
    config = TrainConfig.from_json(run.record.config, run.record_path)
    try:
        # What a training left in the cache is read; only what is missing there is made.
        scale, cache = config.scale or 1.0, run.scene_cache_path
        scene = load_scene(config.scene, scale, cache, report, with_points=False, hold_out=config.hold_out)
    except InputError as error:
        return None, f"; without their pictures: {error}"
    if scene.fingerprint != run.record.dataset:
        return None, f"; without their pictures, as those in {config.scene} are not the run's"
    return scene, ""
