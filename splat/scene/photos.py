"""Photos without cameras: structure from motion with pycolmap."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import pycolmap

from encoders.errors import InputError
from encoders.files import atomic_folder, read_image
from encoders.progress import Report, silent
from splat.scene.capture import Capture, view_names
from splat.scene.colmap import points_of, view_of
from splat.scene.images import IMAGE_SUFFIXES, content_key
from splat.scene.matching import SEED, extract, likely_pairs, match, quiet
from splat.scene.scratch import check_room, scratch_folder, write_image
from splat.scene.undistort import Lens

PHOTO_FOLDERS = (".", "images", "input")
"""Where the photos may lie in a scene folder; the first that holds any is read."""

FEWEST = 3
"""Photos needed for structure from motion."""

MANY = 20
"""From so many photos on all of a lens's distortion is estimated; fewer would bend the scene with it."""

WORK_SIDE = 1024
"""Features are looked for at no more than so many pixels on the photos' longer side."""

FEATURES = 2048

CACHE_VERSION = 1


def read_folder(folder: Path, cache_dir: Path | None = None, report: Report = silent) -> Capture:
    """Find cameras for the photos in ``folder``, or in its sub-folder "images" or "input".

    Photos that cannot be read, and photos that structure from motion cannot place, are left out and
    named in a report.

    Raises:
        InputError: there are no photos, fewer than three can be read, or they do not overlap.
    """
    files = scene_files(folder)
    if not files:
        raise InputError(f"{folder} holds no transforms.json, no COLMAP model and no photos; give one that does.")
    return read_photos(files, folder, cache_dir, report)


def scene_files(folder: Path) -> list[Path]:
    """The photos of a scene folder: those of the first of `PHOTO_FOLDERS` that holds any."""
    return next(filter(None, (photo_files(folder / place) for place in PHOTO_FOLDERS)), [])


def photo_files(folder: Path) -> list[Path]:
    """The image files in ``folder`` (not below it), sorted by name; hidden ones are skipped."""
    if not folder.is_dir():
        return []
    return sorted(
        file
        for file in folder.iterdir()
        if file.is_file() and file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
    )


def read_photos(files: Sequence[Path], source: Path, cache_dir: Path | None, report: Report) -> Capture:
    """Structure from motion over ``files``; ``source`` is what messages call them all."""
    quiet()
    content = [(file.name, content_key(file)) for file in files]
    key = hashlib.blake2b(repr(content).encode(), digest_size=8).hexdigest()
    kept = None if cache_dir is None else cache_dir / f"sfm-{CACHE_VERSION}-{key}"
    if kept is not None and kept.is_dir():
        model = pycolmap.Reconstruction(str(kept))
    else:
        with scratch_folder() as work:
            photos = _working_copies(files, work / "images", source, report)
            model = _reconstruct(photos, work, source, report)
        if kept is not None:
            with atomic_folder(kept) as partial:
                model.write(str(partial))
    names = view_names([file.name for file in files], source)
    views = {}
    for image in model.images.values():
        if image.has_pose:
            index = int(Path(image.name).stem)
            # COLMAP saw the upright copy; the photo itself may be larger, which load_scene makes good.
            views[index] = replace(view_of(image, names[index], files[index], source), upright=True)
    lost = [file.name for index, file in enumerate(files) if index not in views]
    if lost:
        left_out = f"{len(lost)} of {len(files)} photos could not be placed and are left out: {_few(lost)}"
        report(len(views), len(files), left_out)
    points, colors = points_of(model)
    return Capture(list(views.values()), points=points, point_colors=colors)


