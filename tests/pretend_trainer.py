"""Stands in for `dictsplat` where only the process of a training matters: told by its preset or name what to do.

    python tests/pretend_trainer.py train SCENE --out RUN --preset PRESET

Holds the run's lock and reports a step every tenth of a second until there is a file ``RUN/do`` with one line:
``exit STATUS SENTENCE``, ``deaf`` (go on, and ignore SIGTERM from now on) or ``kill SIGNAL``.
"""

import fcntl
import os
import signal
import sys
import time
from pathlib import Path

from app.exits import guarded
from app.progress_file import ProgressFile

STEPS = 1000


def main() -> None:
    """Run the command line given in the arguments."""
    out = Path(sys.argv[sys.argv.index("--out") + 1])
    lock = os.open(out / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    file = ProgressFile.from_environment()
    assert file is not None
    file.report("scene", 1, 1, "8 views to train on, 2 held out")
    begun = out / "steps"
    first = int(begun.read_text()) if begun.exists() else 0
    print(f"trains {' '.join(sys.argv[1:])} from step {first}")
    for step in range(first, STEPS):
        # Renamed into place: the process is killed at any moment, and tests read it.
        (out / "steps.new").write_text(str(step))
        (out / "steps.new").replace(begun)
        file.report("rgb", step + 1, STEPS, f"loss {1 / (step + 2):.4f}  PSNR {10 + step / 50:.1f} dB  2,000 Gaussians")
        order = (out / "do").read_text().split() if (out / "do").exists() else [""]
        if order[0] == "exit":
            print(" ".join(order[2:]), file=sys.stderr)
            sys.exit(int(order[1]))
        if order[0] == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            (out / "do").unlink()
            (out / "is-deaf").touch()
        if order[0] == "kill":
            os.kill(os.getpid(), int(order[1]))
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(guarded(main))
