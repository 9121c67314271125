"""Processes that read photos or make images end with the process that they work for, however that ends."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from inspection import save, texture

READING = """
import sys
from pathlib import Path
from dictas.images import find_images, load
photos = find_images(Path(sys.argv[1]))
loaded = load(photos, None, workers=1)
next(loaded)
print("reads", flush=True)
sys.stdin.read()
"""
DRAWING = """
import sys
import fitting
from dictas.episodes import EpisodeConfig, Episodes, stream
made = stream(Episodes(fitting.material(), EpisodeConfig(side=128, shots=2, queries=2), 0), range(1000), workers=1)
next(made)
print("reads", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("program", [READING, DRAWING])
def test_a_worker_with_a_full_pipe_ends_when_its_parent_is_killed(tmp_path: Path, program: str) -> None:
    for number in range(30):
        save(tmp_path / f"{number}.png", texture(number, 200, 300))  # more than a pipe holds
    places = ":".join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": places, "OMP_NUM_THREADS": "1"},
    ) as parent:  # fmt: skip
        assert parent.stdout is not None
        assert parent.stdout.readline() == "reads\n"
        workers = psutil.Process(parent.pid).children(recursive=True)
        assert workers
        time.sleep(1.0)  # the pipe fills
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        # Torch itself looks every five seconds.
        _, alive = psutil.wait_procs(workers, timeout=20)
        for worker in alive:
            worker.kill()
        assert not alive
