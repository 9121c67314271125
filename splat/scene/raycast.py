"""Exact pictures of textured rectangles: a small analytic ray caster in numpy.

Everything in the demo scene is a rectangle in space, so a ray meets it in closed form. With a pixel's ray
``d = K^-1 [x, y, 1]`` and the rectangle's corner and edges in camera coordinates ``M = [u v o]``, the hit
``z d = s u + t v + o`` gives ``[s, t, 1] / z = M^-1 d``: three numbers that are affine in the pixel. Depth
order, the inside test and the texture's footprint all follow from them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np


class Texture:
    """A picture with all its halved copies (a mip map), so that it can be looked up without aliasing.

    Args:
        image: uint8 [H, W, 3].
    """

    def __init__(self, image: np.ndarray) -> None:
        levels = [np.ascontiguousarray(image)]
        while max(levels[-1].shape[:2]) > 1:
            height, width = levels[-1].shape[:2]
            half = (max(1, width // 2), max(1, height // 2))
            levels.append(cv2.resize(levels[-1], half, interpolation=cv2.INTER_AREA))
        self.image = levels[0]
        self._sizes = np.array([level.shape[1::-1] for level in levels], dtype=np.float32)
        # All levels lie below each other in one sheet; a repeated border makes bilinear lookups clamp.
        sheet_width = image.shape[1] + 2
        rows, tops, top = [], [], 0
        for level in levels:
            right = sheet_width - level.shape[1] - 1
            padded = cv2.copyMakeBorder(level, 1, 1, 1, right, cv2.BORDER_REPLICATE)
            rows.append(padded)
            tops.append(top)
            top += padded.shape[0]
        self._sheet = np.concatenate(rows)
        self._tops = np.array(tops, dtype=np.float32)

    def sample(self, s: np.ndarray, t: np.ndarray, level: np.ndarray) -> np.ndarray:
        """Trilinear lookup at ``s`` (right), ``t`` (down) in 0..1 and mip ``level`` >= 0, each float32 [N].

        Returns:
            float32 [N, 3], 0..255.
        """
        level = np.minimum(level, np.float32(len(self._tops) - 1))
        fine = level.astype(np.int32)
        blend = (level - fine)[:, None]
        result = self._bilinear(s, t, fine)
        if blend.any():
            result += blend * (self._bilinear(s, t, np.minimum(fine + 1, len(self._tops) - 1)) - result)
        return result

    def _bilinear(self, s: np.ndarray, t: np.ndarray, level: np.ndarray) -> np.ndarray:
        x = s * self._sizes[level, 0] + np.float32(0.5)
        y = t * self._sizes[level, 1] + np.float32(0.5) + self._tops[level]
        # cv2.remap takes maps of at most 32767 rows and columns: fold the list into a sheet.
        columns = 4096
        count = len(x)
        padding = -count % columns
        fold = [np.pad(a, (0, padding)).reshape(-1, columns) for a in (x, y)]
        looked_up = cv2.remap(self._sheet, fold[0], fold[1], cv2.INTER_LINEAR)
        return looked_up.reshape(-1, 3)[:count].astype(np.float32)


@dataclass(frozen=True)
class Face:
    """A one-sided textured rectangle: ``corner + s * right + t * down`` with s, t in 0..1.

    ``right`` and ``down`` are the picture's own directions for a viewer in front of it, in world units.
    ``label`` is the instance it belongs to (0 = none).
    """

    corner: np.ndarray
    right: np.ndarray
    down: np.ndarray
    texture: Texture
    label: int = 0


def render(
    faces: Sequence[Face], K: np.ndarray, viewmat: np.ndarray, width: int, height: int, samples: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """Picture and instance labels of ``faces`` from one pinhole camera.

    Args:
        faces: the scene; where nothing is hit the picture is black and the label 0.
        K: [3, 3] in pixels, the top-left pixel's centre at (0.5, 0.5).
        viewmat: [4, 4] world to camera, x right, y down, z forward.
        samples: rays per pixel are ``samples**2`` on a regular grid, each mip-filtered for its spacing.

    Returns:
        uint8 [height, width, 3], and int32 [height, width] with the label that most of a pixel's rays hit.
    """
    columns = (np.arange(width * samples, dtype=np.float32) + 0.5) / samples
    rows = (np.arange(height * samples, dtype=np.float32) + 0.5) / samples
    nearness = np.zeros((len(rows), len(columns)), dtype=np.float32)
    owner = np.full(nearness.shape, -1, dtype=np.int16)
    planes: dict[int, np.ndarray] = {}
    for index, face in enumerate(faces):
        homography = _homography(face, K, viewmat)
        if homography is None:
            continue
        box = _bounds(face, K, viewmat, width, height)
        if box is None:
            continue
        planes[index] = homography
        window = (slice(box[1] * samples, box[3] * samples), slice(box[0] * samples, box[2] * samples))
        s, t, w = _affine(homography, columns[window[1]][None, :], rows[window[0]][:, None])
        hit = (w > nearness[window]) & (s >= 0) & (s <= w) & (t >= 0) & (t <= w)
        nearness[window][hit] = w[hit]
        owner[window][hit] = index
    colour = np.zeros((owner.size, 3), dtype=np.float32)
    flat = owner.ravel()
    for index, homography in planes.items():
        where = np.flatnonzero(flat == index)
        if len(where) == 0:
            continue
        x, y = columns[where % len(columns)], rows[where // len(columns)]
        colour[where] = _shade(faces[index].texture, homography, x, y, samples)
    # cv2's area resize is the plain mean of each pixel's rays, and much faster than numpy's reduction.
    mean = cv2.resize(colour.reshape(*owner.shape, 3), (width, height), interpolation=cv2.INTER_AREA)
    return np.clip(mean + 0.5, 0, 255).astype(np.uint8), _labels(faces, owner, samples)


def _homography(face: Face, K: np.ndarray, viewmat: np.ndarray) -> np.ndarray | None:
    """Matrix from [x, y, 1] to [s, t, 1] / z, or None if the camera is behind the face."""
    rotation, translation = viewmat[:3, :3], viewmat[:3, 3]
    corner = rotation @ face.corner + translation
    edges = np.stack([rotation @ face.right, rotation @ face.down, corner], axis=1)
    if np.linalg.det(edges) <= 1e-9:
        return None
    return np.linalg.inv(K @ edges)


def _bounds(
    face: Face, K: np.ndarray, viewmat: np.ndarray, width: int, height: int
) -> tuple[int, int, int, int] | None:
    """Pixel window that holds the face (everything if it reaches behind the camera), or None if outside."""
    corners = np.stack([face.corner + s * face.right + t * face.down for s in (0, 1) for t in (0, 1)])
    camera = corners @ viewmat[:3, :3].T + viewmat[:3, 3]
    if camera[:, 2].min() < 1e-3:
        return None if camera[:, 2].max() < 1e-3 else (0, 0, width, height)
    pixels = (camera / camera[:, 2:]) @ K.T
    x0, y0 = np.maximum(np.floor(pixels[:, :2].min(axis=0)), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(pixels[:, :2].max(axis=0)), [width, height]).astype(int)
    return (int(x0), int(y0), int(x1), int(y1)) if x1 > x0 and y1 > y0 else None


def _affine(h: np.ndarray, x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    h = h.astype(np.float32)
    return [(h[i, 0] * x + h[i, 2]) + h[i, 1] * y for i in range(3)]


def _shade(texture: Texture, homography: np.ndarray, x: np.ndarray, y: np.ndarray, samples: int) -> np.ndarray:
    s, t, w = _affine(homography, x, y)
    depth = 1 / w
    s *= depth
    t *= depth
    h = homography.astype(np.float32)
    height, width = texture.image.shape[:2]
    # Derivatives of (s, t) along x and y, in texels per ray spacing; the longer one picks the mip level.
    spread = np.zeros_like(s)
    for axis in range(2):
        along = ((h[0, axis] - s * h[2, axis]) * width) ** 2 + ((h[1, axis] - t * h[2, axis]) * height) ** 2
        np.maximum(spread, along, out=spread)
    level = np.log2(np.maximum(np.sqrt(spread) * depth / samples, 1.0))
    return texture.sample(s, t, level)


def _labels(faces: Sequence[Face], owner: np.ndarray, samples: int) -> np.ndarray:
    table = np.array([face.label for face in faces] + [0], dtype=np.int32)
    instances = table[owner]
    size = (owner.shape[1] // samples, owner.shape[0] // samples)
    result = np.zeros(size[::-1], dtype=np.int32)
    most = np.zeros(size[::-1], dtype=np.float32)
    for label in np.unique(instances):
        share = cv2.resize((instances == label).astype(np.float32), size, interpolation=cv2.INTER_AREA)
        better = share > most
        result[better] = label
        most[better] = share[better]
    return result
