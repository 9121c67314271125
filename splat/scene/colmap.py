"""COLMAP reconstructions, text or binary, with the images they were made from."""

from os.path import isfile
from pathlib import Path

import numpy as np
import pycolmap

from encoders.errors import InputError
from encoders.progress import Report, silent
from splat.scene.capture import Capture, View, view_names
from splat.scene.colmap_lengths import check_lengths
from splat.scene.matching import quiet
from splat.scene.undistort import Lens

MODEL_FOLDERS = ("sparse/0", "sparse", ".", "colmap/sparse/0")
"""Where a model may lie in a scene folder; the first that holds one is read."""


def find_model(folder: Path) -> Path | None:
    """The folder below ``folder`` that holds a COLMAP model, or None."""
    for candidate in MODEL_FOLDERS:
        model = folder / candidate
        if any(all((model / f"{part}.{kind}").is_file() for part in ("cameras", "images")) for kind in ("bin", "txt")):
            return model
    return None


def read(model: Path, scene: Path, report: Report = silent) -> Capture:
    """Read the COLMAP ``model`` of the ``scene`` folder. Images without a file are left out and counted.

    Raises:
        InputError: the model is damaged or empty, a pose or camera is not finite, a camera is not a
            perspective one, or no image file is found.
    """
    reconstruction, images = _load(model)
    folder = _image_folder(model, scene, [image.name for image in images])
    views = []
    for name, image in zip(view_names([image.name for image in images], model), images, strict=True):
        if isfile(folder / image.name):
            views.append(view_of(image, name, folder / image.name, model))
    if len(views) < len(images):
        missing = len(images) - len(views)
        report(
            len(views),
            len(images),
            f"{missing} of the {len(images)} images of the model have no file and are left out",
        )
    points, colors = points_of(reconstruction)
    return Capture(views, points=points, point_colors=colors)


def image_files(model: Path, scene: Path) -> list[Path]:
    """The image files of the COLMAP ``model`` that exist, sorted by name.

    Raises:
        InputError: the model is damaged or empty, or no image file is found.
    """
    names = [image.name for image in _load(model)[1]]
    folder = _image_folder(model, scene, names)
    return [folder / name for name in names if isfile(folder / name)]


def _load(model: Path) -> tuple[pycolmap.Reconstruction, list[pycolmap.Image]]:
    """A model and its images with poses, sorted by name."""
    quiet()
    check_lengths(model)
    try:
        reconstruction = pycolmap.Reconstruction(str(model))
        images = sorted((i for i in reconstruction.images.values() if i.has_pose), key=lambda image: image.name)
    except (ValueError, IndexError, RuntimeError, MemoryError) as error:
        raise InputError(f"The COLMAP model in {model} cannot be read ({_short(error)}).") from error
    if not images:
        raise InputError(f"The COLMAP model in {model} holds no image with a pose.")
    return reconstruction, images


def view_of(image: pycolmap.Image, name: str, path: Path, model: Path) -> View:
    """A posed COLMAP image as a view. COLMAP itself ignores EXIF turns, so the view does too."""
    camera = image.camera
    if camera is None:
        raise InputError(f"The COLMAP model in {model} has no camera for {image.name}.")
    viewmat = np.eye(4)
    viewmat[:3] = image.cam_from_world().matrix()
    params = tuple(float(value) for value in camera.params)
    if not (np.isfinite(viewmat).all() and np.isfinite(params).all()):
        raise InputError(f"The COLMAP model in {model} has a pose or camera that is not finite, for {image.name}.")
    if not camera.is_perspective() or min(camera.focal_length_x, camera.focal_length_y) <= 0:
        raise InputError(f"The COLMAP model in {model} has a {camera.model_name} camera that dictsplat cannot use.")
    return View(name, path, Lens(camera.model_name, camera.width, camera.height, params), viewmat, upright=False)


def points_of(reconstruction: pycolmap.Reconstruction) -> tuple[np.ndarray, np.ndarray]:
    """The model's points float32 [P, 3] and colours uint8 [P, 3], in the order of their ids."""
    points = [reconstruction.points3D[i] for i in sorted(reconstruction.point3D_ids())]
    xyz = np.array([point.xyz for point in points], np.float32).reshape(-1, 3)
    colors = np.array([point.color for point in points], np.uint8).reshape(-1, 3)
    finite = np.isfinite(xyz).all(axis=1)
    return xyz[finite], colors[finite]


def _image_folder(model: Path, scene: Path, names: list[str]) -> Path:
    candidates = [
        scene / "images", scene / "input", scene,
        model.parent / "images", model.parent.parent / "images", model.parent.parent.parent / "images",
    ]  # fmt: skip
    found = max(candidates, key=lambda folder: sum(isfile(folder / name) for name in names))
    if not any(isfile(found / name) for name in names):  # which takes names that no disk does
        raise InputError(
            f"None of the {len(names)} images of the COLMAP model in {model} was found (the first is "
            f"{scene / 'images' / names[0]}); put them into {scene / 'images'}."
        )
    return found


def _short(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[-1].split("] ")[-1][:120] if text else type(error).__name__
