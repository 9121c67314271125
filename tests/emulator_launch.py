"""Launches the kernels of tests/kernels on the block emulator, and makes the arrays they work on."""

import ctypes
import functools

import emulated
import torch
from torch import Tensor


class Reported(Exception):
    """What the emulator says of a launch."""


@functools.cache
def _library() -> ctypes.CDLL:
    return emulated.build_library(sorted((emulated.ROOT / "tests" / "kernels").glob("*.cu")))


def launch(name: str, *arguments: Tensor | int) -> None:
    """Calls the function of that name in tests/kernels. Raises Reported; skips the test without g++."""
    function = getattr(_library(), name)
    function.restype = ctypes.c_char_p
    message = function(
        *(ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else ctypes.c_int(a) for a in arguments)
    )
    if message is not None:
        raise Reported(message.decode())


def floats(*shape: int) -> Tensor:
    """Not filled."""
    return emulated.fenced_empty(*shape)


def ints(*shape: int) -> Tensor:
    """Not filled."""
    return emulated.fenced_empty(*shape, dtype=torch.int32)


def zeros(*shape: int) -> Tensor:
    """Integers."""
    return emulated.fenced(torch.zeros(*shape, dtype=torch.int32))


def random(*shape: int) -> Tensor:
    """Floats of both signs, the same every time."""
    return emulated.fenced(torch.randn(*shape, generator=torch.Generator().manual_seed(0)))
