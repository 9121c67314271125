"""What a visitor of the Anomaly tab uploads, and what the command line makes of the same."""

import shutil
import zipfile
from pathlib import Path

import pytest
from hostile import huge_png
from inspection import ColourDistance, backbone, save, texture

from app import anomaly_job
from app.anomaly_job import Inspection, Inspector
from dictas.predict import PredictOptions, predict

OPTIONS = PredictOptions(workers=0, batch=4)
SPOTS = {3: (10, 20), 7: (40, 4)}
Uploads = tuple[list[Path], list[Path]]
"""Photos of good parts, and photos to judge."""


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> ColourDistance:
    """What a server loads instead of real weights."""
    loaded = ColourDistance()
    monkeypatch.setattr(anomaly_job, "load_detector", lambda *_arguments, **_options: (backbone(), loaded))
    return loaded


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    good = [save(tmp_path / "uploads" / f"good {number}.png", texture(number)) for number in range(3)]
    judge = [
        save(tmp_path / "uploads" / f"part {number}.png", texture(100 + number, 96 if number == 5 else 64, 64, spot))
        for number, spot in ((number, SPOTS.get(number)) for number in range(10))
    ]
    return good, judge


def broken(folder: Path) -> list[Path]:
    (folder / "notes.jpg").write_text("Dear diary")
    (folder / "empty.png").write_bytes(b"")
    (folder / "torn.png").write_bytes((folder / "part 1.png").read_bytes()[:900])
    (folder / "list.csv").write_text("1,2")
    huge_png(folder / "bomb.png", 9000)
    return [folder / name for name in ("notes.jpg", "empty.png", "torn.png", "list.csv", "bomb.png")]


def inspect(folder: Path, good: list[Path], judge: list[Path], options: PredictOptions = OPTIONS) -> Inspection:
    folder.mkdir()
    return Inspector().inspect("key", folder, good, judge, options)


def direct(folder: Path, good: list[Path], judge: list[Path], options: PredictOptions = OPTIONS) -> Path:
    """The same photos judged by the library alone."""
    for place, photos in (("good", good), ("judge", judge)):
        (folder / place).mkdir(parents=True)
        for photo in photos:
            shutil.copy(photo, folder / place)
    predict(backbone(), ColourDistance(), folder / "good", folder / "judge", folder / "out", options)
    return folder / "out"


def files(folder: Path) -> dict[str, bytes]:
    names = ("results.csv", "maps", "masks", "overlays", "thumbnails")
    found = [path for name in names for path in [folder / name, *(folder / name).rglob("*")] if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def unzipped(path: Path, into: Path) -> Path:
    with zipfile.ZipFile(path) as target:
        target.extractall(into)
    return into
