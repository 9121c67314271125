"""gsplat's compilation, by a compiler that is not there: how often it runs, and what is said when it fails."""

import builtins
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from splat import gsplat_build
from splat.gsplat_build import gsplat_obstacle

COMPLAINT = """Error building extension 'gsplat_cuda': [1/15] nvcc -O3 -c a.cu -o a.o
FAILED: a.o
/usr/include/x.h(12): error: #error -- unsupported GNU version!
ninja: build stopped: subcommand failed."""


class Compiler:
    """Counts what it was asked for, and fails with a complaint if it has one."""

    def __init__(self, complaint: str = "") -> None:
        self.complaint = complaint
        self.runs = 0
        self.together = self.most = 0

    def __call__(self) -> SimpleNamespace:
        self.runs += 1
        self.together += 1
        self.most = max(self.most, self.together)
        time.sleep(0.1)
        self.together -= 1
        if self.complaint:
            raise RuntimeError(self.complaint)
        return SimpleNamespace(_C=object())


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Compiler], None]:
    """Makes a compiler the one that importing gsplat's backend starts."""
    real = builtins.__import__
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(gsplat_build, "gsplat_cuda", lambda: "compiled at first use")

    def put(compiler: Compiler) -> None:
        def importing(name: str, *arguments: object) -> object:
            return compiler() if name == "gsplat.cuda._backend" else real(name, *arguments)

        monkeypatch.setattr(builtins, "__import__", importing)

    return put


def test_a_failed_compilation_is_not_repeated_until_asked_for(
    install: Callable[[Compiler], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = Compiler(COMPLAINT)
    install(compiler)
    said = [gsplat_obstacle(retry=False) for _ in range(3)]
    assert compiler.runs == 1
    assert len(set(said)) == 1
    assert "(/usr/include/x.h(12): error: #error -- unsupported GNU version!)" in said[0]
    assert "--device cuda compiles it again" in said[0]
    assert gsplat_obstacle(retry=True) == said[0]
    assert compiler.runs == 2
    # Another torch may do better.
    with monkeypatch.context() as other:
        other.setattr("torch.__version__", "99.0")
        gsplat_obstacle(retry=False)
    assert compiler.runs == 3
    compiler.complaint = ""
    assert gsplat_obstacle(retry=False) == said[0]
    assert gsplat_obstacle(retry=True) == gsplat_obstacle(retry=False) == ""
    assert compiler.runs == 5


def test_what_was_compiled_by_hand_since_is_taken(
    install: Callable[[Compiler], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(Compiler(COMPLAINT))
    assert gsplat_obstacle(retry=False)
    install(Compiler())
    monkeypatch.setattr(gsplat_build, "gsplat_cuda", lambda: "built")
    assert not gsplat_obstacle(retry=False)


def test_one_compiles_and_the_others_wait(
    install: Callable[[Compiler], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gsplat_build, "PATIENCE", 0.02)
    compiler = Compiler()
    install(compiler)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(gsplat_obstacle(retry=False))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [""] * 3
    assert (compiler.runs, compiler.most) == (3, 1)
    assert "Waiting for another process that compiles" in caplog.text


def test_a_home_that_cannot_be_written_to_only_costs_time(
    install: Callable[[Compiler], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    compiler = Compiler(COMPLAINT)
    install(compiler)
    assert gsplat_obstacle(retry=False) == gsplat_obstacle(retry=False) != ""
    assert compiler.runs == 2


def test_no_toolkit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gsplat_build, "gsplat_cuda", lambda: "")
    assert "put nvcc on PATH" in gsplat_obstacle(retry=True)
