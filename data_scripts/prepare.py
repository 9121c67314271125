"""What all scripts here do: get an archive, unpack it, and leave a folder that `dictsplat anomaly` reads."""

import argparse
import hashlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fetch import download, verify
from merge import unpack_all
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from unpack import Damaged

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
        checksum: of that archive, "sha256:..." or "md5:..."; "" if none is known.
        by_hand: what to download from ``page`` where there is no ``url``.
        classes: folder names of the classes to take from an archive with several data sets, in lower case, and what
            each is to be called; all are taken if empty.
        complete: scenes that the whole set has; those that an archive lacks are named. By default those in ``classes``.
        protocol: what its labels are to be scored by, for `splat.protocols.MARKER`.
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
    complete: tuple[str, ...] = ()
    protocol: str = ""
    skip: tuple[str, ...] = ()


def to_mvtec(raw: Path, out: Path, dataset: Dataset) -> str:
    """Move the classes of each tree, a folder in ``raw``, to train/good, test/KIND and ground_truth/KIND."""
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
    source = f"is fetched from {dataset.url}" if dataset.url else f"has to be downloaded by hand: {dataset.by_hand}"
    parser = argparse.ArgumentParser(
        description=f"Get {dataset.title} ({dataset.page}), which {source}",
        epilog=f"Licence: {dataset.licence}. Cite: {dataset.cite}",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument(
        "--from-archive", "--archive", dest="archive", type=Path, nargs="+", default=[], metavar="FILE",
        help="take these files, downloaded already; with --url also what comes from there",
    )  # fmt: skip
    parser.add_argument("--url", default="", metavar="ADDRESS", help="fetch from here instead")
    check = parser.add_mutually_exclusive_group()
    check.add_argument("--checksum", default="", help="sha256:DIGITS or md5:DIGITS of the one FILE, or of the --url")
    check.add_argument("--any-checksum", action="store_true", help="take files that are packed anew or in parts")
    parser.add_argument("--debug", action="store_true", help="show where a fault happened")
    given = parser.parse_args(arguments)
    if given.checksum and len(given.archive) > 1 and not given.url:
        parser.error("--checksum is of one archive")
    wish = Wish(given.out, tuple(given.archive), given.url, given.checksum, given.any_checksum)
    return guarded(lambda: _prepare(dataset, convert, wish), given.debug)


@dataclass(frozen=True)
class Wish:
    """What the command line asks for.

    Attributes:
        out: folder to make.
        archives: files that were downloaded by hand.
        url: where to fetch from; "" is the data set's own address, unless there are ``archives``.
        checksum: of what is fetched or of the one archive; "" is the data set's own, if it is of that file.
        any_checksum: whether files that are not the published ones are taken.
    """

    out: Path
    archives: tuple[Path, ...] = ()
    url: str = ""
    checksum: str = ""
    any_checksum: bool = False


def _prepare(dataset: Dataset, convert: Convert, wish: Wish) -> None:
    if wish.out.exists():
        print(f"{wish.out} is there already; remove it to make it anew.")
        return
    print(f"{dataset.title} is licensed under {dataset.licence}; see {dataset.page}")
    print(f"Please cite: {dataset.cite}", flush=True)
    for archive in wish.archives:
        if not archive.is_file():
            raise InputError(f"There is no file {archive}; give --from-archive a file from {dataset.page}.")
    address = wish.url or ("" if wish.archives else dataset.url)
    if not wish.archives and not address:
        raise InputError(
            f"{dataset.title} cannot be fetched by a program; download {dataset.by_hand} from {dataset.page} and run "
            "this again with --from-archive FILE."
        )
    with _Progress() as report:
        archives = {archive: archive.name for archive in wish.archives}
        for archive in archives:
            _compare(dataset, archive, wish, report)
        if not address:
            done = _converted(dataset, convert, archives, wish.out, report)
        else:
            fetched, name = _fetched(dataset, address, wish, report)
            try:
                done = _converted(dataset, convert, {fetched: name} | archives, wish.out, report)
            except Damaged as error:
                if error.archive == fetched:
                    fetched.unlink(missing_ok=True)
                raise
            except InputError as error:
                raise InputError(f"{error} What was fetched is kept as {fetched}.") from error
            fetched.unlink(missing_ok=True)
    print(f"{wish.out}: {done}")


def _compare(dataset: Dataset, archive: Path, wish: Wish, report: Report) -> None:
    """Refuse a file that was downloaded by hand if it is not the one that its publisher, or the user, speaks of."""
    report(0, 0, "verifying")
    if wish.checksum and not wish.url:
        verify(archive, wish.checksum)
    elif dataset.checksum and not wish.any_checksum:
        try:
            verify(archive, dataset.checksum)
        except InputError as error:
            raise InputError(
                f"{error} Get it from {dataset.page}, or add --any-checksum if it was packed anew or is a part of it."
            ) from error


def _fetched(dataset: Dataset, address: str, wish: Wish, report: Report) -> tuple[Path, str]:
    """The downloaded archive, beside the folder that is to be made, and its name at its address."""
    name = Path(unquote(urlsplit(address).path)).name or "archive"
    # Files of one name at two addresses are two files.
    digest = hashlib.sha256(address.encode()).hexdigest()[:8]
    archive = wish.out.with_name(f"{wish.out.name}.{digest}.{name}")
    official = address == dataset.url
    expected = wish.checksum or (dataset.checksum if official else "")
    if not expected:
        what = "No checksum of it is known" if official else "This is not the publisher's address"
        print(f"{what}; only the archive's own checks tell whether {address} came whole.", flush=True)
    try:
        if not archive.exists():
            download(address, archive, report)
    except InputError as error:
        raise InputError(f"{error} Or download it from {dataset.page} and pass --from-archive FILE.") from error
    if expected:
        report(0, 0, "verifying")
        try:
            verify(archive, expected)
        except InputError as error:
            archive.unlink(missing_ok=True)
            raise InputError(f"{error} It was removed; run the same command to fetch it again.") from error
    return archive, name


def _converted(dataset: Dataset, convert: Convert, archives: Mapping[Path, str], out: Path, report: Report) -> str:
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.", suffix=".tmp") as scratch,
        atomic_folder(out) as target,
    ):
        unpack_all(archives, Path(scratch), dataset.skip, report)
        report(0, 0, "sorting")
        source = f"{dataset.title}\n{dataset.page}\nLicence: {dataset.licence}\nCite: {dataset.cite}\n"
        (target / "SOURCE.txt").write_text(source, encoding="utf-8")
        try:
            return convert(Path(scratch), target, dataset)
        except InputError as error:
            names = ", ".join(map(str, archives))
            told = str(error).replace(f"{scratch}/", "").replace(f"{target}/", "")
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
