"""`anomaly predict`: right, complete, and the same whatever happens on the way."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import inspection
import numpy as np
import psutil
import pytest
from inspection import Blocks, ColourDistance, backbone, save, texture
from PIL import Image

from app.anomaly_report import write_report
from dictas import stream
from dictas.detector import image_score, pixel_map
from dictas.journal import NAME as JOURNAL
from dictas.journal import open_journal
from dictas.predict import PredictOptions, predict
from dictas.support import NAME as DICTIONARY
from encoders.errors import InputError

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


def test_defects_are_found_where_they_are(support, query, tmp_path):
    found = run(support, query, tmp_path / "out")
    rows = table(tmp_path / "out")
    assert list(rows) == [f"{number % 2}/{number}.png" for number in [*range(0, 23, 2), *range(1, 23, 2)]]
    assert [row.path for row in found.rows] == list(rows)
    flagged = {path for path, row in rows.items() if row["anomalous"] == "1"}
    assert {"1/5.png", "1/9.png"} <= flagged
    assert len(flagged) <= 4
    for number, (top, left) in SPOTS.items():
        row = rows[f"1/{number}.png"]
        assert (row["width"], row["height"]) == ("64", "96" if number % 4 == 1 else "64")
        assert abs(int(row["peak_x"]) - (left + 8)) < 10
        assert abs(int(row["peak_y"]) - (top + 8)) < 12


def test_files_agree_with_the_table_and_with_the_detector(support, query, tmp_path):
    out = tmp_path / "out"
    run(support, query, out)
    results = json.loads((out / "results.json").read_text())
    assert results["counts"] == {
        "images": 23,
        "ok": 23,
        "anomalous": results["counts"]["anomalous"],
        "unreadable": 0,
        "left_out": 0,
    }
    assert results["maps"] == "maps/*.png, 16 bit: value = pixel / 65535"
    assert results["support"] == ["0.png", "1.png", "2.png"]
    threshold = results["threshold"]
    assert threshold["method"] == "leave-one-out"
    detector = ColourDistance()
    detector.remember([backbone().batch([texture(number)]) for number in range(3)])
    for path, row in table(out).items():
        image = np.array(Image.open(query / path))
        prepared = backbone().prepare(image)
        expected = pixel_map(detector.maps(backbone().batch([prepared]))[0], prepared.shape[:2], image.shape[:2])
        stored = np.array(Image.open(out / "maps" / f"{row['output']}.png"))
        mask = np.array(Image.open(out / "masks" / f"{row['output']}.png"))
        assert stored.dtype == np.uint16
        np.testing.assert_allclose(stored / 65535, expected, atol=1.6e-5)
        assert set(np.unique(mask)) <= {0, 255}
        assert (mask > 0).mean() == pytest.approx(float(row["area_fraction"]), abs=1e-6)
        assert mask.any() == (row["anomalous"] == "1")
        np.testing.assert_array_equal(mask[expected >= threshold["pixel"] + 1e-6], 255)
        assert float(row["score"]) == pytest.approx(image_score(expected), abs=2e-6)
        assert Image.open(out / "overlays" / f"{row['output']}.jpg").size == image.shape[1::-1]
    assert image.shape[:2] == mask.shape


def test_other_maps(support, query, tmp_path):
    run(support, query, tmp_path / "png")
    run(support, query, tmp_path / "npz", replace(QUICK, maps="npz"))
    run(support, query, tmp_path / "none", replace(QUICK, maps="none"))
    assert (tmp_path / "npz/results.csv").read_bytes() == (tmp_path / "png/results.csv").read_bytes()
    for path in (tmp_path / "npz" / "maps").rglob("*.npz"):
        relative = path.relative_to(tmp_path / "npz").with_suffix(".png")
        np.testing.assert_allclose(
            np.load(path)["map"], np.array(Image.open(tmp_path / "png" / relative)) / 65535, atol=2e-4, rtol=1e-3
        )
    assert not (tmp_path / "none" / "maps").exists()
    with pytest.raises(InputError, match="--maps"):
        run(support, query, tmp_path / "other", replace(QUICK, maps="tiff"))


@pytest.mark.parametrize("options", [{"workers": 2}, {"tile": 48}, {"tile": 48, "workers": 1}, {"threshold": 0.3}])
def test_a_second_call_changes_nothing(support, query, tmp_path, options):
    options = replace(QUICK, **options)
    run(support, query, tmp_path / "out", options)
    before = content(tmp_path / "out")
    detector = ColourDistance()
    again = run(support, query, tmp_path / "out", options, detector)
    assert detector.remembered == 0
    assert content(tmp_path / "out") == before
    assert again.results["counts"]["images"] == 23


def damage(query: Path) -> None:
    (query / "0" / "3 empty.png").write_bytes(b"")
    (query / "0" / "7 torn.png").write_bytes((query / "0" / "4.png").read_bytes()[:900])
    (query / "1" / "gone.jpg").symlink_to("nowhere.jpg")
    (query / "1" / "loop").symlink_to(query)


@pytest.mark.slow
def test_killed_twice_it_ends_with_the_same_bytes(support, query, tmp_path):
    damage(query)
    command = [sys.executable, inspection.__file__]
    options = [
        "--support",
        str(support),
        "--query",
        str(query),
        "--workers",
        "1",
        "--batch",
        "3",
        "--false-alarms",
        "0.05",
    ]
    for out, faults in (("whole", [None]), ("killed", [2, 3, None])):
        for fault in faults:
            kill = [] if fault is None else ["--kill", str(fault)]
            result = subprocess.run(
                [*command, *kill, "predict", *options, "--out", str(tmp_path / out)],
                capture_output=True,
                text=True,
                timeout=120,
            )
            if fault is not None:
                assert result.returncode == -signal.SIGKILL, result.stderr
                assert not (tmp_path / out / "results.csv").exists()
        assert result.returncode == 1, result.stderr
        assert result.stderr == (
            f"3 of 26 photos could not be read; {tmp_path / out / 'results.csv'} says which and why.\n"
        )
        assert (tmp_path / out / "report.html").exists()
        assert not list((tmp_path / out).rglob(".*tmp*"))
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    lines = (tmp_path / "killed" / JOURNAL).read_text().splitlines()
    assert len(lines) == len((tmp_path / "whole" / JOURNAL).read_text().splitlines())
    unreadable = {path: row for path, row in table(tmp_path / "killed").items() if row["status"] == "unreadable"}
    assert set(unreadable) == {"0/3 empty.png", "0/7 torn.png", "1/gone.jpg"}
    assert all(row["score"] == "" and str(query / path) in row["error"] for path, row in unreadable.items())


class Stop(Exception):
    pass


def stopped_after(reports):
    calls = 0

    def report(*_):
        nonlocal calls
        calls += 1
        if calls == reports:
            raise Stop

    return report


@pytest.mark.parametrize("torn", ["half a line", "no line end", "zeros", "the threshold"])
def test_a_torn_journal_is_continued_before_the_tear(support, query, tmp_path, torn):
    run(support, query, tmp_path / "whole")
    out = tmp_path / "out"
    with pytest.raises(Stop):
        run(support, query, out, report=stopped_after(4))
    lines = (out / JOURNAL).read_bytes().splitlines(keepends=True)
    assert len(lines) == 2 + 3
    if torn == "half a line":
        lines[-1] = lines[-1][:70]
    elif torn == "no line end":
        lines[-1] = lines[-1][:-1]
    elif torn == "zeros":
        lines[-1] = b"\0" * len(lines[-1])
    else:
        lines = [lines[0], lines[1][:-2]]
    (out / JOURNAL).write_bytes(b"".join(lines))
    run(support, query, out)
    assert content(out) == content(tmp_path / "whole")


def test_only_what_is_missing_is_judged_again(support, query, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(Stop):
        run(support, query, out, report=stopped_after(4))
    done = [row["path"] for line in (out / JOURNAL).read_text().splitlines()[2:] for row in json.loads(line)["rows"]]
    assert len(done) == 12
    before = {path: path.stat().st_ino for path in (out / "maps").rglob("*.png")}
    run(support, query, out)
    after = {path: path.stat().st_ino for path in (out / "maps").rglob("*.png")}
    assert all(after[out / "maps" / path] == before[out / "maps" / path] for path in done)


def test_photos_that_were_changed_or_added_are_judged(support, query, tmp_path):
    out = tmp_path / "out"
    run(support, query, out)
    save(query / "0" / "10.png", texture(110, spot=(30, 30)))
    save(query / "2" / "new.png", texture(200, spot=(30, 30)))
    run(support, query, out)
    rows = table(out)
    assert len(rows) == 24
    assert rows["0/10.png"]["anomalous"] == rows["2/new.png"]["anomalous"] == "1"
    (query / "0" / "2.png").unlink()
    run(support, query, out)
    assert list(table(out)) == [path for path in rows if path != "0/2.png"]


def test_results_of_other_options_are_not_mixed_in(support, query, tmp_path):
    out = tmp_path / "out"
    run(support, query, out)
    for options, word in (({"tile": 48}, "tile"), ({"threshold": 0.2}, "threshold"), ({"rotations": 2}, "rotations")):
        with pytest.raises(InputError, match=f"another {word}; choose another --out"):
            run(support, query, out, replace(QUICK, **options))
    with pytest.raises(InputError, match="another model;"):
        run(support, query, out, detector=ColourDistance(gain=2.0))
    before = content(out)
    run(support, query, out, replace(QUICK, workers=1))
    assert content(out) == before
    save(support / "3.png", texture(3))
    with pytest.raises(InputError, match="another support;"):
        run(support, query, out)
    (query / "1" / "5.png").unlink()
    run(support, query, out, replace(QUICK, overwrite=True))
    assert len(table(out)) == 22
    assert not (out / "maps" / "1" / "5.png").exists()


def test_options_may_change_before_there_are_results(support, query, tmp_path):
    with pytest.raises(Stop):
        run(support, query, tmp_path / "out", report=stopped_after(1))
    run(support, query, tmp_path / "out", replace(QUICK, threshold=0.2))
    assert json.loads((tmp_path / "out" / "results.json").read_text())["threshold"]["image"] == 0.2


def test_the_dictionary_is_built_once_and_again_if_it_is_damaged(support, query, tmp_path):
    out = tmp_path / "out"
    run(support, query, out, replace(QUICK, threshold=0.2))
    first = (out / DICTIONARY).read_bytes()
    for damaged, built in ((None, 0), (first[:100], 1), (b"", 1)):
        if damaged is not None:
            (out / DICTIONARY).write_bytes(damaged)
        detector = ColourDistance()
        run(support, query, out, replace(QUICK, threshold=0.2), detector)
        assert detector.remembered == built
        assert (out / DICTIONARY).read_bytes() == first


def test_masks_give_the_threshold(support, tmp_path):
    query, masks = tmp_path / "test", tmp_path / "ground_truth"
    for number in range(8):
        spot = (8 * number % 40, 20)
        save(query / "good" / f"{number}.png", texture(50 + number))
        save(query / "red" / f"{number}.png", texture(60 + number, spot=spot))
        save(query / "unknown" / f"{number}.png", texture(70 + number, spot=spot))
        mask = np.zeros((64, 64), np.uint8)
        mask[spot[0] : spot[0] + 16, 20:36] = 255
        save(masks / "red" / f"{number}_mask.png", mask)
    found = run(support, query, tmp_path / "out", replace(QUICK, masks=masks))
    threshold = found.results["threshold"]
    assert threshold["method"] == "f1"
    assert len(threshold["samples"]) == 16
    assert threshold["f1"] > 0.7
    assert [row.anomalous for row in found.rows] == [False] * 8 + [True] * 16
    save(masks / "red" / "3_mask.png", np.zeros((30, 30), np.uint8))
    with pytest.raises(InputError, match=r"3_mask\.png has 30x30 pixels"):
        run(support, query, tmp_path / "other", replace(QUICK, masks=masks))
    with pytest.raises(InputError, match="No mask in"):
        run(support, query, tmp_path / "other", replace(QUICK, masks=support))


def test_masks_of_defective_photos_alone_flag_all_of_them(support, tmp_path):
    query, masks = tmp_path / "query", tmp_path / "masks"
    for number in range(5):
        side = 5 if number == 2 else 16  # 0.3 % of the area: less than what the score averages
        image, mask = texture(60 + number, 96, 96), np.zeros((96, 96), np.uint8)
        image[40 : 40 + side, 20 : 20 + side] = (230, 20, 20)
        mask[40 : 40 + side, 20 : 20 + side] = 255
        save(query / f"{number}.png", image)
        save(masks / f"{number}.png", mask)
    save(query / "good.png", texture(99, 96, 96))
    found = run(support, query, tmp_path / "out", replace(QUICK, masks=masks))
    assert [row.anomalous for row in found.rows] == [True] * 5 + [False]


def test_small_defects_of_tiled_photos_are_flagged(support, tmp_path):
    """0.03 % of the area; the mean of the highest 0.5 % of the whole map hardly knows it."""
    image = texture(5, 400, 520)
    image[300:308, 411:419] = (230, 20, 20)
    for number in range(3):
        save(tmp_path / "large" / f"{number}.png", texture(number, 400, 520))
    save(tmp_path / "query" / "bad.png", image)
    save(tmp_path / "query" / "good.png", texture(6, 400, 520))
    found = run(tmp_path / "large", tmp_path / "query", tmp_path / "out", replace(QUICK, tile=64))
    assert [row.anomalous for row in found.rows] == [True, False]
    score = found.rows[0].score
    assert score > 3 * image_score(np.array(Image.open(tmp_path / "out/maps/bad.png")) / np.float32(65535))


def test_added_photos_are_judged_by_the_threshold_of_masks(support, tmp_path):
    query, masks = tmp_path / "query", tmp_path / "masks"
    mask = np.zeros((64, 64), np.uint8)
    mask[20:36, 20:36] = 255
    save(query / "good" / "1.png", texture(50))
    save(query / "red" / "2.png", texture(60, spot=(20, 20)))
    save(masks / "red" / "2.png", mask)
    first = run(support, query, tmp_path / "out", replace(QUICK, masks=masks))
    save(query / "a.png", texture(70, spot=(20, 20)))
    second = run(support, query, tmp_path / "out", replace(QUICK, masks=masks))
    assert second.results["threshold"] == first.results["threshold"]
    assert [row.anomalous for row in second.rows] == [True, False, True]


def test_support_and_masks_within_the_query_folder_are_not_judged(tmp_path):
    query = tmp_path / "query"
    mask = np.zeros((64, 64), np.uint8)
    mask[20:36, 20:36] = 255
    for number in range(2):
        save(query / "support" / f"{number}.png", texture(number))
        save(query / f"{number}.png", texture(60 + number, spot=(20, 20)))
        save(query / "truth" / f"{number}.png", mask)
    options = replace(QUICK, masks=query / "truth")
    for _ in range(2):
        found = run(query / "support", query, query / "out", options)
        assert [row.path for row in found.rows] == ["0.png", "1.png"]
        assert found.results["counts"]["left_out"] == 4
        assert found.results["notes"] == [
            "Of the images in the query folder 4 are support images or masks and are not judged."
        ]
    alone = run(query / "support" / "0.png", query / "support", tmp_path / "one")
    assert [row.path for row in alone.rows] == ["1.png"]
    same = run(query / "support", query / "support", tmp_path / "same")
    assert len(same.rows) == 2
    inside = run(query, query / "truth", tmp_path / "inside")
    assert inside.results["support"] == ["0.png", "1.png", "support/0.png", "support/1.png"]


def test_repeated_support_photos_count_once(support, query, tmp_path):
    before = run(support, query, tmp_path / "out")
    assert before.results["notes"] == []
    (support / "copy.png").write_bytes((support / "1.png").read_bytes())
    after = run(support, query, tmp_path / "out")
    assert after.results["threshold"] == before.results["threshold"]
    assert after.results["support"] == ["0.png", "1.png", "2.png"]
    assert after.results["notes"] == [
        "Of the photos of good parts 1 repeat another one byte for byte and are left out: copy.png."
    ]
    for name in ("a", "b"):
        (tmp_path / "two").mkdir(exist_ok=True)
        (tmp_path / "two" / f"{name}.png").write_bytes((support / "0.png").read_bytes())
    assert run(tmp_path / "two", query, tmp_path / "single").results["threshold"]["method"] == "augmentation"


def test_a_support_folder_of_very_many_photos_is_refused(query, tmp_path, monkeypatch):
    monkeypatch.setattr("dictas.support.MOST", 3)
    for number in range(3):
        save(tmp_path / "many" / f"{number}.png", texture(number))
    run(tmp_path / "many", query, tmp_path / "out")
    save(tmp_path / "many" / "3.png", texture(3))
    with pytest.raises(InputError, match=r"many holds 4 images, 3 are the most; give a folder with 1 to 16 photos"):
        run(tmp_path / "many", query, tmp_path / "out")
    (tmp_path / "many" / "3.png").rename(save(tmp_path / "many" / "more" / "3.png", texture(3)))
    with pytest.raises(InputError, match="many holds 4 images with its subfolders"):
        run(tmp_path / "many", query, tmp_path / "out")


def test_names_that_are_no_text_get_through(support, tmp_path):
    query = tmp_path / os.fsdecode(b"caf\xe9")
    save(query / "1.png", texture(1))
    (query / os.fsdecode(b"\xff.png")).write_bytes(b"x")
    found = run(support, query, tmp_path / "out")
    write_report(tmp_path / "out", found)
    assert r"\xff.png" in table(tmp_path / "out")[r"\xff.png"]["error"]
    assert r"caf\xe9" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert len(run(support, query, tmp_path / "out").rows) == 2


def test_files_of_photos_that_are_gone_or_damaged_are_removed(support, query, tmp_path):
    out = tmp_path / "out"
    run(support, query, out)
    (out / "maps" / "notes.txt").write_text("mine")
    for path in (query / "1").iterdir():
        path.unlink()
    (query / "0" / "2.png").write_bytes(b"damaged")
    run(support, query, out)
    expected = {str(path.relative_to(query).with_suffix("")) for path in query.rglob("*.png")} - {"0/2"}
    for kind in ("maps", "masks", "overlays", "thumbnails"):
        files = [path for path in (out / kind).rglob("*.*") if path.name != "notes.txt"]
        assert {str(path.relative_to(out / kind).with_suffix("")) for path in files} == expected
        assert not (out / kind / "1").exists()
    assert (out / "maps" / "notes.txt").exists()


def test_wrong_folders_are_one_sentence_each(support, query, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="no image in the support folder"):
        run(empty, query, tmp_path / "out")
    with pytest.raises(InputError, match="There is no image in"):
        run(support, empty, tmp_path / "out")
    (support / "broken.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"broken\.png cannot be read"):
        run(support, query, tmp_path / "out")
    (support / "broken.png").unlink()
    assert not (tmp_path / "out").exists()
    before = content(query, ".")
    with pytest.raises(InputError, match="is not empty and not from this command"):
        run(support, query, query)
    assert content(query, ".") == before
    with pytest.raises(InputError, match="is a file"):
        run(support, query, support / "0.png")


def test_results_within_the_query_folder_are_not_judged(support, query, tmp_path):
    for _ in range(2):
        run(support, query, query / "out")
        assert len(table(query / "out")) == 23
    run(support, query, query / "second")
    assert len(table(query / "second")) == 23


def test_two_runs_do_not_share_a_folder(support, query, tmp_path):
    def report(*_):
        with pytest.raises(InputError, match="Another dictsplat process is writing"):
            run(support, query, tmp_path / "out")
        raise Stop

    with pytest.raises(Stop):
        run(support, query, tmp_path / "out", report=report)


def test_readers_that_outlive_a_killed_run_do_not_keep_its_folder(tmp_path):
    with open_journal(tmp_path / "out"):
        reader = os.fork()
        if not reader:
            time.sleep(60)
            os._exit(0)
    try:
        time.sleep(0.1)
        with open_journal(tmp_path / "out"):
            pass
    finally:
        os.kill(reader, signal.SIGKILL)
        os.waitpid(reader, 0)


def test_a_full_disk_damages_nothing(support, query, tmp_path, monkeypatch):
    run(support, query, tmp_path / "whole")
    out = tmp_path / "out"
    real, written = os.fsync, 0

    def fsync(handle):
        nonlocal written
        written += 1
        if written > 80:
            raise OSError(28, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match="No space left"):
            run(support, query, out)
    assert 2 < len((out / JOURNAL).read_text().splitlines()) < 8
    run(support, query, out)
    assert content(out) == content(tmp_path / "whole")


def test_photos_that_differ_in_their_suffix_only_have_their_own_results(support, tmp_path):
    query = tmp_path / "query"
    save(query / "a.png", texture(1))
    save(query / "a.bmp", texture(2, spot=(20, 20)))
    save(query / ("y" * 200 + ".png"), texture(3))
    run(support, query, tmp_path / "out")
    rows = table(tmp_path / "out")
    assert len({row["output"] for row in rows.values()}) == 3
    bright = {
        name: np.array(Image.open(tmp_path / "out/maps" / f"{row['output']}.png")).max() for name, row in rows.items()
    }
    assert bright["a.bmp"] > 10 * bright["a.png"]


def test_each_photo_is_read_once(support, query, tmp_path, monkeypatch):
    from encoders.files import read_image

    read = []
    monkeypatch.setattr("dictas.images.read_image", lambda path, **_: read.append(path) or read_image(path))
    run(support, query, tmp_path / "out")
    assert len(read) == len(set(read)) == 23


def test_reading_processes_get_no_model(support, query, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(stream, "load", lambda photos, prepare, *_: seen.append(prepare) or iter(()))
    judge = stream.Judge(backbone(), ColourDistance(), None, 4)
    judge.read([], 2)
    assert not isinstance(seen[0].__self__.encoder, Blocks)
    image = texture(0, 100, 200)
    np.testing.assert_array_equal(seen[0](image), backbone().prepare(image))


def test_memory_does_not_grow_with_the_number_of_photos(support, tmp_path):
    """128 photos of 3 MB each, 384 MB in all, beside a process that may grow by 60 MB after the first 48."""
    query = tmp_path / "query"
    first = save(query / "0.bmp", texture(0, 1000, 1000))
    for number in range(1, 128):
        os.link(first, query / f"{number}.bmp")
    process, sizes = psutil.Process(), []

    def report(done, *_):
        sizes.append((done, process.memory_info().rss))

    run(support, query, tmp_path / "out", replace(QUICK, maps="none", batch=8), report=report)
    early = max(size for done, size in sizes if done <= 48)
    assert max(size for _, size in sizes) < early + 60e6


def test_interrupted_it_says_one_sentence_and_leaves_no_process(support, query, tmp_path):
    for number in range(400):
        save(query / "many" / f"{number}.png", texture(number))
    command = [sys.executable, inspection.__file__, "predict", "--support", str(support), "--query", str(query)]
    command += ["--out", str(tmp_path / "out"), "--workers", "2", "--batch", "2"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        journal = tmp_path / "out" / JOURNAL
        deadline = time.monotonic() + 60
        while not (journal.exists() and journal.read_bytes().count(b"\n") > 4):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 2
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == "Interrupted; run the same command again to continue.\n"
    assert not psutil.wait_procs(children, timeout=10)[1]
