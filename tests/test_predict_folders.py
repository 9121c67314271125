"""Folders as people have them: within one another, shared, with odd names; and how much a run takes."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import inspection
import numpy as np
import psutil
import pytest
from inspection import Blocks, ColourDistance, backbone, save, texture
from judging import QUICK, Stop, content, run, table
from PIL import Image

from app.anomaly_report import write_report
from dictas import stream
from dictas.journal import NAME as JOURNAL
from dictas.journal import open_journal
from encoders.errors import InputError


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
