"""Ground truth as 3D-OVS has it: ``segmentations/classes.txt`` and, per labelled view, a folder of masks.

``segmentations/NAME/CLASS.png`` is white where the view NAME shows CLASS. Every class of the file is asked for in every
view; one without a mask there is not in the view.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from encoders.errors import InputError
from encoders.files import read_image

CLASSES = "classes.txt"


@dataclass(frozen=True)
class ViewMasks:
    """What one view shows.

    Attributes:
        name: of the view: its folder's name, which is the photo's stem.
        categories: every class of the scene.
        folder: where the masks are.
    """

    name: str
    categories: list[str]
    folder: Path

    def mask(self, category: str, width: int, height: int) -> np.ndarray:
        """Where a class is, at the given size: bool [H, W]; all False if it is not in the view."""
        found = self._masks.get(category)
        if found is None:
            return np.zeros((height, width), bool)
        return cv2.resize(found, (width, height), interpolation=cv2.INTER_NEAREST_EXACT).astype(bool)

    def boxes(self, category: str, width: int, height: int) -> np.ndarray:
        """Boxes (x0, y0, x1, y1) around the connected pieces of a class, ends included: float64 [B, 4]."""
        mask = self.mask(category, width, height).astype(np.uint8)
        count, _, found, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        x, y, across, down = (found[1:count, column] for column in range(4))
        return np.stack([x, y, x + across - 1, y + down - 1], axis=1).astype(np.float64)

    @cached_property
    def _masks(self) -> dict[str, np.ndarray]:
        paths = {name: self.folder / f"{name}.png" for name in self.categories}
        return {name: (_grey(path) > 127).astype(np.uint8) for name, path in paths.items() if path.is_file()}


def read_masks(folder: Path) -> list[ViewMasks]:
    """Labels of all views in a ``segmentations`` folder, sorted by name.

    Raises:
        InputError: no classes are named, or no view has a mask of one.
    """
    try:
        lines = (folder / CLASSES).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{folder / CLASSES} cannot be read ({error}); 3D-OVS names its classes there.") from error
    classes = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not classes:
        raise InputError(f"{folder / CLASSES} names no classes; give one per line.")
    bad = [name for name in classes if set("/\\\0") & set(name) or name[0] == "." or len(name.encode()) > 250]
    if bad:
        raise InputError(f"{folder / CLASSES} has a class {bad[0][:40]!r}, which no file can be named by.")
    views = [ViewMasks(path.name, classes, path) for path in sorted(folder.iterdir()) if path.is_dir()]
    views = [view for view in views if any((view.folder / f"{name}.png").is_file() for name in classes)]
    if not views:
        raise InputError(f"{folder} has no masks; 3D-OVS has a folder per view with a PNG for each class.")
    return views


def _grey(path: Path) -> np.ndarray:
    return np.asarray(read_image(path).max(axis=2))
