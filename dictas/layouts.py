"""How the folders of each data set are laid out."""

import csv
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from dictas.images import find_images
from dictas.masks import masks_of
from dictas.samples import GOOD, InspectionClass, Sample
from encoders.errors import InputError

NORMAL_NAMES = ("good", "ok", "normal")
"""Folders and labels of samples without a defect, in lower case."""
DEFECT = "defect"
"""The kind of defective images that lie in no folder that tells more."""


@dataclass(frozen=True)
class Layout:
    """One way to lay out a class.

    Attributes:
        signs: what a class's folder must hold, in words.
        fits: whether a folder does.
        read: reads a folder that fits.
    """

    signs: str
    fits: Callable[[Path], bool]
    read: Callable[[Path], InspectionClass]


@dataclass(frozen=True)
class _Kind:
    """A folder of test images and the one of their masks."""

    name: str
    images: Path
    masks: Path | None


def class_name(folder: Path) -> str:
    """The name of the folder, also where it is given as "."."""
    return Path(os.path.abspath(folder)).name


def subfolders(folder: Path) -> list[Path]:
    """The folders in ``folder`` by name; hidden ones are left out."""
    if not folder.is_dir():
        return []
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def images_in(folder: Path | None) -> tuple[Path, ...]:
    """The images in ``folder`` itself, in the order of `find_images`; none if there is no such folder.

    Empty files and dangling links are among them: who judges an image reports that it is unreadable.
    """
    if folder is None or not folder.is_dir():
        return ()
    return tuple(image.path for image in find_images(folder) if image.path.parent == folder)


def sound_images_in(folder: Path | None) -> tuple[Path, ...]:
    """`images_in`, none of them empty or gone.

    Raises:
        InputError: one is. Left out in silence it would change which images are drawn, and without its mask an image
            cannot be measured.
    """
    found = images_in(folder)
    for path in found:
        if not path.exists():
            raise InputError(f"{path} is a link to a file that does not exist; copy the image or remove the link.")
        if path.stat().st_size == 0:
            raise InputError(f"The image {path} is empty (0 bytes); copy it again or remove it.")
    return found


def _assemble(folder: Path, normal: Path, test: Path, kinds: Iterable[_Kind]) -> InspectionClass:
    images = sound_images_in(normal)
    if not images:
        raise InputError(f"{normal} holds no images; put images of normal parts there.")
    samples: list[Sample] = []
    for kind in kinds:
        samples += _samples(kind)
    if not samples:
        raise InputError(f"{test} holds no images in its folders; put the images to judge there, by kind of defect.")
    return InspectionClass(class_name(folder), images, tuple(samples))


def _samples(kind: _Kind) -> list[Sample]:
    images = images_in(kind.images)
    if kind.name.casefold() in NORMAL_NAMES:
        return [Sample(path, GOOD, None) for path in images]
    pictures = sound_images_in(kind.masks)
    masks = masks_of(images, pictures)
    if pictures and None in masks:
        path = images[masks.index(None)]
        raise InputError(
            f"The image {path} has no mask in {kind.masks}; add one named {path.stem}.png or {path.stem}_mask.png, or "
            f'move the image to the folder "{GOOD}" if nothing is wrong with it.'
        )
    return [Sample(path, kind.name, mask) for path, mask in zip(images, masks, strict=True)]


def _with_truth(folder: Path, normal: Path) -> InspectionClass:
    """Test images in test/KIND, masks in ground_truth/KIND; kinds without masks have none at all."""
    test, truth = folder / "test", folder / "ground_truth"
    names = [path.name for path in subfolders(test)]
    for path in subfolders(truth):
        if path.name not in names and images_in(path):
            raise InputError(f"The masks in {path} belong to no folder in {test}; give both the same name.")
    return _assemble(folder, normal, test, [_Kind(name, test / name, truth / name) for name in names])


def _read_mvtec(folder: Path) -> InspectionClass:
    """MVTec AD, MPDD, converted VisA: train/good, test/KIND, ground_truth/KIND."""
    return _with_truth(folder, folder / "train" / "good")


def _read_btad(folder: Path) -> InspectionClass:
    """BTAD: MVTec's with ok and ko, and masks that are .png or .bmp."""
    return _with_truth(folder, folder / "train" / "ok")


def _read_mvtec3d(folder: Path) -> InspectionClass:
    """MVTec 3D-AD without depth: train/good/rgb, test/KIND/rgb, test/KIND/gt."""
    test = folder / "test"
    kinds = [_Kind(path.name, path / "rgb", path / "gt") for path in subfolders(test)]
    return _assemble(folder, folder / "train" / "good" / "rgb", test, kinds)


