"""Thousands of photos judged by a few good ones: streaming, in bounded memory, continued after any stop.

::

    OUT/results.csv             a line for each photo, in the order of their names
    OUT/results.json            options, threshold, counts, timings
    OUT/maps|overlays|masks|thumbnails/   see `dictas.outputs`
    OUT/journal.jsonl           what is finished, see `dictas.journal`
    OUT/dictionary.safetensors  what the detector knows to be normal, see `dictas.support`
"""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from dictas import thresholds
from dictas.detector import Backbone
from dictas.images import Photo, find_images, text_of
from dictas.journal import Journal, open_journal
from dictas.labels import labels_digest, match_masks
from dictas.masks import read_mask
from dictas.memory import Memory
from dictas.outputs import Row, Writer, remove, sweep
from dictas.results import Seconds, summary, write_results
from dictas.samples import Sample
from dictas.stream import SETUP_LINES, Judge, judge_all
from dictas.support import NAME as DICTIONARY
from dictas.support import Learned, Support, keep, model_digest, read_support, recall
from dictas.thresholds import LabelledMaps, Threshold
from dictas.tiles import Tiling
from encoders.errors import InputError
from encoders.progress import Report, silent

JudgeAll = Callable[[Judge, Sequence[Photo], Writer, int, Journal, Report], list[Row]]
"""As `dictas.stream.judge_all`."""

DICTIONARY_OPTIONS = (
    "version", "support", "model", "encoder", "layers", "size", "keep_aspect", "rotations", "tile", "overlap"
)  # fmt: skip
"""What the contents of the dictionary depend on."""


@dataclass(frozen=True)
class PredictOptions:
    """How photos are judged and what is written.

    Attributes:
        tile: side of tiles in pixels of the original photos; None shows them whole.
        overlap: see `Tiling`.
        rotations: copies of each support image, turned by equal angles, itself included.
        threshold: 0..1, for pixels and images alike; None computes it.
        false_alarms: share of good images that may be flagged, if it is computed from support images.
        masks: folder with truth for some photos; the threshold is then the F1-best.
        maps: ``png16``, ``npz`` or ``none``.
        workers: processes that read photos. batch: photos or tiles judged at a time. Neither is part of what a
            continued run must agree on.
        overwrite: throw away what ``out`` holds of an earlier run.
    """

    tile: int | None = None
    overlap: float = 0.25
    rotations: int = 1
    threshold: float | None = None
    false_alarms: float = 0.01
    masks: Path | None = None
    maps: str = "png16"
    workers: int = 1
    batch: int = 8
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.threshold is not None:
            thresholds.fixed(self.threshold)
            if self.masks is not None:
                raise InputError("--threshold and --masks were both given; use one of them.")
        thresholds.check_rate(self.false_alarms)
        if self.workers < 0:
            raise InputError(f"--workers is {self.workers}; give 0 or more.")
        if self.batch < 1:
            raise InputError(f"--batch is {self.batch}; give 1 or more.")

    @property
    def tiling(self) -> Tiling | None:
        """How photos are cut."""
        return None if self.tile is None else Tiling(self.tile, self.overlap)


@dataclass(frozen=True)
class Prediction:
    """The rows of results.csv and the content of results.json."""

    rows: list[Row]
    results: dict[str, Any]


