"""How close two pictures are: PSNR and SSIM as the Gaussian-splatting papers report them."""

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from encoders.errors import InputError

WINDOW = 11
"""Side of SSIM's Gaussian window (sigma 1.5), pixels."""


def psnr(picture: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels; equal pictures give 100.

    Args:
        picture, truth: float [H, W, 3] in 0..1, or uint8.
    """
    a, b = _unit(picture), _unit(truth)
    # Infinity has no place in JSON, and 100 dB is beyond what 8-bit pictures can tell apart.
    return 100.0 if np.array_equal(a, b) else min(100.0, float(peak_signal_noise_ratio(b, a, data_range=1.0)))


def ssim(picture: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004), -1..1, mean over channels and pixels.

    11 x 11 Gaussian window with sigma 1.5, biased covariances, data range 1, as 3DGS. The five pixels along
    the border, whose windows are cut off, do not count (3DGS pads them with zeros).

    Args:
        picture, truth: float [H, W, 3] in 0..1, or uint8.

    Raises:
        InputError: the pictures are smaller than the window.
    """
    if min(picture.shape[:2]) < WINDOW:
        raise InputError(f"SSIM needs views of at least {WINDOW} x {WINDOW} pixels; use a larger --scale.")
    return float(
        structural_similarity(
            _unit(picture),
            _unit(truth),
            data_range=1.0,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def _unit(picture: np.ndarray) -> np.ndarray:
    if picture.dtype == np.uint8:
        return picture.astype(np.float64) / 255.0
    return np.clip(picture.astype(np.float64), 0.0, 1.0)
