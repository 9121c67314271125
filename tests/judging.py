"""A folder of photos judged with a few good ones, for the tests of it."""

import csv

import pytest
from inspection import ColourDistance, backbone, save, texture

from dictas.predict import PredictOptions, predict

SPOTS = {5: (10, 20), 9: (40, 4)}
QUICK = PredictOptions(workers=0, batch=4)


@pytest.fixture
def support(tmp_path):
    for number in range(3):
        save(tmp_path / "support" / f"{number}.png", texture(number))
    return tmp_path / "support"


@pytest.fixture
def query(tmp_path):
    for number in range(23):
        height = 96 if number % 4 == 1 else 64
        save(
            tmp_path / "query" / f"{number % 2}" / f"{number}.png", texture(100 + number, height, 64, SPOTS.get(number))
        )
    return tmp_path / "query"


def run(support, query, out, options=QUICK, detector=None, report=lambda *_: None):
    return predict(backbone(), detector or ColourDistance(), support, query, out, options, report)


def content(out, *kinds):
    kinds = kinds or ("results.csv", "maps", "masks", "overlays", "thumbnails")
    files = [path for kind in kinds for path in [out / kind, *(out / kind).rglob("*")] if path.is_file()]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def table(out):
    with (out / "results.csv").open(encoding="utf-8", newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


class Stop(Exception):
    pass
