"""Killed at any moment, trainings and a prediction go on and end as if nothing had been."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mortal
import pytest


def killed(command: str, folder: Path, kills: int, seed: int, *options: str) -> dict[str, Any]:
    arguments = [command, str(folder), "--kills", str(kills), "--seed", str(seed), *options]
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
    assert found["changes"] > 50


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(mortal.COMMANDS))
def test_killed_at_four_random_times_it_ends_the_same(command: str, tmp_path: Path) -> None:
    found = killed(command, tmp_path, 4, 11, "--timed")
    assert found["killed"] == 4
    assert found["finished"] >= 1
