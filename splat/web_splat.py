"""Gaussians for viewers in a web browser: the 32-byte rows of ``.splat`` files, and the axes such viewers expect."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from encoders.files import atomic_path
from splat.gaussians import SH_C0, Gaussians
from splat.scene.cameras import Camera

ROW = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quat", "u1", 4)])
"""A Gaussian of a ``.splat`` file: an eighth of one in a PLY, without colours that depend on the direction."""


def save_splat(path: Path, gaussians: Gaussians) -> None:
    """Write a ``.splat`` file atomically, the Gaussians that show most first, as viewers draw while they load."""
    with torch.no_grad():
        shows = gaussians.opacities * gaussians.scales.sort(dim=1).values[:, 1:].prod(dim=1)
        one = gaussians.subset(shows.argsort(descending=True)).to("cpu")
        rows = np.zeros(len(one), ROW)
        rows["mean"] = one.means.numpy()
        rows["scale"] = one.scales.numpy()
        colors = torch.cat([0.5 + SH_C0 * one.sh[:, 0], one.opacities[:, None]], dim=1)
        rows["rgba"] = (colors.clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy()
        units = torch.nn.functional.normalize(one.quats, dim=1)
        rows["quat"] = (units * 128 + 128.5).clamp(0, 255).to(torch.uint8).numpy()
    with atomic_path(path) as temporary:
        temporary.write_bytes(rows.tobytes())


def placed(
    gaussians: Gaussians,
    camera: Camera,
    pivot: NDArray[np.float64],
    up: NDArray[np.float64],
    azimuth: float,
    distance: float,
) -> Gaussians:
    """Move, turn and scale a scene for a viewer that looks at the origin with y pointing down.

    Args:
        camera: whose place the viewer's camera takes, but for its height above the pivot.
        pivot: becomes the origin. up: unit vector that becomes -y.
        azimuth: radians that the viewer's camera stands to the right of -z.
        distance: from the viewer's camera to the origin.

    Returns:
        Gaussians without colours that depend on the direction (``sh`` beyond its first row is zero).
    """
    offset = camera.center - pivot
    length = float(np.linalg.norm(offset))
    back = offset - (offset @ up) * up
    if np.linalg.norm(back) < 1e-6 * max(length, 1e-9):  # it looks straight down; what is below in the picture is near
        back = camera.viewmat[1, :3] - (camera.viewmat[1, :3] @ up) * up
    back = back / max(float(np.linalg.norm(back)), 1e-12)
    # Rows: where x, y and z of the viewer lie in the world, when its camera stands at -z.
    axes = np.stack([np.cross(-up, -back), -up, -back])
    turn = Rotation.from_euler("y", -azimuth).as_matrix() @ axes
    scale = distance / max(length, 1e-9)
    quats = gaussians.quats.detach().cpu().double().numpy()
    turned = (Rotation.from_matrix(turn) * Rotation.from_quat(quats, scalar_first=True)).as_quat(scalar_first=True)
    matrix = torch.from_numpy(turn).to(gaussians.means)
    sh = torch.zeros_like(gaussians.sh)
    sh[:, 0] = gaussians.sh[:, 0]
    return replace(
        gaussians,
        means=scale * (gaussians.means - torch.from_numpy(pivot).to(gaussians.means)) @ matrix.T,
        quats=torch.from_numpy(turned).to(gaussians.quats),
        log_scales=gaussians.log_scales + float(np.log(scale)),
        sh=sh,
    )
