"""One inspection for a visitor: the photos judged as `dictsplat anomaly predict` does, and kept to be looked at."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.anomaly_photos import stage_good, stage_judge
from app.anomaly_report import worst_first, write_report
from dictas.checkpoint import load_detector
from dictas.detector import Backbone
from dictas.images import find_images
from dictas.outputs import Row
from dictas.predict import Prediction, PredictOptions, predict
from dictas.remask import snapped, stored_map
from dictas.results import write_results
from dictas.support import Learned
from dictas.thresholds import Threshold
from encoders.devices import pick_device
from encoders.errors import InputError
from encoders.files import read_image, white_level
from encoders.progress import Report, silent

GOOD, JUDGE, OUT = "good", "judge", "out"
"""Folders of an inspection: good parts, photos to judge, results."""


@dataclass(frozen=True)
class Inspection:
    """A finished inspection.

    Attributes:
        key: of the `app.scratch.Scratch` folder that holds it.
        folder: that folder, with `GOOD`, `JUDGE` and `OUT` in it.
        prediction: as `predict` returns it, and what was refused before; without places on the server.
        white: see `encoders.files.white_level`.
    """

    key: str
    folder: Path
    prediction: Prediction
    white: int | None = None

    @property
    def out(self) -> Path:
        """The folder with maps, masks and overlays."""
        return self.folder / OUT

    @cached_property
    def rows(self) -> list[Row]:
        """By falling score, unreadable ones last; a photo's place among them is its number on the page."""
        return worst_first(self.prediction.rows)

    @cached_property
    def threshold(self) -> Threshold:
        """The one that the inspection found or was given."""
        content = self.prediction.results["threshold"]
        return Threshold(**{**content, "samples": tuple(content["samples"])})

    def at(self, value: float) -> Threshold:
        """Another threshold, 0..1."""
        return snapped(value)

    def photo(self, row: Row) -> NDArray[np.uint8]:
        """A judged photo as it was seen, uint8 [H, W, 3]."""
        return read_image(self.folder / JUDGE / row.path, white=self.white)

    def map(self, row: Row) -> NDArray[np.float32]:
        """Its map, float32 [H, W]."""
        return stored_map(self.out, row)


class Inspector:
    """The detector of this server, loaded when it is first needed; one inspection at a time.

    Args:
        checkpoint: weights, by default those that come with the program. encoder: as of ``anomaly predict``.
        device: auto, cpu, cuda or cuda:N.
    """

    def __init__(self, checkpoint: Path | None = None, encoder: str | None = None, device: str = "auto") -> None:
        self._checkpoint, self._encoder, self._device = checkpoint, encoder, device
        self._turn = Lock()

    @cached_property
    def _model(self) -> tuple[Backbone, Learned]:
        return load_detector(self._checkpoint, pick_device(self._device), encoder=self._encoder)

    def inspect(
        self,
        key: str,
        folder: Path,
        good: Sequence[Path],
        judge: Sequence[Path],
        options: PredictOptions,
        report: Report = silent,
        report_setup: Report = silent,
    ) -> Inspection:
        """Judge uploaded photos by uploaded photos of good parts.

        Args:
            key: of ``folder``, an empty one.
            options: with maps as ``png16``.
            report: told about photos; what it raises ends the inspection. report_setup: the same before.

        Raises:
            InputError: something that was uploaded cannot be used; files are called by their uploaded names.
        """
        with placeless(folder):
            stage_good(good, folder / GOOD)
            refused = stage_judge(judge, folder / JUDGE)
            report_setup(0, 1, "waiting for the detector")
            with self._turn:
                backbone, detector = self._model
                found = predict(
                    backbone, detector, folder / GOOD, folder / JUDGE, folder / OUT, options, report, report_setup
                )
            prediction = _presentable(found, refused, folder)
            write_results(folder / OUT, prediction.rows, prediction.results)
            write_report(folder / OUT, prediction)
            white = white_level(photo.path for photo in find_images(folder / GOOD))
        return Inspection(key, folder, prediction, white)


def _presentable(found: Prediction, refused: Sequence[Row], folder: Path) -> Prediction:
    rows = [replace(row, error=_without_places(row.error, folder)) for row in found.rows]
    results: dict[str, Any] = {**found.results, "options": {**found.results["options"], "query": "uploaded photos"}}
    counts = dict(results["counts"])
    for name in ("images", "unreadable"):
        counts[name] += len(refused)
    return Prediction([*rows, *refused], {**results, "counts": counts})


@contextmanager
def placeless(folder: Path) -> Iterator[None]:
    """Mistakes are told to a visitor, who knows nothing of folders and must not."""
    try:
        yield
    except InputError as error:
        raise InputError(_without_places(str(error), folder)) from None


def _without_places(text: str, folder: Path) -> str:
    for place in (folder / GOOD, folder / JUDGE, folder):
        text = text.replace(f"{place}/", "")
    return text.replace(str(folder), "the upload")
