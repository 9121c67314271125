"""What a person without a compiler gets: the wheel, made from the sdist, in an environment of its own."""

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

pytestmark = [pytest.mark.soak, pytest.mark.slow]


@dataclass(frozen=True)
class Installed:
    """An environment with nothing but the wheel and what it asks for; commands run outside the repository."""

    programs: Path
    elsewhere: Path

    def run(self, program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment where no compiler, no cache and no source of ours is to be found."""
        kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "OMP_", "LANG"))}
        started = time.perf_counter()
        done = subprocess.run(
            [self.programs / program, *map(str, arguments)],
            cwd=self.elsewhere,
            env=kept
            | {"PATH": str(self.programs), "CC": "/bin/false", "CXX": "/bin/false", "HOME": str(self.elsewhere)},
            capture_output=True,
            text=True,
        )
        print(f"{program} {' '.join(map(str, arguments))[:60]}: {time.perf_counter() - started:.1f} s")
        assert done.returncode == 0, done.stdout + done.stderr
        return done


def pip(*arguments: object) -> None:
    """Run this environment's pip."""
    subprocess.run([sys.executable, "-m", "pip", *map(str, arguments)], check=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that pip builds from the sdist, by itself."""
    folder = tmp_path_factory.mktemp("built")
    build = f"import scikit_build_core.build as backend; print(backend.build_sdist({str(folder)!r}))"
    subprocess.run([sys.executable, "-c", build], cwd=REPOSITORY, check=True)
    (sdist,) = folder.glob("*.tar.gz")
    started = time.perf_counter()
    pip("wheel", "--quiet", "--no-deps", "--no-cache-dir", "--wheel-dir", folder, sdist)
    (built,) = folder.glob("*.whl")
    print(f"{built.name}: {built.stat().st_size / 2**20:.1f} MiB in {time.perf_counter() - started:.0f} s")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    folder = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    (folder / "elsewhere").mkdir()
    environment = Installed(folder / "venv" / "bin", folder / "elsewhere")
    environment.run("python", "-m", "pip", "install", "--quiet", "--no-cache-dir", wheel)
    yield environment
    shutil.rmtree(folder / "venv")  # gigabytes, which pytest would keep for the next three times


def test_the_wheel_has_its_native_code_and_says_so(wheel: Path) -> None:
    compiled = {name.partition(".")[0] for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")}
    assert compiled - {"splat/_cuda"} == {"splat/_native", "dictas/_native"}
    assert f"-cp{sys.version_info.major}{sys.version_info.minor}-" in wheel.name
    assert not wheel.name.endswith("-any.whl")


def test_there_is_no_compiler_to_be_found(installed: Installed) -> None:
    found = "import shutil; print([n for n in ('cc', 'gcc', 'g++', 'c++', 'clang', 'nvcc') if shutil.which(n)])"
    assert installed.run("python", "-c", found).stdout.strip() == "[]"


def test_it_is_the_wheel_that_runs(installed: Installed) -> None:
    where = "import app, splat, dictas, encoders; print(*{m.__path__[0] for m in (app, splat, dictas, encoders)})"
    for folder in installed.run("python", "-c", where).stdout.split():
        assert Path(folder).is_relative_to(installed.programs.parent)
    assert installed.run("dictsplat", "--version").stdout.startswith("dictsplat ")


def test_openmp_is_the_one_of_torch(installed: Installed) -> None:
    # Machines without a compiler often lack the system's; and two of them would each start a thread per core.
    mapped = "import splat.ops, dictas.lookup; print(open('/proc/self/maps').read())"
    lines = installed.run("python", "-c", mapped).stdout.splitlines()
    openmp = {line.split()[-1] for line in lines if line.endswith("/libgomp.so.1")}
    assert len(openmp) == 1
    assert all("/torch/lib/" in path for path in openmp)


def test_type_checkers_see_its_types(installed: Installed, tmp_path: Path) -> None:
    uses = tmp_path / "uses.py"
    uses.write_text(
        "import dictas.checkpoint, encoders, splat.trained\n"
        "reveal_type(encoders.create('embedded'))\n"
        "reveal_type(splat.trained.Trained.load)\n"
        "reveal_type(dictas.checkpoint.load_detector)\n"
    )
    interpreter = ["--python-executable", installed.programs / "python"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *interpreter, uses], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert 'note: Revealed type is "encoders.base.Encoder"' in done.stdout
    assert "Any" not in done.stdout


def test_the_demo_and_a_query(installed: Installed) -> None:
    print(installed.run("dictsplat", "doctor").stdout)
    installed.run("dictsplat", "demo")
    run = installed.elsewhere / "out" / "demo"
    metrics = json.loads((run / "metrics.json").read_text())
    print({name: metrics[name] for name in ("psnr", "miou", "localization_accuracy", "seconds", "peak_rss_mb")})
    assert metrics["psnr"] > 25
    assert metrics["localization_accuracy"] >= 0.85
    assert (run / "report.html").stat().st_size > 100_000

    answer = installed.run("dictsplat", "query", run, "cat", "--out", "cat", "--json")
    assert json.loads(answer.stdout)
    assert (installed.elsewhere / "cat" / "overlay.png").is_file()
