"""The Anomaly tab: its results are those of `anomaly predict`, whatever visitors upload, change or break off."""

import csv
import errno
import html
import json
import re
import shutil
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import gradio as gr
import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from inspection import ColourDistance, backbone, save, texture
from test_uploads import archive, huge_png

from app import anomaly_export, anomaly_gallery, anomaly_job
from app.anomaly_events import Events
from app.anomaly_export import write_bundle, write_table
from app.anomaly_gallery import Look, full_picture, good_html, sheet_html, summary_html
from app.anomaly_job import Inspection, Inspector
from app.anomaly_photos import stage_good, stage_judge
from app.anomaly_sessions import Sessions, Stopped
from app.anomaly_tab import anomaly_tab
from dictas.outputs import JPEG
from dictas.predict import PredictOptions, predict
from dictas.thresholds import Threshold
from encoders.errors import InputError
from encoders.files import read_image

OPTIONS = PredictOptions(workers=0, batch=4)
SPOTS = {3: (10, 20), 7: (40, 4)}
Uploads = tuple[list[Path], list[Path]]
"""Photos of good parts, and photos to judge."""
RESULTS = {"results.csv", "results.json", "report.html"}


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


class Page:
    """A visitor's page, as gradio would call for it."""

    def __init__(self, events: Events, name: str) -> None:
        self.events, self.request = events, SimpleNamespace(session_hash=name)

    def inspect(self, good: list[Path], judge: list[Path], progress: object = lambda *_, **__: None) -> list:
        paths = ([str(path) for path in given] for given in (good, judge))
        return self.events.inspect(*paths, 1, 0, 0.01, "Overlay", self.request, progress)


@pytest.fixture
def events(detector: ColourDistance, tmp_path: Path) -> Iterator[Events]:
    sessions = Sessions(Inspector())
    yield Events(sessions, tmp_path / "cache")
    sessions._scratch.close()


def kept(events: Events) -> list[Path]:
    return sorted(path for path in events._sessions._scratch.root.iterdir() if path.is_dir())


def test_a_session_has_its_last_results_until_it_ends(events: Events, uploads: Uploads, tmp_path: Path) -> None:
    good, judge = uploads
    page, other = Page(events, "a"), Page(events, "b")
    first, look = page.inspect(good, judge)[:2]
    theirs = other.inspect(good, judge[:3])[0]
    assert kept(events) == sorted([first.folder, theirs.folder])
    with pytest.raises(gr.Error, match="give one or more"):
        page.inspect(good, [])
    assert "part 3.png" in events.draw(first, look, None)[1]  # a failure takes nothing away
    second = page.inspect(good, judge[:5])[0]
    assert kept(events) == sorted([second.folder, theirs.folder])
    with pytest.raises(gr.Error, match="no longer kept"):
        events.draw(first, look, None)
    with pytest.raises(gr.Error, match="no results yet"):
        events.table(None, None)
    page.events.leave(page.request)
    assert kept(events) == [theirs.folder]
    events._sessions.forget(theirs)
    assert kept(events) == []


def test_the_slider_and_the_sheet_say_how_results_are_looked_at(events: Events, uploads: Uploads) -> None:
    found, look, _hint, _results, slider, _good, summary, sheet, picture, line = Page(events, "a").inspect(*uploads)
    assert slider.value == round(found.threshold.image, 4)
    assert (
        slider.minimum < min(row.score for row in found.rows) <= max(row.score for row in found.rows) < slider.maximum
    )
    assert [summary, sheet] == events.draw(found, look, slider.value) == events.draw(found, look, None)
    assert line == events.full(found, look, slider.value, "Overlay")[1]
    assert picture.value is not None
    assert events.draw(found, look, slider.minimum)[1].count('class="card flagged"') == 10

    def click(**data: object) -> Look:
        return events.look(found, look, gr.EventData(None, data))

    assert click(show="flagged") == Look(show="flagged")
    assert click(photo="3") == Look(photo=3)
    for nonsense in ("-1", "1e9", "x", None, [], {"a": 1}, "99999999999999999999"):
        assert 0 <= click(photo=nonsense).photo < 10
        assert events.full(found, click(page=nonsense), slider.value, "nonsense")[0] is not None
    assert click(show="../etc") == Look()


