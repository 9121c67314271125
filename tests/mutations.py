"""Do the tests of the CUDA kernels notice a broken kernel? `python tests/mutations.py` breaks them in turn and tells.

Every mutation of `gpu_mutations.py` is applied to a copy of `cuda/`, which is compiled for the block emulator; then
tests/test_gpu_kernels.py runs on that module until its first failure. Each run is a process of its own, forked from one
that has imported everything, so that a broken kernel can do what it likes.
"""

import contextlib
import gc
import io
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import emulated
import pytest
from gpu_mutations import MUTATIONS, Mutation

TESTS = Path(__file__).resolve().parent
EXAMPLES = 20
"""Cases that each test may try, a quarter of those it tries by itself: what is noticed is not noticed by luck."""
LIMIT = 120
"""Seconds of processor time that a run may take; on sound kernels it takes about ten."""

_PRELOADED = ("app", "splat.scene.demo", "splat._native", "splat_lists", "emulated", "hypothesis")


@dataclass(frozen=True)
class Outcome:
    """How a run of the tests ended: pytest's exit status, the first test that failed, and the line it failed with."""

    status: int
    test: str = ""
    words: str = ""
    seconds: float = 0.0
    """Processor time of the run."""

    @property
    def caught(self) -> bool:
        """A test has failed, as opposed to something around the tests."""
        return self.status == pytest.ExitCode.TESTS_FAILED and bool(self.test)


class _FirstFailure:
    """Lets pytest run the test named ``first`` before the others, and remembers the first failure."""

    def __init__(self, first: str) -> None:
        self.first = first
        self.test = self.words = ""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: not item.name.startswith(self.first))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and report.when == "call" and not self.test:
            self.test = report.nodeid.partition("::")[2]
            crash = getattr(report.longrepr, "reprcrash", None)
            self.words = (crash.message if crash is not None else report.longreprtext).partition("\n")[0]


def _run_tests(module: Path, first: str, answer: Connection) -> None:
    from hypothesis import Phase, settings

    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
    gc.freeze()  # pytest collects garbage with care; there is none in what was imported
    os.environ |= {"DICTSPLAT_EMULATED": str(module), "DICTSPLAT_EXAMPLES": str(EXAMPLES)}
    settings.register_profile("mutation", phases=[Phase.generate])  # any failing example will do
    settings.load_profile("mutation")
    failure = _FirstFailure(first)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = pytest.main(
            ["-x", "-q", "-p", "no:cacheprovider", "--disable-plugin-autoload", str(TESTS / "test_gpu_kernels.py")],
            plugins=[failure],
        )
    answer.send(Outcome(int(status), failure.test, failure.words or printed.getvalue()[-2000:], time.process_time()))


def run_tests(module: Path, first: str = "") -> Outcome:
    """Runs tests/test_gpu_kernels.py with that module, the test named ``first`` first, until a test fails.

    Raises RuntimeError if the run dies, or hangs and is killed: the emulator should have told why.
    """
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # what the process to fork from goes by
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run_tests, args=(module, first, theirs))
    process.start()
    theirs.close()
    try:
        if not ours.poll(10 * LIMIT):
            raise RuntimeError(f"the tests have not ended within {10 * LIMIT} s")
        return ours.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"the tests have died, with exit code {process.exitcode}") from None
    finally:
        process.kill()
        process.join()


def apply(mutation: Mutation, cuda_dir: Path) -> None:
    """Raises ValueError if the text to replace is not there exactly once."""
    path = cuda_dir / "gpu" / mutation.file
    text = path.read_text()
    found = text.count(mutation.old)
    if found != 1:
        raise ValueError(f"{mutation.old!r} occurs {found} times in {mutation.file}: adapt the mutation to the kernels")
    path.write_text(text.replace(mutation.old, mutation.new))


@contextlib.contextmanager
def _copy_of_the_kernels() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield shutil.copytree(emulated.CUDA, Path(folder) / "cuda")


def outcome_of(mutation: Mutation | None) -> Outcome:
    """Of the tests on kernels broken by that mutation; on sound ones with None."""
    with _copy_of_the_kernels() as cuda_dir:
        if mutation is not None:
            apply(mutation, cuda_dir)
        # Compiled quickly: most runs end with their first example.
        module = emulated.build(cuda_dir, optimise="-O0")
    return run_tests(module, "" if mutation is None else mutation.first)


def main() -> int:
    """Prints what noticed each mutation, as a table in Markdown."""
    missed, seconds = 0, 0.0
    print("| file | what was broken | noticed by | with the words |\n| --- | --- | --- | --- |")
    for mutation in MUTATIONS:
        outcome = outcome_of(mutation)
        missed += not outcome.caught
        seconds += outcome.seconds
        noticed = outcome.test if outcome.caught else "**nothing**"
        words = outcome.words.replace("|", "\\|").replace("\n", " ")
        print(f"| {mutation.file} | {mutation.breaks} | {noticed} | {words} |", flush=True)
    sound = outcome_of(None)
    compiling = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"\n{len(MUTATIONS) - missed} of {len(MUTATIONS)} noticed; sound kernels "
        f"{'pass' if sound.status == pytest.ExitCode.OK else 'fail: ' + sound.words}. Processor time: "
        f"{compiling.ru_utime + compiling.ru_stime:.0f} s to compile, {seconds + sound.seconds:.0f} s to test."
    )
    return int(missed > 0 or sound.status != pytest.ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())
