"""Sets of scenes: each becomes a folder that `dictsplat train` reads, with the labels that `dictsplat eval` reads."""

import filecmp
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from prepare import Dataset
from views import called, in_published_order, views_of_labels

from encoders.errors import InputError
from splat.ovs_labels import CLASSES
from splat.protocols import MARKER, read_benchmark
from splat.scene import colmap, transforms_json
from splat.scene.images import image_size

CAMERAS = ("sparse", "transforms.json")
"""One of which a scene needs, beside its ``images``; without it cameras would be looked for in the photos."""
MASKS = "segmentations"


def to_scenes(raw: Path, out: Path, dataset: Dataset) -> str:
    """Move every scene of the archives, trees in ``raw``, to SCENE/images and its cameras, and check that it is whole.

    Labels go to SCENE/labels (a JSON per view, called like it; archives have them in another folder that is called like
    the scene) or SCENE/segmentations (masks per class; archives have them in the scene).
    """
    scenes = _scenes(raw, dataset)
    notes = _absent(raw, scenes, dataset)
    labelled = 0
    for name, folder in sorted(scenes.items()):
        into = out / name
        into.mkdir(parents=True)
        for part in ("images", *CAMERAS, MASKS):
            if (folder / part).exists():
                shutil.move(folder / part, into / part)
        views, told = _views(into)
        photos = {*views, *(path.stem for path in (into / "images").iterdir())}
        files, masks = _label_files(raw, name, folder, photos), _mask_folders(into / MASKS)
        renamed = _put_files(files, into / "labels", views, photos) | _rename(masks, views, photos)
        if files and dataset.protocol:
            (into / "labels" / MARKER).write_text(f"{dataset.protocol}\n", encoding="utf-8")
        _read_labels(into, photos)
        labelled += bool(files or masks)
        if renamed:
            told.append("its labels were numbered and are now called like the photos at these places")
        notes += [f"{name}: {note}" for note in told]
    without = "" if labelled == len(scenes) else f", {len(scenes) - labelled} without labels"
    return "; ".join([f"{len(scenes)} {'scene' if len(scenes) == 1 else 'scenes'}{without}", *notes])


def _scenes(raw: Path, dataset: Dataset) -> dict[str, Path]:
    """Folders of the wanted scenes by name, as the data set spells it."""
    found: dict[str, Path] = {}
    for images in sorted(raw.rglob("images")):
        folder = images.parent
        if not images.is_dir() or not any((folder / part).exists() for part in CAMERAS):
            continue
        name = dataset.classes.get(folder.name.casefold(), "") if dataset.classes else folder.name
        if name in found:
            raise InputError(f"there are two scenes {name}, {found[name]} and {folder}; leave the archive of one out.")
        if name:
            found[name] = folder
    if not found:
        llff = next(raw.rglob("poses_bounds.npy"), None)
        hint = "" if llff is None else f" {llff} has cameras, but not COLMAP's; get the copy that has sparse/, too."
        raise InputError(f"there is no scene in it: no folder with images/ and sparse/.{hint}")
    return found


def _absent(raw: Path, scenes: dict[str, Path], dataset: Dataset) -> list[str]:
    """What one may have expected and there is not."""
    lacking = [name for name in dataset.complete or dataset.classes.values() if name not in scenes]
    notes = [f"not in it: {' '.join(lacking)}"] if lacking else []
    folders = [path.parent for path in sorted(raw.rglob("images")) if path.is_dir()]
    bare = [
        folder.name
        for folder in folders
        if folder.name not in scenes and not any(folder.is_relative_to(scene) for scene in scenes.values())
        and (not dataset.classes or folder.name.casefold() in dataset.classes)
    ]  # fmt: skip
    return notes + [f"left out, having photos and no cameras: {' '.join(bare)}"] * bool(bare)


def _views(scene: Path) -> tuple[list[str], list[str]]:
    """Names of the views in their published order, and what the reader had to say.

    Raises:
        InputError: there is no model, it cannot be read, there are no photos to it, or one of them is no image.
    """
    notes: list[str] = []

    def note(_done: int, _total: int, message: str) -> None:
        notes.append(message)

    if (scene / "transforms.json").is_file():
        capture = transforms_json.read(scene / "transforms.json", note)
    else:
        model = colmap.find_model(scene)
        if model is None:
            raise InputError(f"{scene / 'sparse'} holds no COLMAP model (cameras and images, .bin or .txt).")
        capture = colmap.read(model, scene, note)
    for view in capture.views:
        image_size(view.path)
    return in_published_order({view.name: view.path for view in capture.views}), notes


def _label_files(raw: Path, name: str, scene: Path, photos: set[str]) -> list[Path]:
    """JSON files of folders that are called like the scene; those in the scene itself only if they look like labels."""
    found: dict[str, Path] = {}
    folders = (path for path in sorted(raw.rglob("*")) if path.is_dir() and path.name.casefold() == name.casefold())
    for file in (file for folder in (*folders, *_own_labels(scene)) for file in sorted(folder.glob("*.json"))):
        if file.parent == scene and file.stem not in photos and not re.fullmatch(r"frame_\d+", file.stem):
            continue
        other = found.setdefault(file.name, file)
        if other != file and not filecmp.cmp(other, file, shallow=False):
            raise InputError(f"there are two different labels {file.name} of {name}, {other} and {file}.")
    return sorted(found.values(), key=lambda file: file.name)


def _own_labels(scene: Path) -> Iterable[Path]:
    return (scene / part for part in ("label", "labels") if (scene / part).is_dir())


def _mask_folders(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*")) if path.is_dir()]


def _put_files(files: list[Path], into: Path, views: list[str], photos: set[str]) -> bool:
    """Move label files to where they belong. Returns whether they got other names."""
    names = views_of_labels(files, views, photos)
    if files:
        into.mkdir()
    for file, view in names.items():
        shutil.move(file, into / f"{view}.json")
    return any(called(file) != view for file, view in names.items())


def _rename(folders: list[Path], views: list[str], photos: set[str]) -> bool:
    """Call folders of masks like their views. Returns whether they got other names."""
    names = {folder: view for folder, view in views_of_labels(folders, views, photos).items() if folder.name != view}
    for folder, view in names.items():
        folder.rename(folder.with_name(view))  # none has a photo's name already
    return bool(names)


def _read_labels(scene: Path, photos: set[str]) -> None:
    for folder in (scene / "labels", scene / MASKS):
        if not folder.is_dir():
            continue
        if folder.name == MASKS and not (folder / CLASSES).is_file():
            raise InputError(f"{folder} has no {CLASSES}, which names the classes of 3D-OVS.")
        strangers = [label.name for label in read_benchmark(folder).labels if label.name not in photos]
        if strangers:
            raise InputError(f"{folder} has labels of {strangers[0]}, of which there is no photo.")
