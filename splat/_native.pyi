"""Types of the native extension, see cuda/bindings.cpp. All tensors are contiguous CPU tensors."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

def isa() -> str: ...
def pooled_map(count: int) -> Tensor: ...
def photometric(
    image: Tensor, truth: Tensor, height: int, width: int, channels: int, ssim_weight: float, gradient: Tensor
) -> tuple[float, float]: ...
def project(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor | None,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    eps2d: float,
    near_plane: float,
    far_plane: float,
    radii: Tensor,
    means2d: Tensor,
    depths: Tensor,
    conics: Tensor,
) -> None: ...
def project_vjp(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    eps2d: float,
    radii: Tensor,
    v_means2d: Tensor,
    v_depths: Tensor,
    v_conics: Tensor,
    v_means: Tensor,
    v_quats: Tensor,
    v_scales: Tensor,
) -> None: ...
def shade(
    means: Tensor,
    sh: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    degree: int,
    radii: Tensor,
    colors: Tensor,
) -> None: ...
def shade_vjp(
    means: Tensor,
    sh: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    degree: int,
    radii: Tensor,
    colors: Tensor,
    v_colors: Tensor,
    v_means: Tensor,
    v_sh: Tensor,
) -> None: ...

class Splats:
    def __init__(
        self,
        radii: Tensor,
        means2d: Tensor,
        depths: Tensor,
        conics: Tensor,
        opacities: Tensor,
        cameras: int,
        width: int,
        height: int,
    ) -> None: ...
    @staticmethod
    def from_lists(
        means2d: Tensor,
        conics: Tensor,
        opacities: Tensor,
        isect_offsets: Tensor,
        flatten_ids: Tensor,
        gaussians: int,
        cameras: int,
        width: int,
        height: int,
    ) -> Splats: ...
    @property
    def isect_offsets(self) -> NDArray[np.int32]: ...
    @property
    def flatten_ids(self) -> NDArray[np.int32]: ...
    def blend(self, colors: Tensor, depths: Tensor, rgb: Tensor, depth: Tensor, alpha: Tensor) -> None: ...
    def blend_vjp(
        self,
        colors: Tensor,
        depths: Tensor,
        rgb: Tensor,
        depth: Tensor,
        alpha: Tensor,
        v_rgb: Tensor,
        v_depth: Tensor,
        v_alpha: Tensor,
        v_splats: Tensor,
    ) -> None: ...
    def codes(self, indices: Tensor, weights: Tensor, levels: int, atoms: int, out: Tensor, alpha: Tensor) -> None: ...
    def codes_vjp(
        self, indices: Tensor, weights: Tensor, levels: int, atoms: int, v_out: Tensor, v_weights: Tensor
    ) -> None: ...
    def features(self, features: Tensor, channels: int, out: Tensor, alpha: Tensor) -> None: ...
    def lift(self, values: Tensor, channels: int, sums: Tensor, mass: Tensor) -> None: ...
    def relevancy(
        self,
        indices: Tensor,
        weights: Tensor,
        scores: Tensor,
        gram: Tensor,
        phrases: int,
        temperature: float,
        levels: int,
        atoms: int,
        out: Tensor,
        alpha: Tensor,
    ) -> None: ...
