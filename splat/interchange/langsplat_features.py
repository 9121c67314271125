"""Folders of LangSplat's ``preprocess.py``: regions of SAM and their CLIP embeddings, two files per photo.

``NAME_s.npy`` [4, H, W] has, per pixel, the row of ``NAME_f.npy`` [R, D] that describes its region, -1 for none: for
all regions together ("default"), then subparts, parts and wholes. Only the last three are used here, as in training.

The maps are of the photos as they lie in their files. In a folder that `splat.interchange.exported` wrote they are of
straightened ones; the ``cameras.json`` beside them says so.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.base import LEVELS, Encoder
from encoders.errors import InputError
from encoders.files import atomic_path
from encoders.progress import Report, silent
from splat.features import FeatureStore, ViewFeatures
from splat.scene.cameras import Camera
from splat.scene.images import content_key
from splat.scene.undistort import Lens, bent_positions

REGIONS = "langsplat"
"""What a store that was filled from such a folder calls its segmenter."""
CAMERAS = "cameras.json"
"""In a folder with it the maps are of straightened photos, those of these cameras."""
_MAPS = 1 + len(LEVELS)
_LATENTS = 3
"""Numbers that LangSplat's autoencoder leaves of an embedding, in ``language_features_dim3``."""
_SAME_SHAPE = 0.01
"""Relative difference of the aspect ratio up to which maps are of a resized photo, as for photos themselves."""
_ROUNDING = 2
"""Pixels by which rounded sizes of one photo may differ."""


def read_view(folder: Path, name: str, width: int, height: int, lens: Lens | None = None) -> ViewFeatures:
    """What a folder says about the photo ``name``, with regions at the size of its camera.

    Args:
        width, height: of the camera.
        lens: of the photo that the maps are of, if the camera sees a straightened copy of it.

    Raises:
        InputError: a file is missing or damaged, not of this kind, or of a photo of another shape.
    """
    regions, embeddings = _array(folder / f"{name}_s.npy", 3), _array(folder / f"{name}_f.npy", 2)
    if len(regions) != _MAPS:
        raise InputError(f"{folder / name}_s.npy has {len(regions)} maps; LangSplat writes {_MAPS}.")
    photo_width, photo_height = (width, height) if lens is None else (lens.width, lens.height)
    rows, columns = regions.shape[1:]
    if abs(columns - rows * photo_width / photo_height) > max(_ROUNDING, _SAME_SHAPE * columns):
        raise InputError(
            f"{folder / name}_s.npy has maps of {columns}x{rows} pixels, but the photo has "
            f"{photo_width}x{photo_height}; use the features of this photo."
        )
    if not bool(np.isfinite(embeddings).all()):
        raise InputError(f"{folder / name}_f.npy has values that are not finite.")
    # Written as floating-point numbers.
    ids = regions[1:].astype(np.int64)
    if not np.array_equal(ids, regions[1:]) or ids.min(initial=-1) < -1 or ids.max(initial=-1) >= len(embeddings):
        raise InputError(f"{folder / name}_s.npy names regions that {name}_f.npy, of {len(embeddings)} rows, lacks.")
    used, ids = np.unique(ids, return_inverse=True)
    ids = ids.reshape(len(LEVELS), rows, columns)
    if used[:1] == [-1]:
        used, ids = used[1:], ids - 1
    return ViewFeatures(_fitted(ids.astype(np.int32), width, height, lens), _unit(embeddings[used]).astype(np.float16))


def _fitted(ids: NDArray[np.int32], width: int, height: int, lens: Lens | None) -> NDArray[np.int32]:
    """Maps [3, h, w] of a photo as its camera sees them [3, H, W]: every pixel takes the nearest one's region."""
    rows, columns = ids.shape[1:]
    if lens is not None and lens.distorts:
        # The camera sees only what the lens saw; rounding may still end beyond the last pixel.
        at = np.floor(bent_positions(lens.resized(columns, rows), width, height)).astype(np.int64)
        return ids[:, at[..., 1].clip(0, rows - 1), at[..., 0].clip(0, columns - 1)]
    if (rows, columns) == (height, width):
        return ids
    levels = [cv2.resize(level, (width, height), interpolation=cv2.INTER_NEAREST_EXACT) for level in ids]
    return np.stack(levels).astype(np.int32)


