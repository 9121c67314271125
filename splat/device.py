"""Where splatting runs: on a GPU if there is one and both its code, gsplat's and ours, can be used there."""

import logging
import sys
from functools import cache

import torch

from encoders.devices import parse_device
from encoders.errors import InputError
from splat.gsplat_build import gsplat_obstacle
from splat.ops import cuda_kernels

_log = logging.getLogger(__name__)


def splat_device(name: str) -> str:
    """The device that Gaussians go to for ``--device`` auto, cpu, cuda or cuda:N.

    "auto" is the GPU where it can be used; where there is one that cannot, a note says what to do about it. Encoders
    need less than splatting and choose by `splat.train_config.pick_device`.

    Raises:
        InputError: no such device, or a GPU was asked for and cannot be used.
    """
    wanted = parse_device(name)
    if wanted is None:
        obstacle = gpu_obstacle()
        if obstacle and torch.cuda.is_available():
            _say_once(f"Splatting on the CPU: {obstacle}.")
        return "cpu" if obstacle else "cuda"
    if wanted.type == "cuda":
        obstacle = gpu_obstacle(wanted.index, retry=True)
        if obstacle:
            raise InputError(f"--device {name} was asked for, but {obstacle}; or use --device cpu.")
    return name


@cache
def gpu_obstacle(index: int | None = None, retry: bool = False) -> str:
    """Why Gaussians cannot be splatted on a GPU here and what to do about it; "" if they can.

    Compiles gsplat's CUDA code if that was never done, which takes minutes.

    Args:
        index: of the GPU; None for the current one.
        retry: compile again although it failed before.
    """
    if not torch.cuda.is_available():
        return "torch sees no CUDA device; check the NVIDIA driver and that torch was installed for CUDA"
    return kernel_obstacle(index) or gsplat_obstacle(retry)


def kernel_obstacle(index: int | None = None) -> str:
    """Why our own kernels cannot be used on a GPU, None for the current one; "" if they can."""
    if index is None:
        index = torch.cuda.current_device()
    try:
        reason = cuda_kernels().obstacle(index)
    except RuntimeError as error:
        missing = isinstance(error.__cause__, ModuleNotFoundError)
        what = "are not built" if missing else f"cannot be loaded ({error.__cause__})"
        return f"the GPU kernels of dictsplat {what}; {reinstallation()}"
    if not reason:
        return ""
    major, minor = torch.cuda.get_device_capability(index)
    again = reinstallation(f"{major}{minor}")
    return (
        f"the GPU kernels of dictsplat do not run on cuda:{index}, of compute capability {major}.{minor} ({reason}); "
        f"update the NVIDIA driver if that is it, or build them for this GPU: {again}"
    )


def reinstallation(architecture: str = "") -> str:
    """How to build the GPU kernels again, for one of CMake's CUDA architectures or the usual ones."""
    settings = f" --config-settings=cmake.define.CMAKE_CUDA_ARCHITECTURES={architecture}" if architecture else ""
    # What was built before goes first, because CMake remembers a compiler that it did not find.
    return (
        "with nvcc on PATH, run in dictsplat's checkout: "
        f"make clean && {sys.executable} -m pip install --force-reinstall --no-deps --editable .{settings}"
    )


@cache
def _say_once(note: str) -> None:
    _log.warning(note)
