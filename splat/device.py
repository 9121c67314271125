"""Where splatting runs: on a GPU if there is one and both its code, gsplat's and ours, can be used there."""

import importlib.util
import logging
from functools import cache
from pathlib import Path

import torch

from encoders.errors import InputError
from splat.ops import cuda_kernels
from splat.train_config import DEVICES

REBUILD = "install dictsplat again with nvcc on PATH"

_log = logging.getLogger(__name__)


def splat_device(name: str) -> str:
    """The device that Gaussians go to for ``--device`` auto, cpu, cuda or cuda:N.

    "auto" is the GPU where it can be used; where there is one that cannot, a note says what to do about it. Encoders
    need less than splatting and choose by `splat.train_config.pick_device`.

    Raises:
        InputError: no such device, or "cuda" was asked for and cannot be used.
    """
    kind = name.partition(":")[0]
    if kind not in DEVICES:
        raise InputError(f"--device is {name!r}; give one of {', '.join(DEVICES)}.")
    if kind == "cpu":
        return "cpu"
    obstacle = gpu_obstacle()
    if not obstacle:
        return "cuda" if kind == "auto" else name
    if kind == "cuda":
        raise InputError(f"--device {name} was asked for, but {obstacle}; or use --device cpu.")
    if torch.cuda.is_available():
        _say_once(f"Splatting on the CPU: {obstacle}.")
    return "cpu"


@cache
def gpu_obstacle() -> str:
    """Why Gaussians cannot be splatted on a GPU here and what to do about it; "" if they can.

    Compiles gsplat's CUDA code if that was never done, which takes minutes.
    """
    if not torch.cuda.is_available():
        return "torch sees no CUDA device; check the NVIDIA driver and that torch was installed for CUDA"
    obstacle = kernel_obstacle()
    if obstacle:
        return obstacle
    if not gsplat_cuda():
        return "gsplat finds no CUDA toolkit to compile its code with; put nvcc on PATH or set CUDA_HOME"
    try:
        from gsplat.cuda._backend import _C
    except Exception as error:  # whatever stops a compiler
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        return f"gsplat's CUDA code cannot be compiled ({reason}); see gsplat's installation notes"
    return "" if _C is not None else "gsplat could not load its CUDA code; see gsplat's installation notes"


def kernel_obstacle() -> str:
    """Why our own kernels cannot be used on the first GPU; "" if they can."""
    try:
        architectures = cuda_kernels().architectures
    except RuntimeError:
        return f"the GPU kernels of dictsplat are not built; {REBUILD}"
    capability = torch.cuda.get_device_capability(0)
    if not runs_on(architectures, capability):
        have, want = ".".join(map(str, capability)), architectures.replace("-real", "").replace("-virtual", " (PTX)")
        return f"the GPU has compute capability {have} and the kernels of dictsplat are built for {want}; {REBUILD}"
    return ""


def runs_on(architectures: str, capability: tuple[int, int]) -> bool:
    """Whether code for CMake's CUDA architectures, as in "80-real 90-virtual", runs on a GPU.

    Machine code runs on later minor versions of its own major one, PTX on every later GPU.
    """
    for entry in architectures.split():
        number, _, kind = entry.partition("-")
        if not number.isdigit():
            return True  # "native" and the like: made for the machine that built it
        version = divmod(int(number), 10)
        same_family = version[0] == capability[0] and version <= capability
        if (kind != "virtual" and same_family) or (kind != "real" and version <= capability):
            return True
    return False


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


@cache
def _say_once(note: str) -> None:
    _log.warning(note)
