"""What a run has, for LangSplat and LangSplatV2."""

from pathlib import Path

from encoders.errors import InputError
from encoders.progress import Report, silent
from splat.features import FeatureStore
from splat.interchange.langsplat_features import write_view
from splat.interchange.langsplat_v2 import ITERATION, write_levels
from splat.run import Run
from splat.scene import load_cameras
from splat.trained import Trained


def export_langsplat_v2(run: Path, out: Path, report: Report = silent) -> None:
    """Write checkpoints as its scripts expect them: ``OUT_1/chkpnt10000.pth`` for subparts, then parts and wholes.

    Raises:
        InputError: the run is not finished, or its codes are signed.
    """
    trained = Trained.load(run)
    paths = [
        out.with_name(f"{out.name}_{1 + level}") / f"chkpnt{ITERATION}.pth" for level in range(trained.field.levels)
    ]
    report(0, 1, "writing checkpoints")
    missed = write_levels(paths, trained.gaussians, trained.field)
    worst = max(missed, default=0.0)
    report(
        1, 1, f"{len(paths)} checkpoints; weights are a softmax there, which changes lengths of features by {worst:.1%}"
    )


def export_features(run: Path, out: Path, report: Report = silent) -> None:
    """Write regions and embeddings of the training views as LangSplat's ``preprocess.py`` does.

    Raises:
        InputError: the run has no features.
    """
    opened = Run.open(run)
    opened.require("features")
    store = FeatureStore(opened.features_path)
    cameras, held_out = load_cameras(opened.cameras_path)
    names = [camera.name for camera in cameras if camera.name not in set(held_out)]
    if not any(store.has(name) for name in names):
        raise InputError(f"{run} has no features of its views; run: dictsplat train --out {run} --resume")
    for done, name in enumerate(names):
        report(done, len(names), f"writing features of {name}")
        write_view(out, name, store.read(name))
    report(len(names), len(names), f"features of {store.encoder} for {len(names)} views in {out}")
