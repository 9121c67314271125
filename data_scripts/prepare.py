"""What all scripts here do: get an archive, unpack it, and leave a folder that `dictsplat anomaly` reads."""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fetch import download, unpack, verify
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from app.exits import guarded
from encoders.errors import InputError
from encoders.files import atomic_folder
from encoders.progress import Report

Convert = Callable[[Path, Path, "Dataset"], str]
"""Moves what is wanted from the unpacked archive into an empty folder, and says in a few words what that is."""


@dataclass(frozen=True)
class Dataset:
    """A data set that can be had somewhere.

    Attributes:
        title: its name in messages.
        page: where a person can read about it and get it.
        licence: what may be done with it.
        cite: the paper.
        url: its archive's address; "" if there is none that a program can fetch from, see ``by_hand``.
        checksum: of that archive, "sha256:..." or "md5:...".
        by_hand: what to download from ``page`` where there is no ``url``.
        classes: folder names of the classes to take from an archive with several data sets, in lower case, and what
            each is to be called; all are taken if empty.
        skip: folders that are left in the archive.
    """

    title: str
    page: str
    licence: str
    cite: str
    url: str = ""
    checksum: str = ""
    by_hand: str = ""
    classes: Mapping[str, str] = field(default_factory=dict)
    skip: tuple[str, ...] = ()


def to_mvtec(raw: Path, out: Path, dataset: Dataset) -> str:
    """Move the classes of each archive, a folder in ``raw``, to train/good, test/KIND and ground_truth/KIND."""
    from dictas.datasets import find_classes  # imports torch, which --help need not wait for

    found = [pair for archive in sorted(raw.iterdir()) for pair in find_classes(archive)]
    names = {folder: dataset.classes.get(folder.name.casefold(), "") for folder, _ in found}
    if not dataset.classes:
        names = {folder: folder.name for folder, _ in found}
    chosen = [(folder, layout) for folder, layout in found if names[folder]]
    if not chosen:
        raise InputError(f"there is no class {' or '.join(dataset.classes)} in it.")
    images = 0
    for folder, layout in chosen:
        item, into = layout.read(folder), out / names[folder]
        for path in item.normal:
            _move(path, into / "train" / "good" / path.name)
        for sample in item.test:
            _move(sample.path, into / "test" / sample.kind / sample.path.name)
            if sample.mask is not None:
                _move(sample.mask, into / "ground_truth" / sample.kind / sample.mask.name)
        images += len(item.normal) + len(item.test)
    return f"{len(chosen)} {'class' if len(chosen) == 1 else 'classes'}, {images} images"


def _move(path: Path, to: Path) -> None:
    if to.exists():
        raise InputError(f"there are two files {to.name} for the folder {to.parent.name}.")
    to.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        shutil.copyfile(path, to)  # a link that moves points elsewhere
    else:
        path.rename(to)


def main(dataset: Dataset, convert: Convert = to_mvtec, arguments: Sequence[str] | None = None) -> int:
    """The command line of a script. Returns the exit status: 2 after bad input, of which one sentence tells."""
    parser = argparse.ArgumentParser(
        description=f"Get {dataset.title} ({dataset.page}).", epilog=f"Licence: {dataset.licence}. Cite: {dataset.cite}"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--archive", type=Path, nargs="+", default=[], metavar="FILE", help="downloaded already")
    source.add_argument("--url", default="", help=f"fetch from here instead of {dataset.url or 'by hand'}")
    parser.add_argument("--checksum", default="", help="sha256:DIGITS or md5:DIGITS of the one --archive or the --url")
    given = parser.parse_args(arguments)
    if given.checksum and len(given.archive) > 1:
        parser.error("--checksum is of one archive")
    return guarded(lambda: _prepare(dataset, convert, given.out, given.archive, given.url, given.checksum))


def _prepare(dataset: Dataset, convert: Convert, out: Path, archives: list[Path], url: str, checksum: str) -> None:
    if out.exists():
        print(f"{out} is there already; remove it to make it anew.")
        return
    for archive in archives:
        if not archive.is_file():
            raise InputError(f"There is no file {archive}; give --archive the file downloaded from {dataset.page}.")
    if not archives and not (url or dataset.url):
        raise InputError(
            f"{dataset.title} cannot be fetched by a program; download {dataset.by_hand} from {dataset.page} and run "
            "this again with --archive FILE."
        )
    print(f"{dataset.title} is licensed under {dataset.licence}; see {dataset.page}")
    print(f"Please cite: {dataset.cite}", flush=True)
    with _Progress() as report:
        if archives:
            if checksum:
                verify(archives[0], checksum)
            done = _converted(dataset, convert, archives, out, report)
        else:
            fetched = _fetched(dataset, url, checksum, out, report)
            try:
                done = _converted(dataset, convert, [fetched], out, report)
            except InputError:
                fetched.unlink()  # or the next run would take it for the good one
                raise
            fetched.unlink()
    print(f"{out}: {done}")


def _fetched(dataset: Dataset, url: str, checksum: str, out: Path, report: Report) -> Path:
    """The downloaded archive, beside the folder that is to be made."""
    address = url or dataset.url
    archive = out.with_name(f"{out.name}.{Path(unquote(urlsplit(address).path)).name or 'archive'}")
    try:
        if not archive.exists():
            download(address, archive, report)
    except InputError as error:
        raise InputError(f"{error} Or download it from {dataset.page} and pass --archive FILE.") from error
    expected = checksum or ("" if url else dataset.checksum)
    if expected:
        report(0, 0, "verifying")
        try:
            verify(archive, expected)
        except InputError as error:
            archive.unlink()
            raise InputError(f"{error} It was removed; run the same command to fetch it again.") from error
    return archive


def _converted(dataset: Dataset, convert: Convert, archives: list[Path], out: Path, report: Report) -> str:
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.", suffix=".tmp") as scratch,
        atomic_folder(out) as target,
    ):
        for index, archive in enumerate(archives):
            unpack(archive, Path(scratch) / str(index), dataset.skip, report)
        report(0, 0, "sorting")
        source = f"{dataset.title}\n{dataset.page}\nLicence: {dataset.licence}\nCite: {dataset.cite}\n"
        (target / "SOURCE.txt").write_text(source, encoding="utf-8")
        try:
            return convert(Path(scratch), target, dataset)
        except InputError as error:
            names = ", ".join(map(str, archives))
            told = str(error).replace(f"{scratch}/", "")
            raise InputError(f"{names} is not {dataset.title}, or not all of it: {told}") from error


class _Progress:
    """Bars on a terminal; a line now and then in a log."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description:12}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[size]}"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._last = time.monotonic()

    def __enter__(self) -> Report:
        if self._console.is_terminal:
            self._bars.start()
        return self._report

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bars.stop()

    def _report(self, done: int, total: int, message: str) -> None:
        size = f"{total >> 20} MB"
        if self._console.is_terminal:
            if message not in self._tasks:
                self._tasks[message] = self._bars.add_task(message, total=None, size="")
            self._bars.update(self._tasks[message], completed=done, total=total or None, size=size if total else "")
        elif time.monotonic() - self._last > 15.0:
            self._last = time.monotonic()
            print(f"{message} {done >> 20} of {size}" if total else message, flush=True)


def run(dataset: Dataset, convert: Convert = to_mvtec) -> None:
    """`main` as a program."""
    sys.exit(main(dataset, convert))
