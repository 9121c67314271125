"""What `make soak` tries for minutes; `make test` has a small part of each."""

import random
from pathlib import Path

import mortal
import numpy as np
import pytest
from test_faults_kills import killed
from test_hostile_files import CAP_MIB, read_changed_files

from splat.scene import load_scene
from splat.scene.points import triangulate

pytestmark = pytest.mark.soak

CASES = 9000
"""Per family of formats; more than 100,000 together."""


@pytest.mark.parametrize("command", sorted(mortal.COMMANDS))
def test_killed_thirty_times_it_ends_the_same(command: str, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**31)  # what fails names it
    assert killed(command, tmp_path, kills=30, seed=seed)["killed"] == 30


@pytest.mark.parametrize("command", sorted(mortal.COMMANDS))
def test_killed_at_thirty_random_times_it_ends_the_same(command: str, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**31)
    found = killed(command, tmp_path, 30, seed, "--timed")
    print(command, seed, found)
    assert found["killed"] == 30


def test_a_hundred_thousand_changed_files_are_read_or_refused() -> None:
    outcomes = read_changed_files(CASES, seed=random.SystemRandom().randrange(2**31))
    for one in outcomes:
        print(vars(one))
    assert sum(one.cases for one in outcomes) > 100_000
    assert all(one.peak_mib < CAP_MIB for one in outcomes)


def test_points_to_start_from_are_the_same_every_time(tiny_scene: Path) -> None:
    """A training that is killed before it has noted them finds them again."""
    scene = load_scene(tiny_scene, with_points=False)
    first = triangulate(scene.cameras, scene.image)
    for _ in range(300):
        for kept, found in zip(first, triangulate(scene.cameras, scene.image), strict=True):
            np.testing.assert_array_equal(found, kept)