def _read_bmad(folder: Path) -> InspectionClass:
    """RESC, BraTS and others of BMAD: train/good[/img], test/good[/img], test/Ungood/img, test/Ungood/label.

    MVFA's copies name the masks' folder anomaly_mask and have normal images in valid/good/img instead of train.
    """
    normals = [folder / part / "good" / inner for part in ("train", "valid") for inner in ("img", "")]
    normal = next((place for place in normals if images_in(place)), normals[0])
    test, kinds = folder / "test", []
    for path in subfolders(test):
        images = path / "img" if (path / "img").is_dir() else path
        masks = next((path / name for name in ("label", "anomaly_mask") if (path / name).is_dir()), None)
        kinds.append(_Kind(path.name, images, masks))
    return _assemble(folder, normal, test, kinds)


def _fits_bmad(folder: Path) -> bool:
    return any((path / "img").is_dir() for path in subfolders(folder / "test"))


def _read_visa(folder: Path) -> InspectionClass:
    """VisA as published: images in Data/Images, which are for training says split_csv/1cls.csv beside the class."""
    table = folder.parent / "split_csv" / "1cls.csv"
    if not table.is_file():
        raise InputError(f"{folder} is a class of VisA, whose split {table} is missing; copy it from the archive.")
    normal, samples = [], []
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                if row["object"] != class_name(folder):
                    continue
                image, good = folder.parent / row["image"], row["label"].casefold() in NORMAL_NAMES
                if not image.is_file():
                    raise InputError(f"{table} lists {image}, which does not exist; unpack the archive again.")
                if row["split"] == "train":
                    normal.append(image)
                    continue
                mask = folder.parent / row["mask"] if row["mask"] and not good else None
                if mask is not None and not mask.is_file():
                    raise InputError(f"{table} lists {mask}, which does not exist; unpack the archive again.")
                samples.append(Sample(image, GOOD if good else row["label"], mask))
    except (KeyError, AttributeError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table} is not VisA's table of object, split, label, image and mask ({error!r}).") from error
    if not normal or not samples:
        raise InputError(
            f'{table} lists no training or no test images of "{class_name(folder)}"; see the object column.'
        )
    samples.sort(key=lambda sample: (sample.kind, sample.path))
    return InspectionClass(class_name(folder), tuple(sorted(normal)), tuple(samples))


SUPPORT_FOLDERS = ("support", "normal", "train")
QUERY_FOLDERS = ("query", "test")
MASK_FOLDERS = ("masks", "mask", "ground_truth", "gt")
"""Names that a plain folder's parts may have; the first that holds something is taken."""


def _read_plain(folder: Path) -> InspectionClass:
    """A support folder and a query folder, with images in folders by kind, or all together beside masks.

    Of images in one folder those that have a mask show a `DEFECT`.
    """
    support = next(place for name in SUPPORT_FOLDERS if images_in(place := folder / name))
    query = next(place for name in QUERY_FOLDERS if (place := folder / name).is_dir())
    masks = next((place for name in MASK_FOLDERS if (place := folder / name).is_dir()), None)
    kinds = []
    for path in subfolders(query):
        below = None if masks is None else masks / path.name
        kinds.append(_Kind(path.name, path, below if below is not None and below.is_dir() else masks))
    together = images_in(query)
    if not together:
        return _assemble(folder, support, query, kinds)
    found = masks_of(together, sound_images_in(masks))
    if not any(found):
        raise InputError(
            f"Nothing tells which images in {query} show a defect; sort them into {query / GOOD} and a folder for each "
            f"kind of defect, or put masks of their names into {folder / MASK_FOLDERS[0]}."
        )
    samples = [sample for kind in kinds for sample in _samples(kind)]
    for path, mask in zip(together, found, strict=True):
        samples.append(Sample(path, DEFECT if mask else GOOD, mask))
    return InspectionClass(class_name(folder), sound_images_in(support), tuple(samples))


def _fits_plain(folder: Path) -> bool:
    return any(images_in(folder / name) for name in SUPPORT_FOLDERS) and any(
        (folder / name).is_dir() for name in QUERY_FOLDERS
    )


_MVTEC = Layout("train/good", lambda folder: (folder / "train" / "good").is_dir(), _read_mvtec)
_BMAD = Layout("test/good/img or test/Ungood/img", _fits_bmad, _read_bmad)

LAYOUTS: dict[str, Layout] = {
    "visa": Layout("Data/Images", lambda folder: (folder / "Data" / "Images").is_dir(), _read_visa),
    "btad": Layout("train/ok", lambda folder: (folder / "train" / "ok").is_dir(), _read_btad),
    "mvtec3d": Layout("train/good/rgb", lambda folder: (folder / "train" / "good" / "rgb").is_dir(), _read_mvtec3d),
    "resc": _BMAD,
    "brats": _BMAD,
    "mvtec": _MVTEC,
    "mpdd": _MVTEC,
    "folder": Layout("images in support and a folder query", _fits_plain, _read_plain),
}
"""By name, in the order in which they are tried: what fits an earlier one may fit a later one, too."""