@dataclass(frozen=True)
class _Photo:
    """A readable photo and its upright RGB copy of bounded size, the file that COLMAP sees.

    ``copy`` is the copy's name "CAMERA/NUMBER.png": photos of one size and focal length share a folder
    and with it a camera. Numbered, because COLMAP's pair lists cannot hold names with spaces.
    """

    file: Path
    copy: str
    width: int
    height: int
    focal: float | None

    def lens(self, simple: bool) -> Lens:
        """A first guess: one radial term (``simple``), or two focal lengths and all four of OpenCV's."""
        # 1.2 x the longer side is COLMAP's own guess for photos that do not tell.
        focal = self.focal or 1.2 * max(self.width, self.height)
        centre = (self.width / 2, self.height / 2)
        if simple:
            return Lens("SIMPLE_RADIAL", self.width, self.height, (focal, *centre, 0.0))
        return Lens("OPENCV", self.width, self.height, (focal, focal, *centre, 0.0, 0.0, 0.0, 0.0))


def _working_copies(files: Sequence[Path], folder: Path, source: Path, report: Report) -> list[_Photo]:
    def copy(index: int) -> _Photo | str:
        try:
            image = read_image(files[index])
        except InputError as error:
            return str(error)
        height, width = image.shape[:2]
        factor = min(1.0, WORK_SIDE / max(height, width))
        if factor < 1.0:
            width, height = max(1, round(width * factor)), max(1, round(height * factor))
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        focal = _exif_focal(files[index])
        focal = None if focal is None else focal * factor
        camera = f"{width}x{height}" + ("" if focal is None else f"-{focal:.1f}")
        photo = _Photo(files[index], f"{camera}/{index:06d}.png", width, height, focal)
        (folder / camera).mkdir(parents=True, exist_ok=True)
        write_image(folder / photo.copy, image[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
        return photo

    photos: list[_Photo] = []
    broken: list[str] = []
    with ThreadPoolExecutor() as pool:
        for index, result in enumerate(pool.map(copy, range(len(files)))):
            if isinstance(result, str):
                broken.append(files[index].name)
                report(index + 1, len(files), f"left out: {result}")
            else:
                photos.append(result)
                report(index + 1, len(files), "reading photos")
    if len(photos) < FEWEST:
        unreadable = f" ({len(broken)} cannot be read: {_few(broken)})" if broken else ""
        raise InputError(
            f"{source} holds {len(photos)} readable photos{unreadable}; finding cameras takes at least {FEWEST}."
        )
    return photos


def _exif_focal(file: Path) -> float | None:
    """The focal length in pixels that the photo's EXIF tags tell, or None."""
    try:
        camera = pycolmap.infer_camera_from_image(str(file))
    except (ValueError, RuntimeError):
        return None  # a format that COLMAP does not read
    return float(camera.focal_length) if camera.has_prior_focal_length else None


def _reconstruct(photos: Sequence[_Photo], work: Path, source: Path, report: Report) -> pycolmap.Reconstruction:
    """The largest reconstruction that the copies in ``work/images`` allow."""
    database, images, models = work / "features.db", work / "images", work / "models"
    models.mkdir()
    check_room(work, len(photos))
    report(0, 3, "finding cameras: features")
    trusted = {photo.copy for photo in photos if photo.focal is not None}
    lenses = {photo.copy: photo.lens(simple=len(photos) < MANY) for photo in photos}
    extract(database, images, lenses, FEATURES, trusted)
    report(1, 3, "finding cameras: matches")
    match(database, likely_pairs(database, [photo.copy for photo in photos]))
    report(2, 3, "finding cameras: poses")
    options = pycolmap.IncrementalPipelineOptions()
    options.min_model_size = FEWEST
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = SEED
    found = pycolmap.incremental_mapping(str(database), str(images), str(models), options=options)
    if not found:
        raise InputError(
            f"The photos in {source} do not overlap enough to find out where they were taken; take more "
            "photos of one scene, each showing at least half of what the one before it shows."
        )
    best = max(found.values(), key=lambda model: (model.num_reg_images(), model.num_points3D()))
    report(3, 3, f"found the cameras of {best.num_reg_images()} of {len(photos)} photos")
    return best


def _few(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
