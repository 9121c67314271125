"""Several archives as one data set: parts of one folder are put together again, and nothing is lost between them."""

import filecmp
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from unpack import unpack

from encoders.errors import InputError
from encoders.progress import Report, silent

INSIDE = (
    "images", "sparse", "segmentations", "labels", "transforms.json", "poses_bounds.npy",
    "train", "test", "valid", "ground_truth",
)  # fmt: skip
"""What lies in the folder of a scene or class; an archive that begins with it was packed without that folder."""
PAPERS = ("readme", "license", "licence", "license_agreement")
"""Texts that authors put into every archive, not always the same; one of them is kept."""

_PART = re.compile(r"(-\d{8}T\d{6}Z(-\d+)?)?-\d{3}$| \(\d+\)$")
"""What Google Drive adds to the names of the zips that it splits a folder into, and browsers to a second copy."""
_TAR = re.compile(r"\.(tar(\.\w+)?|tgz|tbz2?|txz|zip)$", re.IGNORECASE)


def unpack_all(archives: Mapping[Path, str], raw: Path, skip: Collection[str] = (), report: Report = silent) -> None:
    """Unpack archives into trees, the folders 0, 1, ... of ``raw``. Those that begin with the same folder are one tree.

    An archive whose scene or class is not in a folder of its own gets one that is called like it.

    Args:
        archives: each with the name its publisher gave it.
        skip: names of folders whose contents are not wanted.

    Raises:
        InputError: an archive cannot be unpacked (`unpack`), or two have different files of one name.
    """
    trees: list[Path] = []
    for number, (archive, title) in enumerate(archives.items()):
        tree = raw / str(number)
        unpack(archive, tree, skip, report)
        if any(path.name.casefold() in INSIDE or path.suffix.lower() == ".json" for path in tree.iterdir()):
            unnamed = tree.rename(raw / "unnamed")
            tree.mkdir()
            unnamed.rename(tree / folder_name(title))
        for other in [other for other in trees if _folders(other) & _folders(tree)]:
            trees.remove(other)
            _merge(other, tree, archive)
        trees.append(tree)


def folder_name(archive: str) -> str:
    """An archive's name without its type and without the number of a part: "bed-20240501T101112Z-002.zip" is "bed"."""
    return _PART.sub("", _TAR.sub("", archive)) or archive


def _folders(tree: Path) -> set[str]:
    return {path.name for path in tree.iterdir() if path.is_dir() and not path.is_symlink()}


def _merge(source: Path, target: Path, archive: Path, inside: str = "") -> None:
    """Move what is in ``source``, which is ``inside`` a tree, into ``target``, and remove it."""
    for path in sorted(source.iterdir()):
        there, name = target / path.name, f"{inside}{path.name}"
        linked = path.is_symlink() or there.is_symlink()
        if not there.exists() and not there.is_symlink():
            path.rename(there)
        elif path.is_dir() and there.is_dir() and not linked:
            _merge(path, there, archive, f"{name}/")
        elif path.is_file() and there.is_file() and (path.stem.casefold() in PAPERS or _equal(path, there)):
            path.unlink()
        else:
            raise InputError(f"{archive} and another archive have different files {name}; leave one of the two out.")
    source.rmdir()


def _equal(one: Path, other: Path) -> bool:
    return filecmp.cmp(one, other, shallow=False)
