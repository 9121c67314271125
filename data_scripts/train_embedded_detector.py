"""Train the detector that comes with dictsplat for its embedded encoder.

    python data_scripts/train_embedded_detector.py --out out/detector [--install]

It is `dictsplat anomaly train --out OUT` and nothing more. Nothing is downloaded, and no inspection data set is seen:
the training images are drawn by `dictas.procedural`, and so are the textures of their defects. Some of its classes
are cut from photos that two libraries ship: scikit-image's (CC0 or public domain) and scikit-learn's china.jpg and
flower.jpg (CC BY 2.0, by danielbuechele and vultilion). Run it again to continue after a stop.
"""

import argparse
import shutil
import sys
from pathlib import Path

from app.exits import guarded

WEIGHTS = Path(__file__).parents[1] / "dictas/weights/embedded.safetensors"


def main(arguments: list[str] | None = None) -> int:
    """Train with the options given and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for detector.safetensors")
    parser.add_argument("--steps", type=int, help="optimisation steps; default: those of the preset")
    parser.add_argument("--workers", type=int, help="processes that make images; default: half the cores, at most 4")
    parser.add_argument(
        "--install", action="store_true", help=f"then replace {WEIGHTS.relative_to(WEIGHTS.parents[2])}"
    )
    parser.add_argument("--debug", action="store_true", help="show where a fault happened")
    options = parser.parse_args(arguments)
    return guarded(lambda: train(options.out, options.steps, options.workers, options.install), options.debug)


def train(out: Path, steps: int | None, workers: int | None, install: bool) -> None:
    """Train into ``out`` and, with ``install``, put the result where the program looks for it."""
    from app.anomaly_train import train as anomaly_train
    from encoders.files import atomic_path

    anomaly_train(out, encoder="embedded", preset="default", steps=steps, workers=workers, seed=0)
    if install:
        with atomic_path(WEIGHTS) as temporary:
            shutil.copyfile(out / "detector.safetensors", temporary)
        print(f"{WEIGHTS} is now this detector.")


if __name__ == "__main__":
    sys.exit(main())
