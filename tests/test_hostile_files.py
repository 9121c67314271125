"""Files that a bad disk or a bad person made are read, or refused in one sentence; in the soak, very many of them."""

import json
import subprocess
import sys
from pathlib import Path

import hostile_files
import pytest
from hostile_seeds import FAMILIES

from encoders.errors import InputError
from encoders.files import parse_json, write_json
from splat.lerf_labels import read_view_labels

CAP_MIB = 2048
"""Resident memory that no family may need; most are capped at half of it, see `hostile_seeds.FAMILIES`."""


def read_changed_files(cases: int, seed: int) -> list[hostile_files.Outcome]:
    command = [sys.executable, hostile_files.__file__, "--cases", str(cases), "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [hostile_files.Outcome(**json.loads(line)) for line in done.stdout.splitlines()]


def test_changed_files_are_read_or_refused_in_a_sentence() -> None:
    outcomes = read_changed_files(cases=30, seed=0)
    assert [one.family for one in outcomes] == [family.name for family in FAMILIES]
    assert all(one.cases >= 30 and one.peak_mib < CAP_MIB for one in outcomes)
    # The changes are neither so gentle that all pass, nor so rough that none gets beyond the first check.
    assert 0 < sum(one.accepted for one in outcomes) < 0.8 * sum(one.cases for one in outcomes)


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"frames":' * 100_000])
def test_json_that_nests_without_end_is_no_json(content: bytes) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(content)


def test_colmap_files_that_promise_more_than_they_hold_are_refused_at_once(tmp_path: Path) -> None:
    (family,) = (one for one in FAMILIES if one.name == "colmap")
    models = {seed.path: seed.read for seed in family.make(tmp_path)}
    binary = {path: read for path, read in models.items() if path.suffix == ".bin"}
    assert {path.stem for path in binary} == {"cameras", "frames", "images", "points3D", "rigs"}
    for path, read in binary.items():
        read(path)
        content = path.read_bytes()
        path.write_bytes((1 << 40).to_bytes(8, "little") + content[8:])
        with pytest.raises(InputError, match=f"{path.name} ends too early"):
            read(path)
        path.write_bytes(content)


def test_an_outline_far_outside_of_its_picture_is_refused(tmp_path: Path) -> None:
    outline = {"label": "cup", "points": [[0, 0], [5, 1e9], [9, 0]]}
    write_json(tmp_path / "a.json", {"imageWidth": 32, "imageHeight": 24, "shapes": [outline]})
    with pytest.raises(InputError, match="less than or equal to 1000000"):
        read_view_labels(tmp_path / "a.json")
