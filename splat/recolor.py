"""Gaussians in other colours, for looking at what was selected or how relevant each one is."""

from dataclasses import replace

import torch
from torch import Tensor

from splat.gaussians import SH_C0, Gaussians

HIDDEN = -30.0
"""Logit of an opacity that no splat shows."""


def recolor(gaussians: Gaussians, colors: Tensor, which: Tensor | None = None, strength: float = 0.7) -> Gaussians:
    """Blend colours into Gaussians; their shading shows through as far as ``strength`` leaves it.

    Args:
        colors: RGB 0..1, one for all [3] or one each [N, 3].
        which: bool [N]; the others keep their colours. All if None.
        strength: 0 changes nothing, 1 makes them plainly of that colour from every side.

    Returns:
        Gaussians that share all other tensors with ``gaussians``.
    """
    target = torch.zeros_like(gaussians.sh)
    target[:, 0] = (colors.to(gaussians.sh) - 0.5) / SH_C0
    mixed = torch.lerp(gaussians.sh, target, strength)
    if which is not None:
        mixed = torch.where(which[:, None, None], mixed, gaussians.sh)
    return replace(gaussians, sh=mixed)


def hide(gaussians: Gaussians, which: Tensor) -> Gaussians:
    """Make some Gaussians invisible without renumbering the others, so that codes and masks still fit.

    Args:
        which: bool [N].
    """
    return replace(gaussians, logit_opacities=gaussians.logit_opacities.masked_fill(which, HIDDEN))
