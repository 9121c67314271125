"""Reading inspection data sets, and drawing the few normal images of a class that a detector is shown."""

import hashlib
import re
import unicodedata
from dataclasses import replace
from pathlib import Path, PurePosixPath

from dictas.images import find_images
from dictas.layouts import LAYOUTS, Layout, subfolders
from dictas.masks import read_mask
from dictas.samples import InspectionClass, Sample
from encoders.errors import InputError

__all__ = ["LAYOUTS", "InspectionClass", "Sample", "draw_support", "find_classes", "read_dataset", "read_mask"]

AUTO = "auto"
DEEPEST = 3
"""Levels of folders below the one given in which classes are looked for; archives wrap them in one or two."""
RESULTS = ("metrics.json", "partial")
"""What an evaluation leaves in its folder, at its end or before."""
LIST_FOLDERS = ("fewshot", "fix_few_path", ".")
LIST_NAME = re.compile(r"(?:fix_)?(\d+)-shot\.txt")
"""Where lists of support images lie beside the classes (or in a class), and their names: "4-shot.txt" or, as DictAS
publishes them, "fix_4-shot.txt"."""


def read_dataset(root: Path, layout: str = AUTO) -> list[InspectionClass]:
    """The classes of a data set.

    Args:
        root: one class or a folder of classes, which may lie up to `DEEPEST` levels below.
        layout: a key of `LAYOUTS`; "auto" takes for each class the first that fits.

    Returns:
        The classes by name. Images are in a fixed order that does not depend on the file system.

    Raises:
        InputError: there is no class, or one is incomplete.
    """
    root = Path(root)
    found = find_classes(root, layout)
    classes = [_with_lists(fitting.read(folder), folder, root) for folder, fitting in found]
    if len({item.name for item in classes}) == len(classes):
        return classes
    # Several data sets in one folder may have a class "wood" each.
    paths = [folder.relative_to(root).as_posix() for folder, _ in found]
    return [replace(item, name=path) for item, path in zip(classes, paths, strict=True)]


def find_classes(root: Path, layout: str = AUTO) -> list[tuple[Path, Layout]]:
    """The folders of classes at the first level at or below ``root`` that has any, each with its layout.

    Raises:
        InputError: there is none; the message says what was looked for. Or a folder beside one that was found has
            images but no layout: left out in silence, a class would be missing from the means.
    """
    if layout != AUTO and layout not in LAYOUTS:
        raise InputError(f'There is no layout "{layout}"; choose one of {AUTO}, {", ".join(LAYOUTS)}.')
    if not root.is_dir():
        raise InputError(f"There is no folder {root}; give one class or a folder of classes.")
    candidates = dict(LAYOUTS) if layout == AUTO else {layout: LAYOUTS[layout]}
    level, seen = [root], {root.resolve()}
    for _ in range(DEEPEST + 1):
        found = []
        for folder in level:
            fitting = next((candidate for candidate in candidates.values() if candidate.fits(folder)), None)
            if fitting is not None:
                found.append((folder, fitting))
        if found:
            _refuse_lost([folder for folder in level if folder not in dict(found)], found, candidates)
            return found
        level = [child for folder in level for child in subfolders(folder) if _unseen(child, seen)]
    signs = dict.fromkeys(candidate.signs for candidate in candidates.values())
    raise InputError(
        f"Neither {root} nor a folder in it is a class to inspect; looked for {', for '.join(signs)} in each of them."
    )


def _refuse_lost(others: list[Path], found: list[tuple[Path, Layout]], candidates: dict[str, Layout]) -> None:
    parents = {folder.parent for folder, _ in found}
    for folder in others:
        # Results of an evaluation may lie here, with examples of its images.
        if folder.parent not in parents or any((folder / name).exists() for name in RESULTS):
            continue
        if find_images(folder):
            signs = dict.fromkeys(candidate.signs for candidate in candidates.values())
            raise InputError(
                f"{folder} lies beside {found[0][0].name}, which is a class, and has images, but is none; rename what "
                f"is in it ({' or '.join(signs)} makes a class) or move it elsewhere."
            )


def _unseen(folder: Path, seen: set[Path]) -> bool:
    real = folder.resolve()
    new = real not in seen
    seen.add(real)
    return new


def draw_support(item: InspectionClass, shots: int, seed: int) -> tuple[Path, ...]:
    """``shots`` normal images of a class.

    Seed 0 means the list of that many images that came with the data set, if one did. Otherwise images are drawn
    by a hash of class name, seed and file name: the same on every machine and under every version of every library,
    and the 2 images of a seed are the first of its 4.

    Raises:
        InputError: the class has fewer normal images, or ``shots`` is not positive.
    """
    if shots < 1:
        raise InputError(f"{shots} support images were asked for; ask for at least 1.")
    if len(item.normal) < shots:
        raise InputError(
            f'The class "{item.name}" has {len(item.normal)} normal images in {item.normal[0].parent}, but {shots} '
            "were asked for; ask for fewer or add some."
        )
    if seed == 0:
        for fixed in item.fixed:
            if len(fixed) == shots:
                return fixed
    return tuple(sorted(item.normal, key=lambda path: _lot(item.name, seed, path.name))[:shots])


def _lot(name: str, seed: int, file: str) -> bytes:
    # Some file systems decompose accented letters; the lot must not depend on that.
    ticket = unicodedata.normalize("NFC", f"{name}\0{seed}\0{file}")
    return hashlib.blake2b(ticket.encode("utf-8", "surrogateescape"), digest_size=16).digest()


def _with_lists(item: InspectionClass, folder: Path, root: Path) -> InspectionClass:
    fixed: dict[int, tuple[Path, ...]] = {}
    for base in dict.fromkeys((folder, folder.parent, root)):
        for place in LIST_FOLDERS:
            for path in sorted((base / place).glob("*-shot.txt")):
                match = LIST_NAME.fullmatch(path.name)
                if match and int(match[1]) not in fixed:
                    listed = _listed(path, item, own=base == folder)
                    if listed and len(listed) != int(match[1]):
                        raise InputError(
                            f'{path} lists {len(listed)} images of class "{item.name}", its name says {match[1]}.'
                        )
                    if listed:
                        fixed[int(match[1])] = listed
    return replace(item, fixed=tuple(fixed[shots] for shots in sorted(fixed)))


def _listed(path: Path, item: InspectionClass, own: bool) -> tuple[Path, ...]:
    """The images of the class in a list of paths, one a line, suffixes aside; ``own`` lists need no folder names."""
    by_stem = {normal.stem: normal for normal in item.normal}
    listed = []
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        entry = PurePosixPath(line.strip().replace("\\", "/"))
        if item.name in entry.parts[:-1] or (own and len(entry.parts) == 1):
            if entry.stem not in by_stem:
                raise InputError(f"{path} lists {entry}, which is not among the images in {item.normal[0].parent}.")
            listed.append(by_stem[entry.stem])
    return tuple(listed)
