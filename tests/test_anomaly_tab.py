"""The Anomaly tab's work: an upload judged as the command line judges it, and the sheet of its results."""

import csv
import html
import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from inspection import ColourDistance, save, texture
from tab_uploads import OPTIONS, Uploads, broken, direct, files, inspect, unzipped
from test_uploads import archive

from app import anomaly_gallery
from app.anomaly_export import write_bundle, write_table
from app.anomaly_gallery import Look, full_picture, good_html, sheet_html, summary_html
from app.anomaly_photos import stage_good, stage_judge
from dictas.outputs import JPEG
from dictas.predict import PredictOptions
from dictas.thresholds import Threshold
from encoders.errors import InputError
from encoders.files import read_image

RESULTS = {"results.csv", "results.json", "report.html"}


@pytest.mark.parametrize("options", [OPTIONS, replace(OPTIONS, rotations=4), replace(OPTIONS, tile=48)])
def test_results_are_those_of_the_command_line(
    detector: ColourDistance, uploads: Uploads, tmp_path: Path, options: PredictOptions
) -> None:
    found = inspect(tmp_path / "tab", *uploads, options)
    expected = files(direct(tmp_path / "direct", *uploads, options))
    packed = write_bundle(found, found.threshold, tmp_path / "results.zip")
    out = unzipped(packed, tmp_path / "unzipped")
    assert files(out) == expected
    assert (write_table(found, found.threshold, tmp_path / "table")).read_bytes() == expected["results.csv"]
    assert len([name for name in expected if name.startswith("maps/")]) == 10
    assert {"part 3.png", "part 7.png"} <= {row.path for row in found.rows if row.anomalous}


def test_another_threshold_masks_again_as_a_new_run_would_and_judges_nothing(
    detector: ColourDistance, uploads: Uploads, tmp_path: Path
) -> None:
    found = inspect(tmp_path / "tab", *uploads)
    remembered = detector.remembered
    threshold = found.at((found.rows[4].score + found.rows[5].score) / 2)
    assert threshold != found.threshold
    out = unzipped(write_bundle(found, threshold, tmp_path / "results.zip"), tmp_path / "unzipped")
    expected = files(direct(tmp_path / "direct", *uploads, replace(OPTIONS, threshold=threshold.pixel)))
    mine = files(out)
    assert mine.keys() == expected.keys()
    assert all(mine[name] == expected[name] for name in expected if name.startswith(("results.csv", "maps/", "masks/")))
    assert mine["results.csv"] != files(found.out)["results.csv"]
    assert write_table(found, threshold, tmp_path / "table").read_bytes() == expected["results.csv"]
    results = json.loads((out / "results.json").read_text())
    assert results["threshold"]["method"] == "fixed"
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert results["counts"]["anomalous"] == sum(row["anomalous"] == "1" for row in rows) == 5
    assert detector.remembered == remembered
    assert sorted(path.name for path in found.folder.iterdir()) == ["good", "judge", "out"]


def test_broken_photos_are_rows_with_their_reason_and_the_rest_goes_on(
    detector: ColourDistance, uploads: Uploads, tmp_path: Path
) -> None:
    good, judge = uploads
    found = inspect(tmp_path / "tab", good, [*broken(judge[0].parent), *judge])
    reasons = {row.path: row.error for row in found.rows if row.status != "ok"}
    expected = {"notes.jpg": "no image", "empty.png": "empty", "torn.png": "truncated", "bomb.png": "64 megapixels"}
    expected["list.csv"] = "not named like a photo"
    assert reasons.keys() == expected.keys()
    for name, part in expected.items():
        assert part in reasons[name]
        assert reasons[name].startswith((name, f"The image {name}"))
    assert sum(row.status == "ok" for row in found.rows) == 10
    counts = found.prediction.results["counts"]
    assert (counts["images"], counts["ok"], counts["unreadable"]) == (15, 10, 5)
    out = unzipped(write_bundle(found, found.threshold, tmp_path / "results.zip"), tmp_path / "unzipped")
    assert len(list(csv.DictReader((out / "results.csv").open()))) == 15
    for name in RESULTS:
        assert str(tmp_path) not in (out / name).read_text(encoding="utf-8")
    page = sheet_html(found, Look(show="unreadable"), found.threshold)
    assert page.count('class="card unreadable"') == 5
    assert "notes.jpg is no image" in page
    picture, line = full_picture(found, 14, found.threshold, "Overlay")
    assert picture is None
    assert "<b>" in line


