"""Files that a bad disk or a bad person made are read, or refused in one sentence; in the soak, very many of them."""

import errno
import json
import re
import subprocess
import sys
from pathlib import Path

import hostile_files
import numpy as np
import pytest
from hostile_seeds import FAMILIES, Family, Seed

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
        for promises in ((1 << 40).to_bytes(8, "little") + content[8:], content[:7], b""):
            path.write_bytes(promises)
            with pytest.raises(InputError, match=f"{path.name} ends too early"):
                read(path)
        path.write_bytes(content)


@pytest.mark.parametrize("name", ["some.compressed.ply", "points.ply", "points_text.ply"])
def test_plys_that_promise_more_than_they_hold_are_refused_at_once(tmp_path: Path, name: str) -> None:
    (family,) = (one for one in FAMILIES if one.name == "ply")
    (good,) = (seed for seed in family.make(tmp_path) if seed.path.name == name)
    good.read(good.path)
    content = good.path.read_bytes()
    elements = re.findall(rb"element (\w+) \d+", content)
    assert len(elements) >= 2
    for element in elements:
        for count in (b"1000000", b"38654705664"):
            good.path.write_bytes(
                re.sub(b"element " + element + rb" \d+", b"element " + element + b" " + count, content)
            )
            with pytest.raises(InputError, match="its header promises more than it holds"):
                good.read(good.path)


def test_a_case_that_ran_out_of_memory_fails_whatever_the_reader_says(tmp_path: Path) -> None:
    def greedy(path: Path) -> None:
        try:
            if path.read_bytes() != b"whole":
                np.zeros(1 << 31)
        except MemoryError:
            raise InputError(f"{path.name} cannot be read; replace it.") from None

    def make(folder: Path) -> list[Seed]:
        (folder / "a").write_bytes(b"whole")
        return [Seed(folder / "a", greedy)]

    # The shapes of what a reader may catch.
    for error in (MemoryError(), RuntimeError("[enforce fail] can't allocate memory"), OSError(errno.ENOMEM, "")):
        assert hostile_files.ran_out(error)
    assert not hostile_files.ran_out(ValueError("no memory of that"))
    assert not hostile_files.in_a_process(Family("greedy", make), 20, 0)
    assert hostile_files.in_a_process(Family("greedy", make, memory_mib=1 << 16), 1, 0)


def test_an_outline_far_outside_of_its_picture_is_refused(tmp_path: Path) -> None:
    outline = {"label": "cup", "points": [[0, 0], [5, 1e9], [9, 0]]}
    write_json(tmp_path / "a.json", {"imageWidth": 32, "imageHeight": 24, "shapes": [outline]})
    with pytest.raises(InputError, match="less than or equal to 1000000"):
        read_view_labels(tmp_path / "a.json")
