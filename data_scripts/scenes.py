"""Sets of scenes: each becomes a folder that `dictsplat train` reads, with the labels that `dictsplat eval` reads."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from prepare import Dataset

from encoders.errors import InputError

CAMERAS = ("sparse", "transforms.json")
"""One of which a scene needs, beside its ``images``; without it cameras would be looked for in the photos."""


def to_scenes(raw: Path, out: Path, dataset: Dataset) -> str:
    """Move every scene of the archives, folders in ``raw``, to SCENE/images and its cameras.

    Labels go to SCENE/labels (a JSON per view; archives have them in another folder that is called like the scene) or
    SCENE/segmentations (masks per class; archives have them in the scene).
    """
    scenes = {folder.name: folder for folder in _scenes(raw)}
    wanted = {name: folder for name, folder in scenes.items() if not dataset.classes or name in dataset.classes}
    if not wanted:
        raise InputError("there is no scene in it: no folder with images/ and sparse/.")
    labelled = 0
    for name, folder in sorted(wanted.items()):
        into = out / name
        into.mkdir(parents=True)
        for part in ("images", *CAMERAS, "segmentations"):
            if (folder / part).exists():
                shutil.move(folder / part, into / part)
        labels = _labels(raw, folder)
        if labels:
            (into / "labels").mkdir()
        for path in labels:
            shutil.move(path, into / "labels" / path.name)
        labelled += bool(labels) or (into / "segmentations").is_dir()
    without = "" if labelled == len(wanted) else f", {len(wanted) - labelled} without labels"
    return f"{len(wanted)} {'scene' if len(wanted) == 1 else 'scenes'}{without}"


def _scenes(raw: Path) -> Iterator[Path]:
    for images in sorted(raw.rglob("images")):
        if images.is_dir() and any((images.parent / part).exists() for part in CAMERAS):
            yield images.parent


def _labels(raw: Path, scene: Path) -> list[Path]:
    """JSON files of other folders that are called like the scene."""
    folders = [path for path in sorted(raw.rglob(scene.name)) if path.is_dir() and path != scene]
    return [file for folder in folders for file in sorted(folder.glob("*.json"))]
