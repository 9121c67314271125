"""What the Anomaly tab does when something on it is used. Mistakes become a message on the page."""

import math
import secrets
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gradio as gr

from app.anomaly_export import write_bundle, write_table
from app.anomaly_gallery import SHOWN, Look, full_picture, good_html, sheet_html, summary_html
from app.anomaly_job import Inspection
from app.anomaly_sessions import Sessions, Stopped
from app.offered import shown
from app.told import told
from dictas.predict import PredictOptions
from dictas.thresholds import Threshold
from encoders.progress import Report, silent

DIGITS = 4
STEP = 10**-DIGITS
"""Of the threshold's slider."""

BUNDLE = "results.zip"

Update = Any
"""A value for a component, or gradio's description of a change to one."""


class Events:
    """The tab's handlers.

    Args:
        sessions: who has which inspection.
        cache: folder of files that visitors may download.
    """

    def __init__(self, sessions: Sessions, cache: Path) -> None:
        self._sessions, self._cache = sessions, cache

    @told
    def inspect(
        self,
        good: list[str] | None,
        judge: list[str] | None,
        rotations: float,
        tile: int,
        false_alarms: float,
        kind: str,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - gradio looks for it here
    ) -> list[Update]:
        """Judge photos.

        Returns:
            The inspection, what of it is looked at, whether hint and results are visible, the threshold's slider, the
            good parts; then as `draw` and as `full`.
        """
        options = PredictOptions(
            rotations=int(rotations), tile=int(tile) or None, false_alarms=float(false_alarms), workers=0
        )
        try:
            found = self._sessions.inspect(_session(request), _paths(good), _paths(judge), options, _reported(progress))
        except Stopped:
            raise gr.Error("Nothing was kept of it.", title="Stopped", print_exception=False, duration=5) from None
        look, value = Look(), _shown(found)
        with self._sessions.keeping(found) as kept:
            slider = gr.Slider(*_range(kept), value=value, step=STEP)
            static = [gr.Markdown(visible=False), gr.Column(visible=True), slider, good_html(kept)]
        return [found, look, *static, *self.draw(found, look, value), *self.full(found, look, value, kind)]

    def stop(self, request: gr.Request) -> None:
        """End the inspection that is running."""
        self._sessions.stop(_session(request))
        gr.Info("Stopped.", duration=3)

    def leave(self, request: gr.Request) -> None:
        """The page was closed."""
        self._sessions.leave(_session(request))

    @told
    def example(self) -> tuple[list[str], list[str]]:
        """Photos of good parts, and photos to judge."""
        good, judge = self._sessions.example()
        return [str(path) for path in good], [str(path) for path in judge]

    @told
    def look(self, inspection: Inspection | None, look: Look, event: gr.EventData) -> Look:
        """Other photos, another page, or one photo: what is looked at now."""
        with self._sessions.keeping(inspection) as kept:
            show, page, photo = (getattr(event, name, None) for name in ("show", "page", "photo"))
            if show in SHOWN:
                look = replace(look, show=show, page=0)
            if page is not None:
                look = replace(look, page=_number(page, len(kept.rows)))
            if photo is not None:
                look = replace(look, photo=_number(photo, len(kept.rows)))
            return look

    @told
    def draw(self, inspection: Inspection | None, look: Look, value: float | None) -> list[Update]:
        """Summary and sheet for the threshold that the slider shows."""
        with self._sessions.keeping(inspection) as kept:
            threshold = _threshold(kept, value)
            return [summary_html(kept, threshold), sheet_html(kept, look, threshold)]

    @told
    def full(self, inspection: Inspection | None, look: Look, value: float | None, kind: str) -> list[Update]:
        """One photo at full size, and the line about it."""
        with self._sessions.keeping(inspection) as kept:
            place = _number(look.photo, len(kept.rows))
            picture, line = full_picture(kept, place, _threshold(kept, value), kind)
            return [shown(picture, f"{kept.rows[place].path}, {kind.lower()}"), line]

    @told
    def table(self, inspection: Inspection | None, value: float | None) -> str:
        """results.csv for the threshold of the slider."""
        with self._sessions.keeping(inspection) as kept, self._offered() as folder:
            return str(write_table(kept, _threshold(kept, value), folder))

    @told
    def bundle(
        self,
        inspection: Inspection | None,
        value: float | None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> str:
        """The zip of everything for the threshold of the slider."""
        with self._sessions.keeping(inspection) as kept, self._offered() as folder:
            return str(write_bundle(kept, _threshold(kept, value), folder / BUNDLE, _reported(progress)))

    @told
    def answer(
        self, good: list[str] | None, judge: list[str] | None, threshold: float | None
    ) -> tuple[list[dict[str, Any]], str]:
        """Judge photos by photos of good parts.

        Args:
            good: 1 to 16 photos, or zips of them.
            judge: photos to judge, or zips of them.
            threshold: 0..1; None computes it from the good ones.

        Returns:
            A row for each photo as in results.csv, its path called "photo" (a "path" is what clients of gradio take
            for a file and try to download); and a zip with all that `anomaly predict` writes.
        """
        session = uuid.uuid4().hex
        options = PredictOptions(threshold=threshold, workers=0)
        try:
            inspection = self._sessions.inspect(session, _paths(good), _paths(judge), options, silent)
            with self._sessions.keeping(inspection) as kept, self._offered() as folder:
                path = write_bundle(kept, kept.threshold, folder / BUNDLE)
        finally:
            self._sessions.leave(session)
        rows = [asdict(row) for row in inspection.prediction.rows]
        return [{"photo": row.pop("path"), **row} for row in rows], str(path)

    @contextmanager
    def _offered(self) -> Iterator[Path]:
        """A new folder for a file to download, whose name nobody can guess; gone if the file could not be made."""
        folder = self._cache / secrets.token_hex(16)
        try:
            folder.mkdir(parents=True)
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def _session(request: gr.Request) -> str:
    return str(request.session_hash)


def _paths(uploads: Sequence[str] | None) -> list[Path]:
    return [Path(upload) for upload in uploads or ()]


def _reported(progress: gr.Progress) -> Report:
    return lambda done, total, message: progress((done, max(total, 1)), desc=message.capitalize(), unit="done")


def _shown(inspection: Inspection) -> float:
    """The inspection's own threshold as the slider shows it."""
    return round(inspection.threshold.image, DIGITS)


def _threshold(inspection: Inspection, value: float | None) -> Threshold:
    """What the slider stands for; where it shows the inspection's own threshold or nothing, exactly that one."""
    if value is None or abs(value - _shown(inspection)) < STEP / 2:
        return inspection.threshold
    return inspection.at(min(max(float(value), 0.0), 1.0))


def _range(inspection: Inspection) -> tuple[float, float]:
    """The slider's ends: no photo is anomalous, or all are."""
    scores = [row.score for row in inspection.rows if row.score is not None]
    values = [*scores, _shown(inspection)]
    return math.floor(min(values) / 2 / STEP) * STEP, min(math.ceil(max(values) * 1.1 / STEP) * STEP, 1.0)


def _number(value: Any, count: int) -> int:
    """A number below ``count`` that a page sent."""
    try:
        return min(max(int(value), 0), max(count - 1, 0))
    except (TypeError, ValueError):
        return 0
