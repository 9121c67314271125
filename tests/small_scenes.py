"""Scenes as the published sets have them, small: photos, a COLMAP model in sparse/0, and labels."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pycolmap

from encoders.files import write_json, write_png

SIZE = 32, 24
"""Width and height of the photos, in pixels."""
DSC = tuple(f"DSCF{number}.JPG" for number in (4667, 4668, 4671, 4672, 4680, 4699))
"""As photos of Mip-NeRF 360 are called."""
FRAMES = tuple(f"frame_{number:05d}.jpg" for number in range(1, 7))
"""As those of LERF_OVS are."""


def sparse_scene(folder: Path, photos: Sequence[str] = FRAMES) -> Path:
    """A scene with a binary COLMAP model; each photo is of one grey, and in the model they come in another order."""
    (folder / "sparse" / "0").mkdir(parents=True)
    model = folder / "sparse" / "0"
    (model / "cameras.txt").write_text(f"1 PINHOLE {SIZE[0]} {SIZE[1]} 40 41 15 13\n")
    poses = [f"{number + 1} 1 0 0 0 {number} 0 5 1 {photos[number]}\n\n" for number in reversed(range(len(photos)))]
    (model / "images.txt").write_text("".join(poses))
    (model / "points3D.txt").write_text("9 4 5 6 40 50 60 0.5\n")
    pycolmap.Reconstruction(str(model)).write_binary(str(model))
    for path in model.glob("*.txt"):
        path.unlink()
    for number, name in enumerate(photos):
        write_png(folder / "images" / name, np.full((SIZE[1], SIZE[0], 3), 10 * number, np.uint8))
    np.save(folder / "poses_bounds.npy", np.zeros((len(photos), 17)))
    return folder


def label(folder: Path, name: str, category: str = "cup", said: str | None = None) -> Path:
    """A label as LERF_OVS and GAGS have it, which calls its photo ``said``."""
    square = [[1.0, 1.0], [9.0, 1.0], [9.0, 9.0]]
    objects = [{"category": category, "segmentation": square, "bbox": [1.0, 1.0, 9.0, 9.0]}]
    info = {"name": f"{said or name}.jpg", "width": SIZE[0], "height": SIZE[1]}
    write_json(folder / f"{name}.json", {"info": info, "objects": objects})
    return folder


def packed(archive: Path, files: dict[str, Path]) -> Path:
    """A zip of folders and files, each under a name; "" is the top."""
    with zipfile.ZipFile(archive, "w") as bundle:
        for name, path in files.items():
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                inside = Path(name) / file.relative_to(path) if path.is_dir() else Path(name)
                if file.is_file():
                    bundle.write(file, inside.as_posix())
    return archive


def split(archives: Sequence[Path], whole: Path) -> list[Path]:
    """The files of a zip dealt out to several, as Google Drive does with a large folder."""
    with zipfile.ZipFile(whole) as bundle:
        for place, archive in enumerate(archives):
            with zipfile.ZipFile(archive, "w") as part:
                for member in bundle.infolist()[place :: len(archives)]:
                    part.writestr(member, bundle.read(member))
    return list(archives)