def test_uploads_become_folders(tmp_path: Path) -> None:
    one, two = (save(tmp_path / name / "1.png", texture(number)) for number, name in enumerate("ab"))
    content = one.read_bytes()
    packed = archive(tmp_path / "holes.zip", {"x/1.png": content, "x/2.PNG": content, "x/notes.txt": b"hello"})
    assert stage_judge([one, two, packed], tmp_path / "judge") == []
    found = {path.relative_to(tmp_path / "judge").as_posix(): path for path in (tmp_path / "judge").rglob("*.*")}
    assert {"1.png", "1 (2).png", "holes/x/1.png", "holes/x/2.PNG"} <= found.keys()
    assert found["1 (2).png"].read_bytes() == two.read_bytes()
    stage_good([archive(tmp_path / "good.zip", {f"{n}.png": content for n in range(16)})], tmp_path / "good")
    bad = {
        "give 1 to 16": [],
        "17 files": [archive(tmp_path / "many.zip", {f"{n}.png": content for n in range(16)}), one],
        "empty.png is empty": [one, save(tmp_path / "empty.png", texture(0))],
        "no photo of a good part": [archive(tmp_path / "notes.zip", {"notes.txt": b"hello"})],
    }
    (tmp_path / "empty.png").write_bytes(b"")
    for number, (reason, given) in enumerate(bad.items()):
        with pytest.raises(InputError, match=reason):
            stage_good(given, tmp_path / f"bad {number}")
    with pytest.raises(InputError, match=r"None of .*empty\.png is empty"):
        stage_judge([tmp_path / "empty.png"], tmp_path / "none")
    with pytest.raises(InputError, match="no photo to judge"):
        stage_judge([], tmp_path / "nothing")
    # Together they may hold no more than one may.
    parts = [archive(tmp_path / f"{part}.zip", {f"{n}.png": content for n in range(300)}) for part in "ab"]
    with pytest.raises(InputError, match="300 files; 200 are the most"):
        stage_judge(parts, tmp_path / "both")


def test_a_fault_of_the_good_parts_names_no_place_on_the_server(
    detector: ColourDistance, uploads: Uploads, tmp_path: Path
) -> None:
    good, judge = uploads
    good[1].write_bytes(good[1].read_bytes()[:900])
    with pytest.raises(InputError, match=r"^good 1\.png is damaged") as error:
        inspect(tmp_path / "tab", good, judge)
    assert str(tmp_path) not in str(error.value)


