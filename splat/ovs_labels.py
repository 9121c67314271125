"""Ground truth as 3D-OVS has it: ``segmentations/classes.txt`` and, per labelled view, a folder of masks.

``segmentations/NAME/CLASS.png`` is white where the view NAME shows CLASS. Every class of the file is asked for in every
view; one without a mask there, or with one that is black, is not in the view.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from encoders.errors import InputError
from encoders.files import read_image
from splat.labels import Shown
from splat.scene.undistort import Lens, straighten_mask

CLASSES = "classes.txt"

WHITE_FROM = 128
"""Grey value from which a pixel of a mask counts as white: masks that were resized or saved as JPEG have some grey."""


@dataclass(frozen=True)
class ViewMasks:
    """What one view shows. Masks are read when they are asked for, and not kept.

    Attributes:
        name: of the view: its folder's name, which is the photo's stem.
        categories: every class of the scene.
        folder: where the masks are.
    """

    name: str
    categories: list[str]
    folder: Path

    @property
    def size(self) -> None:
        """Answers are scored at the size of the view: 3D-OVS resizes the masks."""
        return None

    def shown(self, category: str, width: int, height: int, lens: Lens | None = None) -> Shown | None:
        """Where a class is in a view of the given size; None if no pixel of it is in the photo or the view.

        The boxes are around its connected pieces, diagonal neighbours included.

        Args:
            lens: of the photo that was labelled, where the view is a straightened copy of it.

        Raises:
            InputError: the mask cannot be read.
        """
        path = self.folder / f"{category}.png"
        if not path.is_file():
            return None
        drawn = read_image(path).max(axis=2) >= WHITE_FROM
        mask = straighten_mask(drawn, lens, width, height)
        if not mask.any() and not straighten_mask(drawn, lens, drawn.shape[1], drawn.shape[0]).any():
            return None
        return Shown(mask, _boxes(mask))


def read_masks(folder: Path) -> list[ViewMasks]:
    """Labels of all views in a ``segmentations`` folder, sorted by name.

    Raises:
        InputError: no classes are named, no view has a mask of one, or masks and names do not match.
    """
    classes = _classes(folder)
    views = [ViewMasks(path.name, classes, path) for path in sorted(folder.iterdir()) if path.is_dir()]
    masks = {view.name: sorted(path.stem for path in view.folder.glob("[!.]*.png")) for view in views}
    views = [view for view in views if masks[view.name]]
    if not views:
        raise InputError(f"{folder} has no masks; 3D-OVS has a folder per view with a PNG for each class.")
    for view in views:
        strange = next((name for name in masks[view.name] if name not in classes), None)
        if strange is not None:
            raise InputError(
                f"{view.folder / strange}.png is a mask of a class that {folder / CLASSES} does not name; "
                "add the class there or remove the mask."
            )
    found = set().union(*masks.values())
    missing = next((name for name in classes if name not in found), None)
    if missing is not None:
        raise InputError(
            f"{folder / CLASSES} has a class {missing[:40]!r}, of which no view has a mask; "
            f"name it like its files (VIEW/{missing[:40]}.png) or remove it."
        )
    return views


def _classes(folder: Path) -> list[str]:
    try:
        # Editors on Windows begin a file with a mark that would belong to the first name.
        lines = (folder / CLASSES).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{folder / CLASSES} cannot be read ({error}); 3D-OVS names its classes there.") from error
    classes = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not classes:
        raise InputError(f"{folder / CLASSES} names no classes; give one per line.")
    bad = [name for name in classes if set("/\\\0") & set(name) or name[0] == "." or len(name.encode()) > 250]
    if bad:
        raise InputError(f"{folder / CLASSES} has a class {bad[0][:40]!r}, which no file can be named by.")
    return classes


def _boxes(mask: np.ndarray) -> np.ndarray:
    count, _, found, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    x, y, across, down = (found[1:count, column] for column in range(4))
    return np.stack([x, y, x + across - 1, y + down - 1], axis=1).astype(np.float64)
