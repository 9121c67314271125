"""Undistorted, scaled images on demand: bounded memory, and a cache on disk that is never half written."""

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from encoders.errors import InputError
from encoders.files import WithinFile, read_image, short_stem, write_png
from encoders.progress import Report, silent
from splat.scene.cameras import Camera
from splat.scene.capture import View
from splat.scene.undistort import straighten

MEMORY_BYTES = 1 << 30
"""Images kept decoded in memory, together; the least recently used leave first."""

CACHE_VERSION = 1
"""Part of every cached image's key; raise it when `straighten` changes what comes out."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
"""Files that are taken for photos, in lower case."""

_SAMPLE = 1 << 16


def content_key(path: Path) -> str:
    """A cheap hash of a file: its size and 64 KiB from its start, middle and end, as 16 hex digits."""
    size = path.stat().st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=8)
    with path.open("rb") as file:
        for start in (0, max(0, size // 2 - _SAMPLE // 2), max(0, size - _SAMPLE)):
            file.seek(start)
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def image_size(path: Path, upright: bool = True) -> tuple[int, int]:
    """Width and height from the file's header alone, after the EXIF turn when ``upright``.

    Raises:
        InputError: the file is missing, empty, or no image.
    """
    try:
        with WithinFile(path) as file, Image.open(file) as image:
            turned = upright and image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            return (image.height, image.width) if turned else (image.width, image.height)
    except FileNotFoundError:
        raise InputError(f"The image {path} does not exist.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"The image {path} cannot be read ({error}); replace or remove it.") from error


class ImageStore:
    """The images of a scene, undistorted and at their cameras' size.

    Calling the store with an index returns uint8 [H, W, 3], read-only because it is shared. It may be
    called from several threads.
    """

    def __init__(
        self,
        views: Sequence[View],
        cameras: Sequence[Camera],
        cache_dir: Path | None = None,
        memory_bytes: int = MEMORY_BYTES,
        keepalive: object = None,
    ):
        """
        Args:
            views: where each image comes from, its lens already at the image file's size.
            cameras: the pinhole camera of each view.
            cache_dir: keeps the images as PNG, so that a second run need not undistort again. None:
                images are computed when asked for and live in memory only.
            memory_bytes: bound of the memory for decoded images.
            keepalive: held as long as the store, for a temporary folder with the files.
        """
        self.views = list(views)
        self.cameras = list(cameras)
        self.cache_dir = cache_dir
        self.content = [content_key(view.path) for view in self.views]
        self._memory_bytes = memory_bytes
        self._keepalive = keepalive
        self._kept: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.Lock()

    def __call__(self, index: int) -> NDArray[np.uint8]:
        """The image of view ``index``, uint8 [H, W, 3] RGB.

        Raises:
            InputError: the file has vanished or cannot be decoded.
        """
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
        image = self._load(index)
        image.setflags(write=False)
        with self._lock:
            if index not in self._kept:
                self._kept[index] = image
                self._kept_bytes += image.nbytes
                while self._kept_bytes > self._memory_bytes and len(self._kept) > 1:
                    self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
        return image

    def resamples(self, index: int) -> bool:
        """Whether view ``index`` is anything but the pixels of its file."""
        lens, camera = self.views[index].lens, self.cameras[index]
        return lens.distorts or (lens.width, lens.height) != (camera.width, camera.height)

    def cache_file(self, index: int) -> Path | None:
        """Where the PNG of view ``index`` is or will be; None without a cache or without resampling."""
        if self.cache_dir is None or not self.resamples(index):
            return None
        view, camera = self.views[index], self.cameras[index]
        made_of = (CACHE_VERSION, self.content[index], view.lens, view.upright, camera.width, camera.height)
        key = hashlib.blake2b(repr(made_of).encode(), digest_size=8).hexdigest()
        return self.cache_dir / "images" / f"{short_stem(view.name)}-{key}.png"

    def prepare(self, report: Report = silent) -> None:
        """Compute what the cache lacks, and find unreadable images now and not in the middle of a fit."""
        total = len(self.views)
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)  # one image per thread scales better than all threads on one image
        try:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                for done, _ in enumerate(pool.map(self._touch, range(total)), start=1):
                    report(done, total, "undistorting images")
        finally:
            cv2.setNumThreads(threads)

    def _touch(self, index: int) -> None:
        cached = self.cache_file(index)
        if cached is None or not cached.exists():
            self(index)

    def _load(self, index: int) -> NDArray[np.uint8]:
        cached = self.cache_file(index)
        if cached is not None and cached.exists():
            try:
                return read_image(cached)
            except InputError:
                pass  # the disk spoilt it; the photo is still there
        view, camera = self.views[index], self.cameras[index]
        source = read_image(view.path, upright=view.upright)
        if source.shape[:2] != (view.lens.height, view.lens.width):
            raise InputError(f"The image {view.path} changed its size while it was in use; start again.")
        image = straighten(source, view.lens, camera.width, camera.height)
        if cached is not None:
            write_png(cached, image)
        return image
