"""The tests of the native CPU code, on modules built with AddressSanitizer and UndefinedBehaviorSanitizer.

    python tests/sanitized.py [PYTEST OPTIONS]

Builds into ``build/sanitize`` and leaves the installed modules as they are. The tests run twice where the processor has
AVX-512: with it and without. As a plugin of pytest (``-p sanitized``) this file puts the built modules in the place of
the installed ones. Processes that tests start have the installed ones.
"""

import importlib
import importlib.abc
import importlib.util
import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "sanitize"
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
MODULES = {"splat._native": BUILD / f"_native{SUFFIX}", "dictas._native": BUILD / "dictas" / f"_native{SUFFIX}"}
TESTS = ("test_rasterize.py", "test_ops.py", "test_photometric.py", "test_lookup.py", "fuzz/test_native_scenes.py")
OPTIONS = {
    # Python keeps what it has until its end; torch frees with one allocator what another gave.
    "ASAN_OPTIONS": "detect_leaks=0:alloc_dealloc_mismatch=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "DICTSPLAT_EXAMPLES": "300",
}


class _Sanitized(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        place = MODULES.get(fullname)
        return None if place is None else importlib.util.spec_from_file_location(fullname, place)


def pytest_sessionstart() -> None:
    """Nothing would be found in the installed modules, or in kernels that are not the ones asked for."""
    forced = os.environ.get("DICTSPLAT_ISA")
    for name, place in MODULES.items():
        module = importlib.import_module(name)
        if module.__file__ != str(place) or forced not in (None, module.isa()):
            pytest.exit(f"{name} is {module.__file__} with {module.isa()} kernels", returncode=1)


def build() -> None:
    """Compile what has changed since the last time."""
    settings = (f"build-dir={BUILD}", "cmake.build-type=RelWithDebInfo")
    settings += ("cmake.define.DICTSPLAT_SANITIZE=ON", "cmake.define.DICTSPLAT_CUDA=OFF")
    command = [sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "--quiet", "--no-deps", str(ROOT)]
    command += ["--wheel-dir", str(BUILD / "wheel"), *(part for one in settings for part in ("-C", one))]
    subprocess.run(command, check=True)


def main() -> int:
    """Build, then run the tests on the kernels of this processor and on those of any; 0 if all is well."""
    from splat import _native

    build()
    others = [] if _native.isa() == "baseline" else [{"DICTSPLAT_ISA": "baseline"}]
    return max(_test(environment) for environment in [{}, *others])


def _test(kernels: dict[str, str]) -> int:
    compiler = os.environ.get("CXX", "g++")
    # libstdc++ comes second, so that libasan finds the function that throws.
    libraries = []
    for name in ("libasan.so", "libstdc++.so"):
        asked = subprocess.run([compiler, f"-print-file-name={name}"], check=True, capture_output=True, text=True)
        libraries.append(asked.stdout.strip())
    environment = (
        os.environ | OPTIONS | kernels | {"LD_PRELOAD": ":".join(libraries), "PYTHONPATH": str(ROOT / "tests")}
    )
    tests = [str(ROOT / "tests" / name) for name in TESTS]
    # What a sanitizer says goes to stderr from native code, which pytest would otherwise keep to itself.
    command = [sys.executable, "-m", "pytest", "-p", "sanitized", "-p", "no:cacheprovider", "--capture=sys"]
    command += ["-k", "not launches and not on_a_gpu", *tests, *sys.argv[1:]]  # those are about the emulator's code
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

sys.meta_path.insert(0, _Sanitized())
