"""Regions and their embeddings for every training view, kept in a folder: one small file per view."""

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.base import Encoder, Regions
from encoders.errors import InputError
from encoders.files import atomic_path, parse_json, short_stem, write_json
from encoders.progress import Report, silent
from splat.scene import Scene

VERSION = 1


@dataclass(frozen=True)
class ViewFeatures:
    """What one view shows.

    Attributes:
        region_ids: per level (subpart, part, whole) and pixel the row of ``embeddings``, -1 for none.
            int32 [3, H, W]
        embeddings: unit vectors. float16 [R, D]
    """

    region_ids: NDArray[np.int32]
    embeddings: NDArray[np.float16]


class FeatureStore:
    """A folder of `ViewFeatures`, all from one encoder and one segmenter, which ``features.json`` names.

    Views are compressed npz files with ids of 16 or 32 bits; nothing is ever unpickled. Every file appears
    whole or not at all.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def describe(self, encoder: str, dim: int, regions: str) -> None:
        """Say whose features these are; features are only written after this.

        What an empty folder was meant for does not matter.

        Raises:
            InputError: the folder holds features of another encoder or segmenter.
        """
        info = {"version": VERSION, "encoder": encoder, "dim": dim, "regions": regions}
        if self._info_path.exists() and not self.empty:
            present = self._info()
            if {key: present.get(key) for key in info} != info:
                raise InputError(
                    f"{self.folder} holds features of {present.get('encoder')} with {present.get('regions')} "
                    f"regions, not of {encoder} with {regions}; remove it or use another folder."
                )
            return
        write_json(self._info_path, info)

    @property
    def encoder(self) -> str:
        """Name of the encoder, for `encoders.create`."""
        return str(self._info()["encoder"])

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return int(self._info()["dim"])

    def write(self, name: str, features: ViewFeatures) -> None:
        """Store the features of view ``name``."""
        ids = features.region_ids
        small = np.int16 if len(features.embeddings) <= np.iinfo(np.int16).max else np.int32
        with atomic_path(self._path(name)) as temporary:
            np.savez_compressed(
                temporary,
                region_ids=ids.astype(small),
                embeddings=features.embeddings.astype(np.float16),
            )

    def read(self, name: str) -> ViewFeatures:
        """The features of view ``name``.

        Raises:
            InputError: there are none, or the file is damaged.
        """
        path = self._path(name)
        if not path.exists():
            raise InputError(f"{self.folder} has no features of the view {name}; run the features stage.")
        try:
            with np.load(path, allow_pickle=False) as arrays:
                # Members of a zip that are no arrays come as bytes.
                ids, embeddings = np.asarray(arrays["region_ids"]), np.asarray(arrays["embeddings"])
        except Exception as error:  # a damaged zip with Python in its headers may fail in any way
            raise InputError(f"{path} is damaged ({error}); remove it and run the features stage.") from error
        if ids.ndim != 3 or embeddings.ndim != 2 or ids.max(initial=-1) >= len(embeddings):
            raise InputError(f"{path} does not hold features; remove it and run the features stage.")
        return ViewFeatures(ids.astype(np.int32), embeddings.astype(np.float16))

    def has(self, name: str) -> bool:
        """Whether there are features of view ``name``."""
        return self._path(name).exists()

    @property
    def empty(self) -> bool:
        """Whether no view has features."""
        return all(path.name.startswith(".") for path in self.folder.glob("*.npz"))

    @property
    def _info_path(self) -> Path:
        return self.folder / "features.json"

    def _info(self) -> dict[str, Any]:
        try:
            info = parse_json(self._info_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{self.folder} holds no features; run the features stage.") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{self._info_path} cannot be read ({error}); remove {self.folder}.") from error
        known = {"encoder": str, "dim": int, "version": int}
        if not isinstance(info, dict) or not all(isinstance(info.get(key), kind) for key, kind in known.items()):
            raise InputError(f"{self._info_path} does not name an encoder; run the features stage again.")
        if info["version"] > VERSION:
            raise InputError(f"{self.folder} was written by a newer dictsplat; update dictsplat to read it.")
        return info

    def _path(self, name: str) -> Path:
        # The name may hold characters that a file name must not; a leading dot would hide the file.
        # Quoting makes three bytes of each that is not ASCII.
        stem = short_stem(quote(name, safe=" ").replace(".", "%2E"))
        return self.folder / f"{stem}.npz"


def extract_features(
    scene: Scene,
    encoder: Encoder,
    regions: Regions,
    store: FeatureStore,
    report: Report = silent,
    views: Sequence[int] | None = None,
) -> None:
    """Segment views and embed their regions; views that the store has already are skipped.

    On the CPU several views are worked on at once, one per core.

    Args:
        scene: where the images come from.
        encoder, regions: what looks at them.
        store: where the results go.
        report: told after every view.
        views: indices into ``scene.cameras``; the training views if None.

    Raises:
        InputError: a view cannot be read (it is named), or the store is of another encoder or segmenter.
    """
    store.describe(encoder.name, encoder.dim, regions.name)
    wanted = list(scene.train if views is None else views)
    missing = [index for index in wanted if not store.has(scene.cameras[index].name)]
    done = len(wanted) - len(missing)
    report(done, len(wanted), f"features of {done} views are there")
    if not missing:
        return

    def work(index: int) -> str:
        name = scene.cameras[index].name
        try:
            store.write(name, view_features(scene.image(index), encoder, regions))
        except InputError as error:
            raise InputError(f"View {name}: {error}") from error
        return name

    threads = torch.get_num_threads()
    workers = max(1, min(threads, len(missing)))
    try:
        # Views side by side use the cores better than threads inside small convolutions.
        torch.set_num_threads(max(1, threads // workers))
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            pending = {pool.submit(work, index) for index in missing}
            try:
                while pending:
                    finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                    for future in finished:
                        done += 1
                        report(done, len(wanted), f"features of {future.result()}")
            except BaseException:
                for future in pending:
                    future.cancel()
                raise
    finally:
        torch.set_num_threads(threads)


def view_features(image: NDArray[np.uint8], encoder: Encoder, regions: Regions) -> ViewFeatures:
    """Regions of one image uint8 [H, W, 3] and their embeddings."""
    ids = regions.segment(image)
    return ViewFeatures(ids.astype(np.int32), encoder.encode_regions(image, ids).astype(np.float16))
