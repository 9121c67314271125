"""A scene ready for fitting, and the one function that reads it from whatever a person has."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoders.errors import InputError
from encoders.progress import Report, silent
from splat.scene import colmap, photos, transforms_json, video
from splat.scene.cameras import Camera
from splat.scene.capture import Capture, View
from splat.scene.images import ImageStore, image_size
from splat.scene.points import initial_points
from splat.scene.undistort import Lens, pinhole

HOLD_OUT_EVERY = 8
"""Without a split of its own, every 8th view by name is held out (as Mip-NeRF 360 and 3DGS do)."""

SAME_ASPECT = 0.01
"""Relative difference of the aspect ratio up to which an image of another size is a resized one."""


@dataclass
class Scene:
    """Views of one static scene.

    Attributes:
        path: what it was read from.
        cameras: undistorted pinhole cameras at the requested scale, sorted by name.
        train, test: indices into ``cameras``; disjoint, not necessarily everything.
        points: float32 [P, 3] where to start Gaussians, in world coordinates.
        point_colors: uint8 [P, 3].
        fingerprint: changes when cameras, split, scale or image files change.
        reader: returns the image of a camera by index; see `image`.
        lenses: what each camera's photo was taken with, at the photo's size: labels drawn on photos need them.
            Empty for scenes without photos.
    """

    path: Path
    cameras: list[Camera]
    train: list[int]
    test: list[int]
    points: NDArray[np.float32]
    point_colors: NDArray[np.uint8]
    fingerprint: str
    reader: Callable[[int], NDArray[np.uint8]] = field(repr=False)
    lenses: list[Lens] = field(default_factory=list, repr=False)

    def image(self, index: int) -> NDArray[np.uint8]:
        """The photo of ``cameras[index]``, undistorted and scaled: uint8 [H, W, 3], read-only.

        Read when asked for; a bounded number stays in memory.
        """
        return self.reader(index)

    @property
    def extent(self) -> float:
        """3DGS's size of a scene: 1.1 x the largest distance of a training camera from their mean."""
        return scene_extent([self.cameras[i] for i in self.train])

    @property
    def test_names(self) -> list[str]:
        """Names of the held-out cameras."""
        return [self.cameras[i].name for i in self.test]


def scene_extent(cameras: list[Camera]) -> float:
    """1.1 x the largest distance of a camera from the mean camera position (3DGS, ``getNerfppNorm``).

    Cameras that all stand in one place give 1.0, so that learning rates scaled by it stay usable.
    """
    centers = np.stack([camera.center for camera in cameras])
    radius = 1.1 * float(np.linalg.norm(centers - centers.mean(axis=0), axis=1).max())
    return radius if radius > 0.0 else 1.0


def load_scene(
    path: Path | str,
    scale: float = 1.0,
    cache_dir: Path | None = None,
    report: Report = silent,
    with_points: bool = True,
    hold_out: int | None = None,
) -> Scene:
    """Read a scene: undistort its images, split it, and find points to start from.

    Args:
        path: a folder with ``transforms.json`` (instant-ngp, nerfstudio), a COLMAP folder
            (``sparse/0``, ``sparse`` or the model itself, images in ``images``), a folder of photos, a
            ``transforms.json`` file, or a video. Photos and videos go through structure from motion.
        scale: images and cameras are resized by it, 0 < scale <= 1 for less work.
        cache_dir: keeps undistorted images, points and structure from motion for the next call.
        report: told about progress, and about images that had to be left out.
        with_points: False skips looking for points (``points`` is empty); for callers that only want
            cameras and images.
        hold_out: every so-manieth view by name is held out, the first one to begin with; 0 trains on all. It overrules
            the lists that a data set brings. None keeps these, and holds out every `HOLD_OUT_EVERY`-th where there
            are none.

    Raises:
        InputError: something about the input is wrong; the message says what and where.
    """
    path = Path(path)
    if not (np.isfinite(scale) and 0.0 < scale <= 8.0):
        raise InputError(f"The scale {scale} is not usable; give a number above 0, for example 0.5.")
    if hold_out is not None and (hold_out < 0 or hold_out == 1):
        raise InputError(f"Every view in {hold_out} cannot be held out; give 0 for none, or a number from 2.")
    capture = _read(path, cache_dir, report)
    views = [_at_file_size(view) for view in sorted(capture.views, key=lambda view: view.name)]
    cameras = [_camera(view).scaled(scale) for view in views]
    train, test = _split(capture, views, path) if hold_out is None else _every(hold_out, len(views))
    images = ImageStore(views, cameras, cache_dir, keepalive=capture.keepalive)
    images.prepare(report)
    fingerprint = _fingerprint(cameras, train, test, images)
    if not with_points:
        points, colors = np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8)
    elif capture.points is not None and capture.point_colors is not None and len(capture.points):
        points, colors = capture.points, capture.point_colors
    else:
        # From the training views alone: held-out views must not have shown anything to the fit.
        points, colors = initial_points(
            [cameras[i] for i in train], lambda i: images(train[i]), cache_dir, report, key=fingerprint
        )
    return Scene(path, cameras, train, test, points, colors, fingerprint, images, [view.lens for view in views])