def write_view(folder: Path, name: str, features: ViewFeatures) -> None:
    """Write the two files of the photo ``name``. The map of all regions together names none.

    Raises:
        InputError: the name is none for a file, and would end up outside of the folder.
    """
    check_name(name)
    none = np.full_like(features.region_ids[:1], -1)
    for kind, array in (
        ("s", np.concatenate([none, features.region_ids]).astype(np.float32)),
        ("f", features.embeddings.astype(np.float32)),
    ):
        with atomic_path(folder / f"{name}_{kind}.npy") as temporary:
            np.save(temporary, array, allow_pickle=False)


def check_name(name: str) -> None:
    """Raise `InputError` for a view whose name cannot be the beginning of a file's name."""
    if any(character in "/\\" or ord(character) < 32 for character in name):
        raise InputError(f"The view {name!r} has a name that no file may have; rename it in cameras.json.")


def check_encoder(folder: Path, encoder: Encoder) -> None:
    """Check by one file that the folder's embeddings can be those of an encoder.

    Raises:
        InputError: there is no such file, or its embeddings have another length.
    """
    first = min(folder.glob("*_f.npy"), default=None)
    if first is None:
        raise InputError(f"The features folder {folder} holds no *_f.npy; LangSplat's preprocess.py writes them.")
    dim = _array(first, 2).shape[1]
    if dim == encoder.dim:
        return
    if dim == _LATENTS:
        raise InputError(
            f"{first} has the {dim} numbers that LangSplat's autoencoder makes of an embedding; give the folder that "
            "preprocess.py wrote, language_features."
        )
    raise InputError(
        f"{first} has embeddings of {dim} numbers, and those of {encoder.name} have {encoder.dim}; name the encoder "
        "that made them with --encoder."
    )


def features_digest(folder: Path, names: Sequence[str]) -> str:
    """Tells a folder's features of these photos from others: a hash of every file's size and of parts of it.

    Raises:
        InputError: a file is missing (it is named) or cannot be read.
    """
    whole = hashlib.blake2b(digest_size=8)
    for name in names:
        for kind in "sf":
            path = folder / f"{name}_{kind}.npy"
            try:
                key = content_key(path)
            except FileNotFoundError:
                raise InputError(_missing(path)) from None
            except OSError as error:
                raise InputError(f"{path} cannot be read ({error.strerror}).") from error
            whole.update(repr((name, kind, key)).encode())
    return whole.hexdigest()


def import_features(
    folder: Path,
    views: Sequence[tuple[Camera, Lens]],
    encoder: str,
    store: FeatureStore,
    content: str,
    report: Report = silent,
) -> None:
    """Fill a store with a folder's features; views that it has already are skipped.

    Args:
        views: cameras, by the names of their photos, and the lenses of these.
        encoder: whose embeddings they are, a name for `encoders.create`.
        content: the folder's `features_digest`; a store that was begun with another is refused.

    Raises:
        InputError: a view's files are missing or damaged (it is named), or the store is of other features.
    """
    straight = (folder / CAMERAS).is_file()
    dim = _array(folder / f"{views[0][0].name}_f.npy", 2).shape[1]
    store.describe(encoder, dim, f"{REGIONS}:{content}")
    for done, (camera, lens) in enumerate(views):
        report(done, len(views), f"features of {camera.name}")
        if store.has(camera.name):
            continue
        features = read_view(folder, camera.name, camera.width, camera.height, None if straight else lens)
        if features.embeddings.shape[1] != dim:
            raise InputError(
                f"{folder / camera.name}_f.npy has embeddings of {features.embeddings.shape[1]} numbers, others {dim}."
            )
        store.write(camera.name, features)
    report(len(views), len(views), f"{len(views)} views have features")


def _unit(vectors: NDArray[Any]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12))


def _array(path: Path, dimensions: int) -> NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(_missing(path)) from None
    except Exception as error:  # numpy reads the header as Python, which may fail in any way
        raise InputError(f"{path} cannot be read ({error}).") from error
    if not isinstance(array, np.ndarray):  # of a zip numpy gives its members, whatever they are
        array.close()
        raise InputError(f"{path} is no array but a zip; LangSplat's preprocess.py writes arrays.")
    if array.ndim != dimensions or array.dtype.kind not in "fiu" or not array.size:
        raise InputError(f"{path} has {array.dtype} {list(array.shape)}; LangSplat writes arrays of {dimensions} axes.")
    return array


def _missing(path: Path) -> str:
    return f"{path} does not exist; LangSplat's preprocess.py writes it for every photo."