def test_the_sheet_is_sorted_filtered_and_cut_into_pages(
    detector: ColourDistance, uploads: Uploads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = inspect(tmp_path / "tab", *uploads)
    monkeypatch.setattr(anomaly_gallery, "PAGE", 4)

    def shown(threshold: Threshold = found.threshold, **look: object) -> list[tuple[int, str]]:
        page = sheet_html(found, Look(**look), threshold)
        return [(int(place), name) for place, name in re.findall(r'data-photo="(\d+)".*?<b>(.*?)</b>', page, re.DOTALL)]

    scores = {row.path: row.score for row in found.prediction.rows}
    order = sorted(scores, key=lambda name: -scores[name])
    everything = shown() + shown(page=1) + shown(page=2)
    assert everything == list(enumerate(order))
    assert shown(page=99) == shown(page=2)
    at = found.at((scores[order[4]] + scores[order[5]]) / 2)
    assert [name for _, name in shown(at, show="flagged")] == order[:4]
    assert [name for _, name in shown(at, show="fine")] == order[5:9]
    assert "5" in re.findall(r'class="bad">(\d+) ', summary_html(found, at).replace("\n", " "))
    assert "chosen below" in summary_html(found, at)
    assert sheet_html(found, Look(photo=2), found.threshold).count('aria-pressed="true"') == 2  # its card, and "All"
    assert good_html(found).count("<img") == 3


def test_many_photos_send_one_page_and_draw_no_more(detector: ColourDistance, uploads: Uploads, tmp_path: Path) -> None:
    many = [save(tmp_path / "many" / f"{number}.png", texture(number)) for number in range(50)]
    found = inspect(tmp_path / "tab", uploads[0], many)
    for page in (0, 0, 4):
        sheet = sheet_html(found, Look(page=page), found.threshold)
        assert sheet.count("<img") == (2 if page else anomaly_gallery.PAGE)
    assert len(list((found.folder / "previews").iterdir())) == anomaly_gallery.PAGE + 2
    assert summary_html(found, found.threshold).count("<rect") <= 50


def test_names_are_never_markup(detector: ColourDistance, uploads: Uploads, tmp_path: Path) -> None:
    evil = '<img src=x onerror="alert(1)">${alert(2)}{{3}}.png'
    good, judge = uploads
    packed = archive(tmp_path / "evil.zip", {evil: judge[3].read_bytes(), f"<b>{evil}": b"text"})
    found = inspect(tmp_path / "tab", good, [packed])
    _, line = full_picture(found, 0, found.threshold, "Mask")
    _, other = full_picture(found, 1, found.threshold, "Mask")
    for page in (sheet_html(found, Look(), found.threshold), line, other):
        assert "<img src=x" not in page
        assert html.escape(evil, quote=False).replace('"', "&#34;") in page.replace("&quot;", "&#34;")


def test_a_tiny_defect_of_a_large_photo_shows_on_the_sheet(detector: ColourDistance, tmp_path: Path) -> None:
    large = texture(9, 810, 810)
    large[360:375, 450:465] = (255, 0, 0)
    good = [save(tmp_path / f"good {number}.png", texture(number, 160, 160)) for number in range(2)]
    found = inspect(tmp_path / "tab", good, [save(tmp_path / "large.png", large)], replace(OPTIONS, tile=160))
    _, values = anomaly_gallery._preview(found, 0, found.rows[0])
    assert values.shape == (270, 270)
    assert values.max() == pytest.approx(found.map(found.rows[0]).max(), rel=1e-3)
    assert np.unravel_index(values.argmax(), values.shape) == pytest.approx((122, 152), abs=6)


def test_one_photo_at_full_size(detector: ColourDistance, uploads: Uploads, tmp_path: Path) -> None:
    found = inspect(tmp_path / "tab", *uploads)
    place = next(place for place, row in enumerate(found.rows) if row.path == "part 3.png")
    drawn = {kind: full_picture(found, place, found.threshold, kind)[0] for kind in anomaly_gallery.KINDS}
    photo, mask = read_image(uploads[1][3]), read_image(found.out / "masks" / "part 3.png")
    np.testing.assert_array_equal(drawn["Photo"], photo)
    assert (drawn["Mask"] != mask).mean() < 1e-3
    assert drawn["Mask"].any()
    written = cv2.imread(str(found.out / "overlays" / "part 3.jpg")).astype(int)
    mine = cv2.imdecode(cv2.imencode(".jpg", drawn["Overlay"][..., ::-1], JPEG)[1], cv2.IMREAD_COLOR)
    assert np.abs(mine - written).mean() < 0.5
    assert drawn["Heat map"].shape == photo.shape
    higher, _ = full_picture(found, place, found.at(0.2), "Mask")
    assert higher is not None
    assert 0 < (higher > 0).sum() < (mask > 0).sum()