def test_downloads_lie_where_nobody_can_guess(events: Events, uploads: Uploads, tmp_path: Path) -> None:
    found = Page(events, "a").inspect(*uploads)[0]
    table, bundle = events.table(found, None), events.bundle(found, None, lambda *_, **__: None)
    for path in (Path(table), Path(bundle)):
        assert re.fullmatch(r"[0-9a-f]{32}", path.parent.name)
        assert path.parent.parent == tmp_path / "cache"
        assert [path.name for path in path.parent.iterdir()] == [path.name]
    assert Path(table).read_bytes() == (found.out / "results.csv").read_bytes()
    assert zipfile.ZipFile(bundle).namelist()[:3] == ["results.csv", "results.json", "report.html"]


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "/srv/secret/results.zip")


@pytest.mark.parametrize(
    ("module", "name"), [(anomaly_export.zipfile.ZipFile, "write"), (anomaly_export, "write_results")]
)
def test_a_download_that_does_not_fit_on_the_disk_leaves_nothing(
    events: Events,
    uploads: Uploads,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: object,
    name: str,
) -> None:
    page = Page(events, "a")
    found = page.inspect(*uploads)[0]
    before = sorted(found.folder.iterdir())
    monkeypatch.setattr(module, name, full_disk)
    make = events.bundle if name == "write" else events.table
    with pytest.raises(gr.Error) as error:
        make(found, found.threshold.image)
    assert error.value.message == "The disk of this server is full; try again later, or with fewer photos."
    assert list((tmp_path / "cache").iterdir()) == []
    assert sorted(found.folder.iterdir()) == before


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "not enough memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "not enough memory"),
        (cv2.error("alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 68719476736 bytes"), "not enough"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "not enough memory"),
        (OSError(errno.EMFILE, "Too many open files", "/srv/secret"), "Too many files are open on this server"),
        (OSError(errno.EACCES, "Permission denied", "/srv/secret"), "A file on this server cannot be used: Permission"),
        (InputError("The image /tmp/PLACE/judge/part 1.png is gone."), r"The image part 1\.png is gone"),
        (KeyError("/srv/secret"), "the server's log says what went wrong"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_visitor_is_told_one_sentence_without_places_or_options(
    events: Events, uploads: Uploads, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    found, look = Page(events, "a").inspect(*uploads)[:2]
    if isinstance(error, InputError):
        error = InputError(str(error).replace("/tmp/PLACE", str(found.folder)))

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("app.anomaly_gallery.overlay", fail)
    with pytest.raises(gr.Error, match=said) as caught:
        events.full(found, look, None, "Overlay")
    assert not caught.value.print_exception
    for never in ("/srv", str(found.folder), "--scale", "alloc"):
        assert never not in caught.value.message


def test_a_stopped_inspection_ends_soon_and_leaves_nothing(events: Events, uploads: Uploads) -> None:
    good, judge = uploads
    page, messages, again = Page(events, "a"), [], threading.Event()

    def progress(_share: object, desc: str, unit: str) -> None:
        messages.append(desc)
        if "photos" in desc.casefold():
            events._sessions.stop("a")
            again.set()

    def second() -> None:
        again.wait(20)
        results.append(page.inspect(good, judge[:2])[0])

    results: list[Inspection] = []
    thread = threading.Thread(target=second)
    thread.start()
    with pytest.raises(gr.Error, match="Nothing was kept"):
        page.inspect(good, judge, progress)
    thread.join(20)
    assert sum("photos" in message.casefold() for message in messages) == 1
    assert kept(events) == [results[0].folder]  # the next one waited for the end of the first
    events._sessions.stop("nobody")


def test_one_inspection_per_session_and_none_for_too_long(
    events: Events, uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, judge = uploads
    page = Page(events, "a")

    def progress(*_: object, **__: object) -> None:
        with pytest.raises(gr.Error, match="Another inspection of yours"):
            page.inspect(good, judge)

    page.inspect(good, judge, progress)
    monkeypatch.setattr("app.anomaly_sessions.LONGEST", -1.0)
    with pytest.raises(gr.Error, match="too long"):
        page.inspect(good, judge)


def test_leaving_during_the_last_moment_leaves_nothing(
    events: Events, uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspector = events._sessions._inspector
    real = inspector.inspect

    def late(*arguments: object) -> Inspection:
        found = real(*arguments)
        events._sessions.leave("a")
        return found

    monkeypatch.setattr(inspector, "inspect", late)
    with pytest.raises(Stopped):
        events._sessions.inspect("a", *uploads, OPTIONS, lambda *_: None)
    assert kept(events) == []


class FakeInspector(Inspector):
    """Has a detector without weights."""

    _model = (backbone(), ColourDistance())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a page with nothing but the tab."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        with gr.Blocks() as page:
            anomaly_tab(FakeInspector())
        page.queue(max_size=32, default_concurrency_limit=2)
        # Not gradio's look at its own page, which fails on a busy machine.
        _, url, _ = page.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, _frontend=False)
        yield url
        page.close()


def test_programs_get_rows_and_files(server: str, uploads: Uploads, tmp_path: Path) -> None:
    good, judge = uploads
    client = Client(server, verbose=False, download_files=tmp_path / "downloads")
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert list(endpoints) == ["/anomaly"]
    given = [[handle_file(str(path)) for path in paths] for paths in uploads]
    rows, packed = client.predict(*given, None, api_name="/anomaly")
    out = unzipped(Path(packed), tmp_path / "unzipped")
    assert files(out) == files(direct(tmp_path / "direct", good, judge))
    table = list(csv.DictReader((out / "results.csv").open()))
    assert [row["photo"] for row in rows] == [row["path"] for row in table]
    assert [f"{row['score']:.6f}" for row in rows] == [row["score"] for row in table]
    bad = handle_file(str(broken(judge[0].parent)[0]))
    rows, _ = client.predict(given[0], [given[1][3], bad], 0.99, api_name="/anomaly")
    assert {row["photo"]: row["anomalous"] for row in rows} == {
        "part 3.png": rows[0]["score"] >= 0.9,
        "notes.jpg": None,
    }
    for arguments, reason in (
        ((given[0], [bad], None), "None of the photos"),
        (([bad], given[1], None), "notes.jpg is no image"),
        ((given[0], given[1], 7.0), "0 to 1"),
    ):
        with pytest.raises(Exception, match=reason):
            client.predict(*arguments, api_name="/anomaly")


def test_files_of_the_server_are_out_of_reach(server: str, uploads: Uploads, tmp_path: Path) -> None:
    secret = save(tmp_path / "secret.png", texture(1))
    entry = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    event = httpx.post(f"{server}gradio_api/call/anomaly", json={"data": [[entry], [entry], None]}).json()["event_id"]
    answer = httpx.get(f"{server}gradio_api/call/anomaly/{event}", timeout=30).text
    assert "error" in answer
    assert "complete" not in answer
    assert httpx.get(f"{server}gradio_api/file={secret}").status_code in (403, 404)


def test_many_programs_at_once_get_answers(server: str, uploads: Uploads) -> None:
    good, judge = ([handle_file(str(path)) for path in paths] for paths in uploads)
    answers: list[int] = []

    def ask(number: int) -> None:
        rows, _ = Client(server, verbose=False).predict(good, judge[: number + 1], None, api_name="/anomaly")
        answers.append(len(rows))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(answers) == [1, 2, 3, 4]


@pytest.mark.slow
def test_the_example_works_with_the_detector_that_is_shipped(tmp_path: Path) -> None:
    sessions = Sessions(Inspector(device="cpu"))
    good, judge = sessions.example()
    assert sessions.example() == (good, judge)
    found = sessions.inspect("a", good, judge, PredictOptions(workers=0), lambda *_: None)
    for row in found.rows:
        assert row.anomalous == ("fine" not in row.path), row
    sessions._scratch.close()
