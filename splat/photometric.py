"""The photometric loss of 3DGS, computed natively because it runs at every step of a fit."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from splat import _native


class _Photometric(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, truth: Tensor, ssim_weight: float) -> Tensor:
        height, width, channels = image.shape
        gradient = torch.empty(height, width, channels)
        l1, ssim = _native.photometric(
            image.detach().contiguous(), truth.contiguous(), height, width, channels, ssim_weight, gradient
        )
        ctx.save_for_backward(gradient)
        return torch.tensor((1.0 - ssim_weight) * l1 + ssim_weight * (1.0 - ssim))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_loss: Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradient * v_loss, None, None


def photometric_loss(image: Tensor, truth: Tensor, ssim_weight: float = 0.2) -> Tensor:
    """(1 - w) L1 + w (1 - SSIM) (3DGS, equation 7), differentiable in ``image``.

    SSIM has an 11 x 11 Gaussian window with sigma 1.5, zero padding and data range 1.

    Args:
        image, truth: float32 [H, W, channels] in about 0..1.

    Returns:
        A scalar.
    """
    if image.shape != truth.shape or image.ndim != 3:
        raise ValueError(
            f"the image is {list(image.shape)}, the truth {list(truth.shape)}; both must be [H, W, channels]"
        )
    return _Photometric.apply(image, truth, ssim_weight)