def _read(path: Path, cache_dir: Path | None, report: Report) -> Capture:
    if not path.exists():
        raise InputError(f"There is no scene at {path}; check the path.")
    if path.is_file():
        if path.suffix.lower() == ".json":
            return transforms_json.read(path, report)
        if video.is_video(path):
            return video.read(path, cache_dir, report)
        raise InputError(f"{path} is neither a folder, a transforms.json nor a video.")
    if (path / "transforms.json").is_file():
        return transforms_json.read(path / "transforms.json", report)
    model = colmap.find_model(path)
    if model is not None:
        return colmap.read(model, path, report)
    return photos.read_folder(path, cache_dir, report)


def _at_file_size(view: View) -> View:
    """The view with its lens at the size of its image file, which may be a resized copy."""
    lens = view.lens
    sizes = {upright: image_size(view.path, upright) for upright in (view.upright, not view.upright)}
    for upright, (width, height) in sizes.items():
        # The second try is for calibrations that did (or did not) look at the photos' EXIF turn.
        if _aspect_off(lens.width, lens.height, width, height) <= SAME_ASPECT:
            return replace(view, upright=upright, lens=lens.resized(width, height))
    width, height = sizes[view.upright]
    raise InputError(
        f"The image {view.path} has {width}x{height} pixels but its camera {lens.width}x{lens.height}; "
        "use the images that the cameras were computed for."
    )


def _camera(view: View) -> Camera:
    try:
        K = pinhole(view.lens)
    except InputError as error:
        raise InputError(f"The image {view.path} has no usable camera: {error}") from error
    return Camera(view.name, view.lens.width, view.lens.height, K, view.viewmat)


def _aspect_off(width: int, height: int, other_width: int, other_height: int) -> float:
    return abs(width * other_height / (height * other_width) - 1.0)


def _every(hold_out: int, count: int) -> tuple[list[int], list[int]]:
    """Train and test: every ``hold_out``-th of ``count`` views is for the test, none if it is 0 or the only one."""
    test = list(range(0, count, hold_out)) if hold_out and count > 1 else []
    return sorted(set(range(count)) - set(test)), test


def _split(capture: Capture, views: list[View], path: Path) -> tuple[list[int], list[int]]:
    names = [view.name for view in views]
    if capture.test_names is None:
        test = _every(HOLD_OUT_EVERY, len(names))[1]
    else:
        test = [i for i, name in enumerate(names) if name in capture.test_names]
    if capture.train_names is None:
        held_out = set(test)
        train = [i for i in range(len(names)) if i not in held_out]
    else:
        train = [i for i, name in enumerate(names) if name in capture.train_names]
        test = [i for i in test if names[i] not in capture.train_names]
    if not train:
        raise InputError(f"The scene {path} leaves no image to train on; check its train and test lists.")
    return train, test


def _fingerprint(cameras: list[Camera], train: list[int], test: list[int], images: ImageStore) -> str:
    digest = hashlib.sha256(repr((train, test)).encode())
    for camera, view, content in zip(cameras, images.views, images.content, strict=True):
        matrices = np.concatenate([camera.K.ravel(), camera.viewmat.ravel()]).round(9).tolist()
        digest.update(repr((camera.name, camera.width, camera.height, matrices, view.lens.params, content)).encode())
    return digest.hexdigest()[:32]
