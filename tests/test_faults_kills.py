"""Killed at any moment, a training and a prediction go on and end as if nothing had been."""

import json
import subprocess
import sys
from pathlib import Path

import mortal
import pytest


def killed(command: str, folder: Path, kills: int, seed: int) -> dict[str, int]:
    arguments = [command, str(folder), "--kills", str(kills), "--seed", str(seed)]
    done = subprocess.run(
        [sys.executable, mortal.__file__, *arguments], capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(mortal.COMMANDS))
def test_killed_four_times_it_ends_the_same(command: str, tmp_path: Path) -> None:
    found = killed(command, tmp_path, kills=4, seed=7)
    assert found["killed"] == 4
    assert found["finished"] >= 1
    assert found["changes"] > 100
