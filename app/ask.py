"""Asking a trained run for things by name: in a view (`query`) and in space (`select`)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import encoders
from app.pictures import write_answer
from encoders.devices import pick_device
from encoders.errors import InputError
from encoders.files import write_json
from encoders.storage import storage_errors
from splat.device import splat_device
from splat.evaluate import in_bytes, renderer
from splat.gaussians import save_ply
from splat.query import DEFAULT_NEGATIVES, QueryResult, query_view, select_gaussians
from splat.scene import Camera, load_cameras
from splat.trained import Trained

VIEWS_TO_TRY = 8
"""Without --view, a phrase is looked for in at most this many held-out views, spread evenly."""


@dataclass(frozen=True)
class Question:
    """What is asked, and where.

    Attributes:
        phrases: what to look for.
        view: name of one of the run's views. camera: a file like `cameras.json` with one camera.
            With neither, every phrase is answered in the held-out view where it stands out most.
        negatives: phrases it must be likelier than; LERF's four when empty.
        level: 0 subpart, 1 part, 2 whole; None chooses.
        threshold: on the normalised relevancy, 0..1; None is the protocol's 0.4.
    """

    phrases: tuple[str, ...]
    view: str | None = None
    camera: Path | None = None
    negatives: tuple[str, ...] = ()
    level: int | None = None
    threshold: float | None = None
    device: str = "auto"


def query(run: Path, question: Question, out: Path | None = None) -> dict[str, Any]:
    """Answer a question about a run.

    Args:
        out: where to write pictures and `query.json`; one folder per phrase when there are several.

    Returns:
        ``{"run", "encoder", "results": [...]}``, one result per phrase, see `_describe`.

    Raises:
        InputError: the run, the view, the camera or a phrase cannot be used.
    """
    _check(question)
    trained = Trained.load(run, splat_device(question.device))
    cameras = _cameras(trained, question)
    encoder = encoders.create(trained.field.encoder, device=pick_device(question.device))
    answers: list[tuple[Camera, list[QueryResult]]] = [
        (camera, _ask(trained, camera, question, encoder)) for camera in cameras
    ]
    results = []
    for index, phrase in enumerate(question.phrases):
        camera, found = max(answers, key=lambda answer: answer[1][index].confidence)
        result = _describe(found[index], camera, trained)
        if out is not None:
            several = len(question.phrases) > 1
            folder = out / _folder_name(phrase, question.phrases[:index]) if several else out
            result["files"] = str(folder)
            _write(folder, trained, camera, found[index], result)
        results.append(result)
    return {"run": str(run), "encoder": trained.field.encoder, "results": results}


def select(
    run: Path,
    phrase: str,
    out: Path,
    invert: bool = False,
    negatives: Sequence[str] = (),
    level: int | None = None,
    threshold: float | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Write the Gaussians of one object, or with ``invert`` all others, as a 3DGS PLY.

    Raises:
        InputError: the run or the phrase cannot be used, or nothing was found.
    """
    question = Question((phrase,), negatives=tuple(negatives), level=level, threshold=threshold)
    _check(question)
    if out.suffix.lower() != ".ply":
        raise InputError(f"--out is {out}; give a file name that ends in .ply.")
    trained = Trained.load(run, splat_device(device))
    encoder = encoders.create(trained.field.encoder, device=pick_device(device))
    chosen = select_gaussians(trained.gaussians, trained.field, phrase, encoder, **_options(question))
    found = int(chosen.sum())
    if found == 0:
        raise InputError(f"Nothing in {run} answers to {phrase!r}; try another phrase or a lower --threshold.")
    kept = trained.gaussians.subset(~chosen if invert else chosen)
    with storage_errors(out):
        save_ply(out, kept)
    return {
        "phrase": phrase,
        "selected": found,
        "written": len(kept),
        "total": len(trained.gaussians),
        "out": str(out),
    }


def _check(question: Question) -> None:
    if not question.phrases:
        raise InputError("There is nothing to look for; give a phrase, for example: dictsplat query RUN cat")
    for phrase in (*question.phrases, *question.negatives):
        if not phrase.strip():
            raise InputError("A phrase is empty; give some words to look for.")
    if question.view is not None and question.camera is not None:
        raise InputError("--view and --camera were both given; use one of them.")
    if question.level is not None and question.level not in range(3):
        raise InputError(f"--level is {question.level}; give 0 (subpart), 1 (part) or 2 (whole).")
    if question.threshold is not None and not 0.0 <= question.threshold < 1.0:
        raise InputError(f"--threshold is {question.threshold}; give a number from 0 to below 1.")


def _cameras(trained: Trained, question: Question) -> list[Camera]:
    if question.view is not None:
        return [trained.camera(question.view)]
    if question.camera is not None:
        return [_single_camera(question.camera)]
    held_out = trained.held_out()
    step = max(1, -(-len(held_out) // VIEWS_TO_TRY))
    return held_out[::step]


def _single_camera(path: Path) -> Camera:
    cameras, _ = load_cameras(path)
    if len(cameras) != 1:
        raise InputError(f"The camera file {path} holds {len(cameras)} cameras; --camera takes a file with one.")
    return cameras[0]


def _options(question: Question) -> dict[str, Any]:
    options: dict[str, Any] = {"negatives": question.negatives or DEFAULT_NEGATIVES}
    if question.level is not None:
        options["level"] = question.level
    if question.threshold is not None:
        options["threshold"] = question.threshold
    return options


def _ask(trained: Trained, camera: Camera, question: Question, encoder: encoders.Encoder) -> list[QueryResult]:
    phrases = list(question.phrases)
    return query_view(trained.gaussians, trained.field, camera, phrases, encoder, **_options(question))


def _describe(result: QueryResult, camera: Camera, trained: Trained) -> dict[str, Any]:
    """An answer as JSON: pixels count from the top left, boxes are (x0, y0, x1, y1), null without any."""
    return {
        "phrase": result.phrase,
        "view": camera.name,
        "held_out": camera.name in trained.test_names,
        "width": camera.width,
        "height": camera.height,
        "level": result.level,
        "level_name": encoders.LEVELS[result.level],
        "confidence": round(float(result.confidence), 4),
        "point": [int(value) for value in result.point],
        "box": None if result.box is None else [int(value) for value in result.box],
        "pixels": int(result.mask.sum()),
        "seconds": round(float(result.seconds), 4),
    }


def _write(folder: Path, trained: Trained, camera: Camera, result: QueryResult, description: dict[str, Any]) -> None:
    picture = in_bytes(renderer(trained.gaussians)(camera))
    with storage_errors(folder):
        write_answer(folder, picture, result.relevancy, result.mask, result.point)
        write_json(folder / "query.json", description)


def _folder_name(phrase: str, earlier: Sequence[str]) -> str:
    """A phrase as a folder name of its own: letters and digits stay, `cat?` after `cat` becomes `cat-2`."""
    name = _slug(phrase)
    same = sum(_slug(other) == name for other in earlier)
    return f"{name}-{same + 1}" if same else name


def _slug(phrase: str) -> str:
    return re.sub(r"[^\w]+", "-", phrase.strip(), flags=re.UNICODE).strip("-").lower()[:80] or "query"
