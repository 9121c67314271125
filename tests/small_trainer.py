"""`dictsplat` as the app starts it for a training, made small by `driver`: few steps, colours for words.

    python tests/small_trainer.py train|demo ... --out RUN ...

While there is a file ``RUN/slow`` every report takes longer, so that a test can meet the training at work; its process
is in ``RUN/process``.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import driver
import torch

from splat.scene.demo import write_demo_scene

STEP_SECONDS = 0.3


def main() -> None:
    """Run the command line given in the arguments."""
    from app import demo
    from app.cli import main as dictsplat
    from app.progress import StageProgress

    torch.set_num_threads(1)
    driver.install()
    full = demo.TrainConfig

    def thumbnails(folder: Path, report: Any) -> Path:
        return write_demo_scene(folder, report, width=96, height=72, train_views=8, test_views=2, samples=1)

    demo.write_demo_scene = thumbnails
    demo.TrainConfig = lambda scene, **options: full(scene, encoder="colour", **options)
    arguments = sys.argv[1:]
    if arguments[0] == "train":
        arguments += ["--encoder", "colour"]
    out = Path(arguments[arguments.index("--out") + 1])
    (out / "process").write_text(str(os.getpid()))
    inner = StageProgress.__call__

    def slow(self: StageProgress, stage: str) -> Any:
        report = inner(self, stage)

        def later(done: int, total: int, message: str) -> None:
            report(done, total, message)
            if (out / "slow").exists():
                time.sleep(STEP_SECONDS)

        return later

    StageProgress.__call__ = slow
    dictsplat(arguments)


if __name__ == "__main__":
    main()
