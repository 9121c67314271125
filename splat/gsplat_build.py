"""gsplat's CUDA code, which gsplat compiles when it is first imported: where it is, and getting it once.

One process compiles and the others wait. A compiler that failed is remembered in the user's cache folder, so that not
every command spends minutes on failing again.
"""

import hashlib
import importlib.util
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from encoders.files import atomic_path

PATIENCE = 5.0
"""Seconds that another process may compile before this one says what it waits for."""

LONGEST_REASON = 300
"""Characters of a compiler's complaint that are kept."""

_log = logging.getLogger(__name__)


def gsplat_cuda() -> str:
    """Where gsplat's CUDA code is: "built", "compiled at first use", or "" if there is no toolkit to compile it with.

    Importing gsplat's backend would tell by compiling.
    """
    package = importlib.util.find_spec("gsplat")
    folders = [] if package is None else package.submodule_search_locations or []
    if any(list(Path(folder).glob("csrc*.so")) for folder in folders):
        return "built"
    try:
        from torch.utils import cpp_extension
    except ImportError:  # it needs setuptools
        return ""
    if not folders or cpp_extension.CUDA_HOME is None:
        return ""
    compiled = Path(cpp_extension._get_build_directory("gsplat_cuda", verbose=False)) / "gsplat_cuda.so"
    return "built" if compiled.is_file() else "compiled at first use"


def gsplat_obstacle(retry: bool) -> str:
    """Why gsplat's CUDA code cannot be used and what to do about it; "" if it can. May compile it, which takes minutes.

    Args:
        retry: compile again although it failed before with the same gsplat, torch and CUDA.
    """
    if not gsplat_cuda():
        return "gsplat finds no CUDA toolkit to compile its code with; put nvcc on PATH or set CUDA_HOME"
    failure = _folder() / f"gsplat-failed-{_versions()}.txt"
    with _alone(_folder() / "gsplat.lock"):
        # Looked for only now: another process may have compiled it, or failed to, meanwhile.
        reason = "" if retry or gsplat_cuda() == "built" else _read(failure)
        if not reason:
            reason = _import()
            _remember(failure, reason)
    if not reason:
        return ""
    return f"gsplat's CUDA code cannot be compiled ({reason}); mend that, and --device cuda compiles it again"


def _import() -> str:
    """Compile if need be, and load; what went wrong, if anything did."""
    try:
        from gsplat.cuda._backend import _C
    except Exception as error:  # whatever stops a compiler
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        # torch says first which command failed, which is long and not the reason.
        complaint = next((line for line in lines if re.search(r"\berror\b\s*:|\bfatal\b", line)), lines[0])
        return complaint[:LONGEST_REASON]
    return "" if _C is not None else "it has none for this system"


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dictsplat"


def _versions() -> str:
    """Differs where another compilation might go another way."""
    from torch.utils.cpp_extension import CUDA_HOME

    toolkit = Path(CUDA_HOME or "").resolve()
    parts = version("gsplat"), torch.__version__, str(torch.version.cuda), str(toolkit), _read(toolkit / "version.json")
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _remember(path: Path, reason: str) -> None:
    try:
        if not reason:
            path.unlink(missing_ok=True)
            return
        with atomic_path(path) as temporary:
            temporary.write_text(reason + "\n", encoding="utf-8")
    except OSError:
        pass  # a home that cannot be written to only costs the time


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock that other processes wait for, where there is a place for one: gsplat removes torch's own."""
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=PATIENCE)
        except Timeout:
            _log.warning("Waiting for another process that compiles gsplat's CUDA code.")
            lock.acquire()
    except OSError:
        pass  # a home that cannot be written to
    try:
        yield
    finally:
        lock.release()
