"""Splatting of sparse codes as operators of torch: autograd, `torch.compile` and CUDA graphs know them.

`dictsplat::codes`, `::codes_vjp`, `::lift` and `::relevancy` start with the same six arguments, the *lists* that
gsplat's projection and tile intersection give. S = C * N splats, splat camera * N + Gaussian, or nnz packed ones:

- ``means2d`` float32 [S, 2] in pixels, ``conics`` float32 [S, 3], ``opacities`` float32 [S] in 0..1;
- ``isect_offsets`` int32 [C, tiles_y, tiles_x] into ``flatten_ids``, whose entries, int32 [I], are splats, front to
  back within a tile of 16 x 16 pixels;
- ``gaussian_ids`` int [S]: which Gaussian a packed splat is; None if they are not packed.

On a CUDA device they launch `splat._cuda` on torch's current stream and do not wait for the device, so that a CUDA
graph can hold them. They allocate their results, and copies only of arguments that are not contiguous and of
``gaussian_ids`` that are not int32, as gsplat's are not. On the CPU the native kernels do the same. On both, blending
follows 3DGS (`splat.rasterize`).

Nothing but the weights of codes has a gradient, and that gradient has none.
"""

import importlib
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack  # type: ignore[attr-defined]

from splat import _native

Lists = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]


@cache
def cuda_kernels() -> Any:
    """The module `splat._cuda`.

    Raises:
        RuntimeError: dictsplat was built without it, or it cannot be loaded; the cause says which.
    """
    try:
        return importlib.import_module("splat._cuda")
    except ImportError as error:
        raise RuntimeError(
            f"The GPU kernels of dictsplat cannot be loaded ({error}); `dictsplat doctor` says how to build them."
        ) from error


def _launch(kernel: str, *arguments: Any) -> None:
    """Call a kernel on the current stream of the first argument's device."""
    device = arguments[0].device
    launcher = getattr(cuda_kernels(), kernel)
    with torch.cuda.device(device):
        launcher(*map(_exported, arguments), torch.cuda.current_stream(device).cuda_stream)


def _exported(value: Any) -> Any:
    """A tensor as a DLPack capsule. `Tensor.__dlpack__` makes streams wait for each other in some versions of torch,
    which no CUDA graph may record; the kernel runs on the tensors' own stream anyway."""
    return to_dlpack(value.detach().contiguous()) if isinstance(value, Tensor) else value


def _kernel_lists(
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    isect_offsets: Tensor,
    flatten_ids: Tensor,
    gaussian_ids: Tensor | None,
) -> Lists:
    # gsplat numbers packed Gaussians with 64 bits; `splat.rasterize_cuda` narrows them once.
    narrow = None if gaussian_ids is None else gaussian_ids.int()
    return means2d, conics, opacities, isect_offsets, flatten_ids, narrow


def _twin(lists: Lists, gaussians: int, width: int, height: int) -> _native.Splats:
    """The lists as the native kernels hold them, packed splats put into their places among all C * N."""
    means2d, conics, opacities = (each.detach().contiguous() for each in lists[:3])
    isect_offsets, flatten_ids, gaussian_ids = *map(Tensor.contiguous, lists[3:5]), lists[5]
    cameras = len(isect_offsets)
    if gaussian_ids is not None:
        # A camera's lists follow each other, so an entry's place in them says whose it is.
        starts = isect_offsets.view(cameras, -1)[:, 0]
        lengths = torch.diff(starts, append=starts.new_tensor([len(flatten_ids)]))
        camera = torch.repeat_interleave(torch.arange(cameras), lengths)
        packed = flatten_ids.long()
        places = camera * gaussians + gaussian_ids[packed]

        def unpacked(values: Tensor) -> Tensor:
            return values.new_zeros(cameras * gaussians, *values.shape[1:]).index_copy_(0, places, values[packed])

        means2d, conics, opacities, flatten_ids = *map(unpacked, (means2d, conics, opacities)), places.int()
    return _native.Splats.from_lists(
        means2d, conics, opacities, isect_offsets, flatten_ids, gaussians, cameras, width, height
    )


