"""The way of photos through a run: read, prepared, judged in batches, written, and noted in the journal."""

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import cast

from torch import Tensor

from dictas.detector import Backbone, Detector
from dictas.images import Loaded, Photo, batches, load
from dictas.journal import Journal
from dictas.outputs import UNREADABLE, Row, Writer, output_names, remove_others, sync_folders
from dictas.tiles import Box, Judgement, Tiling, assembled, judge_image
from encoders.base import Encoder
from encoders.progress import Report

SETUP_LINES = 2
"""Lines of the journal before the first batch: what was asked for, and the threshold."""
WRITERS = 4
"""Threads that compute full-size maps and write files; much of their time they wait for the disk."""
BEHIND = 2
"""Batches that may be judged but not yet written."""


@dataclass(frozen=True)
class Judge:
    """A detector that remembers what is normal, and how it is shown photos.

    Attributes:
        size: photos or tiles at a time.
        white: of the camera, as the support images tell; see `encoders.files.white_level`.
    """

    backbone: Backbone
    detector: Detector
    tiling: Tiling | None
    size: int
    white: int | None = None

    def group_size(self) -> int:
        """Photos at a time; tiled ones come alone, as their tiles make batches."""
        return self.size if self.tiling is None else 1

    def read(self, photos: Sequence[Photo], workers: int, start: int = 0) -> Generator[Loaded]:
        """As `images.load`. Photos are prepared in the reading processes, which get no copy of the model."""
        prepare = None if self.tiling else replace(self.backbone, encoder=cast(Encoder, None)).prepare
        return load(photos, prepare, workers, start, self.white)

    def judgements(self, group: Sequence[Loaded]) -> list[Callable[[], Judgement]]:
        """For each readable photo a function that does the part without the model."""
        images = [photo.image for photo in group if photo.image is not None]
        if self.tiling is not None:
            tiled = [judge_image(self.backbone, self.detector, image, self.tiling, self.size) for image in images]
            return [partial(Judgement, *found) for found in tiled]
        if not images:
            return []
        batch = self.backbone.batch([photo.prepared for photo in group if photo.prepared is not None])
        prepared = (batch.images.shape[1], batch.images.shape[2])
        return [
            partial(_whole, (image.shape[0], image.shape[1]), token_map, prepared)
            for token_map, image in zip(self.detector.maps(batch).cpu(), images, strict=True)
        ]


def _whole(shape: tuple[int, int], token_map: Tensor, prepared: tuple[int, int]) -> Judgement:
    return assembled(shape, None, [(Box(0, 0, *shape), (token_map, prepared))])


def judge_all(
    judge: Judge, photos: Sequence[Photo], writer: Writer, workers: int, journal: Journal, report: Report
) -> list[Row]:
    """Judge the photos that the journal does not have yet; the rows of all, in order."""

    def groups(empty: Sequence[Row], start: int) -> Generator[list[Row]]:
        return judged(judge, judge.read(photos, workers, start), empty, writer)

    return journalled(photos, writer, journal, report, groups)


def journalled(
    photos: Sequence[Photo],
    writer: Writer,
    journal: Journal,
    report: Report,
    groups: Callable[[Sequence[Row], int], Generator[list[Row]]],
) -> list[Row]:
    """Note groups of judged photos in the journal as they come; the rows of all photos, in order.

    Args:
        groups: given rows without results of all photos and where to begin, yields the rows of group after group,
            whose files are on the disk.
    """
    names = output_names([photo.name for photo in photos])
    empty = [Row(photo.name, output=name) for photo, name in zip(photos, names, strict=True)]
    rows = finished(journal, photos, empty)
    clock = time.monotonic()

    def tell() -> None:
        unreadable = sum(row.status == UNREADABLE for row in rows)
        message = f"photos, {sum(bool(row.anomalous) for row in rows)} anomalous, {unreadable} unreadable"
        report(len(rows), len(photos), message)

    if journal.note:
        report(len(rows), len(photos), journal.note)
    tell()
    with closing(groups(empty, len(rows))) as coming:
        for done in coming:
            now = time.monotonic()
            stamps = [_stamp(photo) for photo in photos[len(rows) : len(rows) + len(done)]]
            journal.append({"seconds": round(now - clock, 6), "stamps": stamps, "rows": [asdict(row) for row in done]})
            clock = now
            rows.extend(done)
            tell()
    remove_others(writer.folder, rows)
    return rows


def judged(judge: Judge, loaded: Generator[Loaded], empty: Sequence[Row], writer: Writer) -> Generator[list[Row]]:
    """Judge photos in groups and write their files; the rows of a group come when its files are on the disk.

    Args:
        empty: rows without results, by the index of their photo.
    """
    waiting: deque[list[Future[Row]]] = deque()

    def written() -> list[Row]:
        done = [future.result() for future in waiting.popleft()]
        sync_folders(writer.folder, done)
        return done

    pool = ThreadPoolExecutor(WRITERS)
    try:
        with closing(loaded):
            for group in batches(loaded, judge.group_size()):
                judgements = iter(judge.judgements(group))
                found = [None if photo.image is None else next(judgements) for photo in group]
                tasks = [(photo, empty[photo.index], one) for photo, one in zip(group, found, strict=True)]
                waiting.append([pool.submit(_finish, writer, *task) for task in tasks])
                if len(waiting) > BEHIND:
                    yield written()
        while waiting:
            yield written()
    finally:
        # After a failure what is being written is finished or removed, what waits is dropped.
        pool.shutdown(wait=True, cancel_futures=True)


def _finish(writer: Writer, photo: Loaded, row: Row, judgement: Callable[[], Judgement] | None) -> Row:
    if photo.image is None or judgement is None:
        return replace(row, status=UNREADABLE, error=photo.error, output="")
    return writer.write(row, photo.image, judgement())


def finished(journal: Journal, photos: Sequence[Photo], empty: Sequence[Row]) -> list[Row]:
    """Rows of the batches in the journal whose photos are still the same; later ones are struck out of it."""
    rows: list[Row] = []
    kept = SETUP_LINES
    for line in journal.lines[SETUP_LINES:]:
        found = [Row(**row) for row in line["rows"]]
        place = slice(len(rows), len(rows) + len(found))
        same = len(photos[place]) == len(found) and all(
            row.path == now.path and row.output in ("", now.output) and stamp == _stamp(photo)
            for row, now, stamp, photo in zip(found, empty[place], line["stamps"], photos[place], strict=True)
        )
        if not same:
            break
        rows += found
        kept += 1
    journal.keep(kept)
    return rows


def _stamp(photo: Photo) -> list[int] | None:
    """Tells whether a file was changed; None for one that is not there."""
    try:
        status = photo.path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]
