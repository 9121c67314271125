"""CUDA kernels without a GPU: compiled by g++ for the block emulator of cuda/emulator, and tensors with fences.

`build` makes the same Python module from `cuda/gpu` that nvcc makes, for CPU tensors; `build_library` a plain shared
library from single files of kernels. Compiled files are kept in `build/emulator`, named by what went into them, so that
only what changed is compiled again, and by one process when several ask at once.
"""

import ctypes
import hashlib
import importlib.util
import math
import mmap
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from types import ModuleType

import nanobind  # type: ignore[import-untyped]
import pytest
import torch
from filelock import FileLock
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
CUDA = ROOT / "cuda"
CACHE = ROOT / "build" / "emulator"

_COMMON = ("-std=c++17", "-fPIC", "-fvisibility=hidden", "-fno-gnu-unique", "-DDS_EMULATOR", "-Wall", "-Wextra")
# Besides what the emulator itself sees: misaligned vectors, and indices outside local arrays, which a CPU tolerates.
# Every page of a large stack frame is touched in turn, so that none steps over the guard page.
_KERNEL = (
    *("-Wno-unknown-pragmas", "-fstack-clash-protection", "-fsanitize-undefined-trap-on-error"),
    "-fsanitize=alignment,bounds,integer-divide-by-zero",
)


@dataclass(frozen=True)
class _Unit:
    """A source file, how it is compiled, and every other file that may change the result."""

    source: Path
    flags: tuple[str, ...]
    includes: tuple[Path, ...]
    headers: tuple[Path, ...]


def _compiler() -> str:
    """g++ or what CXX names; skips the test where there is none."""
    found = shutil.which(os.environ.get("CXX", "g++"))
    if found is None:
        pytest.skip("the kernel emulator needs g++")
    return found


def _digest(parts: Iterable[bytes]) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little") + part)
    return total.hexdigest()[:24]


def _headers(*folders: Path) -> tuple[Path, ...]:
    return tuple(p for folder in folders for p in sorted(folder.rglob("*")) if p.suffix in {".h", ".cuh", ".inl"})


def _run(command: list[str], output: Path) -> None:
    """Runs a compiler that writes `output`, which appears only when it is complete."""
    partial = output.with_suffix(".partial")
    done = subprocess.run([*command, "-o", str(partial)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    partial.replace(output)


def _object(unit: _Unit, compiler: str, version: bytes) -> Path:
    contents = [path.read_bytes() for path in (unit.source, *unit.headers)]
    output = CACHE / f"{unit.source.stem}-{_digest([version, ' '.join(unit.flags).encode(), *contents])}.o"
    if not output.exists():
        includes = [f"-I{folder}" for folder in unit.includes]
        _run([compiler, *unit.flags, *includes, "-x", "c++", "-c", str(unit.source)], output)
    return output


def _shared_object(name: str, units: list[_Unit]) -> Path:
    compiler = _compiler()
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True).stdout
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / "lock"):
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(lambda unit: _object(unit, compiler, version), units))
        folder = CACHE / _digest(path.name.encode() for path in objects)
        output = folder / name
        if not output.exists():
            folder.mkdir(exist_ok=True)
            _run([compiler, "-shared", "-Wl,-Bsymbolic", *map(str, objects), "-ldl", "-pthread"], output)
    return output


def _emulator(cuda_dir: Path) -> list[_Unit]:
    folder = cuda_dir / "emulator"
    return [_Unit(s, (*_COMMON, "-O2"), (folder,), _headers(folder)) for s in sorted(folder.glob("*.cpp"))]


def build(cuda_dir: Path = CUDA, optimise: str = "-O2") -> Path:
    """The module `_cuda` from `cuda_dir/gpu/*.cu` and `cuda_dir/gpu_bindings.cpp`, for CPU tensors; see `load`.

    ``optimise`` is for the kernels: `-O0` compiles in half the time, and runs at half the speed.
    Raises RuntimeError with the compiler's words if something does not compile. Skips the test without g++.
    """
    folders = cuda_dir / "emulator", cuda_dir / "include", cuda_dir / "gpu"
    headers = _headers(*folders)
    kernel_flags = (*_COMMON, optimise, *_KERNEL)
    kernels = [_Unit(s, kernel_flags, folders, headers) for s in sorted((cuda_dir / "gpu").glob("*.cu"))]
    nanobind_root = Path(nanobind.include_dir()).parent
    nanobind_includes = (
        Path(nanobind.include_dir()),
        nanobind_root / "ext" / "robin_map" / "include",
        Path(sysconfig.get_path("include")),
    )
    # Like its own CMake functions; its templates pun types.
    versions = f"-DBUILT_FOR={nanobind.__version__}-{sys.implementation.cache_tag}"
    flags = (*_COMMON, "-O1", "-fno-strict-aliasing", "-DNDEBUG", versions)
    # Of the kernels only the declarations matter to the bindings.
    host_headers = tuple(path for path in headers if path.suffix == ".h")
    bindings = _Unit(cuda_dir / "gpu_bindings.cpp", flags, (cuda_dir, *folders, *nanobind_includes), host_headers)
    library = _Unit(nanobind_root / "src" / "nb_combined.cpp", (*flags, "-DNB_BUILD", "-w"), nanobind_includes, ())
    return _shared_object("_cuda.so", [library, bindings, *kernels, *_emulator(cuda_dir)])


def load(path: Path) -> ModuleType:
    """The module that `build` made. Modules of several paths live side by side."""
    loader = ExtensionFileLoader("_cuda", str(path))
    spec = importlib.util.spec_from_file_location("_cuda", path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def build_library(sources: Iterable[Path], cuda_dir: Path = CUDA) -> ctypes.CDLL:
    """A shared library of kernels and the `extern "C"` functions that launch them."""
    sources = list(sources)
    folders = cuda_dir / "emulator", cuda_dir / "include", cuda_dir / "gpu"
    headers = _headers(folders[0], *{source.parent for source in sources})
    kernels = [_Unit(source, (*_COMMON, "-O2", *_KERNEL), folders, headers) for source in sources]
    return ctypes.CDLL(str(_shared_object("kernels.so", [*kernels, *_emulator(cuda_dir)])))


def fenced_empty(*shape: int, dtype: torch.dtype = torch.float32, alignment: int = 16) -> Tensor:
    """A tensor that ends, less than `alignment` bytes early, where a page begins that must not be touched.

    Another such page lies before it. Every byte is 0xff: NaN, or -1.
    """
    count = math.prod(shape)
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    page, size = mmap.PAGESIZE, count * dtype.itemsize
    used = -(-size // page) * page
    memory = mmap.mmap(-1, used + 2 * page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[page : page + used] = b"\xff" * used
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for fence in (address, address + page + used):
        if protect(fence, page, 0) != 0:
            raise OSError(ctypes.get_errno(), "mprotect failed")
    start = page + (used - size) // alignment * alignment
    # The tensor holds on to `memory`, and with it to the fences.
    return torch.frombuffer(memory, dtype=dtype, count=count, offset=start).reshape(shape)


def fenced(tensor: Tensor, alignment: int = 16) -> Tensor:
    """A contiguous copy of a CPU tensor between fences: see `fenced_empty`."""
    return fenced_empty(*tensor.shape, dtype=tensor.dtype, alignment=alignment).copy_(tensor)