def _image(like: Tensor, cameras: int, height: int, width: int, channels: int) -> Tensor:
    return torch.empty(cameras, height, width, channels, device=like.device, dtype=torch.float32)


@torch.library.custom_op("dictsplat::codes", mutates_args=(), device_types="cpu")
def codes(
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    isect_offsets: Tensor,
    flatten_ids: Tensor,
    gaussian_ids: Tensor | None,
    indices: Tensor,
    weights: Tensor,
    width: int,
    height: int,
    atoms: int,
) -> tuple[Tensor, Tensor]:
    """Splat sparse codes; differentiable in ``weights``.

    Args:
        indices: uint8 [N, levels, K], each below ``atoms``. Larger ones are an error on the CPU and left out on a GPU,
            where looking would mean waiting for it.
        weights: float32 [N, levels, K].

    Returns:
        codes [C, height, width, levels * atoms] and alphas [C, height, width, 1].
    """
    splats = _twin((means2d, conics, opacities, isect_offsets, flatten_ids, gaussian_ids), len(indices), width, height)
    out, alphas = _new_codes(isect_offsets, indices, width, height, atoms)
    splats.codes(indices.contiguous(), weights.detach().contiguous(), indices.shape[1], atoms, out, alphas)
    return out, alphas


def _new_codes(isect_offsets: Tensor, indices: Tensor, width: int, height: int, atoms: int) -> tuple[Tensor, Tensor]:
    cameras, levels = isect_offsets.shape[0], indices.shape[1]
    return (
        _image(isect_offsets, cameras, height, width, levels * atoms),
        _image(isect_offsets, cameras, height, width, 1),
    )


@codes.register_kernel("cuda")
def _codes_cuda(*arguments: Any) -> tuple[Tensor, Tensor]:
    *lists, indices, weights, width, height, atoms = arguments
    out, alphas = _new_codes(lists[3], indices, width, height, atoms)
    _launch("codes", *_kernel_lists(*lists), indices, weights, width, height, atoms, out, alphas)
    return out, alphas


@codes.register_fake
def _codes_fake(*arguments: Any) -> tuple[Tensor, Tensor]:
    *lists, indices, _weights, width, height, atoms = arguments
    return _new_codes(lists[3], indices, width, height, atoms)


@torch.library.custom_op("dictsplat::codes_vjp", mutates_args=(), device_types="cpu")
def codes_vjp(
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    isect_offsets: Tensor,
    flatten_ids: Tensor,
    gaussian_ids: Tensor | None,
    indices: Tensor,
    v_out: Tensor,
    width: int,
    height: int,
    atoms: int,
) -> Tensor:
    """The gradient of `codes` in the weights, [N, levels, K], from ``v_out`` [C, height, width, levels * atoms]."""
    lists = (means2d, conics, opacities, isect_offsets, flatten_ids, gaussian_ids)
    splats = _twin(lists, len(indices), width, height)
    per_camera = v_out.new_empty(len(isect_offsets), *indices.shape)
    # The map is linear in the weights, so any will do.
    weights, levels = v_out.new_zeros(indices.shape), indices.shape[1]
    splats.codes_vjp(indices.contiguous(), weights, levels, atoms, v_out.detach().contiguous(), per_camera)
    return per_camera.sum(0)


@codes_vjp.register_kernel("cuda")
def _codes_vjp_cuda(*arguments: Any) -> Tensor:
    *lists, indices, v_out, width, height, atoms = arguments
    v_weights = torch.zeros(indices.shape, device=v_out.device)
    _launch("codes_vjp", *_kernel_lists(*lists), indices, v_out, width, height, atoms, v_weights)
    return v_weights


@codes_vjp.register_fake
def _codes_vjp_fake(*arguments: Any) -> Tensor:
    indices, v_out = arguments[6:8]
    return torch.empty(indices.shape, device=v_out.device)


def _keep_for_vjp(ctx: Any, inputs: Any, output: Any) -> None:
    *lists, indices, _weights, ctx.width, ctx.height, ctx.atoms = inputs
    ctx.save_for_backward(*lists, indices)
    ctx.mark_non_differentiable(output[1])


