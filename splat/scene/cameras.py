"""Pinhole cameras: one immutable record per view, and their JSON form in a run folder."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, Field, FiniteFloat, ValidationError, model_validator

from encoders.errors import InputError
from encoders.files import MAX_PIXELS, write_json

Row3 = Annotated[list[FiniteFloat], Field(min_length=3, max_length=3)]
Row4 = Annotated[list[FiniteFloat], Field(min_length=4, max_length=4)]

MAX_SIDE = 2**19 - 1
"""Pixels along a side; the rasteriser takes no more."""


@dataclass(frozen=True)
class Camera:
    """An ideal pinhole camera.

    Attributes:
        name: unique within a scene; normally the stem of the photo's file name.
        width, height: image size in pixels.
        K: float64 [3, 3], pixel units; the centre of the top-left pixel is at (0.5, 0.5), so a resize
            multiplies the first two rows and changes nothing else.
        viewmat: float64 [4, 4], world to camera, OpenCV axes (x right, y down, z forward).
    """

    name: str
    width: int
    height: int
    K: NDArray[np.float64]
    viewmat: NDArray[np.float64]

    @property
    def center(self) -> NDArray[np.float64]:
        """Where the camera stands in the world, float64 [3]."""
        return np.asarray(-self.viewmat[:3, :3].T @ self.viewmat[:3, 3])

    @property
    def forward(self) -> NDArray[np.float64]:
        """Unit vector along the optical axis in the world, float64 [3]."""
        return np.asarray(self.viewmat[2, :3])

    def resized(self, width: int, height: int) -> "Camera":
        """The same camera with an image of exactly ``width`` x ``height`` pixels."""
        K = self.K.copy()
        K[0] *= width / self.width
        K[1] *= height / self.height
        return replace(self, width=width, height=height, K=K)

    def scaled(self, factor: float) -> "Camera":
        """The same camera with its image resized by ``factor`` > 0 (sizes rounded, at least one pixel)."""
        return self.resized(max(1, round(self.width * factor)), max(1, round(self.height * factor)))


def stack(cameras: Sequence[Camera]) -> tuple[torch.Tensor, torch.Tensor]:
    """The cameras as float32 tensors for the rasteriser: viewmats [C, 4, 4] and Ks [C, 3, 3]."""
    viewmats = np.stack([camera.viewmat for camera in cameras]).astype(np.float32)
    Ks = np.stack([camera.K for camera in cameras]).astype(np.float32)
    return torch.from_numpy(viewmats), torch.from_numpy(Ks)


class PictureSize(BaseModel):
    """A size in pixels that a file asks for: sides up to `MAX_SIDE`, no more pixels than photos may have."""

    width: int = Field(gt=0, le=MAX_SIDE)
    height: int = Field(gt=0, le=MAX_SIDE)

    @model_validator(mode="after")
    def _is_a_picture(self) -> Self:
        if self.width * self.height > MAX_PIXELS:
            raise ValueError(f"{self.width}x{self.height} pixels are more than the {MAX_PIXELS:,} that are drawn")
        return self


class _CameraRecord(PictureSize):
    name: str = Field(min_length=1)
    K: Annotated[list[Row3], Field(min_length=3, max_length=3)]
    viewmat: Annotated[list[Row4], Field(min_length=4, max_length=4)]


class _CamerasFile(BaseModel):
    version: Literal[1]
    cameras: list[_CameraRecord] = Field(min_length=1)
    test: list[str] = []


def save_cameras(path: Path, cameras: Sequence[Camera], test_names: Sequence[str]) -> None:
    """Write ``cameras`` and the names of the held-out ones as JSON, atomically."""
    records = [
        {
            "name": c.name,
            "width": c.width,
            "height": c.height,
            "K": c.K.tolist(),
            "viewmat": c.viewmat.tolist(),
        }
        for c in cameras
    ]
    write_json(path, {"version": 1, "cameras": records, "test": list(test_names)})


def load_cameras(path: Path) -> tuple[list[Camera], list[str]]:
    """Read what `save_cameras` wrote: the cameras and the names of the held-out ones.

    Raises:
        InputError: the file is missing, is not such a file, names a camera twice, or holds a matrix
            that is not finite or a size that is no `PictureSize`.
    """
    try:
        content = _CamerasFile.model_validate_json(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"The camera file {path} cannot be read ({error.strerror}).") from error
    except (ValidationError, UnicodeDecodeError) as error:
        raise InputError(f"The camera file {path} is not valid: {first_problem(error)}.") from error
    counts = Counter(record.name for record in content.cameras)
    repeated = [name for name, count in counts.items() if count > 1]
    if repeated:
        raise InputError(f"The camera file {path} names the camera {repeated[0]!r} twice.")
    unknown = sorted(set(content.test) - set(counts))
    if unknown:
        raise InputError(f"The camera file {path} holds out {unknown[0]!r}, which is not one of its cameras.")
    cameras = [
        Camera(record.name, record.width, record.height, np.array(record.K), np.array(record.viewmat))
        for record in content.cameras
    ]
    return cameras, content.test


def first_problem(error: ValueError) -> str:
    """The first thing a validation found, as "key: what is wrong", for one-sentence messages."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    text = first["msg"].rstrip(".")
    return f"{where}: {text}" if where else text
