"""The demo scene's room: walls, floor, and seven photos on boxes and panels.

World axes: x right, y into the room, z up, in metres; cameras stand at negative y and look towards +y.
Shading does not depend on the view: each side of a box has a fixed brightness, and the corners' darkness and
the shadows are painted.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import skimage
import sklearn

from encoders.files import read_image
from splat.scene.raycast import Face, Texture

CATEGORIES = ("cat", "coffee cup", "rocket", "motorcycle", "temple", "astronaut", "flower")
"""Names of the objects, which are also the demo's text queries; instance label = position + 1."""

LEFT, RIGHT, FRONT, BACK, TOP = -2.9, 2.9, -4.2, 2.4, 3.0
TEXELS_PER_METRE = 200


@dataclass(frozen=True)
class Print:
    """A photo on the front of a box, wrapped around its edges as on a stretched canvas.

    Args:
        category: one of `CATEGORIES`, or None for plain furniture.
        photo: file name of the photo, or a colour (r, g, b).
        crop: part of the photo, (x0, y0, x1, y1) in pixels.
        centre: (x, y) of the front face's middle and z of its lower edge.
        width: of the front face; its height follows from the crop (or ``height``).
        depth: thickness behind the front.
        yaw: turn about the vertical, degrees; 0 faces the cameras, positive turns towards +x.
    """

    category: str | None
    photo: str | tuple[int, int, int]
    crop: tuple[int, int, int, int]
    centre: tuple[float, float, float]
    width: float
    depth: float
    yaw: float = 0.0

    @property
    def height(self) -> float:
        x0, y0, x1, y1 = self.crop
        return self.width * (y1 - y0) / (x1 - x0)


PRINTS = (
    Print("temple", "china.jpg", (0, 0, 440, 427), (-1.5, 2.32, 1.2), 1.25, 0.08),
    Print("rocket", "rocket.jpg", (165, 0, 475, 427), (1.6, 2.32, 1.15), 1.0, 0.08),
    Print("astronaut", "astronaut.png", (0, 0, 350, 512), (0.1, 1.75, 0.75), 0.95, 0.08),
    Print(None, (146, 132, 116), (0, 0, 95, 75), (0.1, 1.7, 0.0), 0.95, 0.35),
    Print("coffee cup", "coffee.png", (40, 0, 540, 400), (-1.65, 0.75, 0.0), 1.2, 0.4, 24.0),
    Print("motorcycle", "motorcycle_left.png", (70, 90, 741, 500), (1.7, 0.85, 0.0), 1.4, 0.4, -22.0),
    Print("cat", "chelsea.png", (20, 0, 431, 300), (-0.65, -0.4, 0.0), 0.85, 0.3, 10.0),
    Print("flower", "flower.jpg", (130, 50, 500, 427), (0.5, -0.5, 0.0), 0.7, 0.4, -14.0),
)
"""What stands and hangs here. Photos are cropped to their subject (by the astronaut stands a rocket)."""


def build_room() -> list[Face]:
    """All faces of the room, textured; labels as in `CATEGORIES`."""
    faces = _shell()
    for item in PRINTS:
        faces += _box(item)
    return faces


@cache
def _photo(name: str) -> np.ndarray:
    """A sample picture uint8 [H, W, 3] read from where the package keeps it (never downloaded)."""
    if name in ("china.jpg", "flower.jpg"):
        return read_image(Path(sklearn.__file__).parent / "datasets" / "images" / name)
    return read_image(Path(skimage.__file__).parent / "data" / name)


def _box(item: Print) -> list[Face]:
    """Front, left, right and upper side; the sides carry the photo's mirrored margin, darkened."""
    if isinstance(item.photo, str):
        x0, y0, x1, y1 = item.crop
        front = _photo(item.photo)[y0:y1, x0:x1]
    else:
        front = np.full((8, 8, 3), item.photo, dtype=np.uint8)
    turn = np.radians(item.yaw)
    across = np.array([np.cos(turn), np.sin(turn), 0.0]) * item.width
    inward = np.array([-np.sin(turn), np.cos(turn), 0.0]) * item.depth
    down = np.array([0.0, 0.0, -item.height])
    corner = np.array(item.centre) - across / 2 - down
    label = CATEGORIES.index(item.category) + 1 if item.category else 0
    margin = max(1, min(front.shape[1], round(front.shape[1] * item.depth / item.width)))
    brim = max(1, min(front.shape[0], round(front.shape[0] * item.depth / item.height)))
    return [
        Face(corner, across, down, Texture(front), label),
        Face(corner + inward, -inward, down, _dimmed(front[:, :margin][:, ::-1], 0.72), label),
        Face(corner + across, inward, down, _dimmed(front[:, -margin:][:, ::-1], 0.66), label),
        Face(corner + inward, across, -inward, _dimmed(front[:brim][::-1], 0.88), label),
    ]


def _dimmed(image: np.ndarray, brightness: float) -> Texture:
    return Texture((image * brightness).round().astype(np.uint8))


