"""The tests of the CUDA kernels notice each broken kernel. `python tests/mutations.py` shows what they say."""

from pathlib import Path

import mutations
import pytest
from gpu_mutations import MUTATIONS, Mutation

pytestmark = pytest.mark.slow  # all together: two minutes, most of them g++'s

FILE = "lift.cu"
START = "const int layers ="  # of host code


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.breaks)
def test_a_broken_kernel_fails_its_tests(mutation: Mutation) -> None:
    outcome = mutations.outcome_of(mutation)
    assert outcome.caught, outcome


def test_sound_kernels_pass() -> None:
    outcome = mutations.outcome_of(None)
    assert outcome.status == pytest.ExitCode.OK, outcome


def test_a_mutation_that_no_longer_fits_the_kernels_is_an_error() -> None:
    for old, found in (("there is no such text", 0), ("float", r"\d\d+")):
        with pytest.raises(ValueError, match=rf"occurs {found} times in {FILE}"):
            mutations.outcome_of(Mutation("", FILE, old, "double"))


def test_what_does_not_compile_is_not_caught_by_a_test() -> None:
    with pytest.raises(RuntimeError, match="error: "):
        mutations.outcome_of(Mutation("", FILE, START, "const int = layers"))


def test_a_module_that_cannot_be_loaded_is_not_caught_by_a_test(tmp_path: Path) -> None:
    outcome = mutations.run_tests(tmp_path / "missing.so")
    assert outcome.status == pytest.ExitCode.TESTS_FAILED
    assert not outcome.caught


def test_a_run_that_dies_is_not_caught_by_a_test() -> None:
    with pytest.raises(RuntimeError, match="the tests have died, with exit code -"):
        mutations.outcome_of(Mutation("", FILE, START, f"__builtin_trap(); {START}", first="test_lift"))
