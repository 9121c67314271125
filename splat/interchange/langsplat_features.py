"""Folders of LangSplat's ``preprocess.py``: regions of SAM and their CLIP embeddings, two files per photo.

``NAME_s.npy`` [4, H, W] has, per pixel, the row of ``NAME_f.npy`` [R, D] that describes its region, -1 for none: for
all regions together ("default"), then subparts, parts and wholes. Only the last three are used here, as in training.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.base import LEVELS
from encoders.errors import InputError
from encoders.files import atomic_path
from encoders.progress import Report, silent
from splat.features import FeatureStore, ViewFeatures
from splat.scene.cameras import Camera

REGIONS = "langsplat"
"""What a store that was filled from such a folder calls its segmenter."""
_MAPS = 1 + len(LEVELS)


def read_view(folder: Path, name: str, width: int, height: int) -> ViewFeatures:
    """What a folder says about the photo ``name``, with regions at the size of its camera.

    Raises:
        InputError: a file is missing or damaged, or not of this kind.
    """
    regions, embeddings = _array(folder / f"{name}_s.npy", 3), _array(folder / f"{name}_f.npy", 2)
    if len(regions) != _MAPS:
        raise InputError(f"{folder / name}_s.npy has {len(regions)} maps; LangSplat writes {_MAPS}.")
    if not bool(np.isfinite(embeddings).all()):
        raise InputError(f"{folder / name}_f.npy has values that are not finite.")
    # Written as floating-point numbers.
    ids = regions[1:].astype(np.int64)
    if not np.array_equal(ids, regions[1:]) or ids.min(initial=-1) < -1 or ids.max(initial=-1) >= len(embeddings):
        raise InputError(f"{folder / name}_s.npy names regions that {name}_f.npy, of {len(embeddings)} rows, lacks.")
    used, ids = np.unique(ids, return_inverse=True)
    ids = ids.reshape(len(LEVELS), *regions.shape[1:]).astype(np.int32)
    if used[:1] == [-1]:
        used, ids = used[1:], ids - 1
    if ids.shape[1:] != (height, width):
        ids = np.stack([cv2.resize(level, (width, height), interpolation=cv2.INTER_NEAREST_EXACT) for level in ids])
    return ViewFeatures(ids.astype(np.int32), _unit(embeddings[used]).astype(np.float16))


def write_view(folder: Path, name: str, features: ViewFeatures) -> None:
    """Write the two files of the photo ``name``. The map of all regions together names none."""
    none = np.full_like(features.region_ids[:1], -1)
    for kind, array in (
        ("s", np.concatenate([none, features.region_ids]).astype(np.float32)),
        ("f", features.embeddings.astype(np.float32)),
    ):
        with atomic_path(folder / f"{name}_{kind}.npy") as temporary:
            np.save(temporary, array, allow_pickle=False)


def import_features(
    folder: Path, cameras: Sequence[Camera], encoder: str, store: FeatureStore, report: Report = silent
) -> None:
    """Fill a store with a folder's features; views that it has already are skipped.

    Args:
        cameras: the views, by the names of their photos.
        encoder: whose embeddings they are, a name for `encoders.create`.

    Raises:
        InputError: a view's files are missing or damaged (it is named), or the store is of other features.
    """
    if not folder.is_dir():
        raise InputError(f"The features folder {folder} does not exist; it should hold *_s.npy and *_f.npy.")
    dim = _array(folder / f"{cameras[0].name}_f.npy", 2).shape[1]
    store.describe(encoder, dim, REGIONS)
    for done, camera in enumerate(cameras):
        report(done, len(cameras), f"features of {camera.name}")
        if store.has(camera.name):
            continue
        features = read_view(folder, camera.name, camera.width, camera.height)
        if features.embeddings.shape[1] != dim:
            raise InputError(
                f"{folder / camera.name}_f.npy has embeddings of {features.embeddings.shape[1]} numbers, others {dim}."
            )
        store.write(camera.name, features)
    report(len(cameras), len(cameras), f"{len(cameras)} views have features")


def _unit(vectors: NDArray[Any]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12))


def _array(path: Path, dimensions: int) -> NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; LangSplat's preprocess.py writes it for every photo.") from None
    except Exception as error:  # numpy reads the header as Python, which may fail in any way
        raise InputError(f"{path} cannot be read ({error}).") from error
    if array.ndim != dimensions or array.dtype.kind not in "fiu" or not array.size:
        raise InputError(f"{path} has {array.dtype} {list(array.shape)}; LangSplat writes arrays of {dimensions} axes.")
    return array
