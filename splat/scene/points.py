"""Points to start Gaussians from, for scenes whose cameras are known but whose surfaces are not."""

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pycolmap
from numpy.typing import NDArray

from encoders.files import atomic_path
from encoders.progress import Report, silent
from splat.scene.cameras import Camera
from splat.scene.matching import SEED, extract, match, quiet
from splat.scene.scratch import check_room, scratch_folder, write_image
from splat.scene.undistort import Lens

Images = Callable[[int], NDArray[np.uint8]]
Points = tuple[NDArray[np.float32], NDArray[np.uint8]]

ENOUGH_POINTS = 500
"""With fewer triangulated points, random ones are added."""

RANDOM_POINTS = 20_000

MATCHED_SIDE = 1024
"""Images are matched at no more than so many pixels on their longer side."""

FEATURES = 2048

NEIGHBOURS = 8
"""Each image is matched with so many others that see most of what it sees."""

MAX_ERROR = 2.0
"""Mean reprojection error in pixels above which a triangulated point is dropped."""

CACHE_VERSION = 1


def initial_points(
    cameras: Sequence[Camera], images: Images, cache_dir: Path | None, report: Report = silent, key: str = ""
) -> Points:
    """Points float32 [P, 3] and colours uint8 [P, 3]: triangulated, else (or besides) random ones.

    Args:
        cameras: pinhole cameras; images: the photo uint8 [H, W, 3] of each by index.
        cache_dir: ``points.npz`` there keeps the result for the next call with the same ``key``.
        key: whatever the points depend on (a fingerprint of cameras and images).
    """
    key = f"{CACHE_VERSION}-{key}"
    cached = None if cache_dir is None else _load(cache_dir / "points.npz", key)
    if cached is not None:
        return cached
    points, colors = triangulate(cameras, images, report)
    if len(points) < ENOUGH_POINTS:
        more, more_colors = random_points(cameras, images)
        report(
            1,
            1,
            f"only {len(points)} points could be triangulated; starting with {len(more)} random ones as well",
        )
        points, colors = np.concatenate([points, more]), np.concatenate([colors, more_colors])
    if cache_dir is not None:
        with atomic_path(cache_dir / "points.npz") as temporary:
            np.savez(temporary, points=points, colors=colors, key=np.array(key))
    return points, colors


def _load(path: Path, key: str) -> Points | None:
    try:
        with np.load(path, allow_pickle=False) as saved:
            return (saved["points"], saved["colors"]) if str(saved["key"]) == key else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # absent or damaged: found again


