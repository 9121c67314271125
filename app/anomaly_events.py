"""What the Anomaly tab does when something on it is used. Mistakes become a message on the page."""

import math
import secrets
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
from dictas.predict import PredictOptions
from encoders.errors import InputError
from encoders.progress import Report

DIGITS = 4
STEP = 10**-DIGITS
"""Of the threshold's slider."""

Update = Any
"""A value for a component, or gradio's description of a change to one."""


@contextmanager
def messages() -> Iterator[None]:
    """What is wrong with the input is said on the page."""
    try:
        yield
    except InputError as error:
        raise gr.Error(str(error), title="That does not work", print_exception=False) from None
    except Stopped:
        raise gr.Error("Nothing was kept of it.", title="Stopped", print_exception=False, duration=5) from None


class Events:
    """The tab's handlers.

    Args:
        sessions: who has which inspection.
        cache: folder of files that visitors may download.
    """

    def __init__(self, sessions: Sessions, cache: Path) -> None:
        self._sessions, self._cache = sessions, cache

    def inspect(
        self,
        good: list[str] | None,
        judge: list[str] | None,
        rotations: float,
        tile: int,
        false_alarms: float,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - gradio looks for it here
    ) -> list[Update]:
        """Judge photos.

        Returns:
            The inspection, how it is looked at, whether hint and results are visible, the threshold's slider, the
            good parts; then as `draw`.
        """
        options = PredictOptions(
            rotations=int(rotations), tile=int(tile) or None, false_alarms=float(false_alarms), workers=0
        )
        with messages():
            inspection = self._sessions.inspect(
                _session(request), _paths(good), _paths(judge), options, _reported(progress)
            )
            look = Look()
            slider = gr.Slider(*_range(inspection), value=_shown(inspection), step=STEP)
            static = [gr.Markdown(visible=False), gr.Column(visible=True), slider, good_html(inspection)]
            return [inspection, look, *static, *self.draw(inspection, look)]

    def stop(self, request: gr.Request) -> None:
        """End the inspection that is running."""
        self._sessions.stop(_session(request))
        gr.Info("Stopped.", duration=3)

    def leave(self, request: gr.Request) -> None:
        """The page was closed."""
        self._sessions.leave(_session(request))

    def example(self) -> tuple[list[str], list[str]]:
        """Photos of good parts, and photos to judge."""
        good, judge = self._sessions.example()
        return [str(path) for path in good], [str(path) for path in judge]

    def draw(self, inspection: Inspection | None, look: Look) -> list[Update]:
        """Summary and sheet."""
        with messages(), self._sessions.keeping(inspection) as kept:
            return [summary_html(kept, look), sheet_html(kept, look)]

    def full(self, inspection: Inspection | None, look: Look, kind: str) -> list[Update]:
        """One photo at full size, and the line about it."""
        with messages(), self._sessions.keeping(inspection) as kept:
            picture, line = full_picture(kept, look, kind)
            return [gr.Image(picture, alt_text=f"{kept.rows[look.photo].path}, {kind.lower()}"), line]

    def mask_again(self, inspection: Inspection | None, look: Look, value: float) -> list[Update]:
        """Another threshold: how the inspection is looked at now, and as `draw`."""
        with messages(), self._sessions.keeping(inspection) as kept:
            threshold = None if abs(value - _shown(kept)) < STEP / 2 else min(max(float(value), 0.0), 1.0)
            if threshold == look.threshold:
                return [gr.skip()] * 3
            look = replace(look, threshold=threshold)
            return [look, *self.draw(kept, look)]

    def look(self, inspection: Inspection | None, look: Look, event: gr.EventData) -> list[Update]:
        """Other photos, another page, or one photo: how the inspection is looked at now, and as `draw`."""
        with messages(), self._sessions.keeping(inspection) as kept:
            show, page, photo = (getattr(event, name, None) for name in ("show", "page", "photo"))
            if show in SHOWN:
                look = replace(look, show=show, page=0)
            if page is not None:
                look = replace(look, page=_number(page, len(kept.rows)))
            if photo is not None:
                look = replace(look, photo=_number(photo, len(kept.rows)))
            return [look, *self.draw(kept, look)]

    def table(self, inspection: Inspection | None, look: Look) -> str:
        """results.csv for the threshold of the slider."""
        with messages(), self._sessions.keeping(inspection) as kept:
            return str(write_table(kept, kept.at(look.threshold), self._folder()))

    def bundle(
        self,
        inspection: Inspection | None,
        look: Look,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> str:
        """The zip of everything for the threshold of the slider."""
        with messages(), self._sessions.keeping(inspection) as kept:
            path = self._folder() / "results.zip"
            return str(write_bundle(kept, kept.at(look.threshold), path, _reported(progress)))

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
        with messages():
            options = PredictOptions(threshold=threshold, workers=0)
            try:
                inspection = self._sessions.inspect(
                    session, _paths(good), _paths(judge), options, lambda done, total, message: None
                )
                with self._sessions.keeping(inspection) as kept:
                    path = write_bundle(kept, kept.threshold, self._folder() / "results.zip")
            finally:
                self._sessions.leave(session)
            rows = [asdict(row) for row in inspection.prediction.rows]
            return [{"photo": row.pop("path"), **row} for row in rows], str(path)

    def _folder(self) -> Path:
        """A new folder for a file to download, whose name nobody can guess."""
        folder = self._cache / secrets.token_hex(16)
        folder.mkdir(parents=True)
        return folder


def _session(request: gr.Request) -> str:
    return str(request.session_hash)


def _paths(uploads: Sequence[str] | None) -> list[Path]:
    return [Path(upload) for upload in uploads or ()]


def _reported(progress: gr.Progress) -> Report:
    return lambda done, total, message: progress((done, max(total, 1)), desc=message.capitalize(), unit="done")


def _shown(inspection: Inspection) -> float:
    """The inspection's own threshold as the slider shows it."""
    return round(inspection.threshold.image, DIGITS)


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
