"""Sessions of the Anomaly tab: results kept, downloaded and gone in time; stopping, and what is told."""

import errno
import re
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import gradio as gr
import pytest
from inspection import ColourDistance
from tab_uploads import OPTIONS, Uploads

from app import anomaly_export
from app.anomaly_events import Events
from app.anomaly_gallery import Look
from app.anomaly_job import Inspection, Inspector
from app.anomaly_sessions import Sessions, Stopped
from encoders.errors import InputError


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