def predict(
    backbone: Backbone,
    detector: Learned,
    support: Path,
    query: Path,
    out: Path,
    options: PredictOptions | None = None,
    report: Report = silent,
    report_setup: Report = silent,
    judge_with: JudgeAll | None = None,
) -> Prediction:
    """Judge every photo in ``query`` by the good ones in ``support``.

    Killed at any moment, the same call continues, and results.csv ends up the same bytes. Photos that cannot be read
    get a line that says so. Photos that were added or changed since are judged, with all that follow them by name.

    Args:
        report: told about photos. report_setup: told about the search for a threshold before.
        judge_with: used instead of `dictas.stream.judge_all`, with the same results; see `dictas.cluster`.

    Raises:
        InputError: there are no photos, a support image cannot be read, or ``out`` holds something else.
    """
    options = options or PredictOptions()
    began = time.monotonic()
    masks = [options.masks] if options.masks else []
    known = read_support(support, options.rotations, skip=[query, out, *masks])
    photos = find_images(query, skip=[out, support, *masks], closed=True)
    left_out = len(find_images(query, skip=[out], closed=True)) - len(photos)
    if not photos:
        raise InputError(f"There is no image in {query}; give the folder with the photos to judge as --query.")
    labels = match_masks(photos, options.masks) if options.masks else {}
    judge = Judge(backbone, detector, options.tiling, options.batch, known.white)
    asked = _asked(backbone, detector, known, query, labels_digest(photos, labels) if labels else None, options)
    with open_journal(out, options.overwrite) as journal, torch.no_grad():
        sweep(out)
        begin(journal, out, asked, options.overwrite)
        recorded = recorded_threshold(journal)
        memory: Memory | None = None
        if recorded is None and options.threshold is None and not labels:
            memory = known.memory(detector, backbone, judge.tiling, judge.size)
            recorded = thresholds.from_support(
                backbone, detector, known.images, memory, options.false_alarms, judge.tiling, judge.size, report_setup
            )
        fingerprint = {key: asked[key] for key in DICTIONARY_OPTIONS}
        if not recall(detector, out / DICTIONARY, fingerprint):
            (memory or known.memory(detector, backbone, judge.tiling, judge.size)).recall()
            keep(detector, out / DICTIONARY, fingerprint)
        if recorded is not None:
            threshold = recorded
        elif options.threshold is not None:
            threshold = thresholds.fixed(options.threshold)
        else:
            threshold = _from_labels(judge, photos, labels, options.workers, report_setup)
        if len(journal.lines) < SETUP_LINES:
            journal.append({"threshold": asdict(threshold)})
        setup = time.monotonic() - began
        writer = Writer(out, threshold, options.maps)
        rows = (judge_with or judge_all)(judge, photos, writer, options.workers, journal, report)
        spent = sum(float(line["seconds"]) for line in journal.lines[SETUP_LINES:])
        results = summary(rows, asked, known, threshold, Seconds(spent, setup), left_out)
        write_results(out, rows, results)
    return Prediction(rows, results)


def _asked(
    backbone: Backbone,
    detector: Learned,
    known: Support,
    query: Path,
    masks: str | None,
    options: PredictOptions,
) -> dict[str, Any]:
    """Everything that results depend on besides the photos; a continued run must agree on all of it."""
    chosen = asdict(options)
    return {
        "version": version("dictsplat"),
        "query": text_of(str(query.resolve())),
        "support": known.digest,
        "model": model_digest(detector),
        "encoder": backbone.encoder.name,
        "layers": list(backbone.layers),
        "size": backbone.size,
        "keep_aspect": backbone.keep_aspect,
        **{name: chosen[name] for name in ("rotations", "tile", "overlap", "threshold", "false_alarms", "maps")},
        "masks": masks,
    }


def begin(journal: Journal, out: Path, asked: dict[str, Any], overwrite: bool) -> None:
    """Write the journal's first line, or see that it is the same."""
    before = journal.lines[0].get("asked", {}) if journal.lines else None
    if before == asked and not overwrite:
        return
    if before is not None and len(journal.lines) > SETUP_LINES and not overwrite:
        different = sorted(key for key in {*before, *asked} if before.get(key) != asked.get(key))
        raise InputError(
            f"{out} holds results made with another {', '.join(different)}; choose another --out, or start over "
            "with --overwrite."
        )
    journal.keep(0)
    remove(out)
    journal.append({"asked": asked})


def recorded_threshold(journal: Journal) -> Threshold | None:
    """The threshold that the journal's second line holds; None if it has none yet."""
    if len(journal.lines) < SETUP_LINES:
        return None
    content = journal.lines[1]["threshold"]
    return Threshold(**{**content, "samples": tuple(content["samples"])})


def _from_labels(
    judge: Judge, photos: Sequence[Photo], labels: dict[int, Sample], workers: int, report: Report
) -> Threshold:
    """The F1-best threshold. Labelled photos are judged twice: their masks cannot be written before it is known."""
    counted = LabelledMaps()
    indices = list(labels)
    with closing(judge.read([photos[index] for index in indices], workers)) as loaded:
        for photo in loaded:
            for compute in judge.judgements([photo]):
                found = compute()
                truth = read_mask(labels[indices[photo.index]], (found.map.shape[0], found.map.shape[1]))
                counted.add(found, truth)
            report(photo.index + 1, len(indices), "judging labelled photos for the threshold")
    return counted.best()
