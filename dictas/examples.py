"""A picture of what detectors see: the worst and the best found defects of a class, and its worst false alarm."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dictas.metrics import pixel_metrics
from dictas.overlay import overlay
from dictas.trial import Judged, Trial, compared_shape
from encoders.files import read_image, write_png

SHOWN = 3
"""Of the worst and of the best."""
CELL = 256
GAP = 4
HEADER = 22
TRUTH = (80, 255, 80)

Image = NDArray[np.uint8]


def write_examples(path: Path, trial: Trial, thresholds: Mapping[str, float | None]) -> None:
    """Write a sheet with a row per image: the photo, where its defect is, and each detector's map over the photo.

    Args:
        thresholds: per detector the value from which on pixels count as anomalous; the first one's choice decides
            which images are shown. None if there was no pixel to learn it from.
    """
    first = next(iter(thresholds))
    chosen = _chosen(trial, first)
    if not chosen:
        return
    rows = [_header(("photo", "truth", *thresholds))]
    for found in chosen:
        photo = _photo(found, trial.judge.white)
        pictures = [photo, photo if found.truth is None else _outlined(photo, found.truth)]
        for name, threshold in thresholds.items():
            values = trial.map_of(found, name)
            pictures.append(overlay(photo, values, float(values.max()) if threshold is None else threshold))
        rows.append(_row(pictures))
    write_png(path, np.concatenate(rows))


def _chosen(trial: Trial, name: str) -> list[Judged]:
    """The defects that are found worst and best, by average precision within the image, and the highest good image."""
    precision: list[tuple[float, int]] = []
    alarm: list[tuple[float, int]] = []
    for place, found in enumerate(trial.judged):
        values = trial.map_of(found, name)
        if not found.sample.anomalous:
            alarm.append((float(values.max()), place))
        elif found.truth is not None:
            value = pixel_metrics([values], [found.truth])["pixel_ap"]
            if value is not None:
                precision.append((value, place))
    precision.sort()
    places = [place for _, place in (precision[:SHOWN] + precision[-SHOWN:])] + [
        place for _, place in sorted(alarm)[-1:]
    ]
    return [trial.judged[place] for place in dict.fromkeys(places)]


def _photo(found: Judged, white: int | None) -> Image:
    height, width = compared_shape(*found.shape)
    image = read_image(found.sample.path, white=white)
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _outlined(photo: Image, truth: NDArray[np.bool_]) -> Image:
    outlines, _ = cv2.findContours(truth.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    picture = photo.copy()
    cv2.drawContours(picture, outlines, -1, TRUTH, max(1, round(max(truth.shape) / 300)))
    return picture


def _header(titles: tuple[str, ...]) -> Image:
    header = np.full((HEADER, len(titles) * (CELL + GAP) - GAP, 3), 255, np.uint8)
    for column, title in enumerate(titles):
        place = (column * (CELL + GAP) + 4, HEADER - 7)
        cv2.putText(header, title.replace("_", " "), place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return header


def _row(pictures: list[Image]) -> Image:
    """Pictures of one size, each fitted into a cell below its title."""
    tall, wide = pictures[0].shape[:2]
    factor = CELL / max(tall, wide)
    size = (max(1, round(wide * factor)), max(1, round(tall * factor)))
    row = np.full((size[1] + GAP, len(pictures) * (CELL + GAP) - GAP, 3), 255, np.uint8)
    for column, picture in enumerate(pictures):
        left = column * (CELL + GAP)
        row[: size[1], left : left + size[0]] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return row
