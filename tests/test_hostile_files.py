"""Files that a bad disk or a bad person made are read, or refused in one sentence; in the soak, very many of them."""

import json
import subprocess
import sys

import hostile_files
import pytest
from hostile_seeds import FAMILIES

CAP_MIB = 2048
"""Resident memory that no family may need; most are capped at half of it, see `hostile_seeds.FAMILIES`."""


def read_changed_files(cases: int, seed: int) -> list[hostile_files.Outcome]:
    command = [sys.executable, hostile_files.__file__, "--cases", str(cases), "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [hostile_files.Outcome(**json.loads(line)) for line in done.stdout.splitlines()]


def test_changed_files_are_read_or_refused_in_a_sentence() -> None:
    outcomes = read_changed_files(cases=40, seed=0)
    assert [one.family for one in outcomes] == [family.name for family in FAMILIES]
    assert all(one.cases >= 40 and one.peak_mib < CAP_MIB for one in outcomes)
    # The changes are neither so gentle that all pass, nor so rough that none gets beyond the first check.
    assert 0 < sum(one.accepted for one in outcomes) < 0.8 * sum(one.cases for one in outcomes)


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"frames":' * 100_000])
def test_json_that_nests_without_end_is_no_json(content: bytes) -> None:
    from encoders.files import parse_json

    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(content)
