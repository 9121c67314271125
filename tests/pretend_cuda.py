"""A GPU that is not there: tensors that say they are on ``cuda:0`` and are computed on the CPU.

What runs on it takes every turn that it takes on a GPU, and like there it is an error to mix devices, to hand a tensor
to numpy, or to give one to native CPU code. Operators of `splat.ops` run as their CPU twins; gsplat's compiled module
is `gsplat_stand_in`. No kernel runs and nothing is asynchronous: tests/test_gpu.py is for that.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import gsplat_stand_in
import torch
import torch._dynamo  # optimisers import it at their first use, which must not be within the mode below
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

from splat.device import gpu_obstacle

aten = torch.ops.aten
CUDA = torch.device("cuda:0")
MAY_MIX = {aten._to_copy.default, aten.copy_.default}
LIKE_SELF = {
    getattr(aten, name).default for name in ("new_empty", "new_empty_strided", "new_zeros", "new_ones", "new_full")
}


class OnCuda(torch.Tensor):
    """Holds the CPU tensor ``inner``.

    For the C++ side of torch it is on the CPU too, so that autograd does not look for streams.
    """

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "OnCuda":
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=inner.device,
        )
        made.inner = inner
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"OnCuda({self.inner!r})"

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CUDA

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    def __dlpack__(self, **_: Any) -> Any:  # type: ignore[override]
        raise BufferError("a tensor on cuda:0 was handed to native CPU code")

    @classmethod
    def __torch_function__(cls, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is torch.Tensor.numpy:
            raise TypeError("a tensor on cuda:0 was handed to numpy")
        if function is torch.Tensor.cpu:
            return _moved(*args, "cpu")
        if function is torch.Tensor.to:
            return _moved(*args, **kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(function, args, kwargs or {})


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(function, args, kwargs or {})


def _moved(tensor: Tensor, *where: Any, **kwargs: Any) -> Tensor:
    """`Tensor.to`, which in C++ would not know of two devices."""
    if where and isinstance(where[0], Tensor):
        device, dtype = where[0].device, where[0].dtype
    else:
        device, dtype, *_ = torch._C._nn._parse_to(*where, **kwargs)  # type: ignore[attr-defined]
    device, dtype = device or tensor.device, dtype or tensor.dtype
    if device.type == tensor.device.type and dtype == tensor.dtype:
        return tensor
    return aten._to_copy.default(tensor, device=device, dtype=dtype)


def run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Do an operator on the CPU and say that the result is where a GPU would have it."""
    leaves = tree_flatten((args, kwargs))[0]
    tensors = [each for each in leaves if isinstance(each, Tensor)]
    there = [each for each in tensors if isinstance(each, OnCuda)]
    here = [each for each in tensors if not isinstance(each, OnCuda) and each.dim()]
    if there and here and function not in MAY_MIX:
        raise RuntimeError(f"{function} was given tensors on cuda:0 and on the CPU")
    devices = [each for each in leaves if isinstance(each, torch.device)]
    like_self = there and function in LIKE_SELF
    cuda = bool(there) if like_self or not devices else devices[0].type == "cuda"
    originals = {id(each.inner): each for each in there}

    def on_cpu(value: Any) -> Any:
        return value.inner if isinstance(value, OnCuda) else torch.device("cpu")

    def placed(value: Tensor) -> Tensor:
        if id(value) in originals:
            return originals[id(value)]  # done in place
        if not cuda or function is aten.copy_.default:
            return value
        # In inference mode, views of tensors made outside must be tensors like those.
        with torch.inference_mode(False):
            return OnCuda(value)

    args, kwargs = tree_map_only((OnCuda, torch.device), on_cpu, (args, kwargs))
    return tree_map_only(Tensor, placed, function(*args, **kwargs))


@contextmanager
def pretend_cuda() -> Iterator[None]:
    """Within it ``cuda:0`` exists, with gsplat and the kernels of dictsplat built."""
    torch._C._ensureCUDADeviceGuardSet()  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(0)
    with ExitStack() as stack:
        for name, stand_in in {
            "_lazy_init": lambda: None,
            "is_available": lambda: True,
            "device_count": lambda: 2,
            "current_device": lambda: 0,
            "empty_cache": lambda: None,
            "get_rng_state": lambda *_: generator.get_state(),
            "set_rng_state": lambda state, *_: generator.set_state(state),
            "get_device_capability": lambda *_: (9, 0),
        }.items():
            stack.enter_context(mock.patch(f"torch.cuda.{name}", stand_in))
        kernels = SimpleNamespace(obstacle=lambda _index: "")
        stack.enter_context(mock.patch("splat.device.cuda_kernels", return_value=kernels))
        stack.enter_context(mock.patch("splat.device.gsplat_obstacle", return_value=""))
        # Modules that are moved get new parameters: the old ones' memory cannot become a pretended one's.
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, False)
        gpu_obstacle.cache_clear()
        stack.callback(gpu_obstacle.cache_clear)
        stack.enter_context(gsplat_stand_in.installed())
        stack.enter_context(_Mode())
        yield
