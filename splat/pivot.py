"""What a camera looks at: the point of the scene that it is turned around by hand (`splat.scene.orbit`)."""

import numpy as np
import torch
from numpy.typing import NDArray

from splat.gaussians import Gaussians
from splat.rasterize import rasterize_rgb
from splat.scene import Camera, stack
from splat.scene.orbit import point_ahead

_SIDE = 33
"""Pixels of the small picture whose middle says how far away things are."""
_MIDDLE = slice(14, 19)


def looked_at(gaussians: Gaussians, camera: Camera) -> NDArray[np.float64]:
    """The point in the middle of the camera's picture, at the distance of what is there. float64 [3]

    Where nothing is in the middle, the distance is the median of all that is ahead.
    """
    return point_ahead(camera, _distance(gaussians, camera))


def _distance(gaussians: Gaussians, camera: Camera) -> float:
    small = camera.resized(_SIDE, _SIDE)
    with torch.inference_mode():
        _, depth, alphas, _ = rasterize_rgb(
            *gaussians.geometry, gaussians.sh, *stack([small]), _SIDE, _SIDE, sh_degree=0
        )
        middle, cover = depth[0, _MIDDLE, _MIDDLE], alphas[0, _MIDDLE, _MIDDLE]
        if float(cover.mean()) > 0.5:
            return float((middle.sum() / cover.sum()).item())
        viewmat = torch.from_numpy(camera.viewmat).to(gaussians.means)
        ahead = gaussians.means @ viewmat[2, :3] + viewmat[2, 3]
        return float(ahead[ahead > 0].median()) if bool((ahead > 0).any()) else 1.0
