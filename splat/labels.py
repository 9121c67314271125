"""What labels of any kind say: which categories a view shows, and where they are in it."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from splat.scene.undistort import Lens


@dataclass(frozen=True)
class Shown:
    """Where a view shows a category.

    Attributes:
        mask: bool [H, W]; empty where the object is smaller than a pixel of the view.
        boxes: (x0, y0, x1, y1) of its pieces, ends included. float64 [B, 4]
    """

    mask: np.ndarray
    boxes: np.ndarray


class Labels(Protocol):
    """What one view shows, in whatever form it is written down."""

    @property
    def name(self) -> str:
        """Of the view."""

    @property
    def categories(self) -> list[str]:
        """What is asked for in this view."""

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height at which answers are scored; None if at those of the view."""

    def shown(self, category: str, width: int, height: int, lens: Lens | None = None) -> Shown | None:
        """Where a category is in a view of the given size; None if it is not there.

        Args:
            lens: of the photo that was labelled, where the view is a straightened copy of it.
        """
