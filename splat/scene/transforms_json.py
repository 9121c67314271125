"""transforms.json as instant-ngp and nerfstudio write it."""

import math
from collections.abc import Callable
from os.path import isfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from plyfile import PlyData, PlyParseError
from pydantic import BaseModel, Field, FiniteFloat, ValidationError, field_validator

from encoders.errors import InputError
from encoders.files import parse_json
from encoders.progress import Report, silent
from splat.ply_promise import check_promise
from splat.scene.cameras import Row4, first_problem
from splat.scene.capture import Capture, View, view_names
from splat.scene.images import IMAGE_SUFFIXES, image_size
from splat.scene.undistort import Lens

FLIP_YZ = np.diag([1.0, -1.0, -1.0, 1.0])
"""OpenGL cameras look along -z with y up, OpenCV ones along +z with y down."""

NOT_ROTATION = 0.01
"""Relative difference of the axes' lengths up to which a pose counts as a rounded rotation."""

PERSPECTIVE = {"OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "FULL_OPENCV"}


class _Intrinsics(BaseModel):
    """Keys that may stand at the top, in a frame, or (the frame wins) in both."""

    w: Annotated[FiniteFloat, Field(gt=0)] | None = None
    h: Annotated[FiniteFloat, Field(gt=0)] | None = None
    fl_x: Annotated[FiniteFloat, Field(gt=0)] | None = None
    fl_y: Annotated[FiniteFloat, Field(gt=0)] | None = None
    cx: FiniteFloat | None = None
    cy: FiniteFloat | None = None
    camera_angle_x: Annotated[FiniteFloat, Field(gt=0, lt=math.pi)] | None = None
    camera_angle_y: Annotated[FiniteFloat, Field(gt=0, lt=math.pi)] | None = None
    k1: FiniteFloat | None = None
    k2: FiniteFloat | None = None
    k3: FiniteFloat | None = None
    k4: FiniteFloat | None = None
    p1: FiniteFloat | None = None
    p2: FiniteFloat | None = None
    camera_model: str | None = None
    is_fisheye: bool | None = None


class _Frame(_Intrinsics):
    file_path: str = Field(min_length=1)
    transform_matrix: Annotated[list[Row4], Field(min_length=3, max_length=4)]

    @field_validator("transform_matrix")
    @classmethod
    def _is_a_pose(cls, rows: list[list[float]]) -> list[list[float]]:
        lengths = np.linalg.svd(np.array(rows)[:3, :3], compute_uv=False)
        if lengths[2] <= 0 or lengths[0] / lengths[2] > 1 + NOT_ROTATION:
            raise ValueError("the upper left 3x3 block is not a rotation")
        if np.linalg.det(np.array(rows)[:3, :3]) < 0:
            raise ValueError("the upper left 3x3 block is a reflection, not a rotation")
        if len(rows) == 4 and not np.allclose(rows[3], [0, 0, 0, 1], atol=1e-6):
            raise ValueError("the last row is not 0 0 0 1")
        return rows


class _File(_Intrinsics):
    frames: list[_Frame] = Field(min_length=1)
    ply_file_path: str | None = None
    train_filenames: list[str] | None = None
    val_filenames: list[str] | None = None
    test_filenames: list[str] | None = None


def read(path: Path, report: Report = silent) -> Capture:
    """Read ``path``, a transforms.json; image and point paths in it are relative to its folder.

    Frames whose image file is missing are left out and counted in a report.

    Raises:
        InputError: the file is not such a file, a pose or an intrinsic is missing or not finite, an
            image is listed twice, or no frame has an image.
    """
    content = _parse(path)
    folder = path.parent
    names = view_names([frame.file_path for frame in content.frames], path)
    views = []
    for name, frame in zip(names, content.frames, strict=True):
        image = _find_image(folder, frame.file_path)
        if image is not None:
            lens = _lens(content, frame, image, path)
            views.append(View(name, image, lens, viewmat(np.array(frame.transform_matrix))))
    missing = len(names) - len(views)
    if not views:
        raise InputError(
            f"None of the {len(names)} images that {path} names exists (the first is "
            f"{folder / content.frames[0].file_path}); put the images beside it."
        )
    if missing:
        report(
            len(views),
            len(names),
            f"{missing} of the {len(names)} frames have no image file and are left out",
        )
    capture = Capture(views, *_split(content, names, path))
    if content.ply_file_path is not None:
        capture.points, capture.point_colors = read_points(folder / content.ply_file_path)
    return capture


def image_files(path: Path) -> list[Path]:
    """The image files that the transforms.json ``path`` names and that exist, in its order.

    Raises:
        InputError: the file is not such a file.
    """
    found = (_find_image(path.parent, frame.file_path) for frame in _parse(path).frames)
    return [image for image in found if image is not None]


def viewmat(camera_to_world: NDArray[np.float64]) -> NDArray[np.float64]:
    """OpenGL camera-to-world [3|4, 4] as OpenCV world-to-camera [4, 4]; the rotation is made exact."""
    pose = np.eye(4)
    pose[:3] = camera_to_world[:3]
    u, _, vt = np.linalg.svd(pose[:3, :3])
    pose[:3, :3] = u @ vt
    return np.asarray(np.linalg.inv(pose @ FLIP_YZ), np.float64)


def read_points(path: Path) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Points float32 [P, 3] and colours uint8 [P, 3] (grey where the PLY has none) of a point cloud.

    Raises:
        InputError: the file is missing or is not a PLY with vertices.
    """
    try:
        check_promise(path)
        vertices = PlyData.read(str(path))["vertex"].data
        points = np.stack([vertices[axis] for axis in "xyz"], axis=1).astype(np.float32)
    except OSError as error:
        raise InputError(f"The point cloud {path} cannot be read ({error.strerror or error}).") from error
    except (PlyParseError, KeyError, ValueError, EOFError, OverflowError, MemoryError) as error:
        raise InputError(f"The point cloud {path} is not a PLY file with x, y and z ({error}).") from error
    if {"red", "green", "blue"} <= set(vertices.dtype.names or ()):
        colors = np.stack([vertices[channel] for channel in ("red", "green", "blue")], axis=1).astype(np.uint8)
    else:
        colors = np.full((len(points), 3), 128, np.uint8)
    finite = np.isfinite(points).all(axis=1)
    return points[finite], colors[finite]


def _parse(path: Path) -> _File:
    try:
        raw: Any = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}).") from error
    if not isinstance(raw, dict):
        raise InputError(f"{path} holds no JSON object; it should have a key 'frames'.")
    try:
        return _File.model_validate(raw)
    except ValidationError as error:
        raise InputError(f"{path} is not usable: {first_problem(error)}.") from error


def _find_image(folder: Path, file_path: str) -> Path | None:
    named = folder / file_path.replace("\\", "/")
    if not named.name:
        return None
    if isfile(named):  # unlike Path.is_file, False for a name that is too long
        return named
    # NeRF's own data sets leave the extension out.
    for suffix in IMAGE_SUFFIXES:
        for candidate in (suffix, suffix.upper()):
            full = named.with_name(named.name + candidate)
            if isfile(full):
                return full
    return None


def _lens(content: _File, frame: _Frame, image: Path, path: Path) -> Lens:
    def value(key: str) -> Any:
        own = getattr(frame, key)
        return getattr(content, key) if own is None else own

    size = None
    width, height = value("w"), value("h")
    if width is None or height is None:
        size = image_size(image)
    w, h = (round(width), round(height)) if size is None else size
    fx, fy = value("fl_x"), value("fl_y")
    if fx is None and value("camera_angle_x") is not None:
        fx = 0.5 * w / math.tan(0.5 * value("camera_angle_x"))
    if fy is None and value("camera_angle_y") is not None:
        fy = 0.5 * h / math.tan(0.5 * value("camera_angle_y"))
    if fx is None and fy is None:
        raise InputError(
            f"{path} gives no focal length for {frame.file_path}; it needs the key fl_x or camera_angle_x."
        )
    fx, fy = fx if fx is not None else fy, fy if fy is not None else fx
    cx = value("cx") if value("cx") is not None else 0.5 * w
    cy = value("cy") if value("cy") is not None else 0.5 * h
    coefficient: Callable[[str], float] = lambda key: value(key) or 0.0  # noqa: E731
    k1, k2, k3, k4 = (coefficient(key) for key in ("k1", "k2", "k3", "k4"))
    p1, p2 = coefficient("p1"), coefficient("p2")
    model = value("camera_model") or "OPENCV"
    if value("is_fisheye") or model == "OPENCV_FISHEYE":
        return Lens("OPENCV_FISHEYE", w, h, (fx, fy, cx, cy, k1, k2, k3, k4))
    if model not in PERSPECTIVE:
        raise InputError(f"{path} has the camera_model {model!r}; dictsplat reads OPENCV and OPENCV_FISHEYE.")
    if k4:
        raise InputError(f"{path} has k4 = {k4}; a perspective lens has no such term here, only k1, k2, k3, p1 and p2.")
    if k3:
        return Lens("FULL_OPENCV", w, h, (fx, fy, cx, cy, k1, k2, p1, p2, k3, 0.0, 0.0, 0.0))
    return Lens("OPENCV", w, h, (fx, fy, cx, cy, k1, k2, p1, p2))


def _split(content: _File, names: list[str], path: Path) -> tuple[set[str] | None, set[str] | None]:
    """Names to test and to train on; without a test list the validation list is tested on."""
    by_file = {_plain(frame.file_path): name for frame, name in zip(content.frames, names, strict=True)}

    def named(key: str, files: list[str] | None) -> set[str] | None:
        if files is None:
            return None
        unknown = [file for file in files if _plain(file) not in by_file]
        if unknown:
            raise InputError(f"{path} lists {unknown[0]!r} under {key}, but none of its frames has this file_path.")
        return {by_file[_plain(file)] for file in files}

    train = named("train_filenames", content.train_filenames)
    validation = named("val_filenames", content.val_filenames)
    test = named("test_filenames", content.test_filenames) or validation
    if test is None and train is not None:
        test = set(names) - train
    return test, train


def _plain(file: str) -> str:
    return Path(file.replace("\\", "/")).as_posix()
