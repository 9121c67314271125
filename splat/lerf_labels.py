"""Ground truth for queries: what is where in a view, as LERF_OVS and labelme write it down.

One JSON file per view. LERF_OVS: ``{"info": {"name", "width", "height"}, "objects": [{"category",
"segmentation": [[x, y], ...], "bbox": [x0, y0, x1, y1]}, ...]}``; labelme (and LERF's own localisation
labels): ``{"imageWidth", "imageHeight", "shapes": [{"label", "points", "shape_type"}, ...]}``. A category may
have several entries in a view; together they are one mask with several boxes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from pydantic import BaseModel, Field, FiniteFloat, StringConstraints, ValidationError

from encoders.errors import InputError
from encoders.files import MAX_PIXELS, parse_json
from splat.labels import Shown
from splat.scene.undistort import Lens, straighten_boxes, straighten_mask

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Size = Annotated[int, Field(gt=0, le=100_000)]
# Drawing an outline takes as long as it is tall, whether it is in the picture or not.
Coordinate = Annotated[FiniteFloat, Field(ge=-1e6, le=1e6)]
Point = Annotated[list[Coordinate], Field(min_length=2, max_length=2)]
Box = Annotated[list[Coordinate], Field(min_length=4, max_length=4)]


@dataclass(frozen=True)
class Piece:
    """A part of an object: ``outline`` float64 [P, 2] and ``box`` (x0, y0, x1, y1), in label pixels."""

    outline: np.ndarray
    box: np.ndarray


@dataclass(frozen=True)
class ViewLabels:
    """What one view shows.

    Attributes:
        name: of the view: the label file's stem, which is the photo's.
        width, height: size of the picture that was labelled.
        pieces: by category, in the order of the file.
    """

    name: str
    width: int
    height: int
    pieces: dict[str, list[Piece]]

    @property
    def categories(self) -> list[str]:
        """What can be asked for in this view."""
        return list(self.pieces)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture that was labelled, at which answers are scored."""
        return self.width, self.height

    def shown(self, category: str, width: int, height: int, lens: Lens | None = None) -> Shown | None:
        """Where a category is in a view of the given size; None if no pixel of it is in the picture or the view.

        Args:
            lens: of the photo that was labelled, where the view is a straightened copy of it.
        """
        mask = self.mask(category, width, height, lens)
        if not mask.any() and not self.mask(category, lens=lens).any():
            return None
        return Shown(mask, self.boxes(category, width, height, lens))

    def mask(
        self, category: str, width: int | None = None, height: int | None = None, lens: Lens | None = None
    ) -> np.ndarray:
        """All pieces of a category, outlines included, at the given (or the labels') size: bool [H, W]."""
        drawn = np.zeros((self.height, self.width), np.uint8)
        for piece in self.pieces[category]:
            # Whole pixels as the published evaluation takes them: cut off, not rounded, at the size they are drawn at.
            cv2.fillPoly(drawn, [piece.outline.astype(np.int32)], 1)
        return straighten_mask(drawn.astype(bool), lens, width or self.width, height or self.height)

    def boxes(
        self, category: str, width: int | None = None, height: int | None = None, lens: Lens | None = None
    ) -> np.ndarray:
        """Boxes (x0, y0, x1, y1) of a category's pieces, ends included, at the given size: float64 [B, 4]."""
        corners = np.stack([piece.box.reshape(2, 2) for piece in self.pieces[category]])
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        return straighten_boxes(boxes, self.size, lens, width or self.width, height or self.height)


def read_labels(folder: Path) -> list[ViewLabels]:
    """Labels of all views in ``folder`` (its ``*.json``), sorted by file name.

    Raises:
        InputError: no such folder, no JSON in it, or a file that is not in one of the two formats.
    """
    if not folder.is_dir():
        raise InputError(f"The labels folder {folder} does not exist; it should hold one JSON file per view.")
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise InputError(f"{folder} has no label files; it needs one JSON file per view (LERF or labelme).")
    return [read_view_labels(path) for path in paths]


def read_view_labels(path: Path) -> ViewLabels:
    """Labels of one view from ``path``.

    Raises:
        InputError: the file cannot be read or is not in LERF_OVS or labelme format.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"The label file {path} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise InputError(f"The label file {path} is not valid JSON ({error}).") from error
    try:
        if isinstance(content, dict) and "shapes" in content:
            return _from_labelme(path, _LabelmeFile.model_validate(content))
        return _from_lerf(path, _LerfFile.model_validate(content))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the top"
        raise InputError(
            f"The label file {path} is neither LERF nor labelme format: {first['msg']} at {where}."
        ) from error


class _LerfInfo(BaseModel):
    width: Size
    height: Size


class _LerfObject(BaseModel):
    category: Name
    segmentation: Annotated[list[Point], Field(min_length=1)]
    bbox: Box | None = None


class _LerfFile(BaseModel):
    info: _LerfInfo
    objects: list[_LerfObject]


class _LabelmeShape(BaseModel):
    label: Name
    points: Annotated[list[Point], Field(min_length=2)]
    shape_type: Literal["polygon", "rectangle"] = "polygon"


class _LabelmeFile(BaseModel):
    imageWidth: Size
    imageHeight: Size
    shapes: list[_LabelmeShape]


def _from_lerf(path: Path, file: _LerfFile) -> ViewLabels:
    _check_size(path, file.info.width, file.info.height)
    pieces: dict[str, list[Piece]] = {}
    for item in file.objects:
        pieces.setdefault(item.category, []).append(_piece(item.segmentation, item.bbox))
    return ViewLabels(path.stem, file.info.width, file.info.height, pieces)


def _from_labelme(path: Path, file: _LabelmeFile) -> ViewLabels:
    _check_size(path, file.imageWidth, file.imageHeight)
    pieces: dict[str, list[Piece]] = {}
    for shape in file.shapes:
        points = shape.points
        if shape.shape_type == "rectangle":
            (x0, y0), (x1, y1) = points[0], points[-1]
            points = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
        pieces.setdefault(shape.label, []).append(_piece(points, None))
    return ViewLabels(path.stem, file.imageWidth, file.imageHeight, pieces)


def _check_size(path: Path, width: int, height: int) -> None:
    """Masks are drawn at this size, and no photo that could be read has more pixels."""
    if width * height > MAX_PIXELS:
        raise InputError(
            f"The label file {path} is for a picture of {width}x{height} pixels, more than dictsplat reads."
        )


def _piece(points: Any, box: Any) -> Piece:
    outline = np.asarray(points, dtype=np.float64)
    if box is None:
        box = [*outline.min(axis=0), *outline.max(axis=0)]
    return Piece(outline, np.asarray(box, dtype=np.float64))
