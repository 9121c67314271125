"""From a real lens to an ideal pinhole: one resampling that straightens the image and one that shrinks it.

Lens models are COLMAP's and are evaluated by pycolmap, whose pixel centres are at (0.5, 0.5) as ours
are. OpenCV does the resampling; its pixel centres are at integers, hence the halves below.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock

import cv2
import numpy as np
import pycolmap
from numpy.typing import NDArray

from encoders.errors import InputError

MAX_HALF_ANGLE = np.tan(np.radians(65.0))
"""Tangent to each side beyond which a pinhole image is mostly stretched border; fisheyes are cut here."""

BORDER_SAMPLES = 256

MAP_BAND = 256
"""Rows of a sampling map computed at a time, so that a 12-megapixel photo does not take half a gigabyte."""


@dataclass(frozen=True)
class Lens:
    """A COLMAP camera model without a pose.

    Attributes:
        model: COLMAP's name of it, e.g. "PINHOLE", "OPENCV", "OPENCV_FISHEYE".
        width, height: the image size that ``params`` speak of.
        params: the model's parameters in COLMAP's order; pixel (0, 0) has its centre at (0.5, 0.5).
    """

    model: str
    width: int
    height: int
    params: tuple[float, ...]

    @property
    def colmap(self) -> pycolmap.Camera:
        """The same lens as a ``pycolmap.Camera``."""
        return pycolmap.Camera(model=self.model, width=self.width, height=self.height, params=list(self.params))

    @property
    def distorts(self) -> bool:
        """Whether straight lines come out bent: False for pinhole models and all-zero distortion."""
        camera = self.colmap
        # pycolmap calls a fisheye with zero coefficients undistorted, but it is no pinhole.
        return bool(camera.is_perspective_fisheye() or not camera.is_undistorted())

    def resized(self, width: int, height: int) -> "Lens":
        """The same lens for images of another size."""
        if (width, height) == (self.width, self.height):
            return self
        camera = self.colmap
        camera.rescale(width, height)
        return Lens(self.model, width, height, tuple(float(value) for value in camera.params))


def pinhole(lens: Lens) -> NDArray[np.float64]:
    """Calibration K float64 [3, 3] of the straightened image, which has the same size as the bent one.

    The image shows the largest upright rectangle that the lens saw all of, so no pixel is invented
    (COLMAP's undistorter with ``blank_pixels=0``, but at an unchanged size). Without distortion it is
    the lens's own K.

    Raises:
        InputError: the lens's parameters bend the image into something that has no such rectangle.
    """
    if not lens.distorts:
        return np.asarray(lens.colmap.calibration_matrix(), dtype=np.float64)
    w, h = lens.width, lens.height
    left, right = _inner_edge(lens, 0, 0.0), _inner_edge(lens, 0, w)
    top, bottom = _inner_edge(lens, 1, 0.0), _inner_edge(lens, 1, h)
    if not (right - left > 1e-3 and bottom - top > 1e-3):
        raise InputError(_bad_lens(lens))
    fx, fy = w / (right - left), h / (bottom - top)
    return np.array([[fx, 0.0, -left * fx], [0.0, fy, -top * fy], [0.0, 0.0, 1.0]])


def _inner_edge(lens: Lens, axis: int, position: float) -> float:
    """The straight line that touches one border of the bent image from inside, as a tangent.

    ``axis`` and ``position`` name the border: (0, 0.0) is the left one, (1, height) the bottom one.
    """
    camera = lens.colmap
    border = np.empty((BORDER_SAMPLES, 2))
    border[:, axis] = position
    border[:, 1 - axis] = np.linspace(0.0, (lens.width, lens.height)[1 - axis], BORDER_SAMPLES)
    rays = np.asarray(camera.cam_from_img(border))
    again = np.asarray(camera.img_from_cam(np.column_stack([rays, np.ones(len(rays))])))
    seen = np.linalg.norm(again - border, axis=1) < 0.5
    side = 1.0 if position > 0 else -1.0
    if camera.is_perspective_fisheye():
        rays[~seen] = side * MAX_HALF_ANGLE  # behind the camera, where no pinhole looks
    elif not seen.all():
        raise InputError(_bad_lens(lens))  # the distortion has no inverse on this border
    return side * float(np.clip(side * rays[:, axis], -MAX_HALF_ANGLE, MAX_HALF_ANGLE).min())


def _bad_lens(lens: Lens) -> str:
    return (
        f"The {lens.model} lens with parameters {[round(value, 6) for value in lens.params]} cannot be "
        "undistorted; check its distortion coefficients."
    )


_map_lock = Lock()


def _sampling_map(lens: Lens) -> tuple[NDArray[np.int16], NDArray[np.uint16]]:
    """OpenCV fixed-point maps: for each straight pixel, where the bent image shows it. [H, W, 2], [H, W]."""
    with _map_lock:  # threads that start together want the same map
        return _computed_map(lens)


@lru_cache(maxsize=2)
def _computed_map(lens: Lens) -> tuple[NDArray[np.int16], NDArray[np.uint16]]:
    whole = np.empty((lens.height, lens.width, 2), np.int16)
    fraction = np.empty((lens.height, lens.width), np.uint16)
    for band, bent in _bent_bands(lens, lens.width, lens.height):
        centres = (bent - 0.5).astype(np.float32)
        whole[band], fraction[band] = cv2.convertMaps(centres[..., 0], centres[..., 1], cv2.CV_16SC2)
    return whole, fraction


def _bent_bands(lens: Lens, width: int, height: int) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Rows of a straight view of ``height`` x ``width`` pixels, and where the bent image shows them. [rows, W, 2]"""
    K, camera = pinhole(lens), lens.colmap
    x = ((np.arange(width) + 0.5) * (lens.width / width) - K[0, 2]) / K[0, 0]
    y = ((np.arange(height) + 0.5) * (lens.height / height) - K[1, 2]) / K[1, 1]
    for top in range(0, height, MAP_BAND):
        band = slice(top, top + MAP_BAND)
        rays = np.ones((len(y[band]), width, 3))
        rays[..., 0], rays[..., 1] = x[None, :], y[band, None]
        bent = np.asarray(camera.img_from_cam(rays.reshape(-1, 3)))
        yield band, bent.reshape(-1, width, 2)


@lru_cache(maxsize=1)
def bent_positions(lens: Lens, width: int, height: int) -> NDArray[np.float32]:
    """Where the bent image shows each pixel of a straightened view of any size.

    Returns:
        (x, y) in pixels of the bent image, whose first pixel has its centre at (0.5, 0.5). float32 [height, width, 2],
        read-only because it is shared: a view's labels all need the same.
    """
    positions = np.empty((height, width, 2), np.float32)
    for band, bent in _bent_bands(lens, width, height):
        positions[band] = bent
    positions.setflags(write=False)
    return positions


def straighten_mask(mask: NDArray[np.bool_], lens: Lens | None, width: int, height: int) -> NDArray[np.bool_]:
    """What a mask drawn on a photo is in the view that `straighten` makes of the photo: the nearest pixel's value.

    Args:
        mask: bool [h, w], of any size with the photo's shape.
        lens: the photo's; None if the photo needs no straightening.
        width, height: of the view.

    Returns:
        bool [height, width]
    """
    h, w = mask.shape
    if lens is None or not lens.distorts:
        if (w, h) == (width, height):
            return mask
        grey = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        return np.asarray(grey, bool)
    positions = bent_positions(lens.resized(w, h), width, height)
    x = np.floor(positions[..., 0]).astype(np.int32).clip(0, w - 1)
    y = np.floor(positions[..., 1]).astype(np.int32).clip(0, h - 1)
    return np.asarray(mask[y, x])


def straighten_boxes(
    boxes: NDArray[np.float64], size: tuple[int, int], lens: Lens | None, width: int, height: int
) -> NDArray[np.float64]:
    """Where boxes drawn on a photo are in the view that `straighten` makes of it.

    A bent box is no box; what comes back are the smallest that hold all pixels of the view that the photo shows in the
    drawn ones. A box that the view shows no pixel of is left out.

    Args:
        boxes: (x0, y0, x1, y1), ends included, whole numbers at pixel centres. float64 [B, 4]
        size: width and height of the picture they are drawn on, of the photo's shape.
        lens: the photo's; None if the photo needs no straightening.
        width, height: of the view.

    Returns:
        As ``boxes``, in pixels of the view. float64 [<= B, 4]
    """
    w, h = size
    if lens is None or not lens.distorts:
        factor = np.array([width / w, height / h, width / w, height / h])
        return np.asarray((boxes + 0.5) * factor - 0.5)
    centres = bent_positions(lens.resized(w, h), width, height) - np.float32(0.5)
    found = []
    for x0, y0, x1, y1 in boxes:
        inside = np.asarray(np.all((centres >= (x0, y0)) & (centres <= (x1, y1)), axis=2))
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        if len(rows):
            found.append((columns[0], rows[0], columns[-1], rows[-1]))
    return np.array(found, np.float64).reshape(-1, 4)


def straighten(image: NDArray[np.uint8], lens: Lens, width: int, height: int) -> NDArray[np.uint8]:
    """Undistort ``image`` uint8 [H, W, 3], taken with ``lens``, and resize it to ``height`` x ``width``.

    What comes back shows what a camera with `pinhole` (resized) sees. Nothing is resampled that need
    not be: without distortion only the resize happens, at the same size the array itself comes back.
    """
    if image.shape[:2] != (lens.height, lens.width):
        raise ValueError(f"image {image.shape} does not fit the lens {lens}")
    if lens.distorts:
        whole, fraction = _sampling_map(lens)
        straight = cv2.remap(image, whole, fraction, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        image = np.asarray(straight, np.uint8)
    if (lens.width, lens.height) != (width, height):
        kind = cv2.INTER_AREA if width < lens.width else cv2.INTER_CUBIC
        image = np.asarray(cv2.resize(image, (width, height), interpolation=kind), np.uint8)
    return image
