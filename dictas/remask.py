"""A finished run under another threshold: its maps are read again, its photos are not judged again."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dictas.outputs import OK, Image, Row, Writer
from dictas.thresholds import LEVELS, Threshold, fixed
from dictas.tiles import Judgement
from encoders.errors import InputError


def snapped(value: float) -> Threshold:
    """The threshold nearest to ``value`` for which maps of 16 bits give the masks that the run itself would have.

    Raises:
        InputError: ``value`` is not in 0..1.
    """
    return fixed(round(fixed(value).pixel * LEVELS) / LEVELS)


def stored_map(run: Path, row: Row) -> NDArray[np.float32]:
    """The map of one photo that `predict` wrote as ``png16`` into ``run``, float32 [H, W].

    Values are in the middle of their step of 1 / `LEVELS`, so that comparing them with a `snapped` threshold gives
    what comparing the unrounded ones does.

    Raises:
        InputError: it is not there.
    """
    path = run / "maps" / f"{row.output}.png"
    levels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
    if levels is None:
        raise InputError(f"The map {path} cannot be read; judge the photos again, with --maps png16.")
    return (levels.astype(np.float32) + np.float32(0.5)) / np.float32(LEVELS)


def flagged(rows: Sequence[Row], threshold: Threshold) -> list[Row]:
    """The rows with the photos marked that the threshold calls anomalous; the share of pixels stays as it was."""
    return [row if row.score is None else replace(row, anomalous=row.score >= threshold.image) for row in rows]


def measured(run: Path, rows: Sequence[Row], threshold: Threshold) -> list[Row]:
    """As `flagged`, with the share of pixels counted again from the maps in ``run``."""
    return [
        replace(row, area_fraction=round(float((stored_map(run, row) >= threshold.pixel).mean()), 6))
        if row.status == OK
        else row
        for row in flagged(rows, threshold)
    ]


def rewrite(run: Path, row: Row, image: Image, threshold: Threshold, out: Path) -> Row:
    """Write mask, overlay and thumbnail of one photo for another threshold.

    Args:
        run: with the photo's map. out: may be another folder.
        image: the photo as the run saw it, uint8 [H, W, 3].

    Returns:
        The row for this threshold.
    """
    assert row.score is not None
    written = Writer(out, threshold, "none").write(row, image, Judgement(stored_map(run, row), row.score))
    return replace(written, peak_x=row.peak_x, peak_y=row.peak_y)  # steps of the map may tie where it did not
