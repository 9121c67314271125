"""The contact sheet: complete, light, and safe with any file name; and the command that writes it."""

import json
import re
import sys
from html.parser import HTMLParser
from urllib.parse import unquote

import inspection
import numpy as np
import pytest
from inspection import save, texture
from PIL import Image

from app.anomaly_report import BINS, histogram, worst_first, write_report
from app.cli import main
from dictas.outputs import UNREADABLE, Row
from dictas.predict import Prediction

NAMES = ["a<b>&'.png", "we#ird%20?.png", "</script><img src=x>.png"]


def row(path, score, threshold=0.1):
    return Row(path, score, score >= threshold, 0.25, 1, 2, 300, 200, output=path.removesuffix(".png"))


def prediction(rows, **threshold):
    results = {
        "options": {"query": "/data/to <i>night", "encoder": "embedded", "size": 256, "tile": None, "rotations": 1},
        "support": ["1.png"],
        "threshold": {"pixel": 0.1, "image": 0.1, "method": "augmentation", "false_alarms": 0.01, "f1": None}
        | threshold,
        "counts": {
            "images": len(rows),
            "ok": sum(one.status == "ok" for one in rows),
            "anomalous": sum(bool(one.anomalous) for one in rows),
            "unreadable": sum(one.status != "ok" for one in rows),
        },
        "images_per_second": 12.34,
    }
    return Prediction(rows, results)


