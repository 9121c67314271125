"""A video: its sharpest frames, as photos."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
from numpy.typing import NDArray

from encoders.errors import InputError
from encoders.files import atomic_folder
from encoders.progress import Report, silent
from splat.scene.capture import Capture
from splat.scene.images import content_key
from splat.scene.photos import FEWEST, photo_files, read_photos
from splat.scene.scratch import write_image

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm")

FRAMES = 100
"""About so many frames are taken from a video, evenly spread in time."""

CANDIDATES = 5
"""The sharpest of so many frames around each moment is taken."""


def is_video(path: Path) -> bool:
    """Whether ``path`` has the extension of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def read(path: Path, cache_dir: Path | None = None, report: Report = silent) -> Capture:
    """Find cameras for the sharpest frames of the video ``path``.

    Without ``cache_dir`` the frames live in a temporary folder for as long as the capture does.

    Raises:
        InputError: the video cannot be decoded, is too short, or does not let cameras be found.
    """
    if cache_dir is None:
        keepalive = TemporaryDirectory(prefix="dictsplat-")
        frames = Path(keepalive.name)
        sample_frames(path, frames, report)
    else:
        keepalive = None
        frames = cache_dir / f"frames-{content_key(path)}"
        if not frames.is_dir():
            with atomic_folder(frames) as partial:
                sample_frames(path, partial, report)
    capture = read_photos(photo_files(frames), path, cache_dir, report)
    capture.keepalive = keepalive
    return capture


def sample_frames(path: Path, folder: Path, report: Report = silent, frames: int = FRAMES) -> None:
    """Write about ``frames`` sharp frames of the video ``path`` into ``folder`` as numbered JPEGs.

    The video is cut into equal stretches; of each, the sharpest of `CANDIDATES` evenly spread frames
    is kept.

    Raises:
        InputError: the video cannot be decoded or has fewer than three frames.
    """
    video = cv2.VideoCapture(str(path))
    try:
        count = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
        if count < FEWEST:
            raise InputError(f"The video {path} cannot be decoded, or is shorter than {FEWEST} frames.")
        stretch = max(1.0, count / frames)
        step = max(1, int(stretch / CANDIDATES))
        best, best_sharpness, current, written, number = None, -1.0, 0, 0, 0
        while video.grab():
            if int(number / stretch) != current:
                written += _write(folder, written, best)
                best, best_sharpness, current = None, -1.0, int(number / stretch)
                report(min(number, count), count, "choosing sharp frames")
            if number % step == 0 or best is None:
                decoded, frame = video.retrieve()
                if decoded and (sharpness := _sharpness(frame)) > best_sharpness:
                    best, best_sharpness = frame, sharpness
            number += 1
        written += _write(folder, written, best)
    finally:
        video.release()
    if written < FEWEST:
        raise InputError(f"The video {path} gave {written} frames; it is damaged or too short.")


def _write(folder: Path, number: int, frame: NDArray[Any] | None) -> int:
    if frame is None:
        return 0
    write_image(folder / f"frame_{number:05d}.jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 97])
    return 1


def _sharpness(frame: NDArray[Any]) -> float:
    """Variance of the Laplacian of the grey image; larger is sharper."""
    grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())