def _codes_backward(ctx: Any, v_out: Tensor, _v_alphas: Tensor) -> Any:
    v_weights = codes_vjp(*ctx.saved_tensors, v_out, ctx.width, ctx.height, ctx.atoms)
    return *[None] * 7, v_weights, None, None, None


codes.register_autograd(_codes_backward, setup_context=_keep_for_vjp)


@torch.library.custom_op("dictsplat::lift", mutates_args=(), device_types="cpu")
def lift(
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    isect_offsets: Tensor,
    flatten_ids: Tensor,
    gaussian_ids: Tensor | None,
    values: Tensor,
    gaussians: int,
) -> tuple[Tensor, Tensor]:
    """Splat pixel values [C, H, W, V] back: sums [N, V] = sum_p w_pi values_p and mass [N] = sum_p w_pi."""
    lists = (means2d, conics, opacities, isect_offsets, flatten_ids, gaussian_ids)
    sums, mass = _new_sums(values, gaussians)
    splats = _twin(lists, gaussians, values.shape[2], values.shape[1])
    splats.lift(values.detach().contiguous(), values.shape[3], sums, mass)
    return sums, mass


def _new_sums(values: Tensor, gaussians: int) -> tuple[Tensor, Tensor]:
    def zeros(*shape: int) -> Tensor:
        return torch.zeros(*shape, device=values.device, dtype=torch.float32)

    return zeros(gaussians, values.shape[3]), zeros(gaussians)


@lift.register_kernel("cuda")
def _lift_cuda(*arguments: Any) -> tuple[Tensor, Tensor]:
    *lists, values, gaussians = arguments
    sums, mass = _new_sums(values, gaussians)
    _launch("lift", *_kernel_lists(*lists), values, values.shape[2], values.shape[1], sums, mass)
    return sums, mass


@lift.register_fake
def _lift_fake(*arguments: Any) -> tuple[Tensor, Tensor]:
    return _new_sums(*arguments[6:])


@torch.library.custom_op("dictsplat::relevancy", mutates_args=(), device_types="cpu")
def relevancy(
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    isect_offsets: Tensor,
    flatten_ids: Tensor,
    gaussian_ids: Tensor | None,
    indices: Tensor,
    weights: Tensor,
    scores: Tensor,
    gram: Tensor,
    positives: int,
    temperature: float,
    width: int,
    height: int,
) -> tuple[Tensor, Tensor]:
    """Text relevancy out of the splat of codes; arguments and formula as `splat.rasterize.rasterize_relevancy`.

    Returns:
        relevancy [C, positives, levels, height, width] in 0..1 and alphas [C, height, width, 1].
    """
    lists = (means2d, conics, opacities, isect_offsets, flatten_ids, gaussian_ids)
    splats = _twin(lists, len(indices), width, height)
    out, alphas = _new_maps(isect_offsets, scores, positives, width, height)
    levels, _, atoms = scores.shape
    indices, weights, scores, gram = (each.detach().contiguous() for each in (indices, weights, scores, gram))
    splats.relevancy(indices, weights, scores, gram, positives, temperature, levels, atoms, out, alphas)
    return out, alphas


def _new_maps(isect_offsets: Tensor, scores: Tensor, positives: int, width: int, height: int) -> tuple[Tensor, Tensor]:
    cameras = isect_offsets.shape[0]
    maps = torch.empty(cameras, positives, scores.shape[0], height, width, device=scores.device, dtype=torch.float32)
    return maps, _image(scores, cameras, height, width, 1)


@relevancy.register_kernel("cuda")
def _relevancy_cuda(*arguments: Any) -> tuple[Tensor, Tensor]:
    lists, (indices, weights, scores, gram, positives, temperature, width, height) = arguments[:6], arguments[6:]
    out, alphas = _new_maps(lists[3], scores, positives, width, height)
    query = (indices, weights, scores, gram, positives, temperature)
    _launch("relevancy", *_kernel_lists(*lists), *query, width, height, out, alphas)
    return out, alphas


@relevancy.register_fake
def _relevancy_fake(*arguments: Any) -> tuple[Tensor, Tensor]:
    _indices, _weights, scores, _gram, positives, _temperature, width, height = arguments[6:]
    return _new_maps(arguments[3], scores, positives, width, height)