class Page(HTMLParser):
    """Tags that stay open, text, and what the script is given."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.photos, self.tags = [], "", None, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("meta", "img", "input", "rect", "line"):
            self.open.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in ("rect", "line"):
            assert self.open.pop()[0] == tag

    def handle_data(self, data):
        tag, attributes = self.open[-1] if self.open else ("", {})
        if attributes.get("id") == "photos":
            self.photos = json.loads(data)
        elif tag not in ("style", "script"):
            self.text += data


def written(tmp_path, rows, **threshold):
    text = write_report(tmp_path, prediction(rows, **threshold)).read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    return page, text


def test_page_has_every_photo_the_worst_first(tmp_path):
    rows = [row("a.png", 0.05), row("b.png", 0.4), Row("c.png", status=UNREADABLE, error="broken"), row("d.png", 0.2)]
    page, text = written(tmp_path, rows)
    assert [photo["n"] for photo in page.photos] == ["b.png", "d.png", "a.png", "c.png"]
    assert page.photos[0] == {"n": "b.png", "o": "b", "s": 0.4, "a": 0.25, "f": True, "r": 4.5}
    assert page.photos[-1] == {"n": "c.png", "e": "broken"}
    text = " ".join(page.text.split())
    for expected in ("Photos 4", "Anomalous 2", "66.7% of those read", "Unreadable 1", "Threshold 0.1000", "1.00%"):
        assert expected.replace(" ", "") in text.replace(" ", "")
    assert "to <i>night" in page.text


def test_names_of_files_are_text_and_their_links_lead_to_them(tmp_path):
    page, text = written(tmp_path, [row(name, 0.2) for name in NAMES])
    assert sorted(photo["n"] for photo in page.photos) == sorted(NAMES)
    assert "i" not in page.tags
    assert "img" not in page.tags
    assert text.count("<script") == text.count("</script>") == 2
    for photo in page.photos:
        assert not set(photo["o"]) & set("#?<>'& ")
        assert unquote(photo["o"]) + ".png" == photo["n"]


def test_page_of_ten_thousand_photos_is_light(tmp_path):
    page, text = written(
        tmp_path, [row(f"line {number % 7}/part_{number}.png", 0.01 + number / 1e5) for number in range(10_000)]
    )
    assert len(page.photos) == 10_000
    assert len(text) < 2_000_000
    assert "data:" not in text
    assert not re.search(r"https?://", text)


@pytest.mark.parametrize("threshold", [0.1, 0.0004, 0.9, 1e-7, 0.0])
def test_histogram_counts_every_score_on_its_side_of_the_threshold(threshold):
    scores = [
        *np.random.default_rng(0).lognormal(-3, 1, 500).clip(0, 1),
        threshold,
        np.nextafter(threshold, 0),
        0.0,
        1.0,
    ]
    rows = [row(f"{number}", float(score), threshold) for number, score in enumerate(scores)]
    found = histogram([*rows, Row("x", status=UNREADABLE)], threshold)
    counts = [(bar, int(bar.note.split()[0].replace(",", ""))) for bar in found.bars]
    assert sum(count for _, count in counts) == len(rows)
    assert sum(count for bar, count in counts if bar.flagged) == sum(bool(one.anomalous) for one in rows)
    for bar, _ in counts:
        assert bar.flagged == (bar.x >= found.cut - 1e-9)
        assert 0 <= bar.x < bar.x + bar.width <= 1 + 1e-9
        assert 0 < bar.height <= 1
    assert len(found.bars) <= BINS + 2


def test_page_without_any_score(tmp_path):
    page, _ = written(tmp_path, [Row("c.png", status=UNREADABLE, error="broken")])
    assert "Scores" not in page.text
    assert worst_first([]) == []


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "dictas.checkpoint", None)
    inspection.install()
    for number in range(2):
        save(tmp_path / "good" / f"{number}.png", texture(number))
    for name, spot in zip(NAMES[:2], ((10, 10), None), strict=True):
        save(tmp_path / "tonight" / name, texture(5, spot=spot))
    return tmp_path


def command(folder, *more):
    arguments = ["--support", folder / "good", "--query", folder / "tonight", "--out", folder / "out", "--workers", 0]
    with pytest.raises(SystemExit) as stop:
        main(["anomaly", "predict", *map(str, [*arguments, *more])])
    return stop.value.code


def test_command_prints_results_and_its_page_shows_pictures_that_exist(folders, capsys):
    assert command(folders, "--json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == json.loads((folders / "out" / "results.json").read_text())
    page = Page((folders / "out" / "report.html").read_text(encoding="utf-8"))
    assert [photo["f"] for photo in page.photos] == [True, False]
    for photo in page.photos:
        with Image.open(folders / "out" / "thumbnails" / (unquote(photo["o"]) + ".jpg")) as picture:
            assert picture.size == (3 * 64 + 2 * 4, 64)
        assert (folders / "out" / "overlays" / (unquote(photo["o"]) + ".jpg")).exists()


def test_command_ends_with_1_if_photos_are_unreadable_and_with_2_if_it_was_called_wrongly(folders, capsys):
    (folders / "tonight" / "broken.jpg").write_bytes(b"")
    assert command(folders) == 1
    said = capsys.readouterr()
    assert "of 2 photos are anomalous" in said.out
    assert said.err == f"1 of 3 photos could not be read; {folders / 'out' / 'results.csv'} says which and why.\n"
    for wrong in (["--tile", 5], ["--threshold", 3], ["--false-alarms", 0], ["--batch", 0], ["--workers", -1]):
        assert command(folders, *wrong) == 2
        said = capsys.readouterr()
        assert said.err.startswith(f"{wrong[0]} is {wrong[1]}")
        assert said.err.count("\n") == 1
    assert command(folders, "--threshold", 0.5) == 2
    assert "another threshold; choose another --out" in capsys.readouterr().err
    assert command(folders, "--threshold", 0.5, "--overwrite") == 1


def test_command_says_what_it_left_out_and_goes_on_behind_a_closed_folder(folders, capsys, monkeypatch):
    (folders / "good" / "2.png").write_bytes((folders / "good" / "0.png").read_bytes())
    (folders / "tonight" / "closed").mkdir()
    real = type(folders).iterdir

    def iterdir(self):
        if self.name == "closed":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self)

    monkeypatch.setattr(type(folders), "iterdir", iterdir)
    assert command(folders) == 1
    said = capsys.readouterr()
    assert "1 repeat another one byte for byte and are left out: 2.png." in said.out
    assert "1 of 3 photos could not be read" in said.err
    assert "closed cannot be opened" in (folders / "out" / "results.csv").read_text()