def triangulate(cameras: Sequence[Camera], images: Images, report: Report = silent) -> Points:
    """Match the images with SIFT and triangulate with the poses as they are (COLMAP's point triangulator).

    Returns an empty cloud where nothing matches.
    """
    if len(cameras) < 2:
        return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8)
    quiet()
    with scratch_folder() as work:
        folder, database = work / "images", work / "features.db"
        folder.mkdir()
        small = [_shrunk(camera) for camera in cameras]
        lenses = {}
        for index, camera in enumerate(small):
            image = images(index)
            if image.shape[1] != camera.width:
                shrunk = cv2.resize(image, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
                image = np.asarray(shrunk, np.uint8)
            name = f"{index:06d}.bmp"  # no photo's own name: those may hold spaces, which COLMAP's lists cannot
            write_image(folder / name, image[:, :, ::-1])
            params = (camera.K[0, 0], camera.K[1, 1], camera.K[0, 2], camera.K[1, 2])
            lenses[name] = Lens("PINHOLE", camera.width, camera.height, tuple(map(float, params)))
        check_room(work, len(small))
        report(0, 3, "triangulating points: features")
        extract(database, folder, lenses, FEATURES, trusted=lenses)
        report(1, 3, "triangulating points: matches")
        names = sorted(lenses)
        match(database, [(names[i], names[j]) for i, j in overlapping_pairs(small)])
        report(2, 3, "triangulating points: rays")
        model = pycolmap.triangulate_points(
            _posed(database, dict(zip(names, small, strict=True))),
            str(database),
            str(folder),
            str(work),
            options=_options(),
        )
        report(3, 3, f"triangulated {model.num_points3D()} points")
        kept = [model.points3D[i] for i in sorted(model.point3D_ids()) if model.points3D[i].error <= MAX_ERROR]
    xyz = np.array([point.xyz for point in kept], np.float32).reshape(-1, 3)
    return xyz, np.array([point.color for point in kept], np.uint8).reshape(-1, 3)


def _options() -> pycolmap.IncrementalPipelineOptions:
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = SEED
    options.triangulation.ignore_two_view_tracks = False
    return options


def _shrunk(camera: Camera) -> Camera:
    return camera.scaled(min(1.0, MATCHED_SIDE / max(camera.width, camera.height)))


def _posed(database: Path, cameras: dict[str, Camera]) -> pycolmap.Reconstruction:
    """The images of ``database`` with their poses, without points."""
    model = pycolmap.Reconstruction()
    with pycolmap.Database.open(str(database)) as opened:
        for camera in opened.read_all_cameras():
            model.add_camera(camera)
        for rig in opened.read_all_rigs():
            model.add_rig(rig)
        posed = {image.image_id: cameras[image.name] for image in opened.read_all_images()}
        for frame in opened.read_all_frames():
            viewmat = posed[next(iter(frame.image_ids)).id].viewmat
            frame.rig_from_world = pycolmap.Rigid3d(pycolmap.Rotation3d(viewmat[:3, :3]), viewmat[:3, 3])
            model.add_frame(frame)
        for image in opened.read_all_images():
            model.add_image(image)
            model.register_frame(image.frame_id)
    return model


def look_depths(cameras: Sequence[Camera]) -> NDArray[np.float64]:
    """How far from each camera the scene's middle is, along its axis: float64 [C], positive.

    The middle is the point nearest to all optical axes. Where there is none in front of the cameras
    (they look outwards, or all the same way) it is three times as far as the cameras are spread.
    """
    centers = np.stack([camera.center for camera in cameras])
    axes = np.stack([camera.forward for camera in cameras])
    spread = float(np.linalg.norm(centers - centers.mean(axis=0), axis=1).max()) or 1.0
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    normal, right = across.sum(axis=0), (across @ centers[:, :, None]).sum(axis=0)[:, 0]
    eigenvalues = np.linalg.eigvalsh(normal)
    depths = np.full(len(cameras), 3.0 * spread)
    if eigenvalues[0] > 1e-3 * eigenvalues[2]:
        middle = np.linalg.solve(normal, right)
        towards = ((middle - centers) * axes).sum(axis=1)
        if np.median(towards) > 0.1 * spread:
            depths = np.where(towards > 0.1 * spread, towards, np.median(towards))
    return depths


def _frustum_points(camera: Camera, x: NDArray, y: NDArray, depth: NDArray) -> NDArray[np.float64]:
    """World points [S, 3] seen at the relative image positions x, y in 0..1 [S] in the given depths [S]."""
    pixels = np.stack([x * camera.width, y * camera.height, np.ones_like(x)], axis=1)
    local = pixels @ np.linalg.inv(camera.K).T * depth[:, None]
    return (local - camera.viewmat[:3, 3]) @ camera.viewmat[:3, :3]


def overlapping_pairs(cameras: Sequence[Camera], neighbours: int = NEIGHBOURS) -> list[tuple[int, int]]:
    """Index pairs of cameras worth matching: those that see the same part of space from other places.

    Each camera is paired with the ``neighbours`` that see most of a grid of points spread over its
    view (three depths around `look_depths`), each counted by how well the two rays to it meet: nothing
    below 1 degree, fully from 4 to 30, fading to 60 where SIFT stops matching.
    """
    grid = np.stack(np.meshgrid(*[np.linspace(0.1, 0.9, 4)] * 2, [0.6, 1.0, 1.6]), axis=-1).reshape(-1, 3)
    centers = np.stack([camera.center for camera in cameras])
    score = np.zeros((len(cameras), len(cameras)))
    for i, (camera, depth) in enumerate(zip(cameras, look_depths(cameras), strict=True)):
        world = _frustum_points(camera, grid[:, 0], grid[:, 1], grid[:, 2] * depth)
        own = world - centers[i]
        for j, other in enumerate(cameras):
            local = world @ other.viewmat[:3, :3].T + other.viewmat[:3, 3]
            pixel = local @ other.K.T
            z = np.maximum(pixel[:, 2:], 1e-9)
            inside = (pixel[:, :2] / z >= 0).all(1) & (pixel[:, :2] / z <= [other.width, other.height]).all(1)
            theirs = world - centers[j]
            cosine = (own * theirs).sum(1) / (np.linalg.norm(own, axis=1) * np.linalg.norm(theirs, axis=1))
            angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
            score[i, j] = (inside * (local[:, 2] > 0) * np.interp(angle, [1, 4, 30, 60], [0, 1, 1, 0])).mean()
    np.fill_diagonal(score, 0.0)
    best = np.argsort(-score, axis=1, kind="stable")[:, :neighbours]
    pairs = {(min(i, int(j)), max(i, int(j))) for i, row in enumerate(best) for j in row if score[i, j] > 0.0}
    return sorted(pairs)


def random_points(cameras: Sequence[Camera], images: Images, count: int = RANDOM_POINTS, seed: int = SEED) -> Points:
    """Seeded random points where the cameras look, coloured by the photo that each was drawn through.

    Pixels are uniform; depths are uniform from 0.3 to 2 times the camera's distance to the scene's
    middle (`look_depths`).
    """
    random = np.random.default_rng(seed)
    depths = look_depths(cameras)
    shares = np.array_split(np.arange(count), len(cameras))
    points, colors = [], []
    for index, (camera, share) in enumerate(zip(cameras, shares, strict=True)):
        x, y, relative = random.random((3, len(share)))
        points.append(_frustum_points(camera, x, y, depths[index] * (0.3 + 1.7 * relative)))
        image = images(index)
        colors.append(image[(y * camera.height).astype(int), (x * camera.width).astype(int)])
    return np.concatenate(points).astype(np.float32), np.concatenate(colors)