def _shell() -> list[Face]:
    """Floor, ceiling and the walls that cameras see."""
    wide, deep, tall = RIGHT - LEFT, BACK - FRONT, TOP
    x, y, z = np.eye(3)
    floor = _matte("gravel.png", wide, deep, (150, 128, 104), 0.26, photo_metres=2.2)
    floor *= _floor_shadow()[..., None]
    # The brick photo's courses run upwards; turned, they lie as bricks do.
    back = _matte("brick.png", wide, tall, (176, 184, 190), 0.2, photo_metres=1.9, turned=True)
    back *= _wall_shadow()[..., None]
    left = _matte("grass.png", deep, tall, (168, 178, 158), 0.22, photo_metres=2.4)
    right = _matte("grass.png", deep, tall, (188, 172, 152), 0.22, photo_metres=2.4)
    ceiling = _matte("grass.png", wide, deep, (214, 212, 206), 0.06, photo_metres=3.0)
    return [
        Face(np.array([LEFT, BACK, 0.0]), x * wide, -y * deep, _baked(floor)),
        Face(np.array([LEFT, BACK, TOP]), x * wide, -z * tall, _baked(back)),
        Face(np.array([LEFT, FRONT, TOP]), y * deep, -z * tall, _baked(left)),
        Face(np.array([RIGHT, BACK, TOP]), -y * deep, -z * tall, _baked(right)),
        Face(np.array([LEFT, FRONT, TOP]), x * wide, y * deep, _baked(ceiling)),
    ]


def _baked(image: np.ndarray) -> Texture:
    return Texture(np.clip(image + 0.5, 0, 255).astype(np.uint8))


def _matte(
    name: str,
    width: float,
    height: float,
    tint: tuple[int, int, int],
    contrast: float,
    photo_metres: float,
    turned: bool = False,
) -> np.ndarray:
    """A wall's paint float32 [H, W, 3]: a grey photo, repeated in mirror image, as its relief."""
    photo = _photo(name)[..., 0].astype(np.float32)
    relief = (photo - cv2.GaussianBlur(photo, (0, 0), 80)) / photo.std()
    relief = np.ascontiguousarray(np.rot90(relief)) if turned else relief
    tile = round(photo_metres * TEXELS_PER_METRE)
    # Softened, because grain finer than a pixel would only be noise to whoever reconstructs the room.
    relief = cv2.GaussianBlur(cv2.resize(relief, (tile, tile), interpolation=cv2.INTER_AREA), (0, 0), 1.2)
    rows, columns = round(height * TEXELS_PER_METRE), round(width * TEXELS_PER_METRE)
    relief = np.pad(relief, ((0, max(0, rows - tile)), (0, max(0, columns - tile))), mode="symmetric")
    relief = np.clip(relief[:rows, :columns], -2.5, 2.5)
    relief *= _corners(rows, columns) * contrast * 0.4
    brightness = _corners(rows, columns) + relief
    return np.asarray(np.array(tint, dtype=np.float32) * brightness[..., None], dtype=np.float32)


def _corners(rows: int, columns: int) -> np.ndarray:
    """Brightness float32 [rows, columns] that falls off within half a metre of the edges."""
    y = np.minimum(np.arange(rows), np.arange(rows)[::-1])[:, None] / TEXELS_PER_METRE
    x = np.minimum(np.arange(columns), np.arange(columns)[::-1])[None, :] / TEXELS_PER_METRE
    return ((1 - 0.22 * np.exp(-y / 0.25)) * (1 - 0.22 * np.exp(-x / 0.25))).astype(np.float32)


def _floor_shadow() -> np.ndarray:
    """Contact shadows of everything that stands on the floor; row 0 is at the back wall."""
    rows, columns = round((BACK - FRONT) * TEXELS_PER_METRE), round((RIGHT - LEFT) * TEXELS_PER_METRE)
    x = LEFT + (np.arange(columns, dtype=np.float32) + 0.5)[None, :] / TEXELS_PER_METRE
    y = BACK - (np.arange(rows, dtype=np.float32) + 0.5)[:, None] / TEXELS_PER_METRE
    light = np.ones((rows, columns), dtype=np.float32)
    for item in PRINTS:
        if item.centre[2] > 0:
            continue
        turn = np.radians(item.yaw)
        across = (x - item.centre[0]) * np.cos(turn) + (y - item.centre[1]) * np.sin(turn)
        inward = (y - item.centre[1]) * np.cos(turn) - (x - item.centre[0]) * np.sin(turn) - item.depth / 2
        light *= _shadow(across, inward, item.width / 2, item.depth / 2, 0.5, 0.16)
    return light


def _wall_shadow() -> np.ndarray:
    """Soft shadows of the panels that hang on the back wall; row 0 is at the ceiling."""
    rows, columns = round(TOP * TEXELS_PER_METRE), round((RIGHT - LEFT) * TEXELS_PER_METRE)
    x = LEFT + (np.arange(columns, dtype=np.float32) + 0.5)[None, :] / TEXELS_PER_METRE
    z = TOP - (np.arange(rows, dtype=np.float32) + 0.5)[:, None] / TEXELS_PER_METRE
    light = np.ones((rows, columns), dtype=np.float32)
    for item in PRINTS:
        if abs(item.centre[1] + item.depth - BACK) < 0.05:
            middle = item.centre[2] + item.height / 2 - 0.04
            light *= _shadow(x - item.centre[0], z - middle, item.width / 2, item.height / 2, 0.4, 0.09)
    return light


def _shadow(
    x: np.ndarray, y: np.ndarray, half_width: float, half_height: float, strength: float, softness: float
) -> np.ndarray:
    outside = np.hypot(np.maximum(np.abs(x) - half_width, 0), np.maximum(np.abs(y) - half_height, 0))
    return np.asarray(1 - strength * np.exp(-outside / softness), dtype=np.float32)
