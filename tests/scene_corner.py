"""A textured room corner with known cameras, rendered by homographies: ground truth for the scene tests."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from PIL import Image

WIDTH, HEIGHT, FOCAL = 320, 240, 280.0
K = np.array([[FOCAL, 0.0, WIDTH / 2], [0.0, FOCAL, HEIGHT / 2], [0.0, 0.0, 1.0]])
HALF_PIXEL = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])

# Origin, one edge and the other edge of each 4 x 4 wall: the planes z = 0, x = 0 and y = 0 (y points down).
WALLS = [
    ((0.0, -4.0, 0.0), (4.0, 0.0, 0.0), (0.0, 4.0, 0.0)),
    ((0.0, -4.0, -4.0), (0.0, 0.0, 4.0), (0.0, 4.0, 0.0)),
    ((0.0, 0.0, -4.0), (4.0, 0.0, 0.0), (0.0, 0.0, 4.0)),
]


@dataclass
class Shot:
    """One rendered photo: uint8 [H, W, 3] and the world-to-camera pose [4, 4] it was taken with."""

    image: np.ndarray
    viewmat: np.ndarray


def look_at(eye: np.ndarray, target: np.ndarray) -> np.ndarray:
    """World-to-camera pose, OpenCV axes, of a camera at ``eye`` looking at ``target``; +y is down."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward])
    pose[:3, 3] = -pose[:3, :3] @ eye
    return pose


def textures() -> list[np.ndarray]:
    """Three photos rich in detail, uint8 [512, 512, 3]."""
    photos = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea()]
    return [cv2.resize(photo, (512, 512), interpolation=cv2.INTER_AREA) for photo in photos]


def render(viewmat: np.ndarray) -> np.ndarray:
    """The corner as the camera ``viewmat`` sees it, uint8 [H, W, 3], twofold supersampled."""
    scale = np.diag([2.0, 2.0, 1.0])
    image = np.zeros((HEIGHT * 2, WIDTH * 2, 3), np.uint8)
    for texture, (origin, across, down) in zip(textures(), WALLS, strict=True):
        side = texture.shape[0]
        corners = np.array([np.divide(across, side), np.divide(down, side), origin]).T
        to_image = scale @ K @ (viewmat[:3, :3] @ corners + np.outer(viewmat[:3, 3], [0.0, 0.0, 1.0]))
        centres = np.linalg.inv(HALF_PIXEL) @ to_image @ HALF_PIXEL
        size = (WIDTH * 2, HEIGHT * 2)
        cover = cv2.warpPerspective(np.full((side, side), 255, np.uint8), centres, size, flags=cv2.INTER_NEAREST)
        image[cover > 0] = cv2.warpPerspective(texture, centres, size, borderMode=cv2.BORDER_REPLICATE)[cover > 0]
    return cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)


def shots(count: int = 10) -> list[Shot]:
    """Photos from an arc in front of the corner."""
    result = []
    for angle in np.linspace(np.radians(25), np.radians(65), count):
        eye = np.array([5.5 * np.sin(angle), -2.0 - 0.6 * np.sin(5 * angle), -5.5 * np.cos(angle)])
        pose = look_at(eye, np.array([1.2, -1.2, -1.2]))
        result.append(Shot(render(pose), pose))
    return result


def write_transforms(folder: Path, photos: list[Shot]) -> dict:
    """Write ``images/*.png`` and return the content of a matching transforms.json (not written)."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    frames = []
    for index, shot in enumerate(photos):
        file = f"images/shot_{index:02d}.png"
        Image.fromarray(shot.image).save(folder / file)
        pose = np.linalg.inv(shot.viewmat)
        pose[:, 1:3] *= -1.0  # OpenCV to OpenGL axes
        frames.append({"file_path": file, "transform_matrix": pose.tolist()})
    return {
        "w": WIDTH,
        "h": HEIGHT,
        "fl_x": FOCAL,
        "fl_y": FOCAL,
        "cx": WIDTH / 2,
        "cy": HEIGHT / 2,
        "frames": frames,
    }
