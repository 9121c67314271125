"""The formats that `hostile_files` changes: small valid files, and the function that opens each for people."""

import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import fitting
import hostile_archives
import numpy as np
import pycolmap
import torch
from hostile import huge_png
from PIL import Image
from plyfile import PlyData, PlyElement
from safetensors.torch import save_file

from app.uploads import Limits, check_image, checked_images, unpack_zip
from dictas.checkpoint import load_detector, save_detector
from dictas.images import Photo
from dictas.journal import open_journal
from dictas.masks import defect_pixels
from dictas.model import DictAS
from dictas.outputs import Row
from dictas.predict import begin, recorded_threshold
from dictas.stream import finished
from dictas.thresholds import fixed
from encoders.checkpoints import load_checkpoint, save_checkpoint
from encoders.errors import InputError
from encoders.files import MAX_PIXELS, read_image, white_level, write_json
from splat.codes import LanguageField
from splat.features import FeatureStore, ViewFeatures
from splat.gaussians import Gaussians, save_ply
from splat.interchange.gaussian_files import read_gaussians, write_gaussians
from splat.interchange.imported import read_3dgs_cameras
from splat.interchange.langsplat_features import read_view, write_view
from splat.interchange.langsplat_v2 import read_levels, write_levels
from splat.lerf_labels import read_view_labels
from splat.ovs_labels import read_masks
from splat.run import Run
from splat.scene import Camera, colmap, load_cameras, save_cameras, stack, transforms_json
from splat.train_config import TrainConfig

Read = Callable[[Path], object]


@dataclass(frozen=True)
class Seed:
    """A valid file and what opens it; ``only_whole`` ones are read as they are, because each time takes seconds."""

    path: Path
    read: Read
    is_json: bool = False
    only_whole: bool = False


@dataclass(frozen=True)
class Family:
    """Formats that are read in one process.

    Attributes:
        make: writes valid files into a folder.
        memory_mib: address space that reading may take, beyond that of the libraries.
        private: sentences go to people who must not learn where files are.
    """

    name: str
    make: Callable[[Path], list[Seed]]
    memory_mib: int = 1024
    private: bool = False


def _gaussians(count: int = 6) -> Gaussians:
    random = torch.Generator().manual_seed(1)
    shapes = (3,), (4,), (3,), (), (16, 3)
    return Gaussians(*(torch.randn(count, *shape, generator=random) for shape in shapes))


def _field(count: int = 6) -> LanguageField:
    random = torch.Generator().manual_seed(2)
    atoms = torch.nn.functional.normalize(torch.randn(3, 4, 8, generator=random), dim=2)
    indices = torch.arange(2, dtype=torch.uint8).repeat(count, 3, 1)
    return LanguageField(atoms, indices, torch.rand(count, 3, 2, generator=random) + 0.1, "embedded")


def _picture(height: int = 24, width: int = 32) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _ply(folder: Path) -> list[Seed]:
    save_ply(folder / "binary.ply", _gaussians())
    (folder / "text.ply").touch()
    data = PlyData.read(str(folder / "binary.ply"))
    PlyData(data.elements, text=True).write(str(folder / "text.ply"))
    vertices = np.zeros(5, [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")])
    faces = np.array([([0, 1, 2],)], [("vertex_indices", "<i4", (3,))])
    elements = [PlyElement.describe(vertices, "vertex"), PlyElement.describe(faces, "face")]
    PlyData(elements).write(str(folder / "points.ply"))
    PlyData(elements, text=True).write(str(folder / "points_text.ply"))
    write_gaussians(folder / "some.compressed.ply", _gaussians())
    return [
        *(Seed(folder / name, read_gaussians) for name in ("binary.ply", "text.ply", "some.compressed.ply")),
        *(Seed(folder / name, transforms_json.read_points) for name in ("points.ply", "points_text.ply")),
    ]


def _splats(folder: Path) -> list[Seed]:
    seeds = [Seed(folder / name, read_gaussians) for name in ("scene.splat", "scene.spz")]
    for seed in seeds:
        write_gaussians(seed.path, _gaussians())
    return seeds


def _safetensors(folder: Path) -> list[Seed]:
    fitting.install(lambda table, name, value: table.__setitem__(name, value))
    _field().save(folder / "language.safetensors")
    save_detector(folder / "detector.safetensors", DictAS(fitting.MODEL))
    save_checkpoint(folder / "fit.safetensors", {"a": torch.ones(3)}, {"step": "1"})
    save_file({"a": torch.ones(3)}, folder / "plain.safetensors")
    return [
        Seed(folder / "language.safetensors", LanguageField.load),
        Seed(folder / "detector.safetensors", load_detector),
        Seed(folder / "fit.safetensors", load_checkpoint),
    ]


def _arrays(folder: Path) -> list[Seed]:
    store = FeatureStore(folder / "features")
    ids = np.random.default_rng(4).integers(-1, 5, (3, 12, 16)).astype(np.int32)
    view = ViewFeatures(ids, np.ones((5, 8), np.float16))
    store.describe("embedded", 8, "embedded")
    store.write("view", view)
    write_view(folder / "langsplat", "view", view)
    return [
        Seed(folder / "features" / "view.npz", lambda _path: store.read("view")),
        Seed(folder / "features" / "features.json", lambda _path: (store.dim, store.encoder), is_json=True),
        *(
            Seed(folder / "langsplat" / f"view_{kind}.npy", lambda path: read_view(path.parent, "view", 16, 12))
            for kind in "sf"
        ),
    ]


def _json(folder: Path) -> list[Seed]:
    Image.fromarray(_picture()).save(folder / "a.png")
    pose = np.eye(4).tolist()
    frame = {"file_path": "a.png", "transform_matrix": pose, "k1": 0.01}
    lens = {"w": 32, "h": 24, "fl_x": 30.0, "fl_y": 30.0, "cx": 16.0, "cy": 12.0, "camera_model": "OPENCV"}
    transforms = lens | {"frames": [frame], "train_filenames": ["a.png"], "test_filenames": []}
    write_json(folder / "transforms.json", transforms)
    write_json(folder / "angle.json", {"camera_angle_x": 0.7, "frames": [frame]})
    save_cameras(folder / "cameras.json", [Camera("a", 32, 24, np.eye(3), np.eye(4))], ["a"])
    theirs = {"id": 0, "img_name": "a", "width": 32, "height": 24, "position": [0, 0, 1], "fx": 30.0, "fy": 30.0}
    write_json(folder / "3dgs.json", [theirs | {"rotation": np.eye(3).tolist()}])
    shape = [[1, 1], [9, 1], [5, 7]]
    lerf = {"category": "cup", "segmentation": shape, "bbox": [1, 1, 9, 7]}
    write_json(folder / "lerf.json", {"info": {"name": "a.jpg", "width": 32, "height": 24}, "objects": [lerf]})
    drawn = {"label": "cup", "points": shape[:2], "shape_type": "rectangle"}
    write_json(folder / "labelme.json", {"imageWidth": 32, "imageHeight": 24, "shapes": [drawn]})
    with Run.locked(folder / "run") as run:
        run.begin(TrainConfig(folder / "scene").to_json(), "0" * 32)
        run.mark("rgb", "done", {"preset": "fast"}, 1.0, {"digest": "0" * 64, "gaussians": 3})

    def labels(path: Path) -> None:
        view = read_view_labels(path)
        for category in view.categories:
            view.mask(category, 16, 12)
            view.boxes(category, 16, 12)

    def cameras(path: Path) -> None:
        found = load_cameras(path)[0] if path.name == "cameras.json" else read_3dgs_cameras(path)
        stack(found)
        # What the rasteriser takes, and a picture that fits into memory.
        assert all(min(size) > 0 and max(size) < 2**19 for size in ((one.width, one.height) for one in found))
        assert all(one.width * one.height <= MAX_PIXELS for one in found)

    def record(path: Path) -> None:
        opened = Run.open(path.parent)
        assert opened.record is not None
        TrainConfig.from_json(opened.record.config, path)

    return [
        Seed(folder / "transforms.json", transforms_json.read, is_json=True),
        Seed(folder / "angle.json", transforms_json.read, is_json=True),
        Seed(folder / "cameras.json", cameras, is_json=True),
        Seed(folder / "3dgs.json", cameras, is_json=True),
        Seed(folder / "lerf.json", labels, is_json=True),
        Seed(folder / "labelme.json", labels, is_json=True),
        Seed(folder / "run" / "run.json", record, is_json=True),
    ]


def _journal(folder: Path) -> list[Seed]:
    photos = [Photo(f"{number}.png", folder / "photos" / f"{number}.png") for number in range(6)]
    empty = [Row(photo.name, output=photo.path.stem) for photo in photos]
    written = [replace(row, score=0.5, anomalous=False, width=9, height=9) for row in empty]
    asked, threshold = {"version": "1", "layers": [1, 2]}, fixed(0.3)

    def read(path: Path) -> None:
        """As `anomaly predict` does. What is known then is a beginning of what was written, unchanged."""
        with open_journal(path.parent) as journal:
            begin(journal, path.parent, asked, overwrite=False)
            known = recorded_threshold(journal)
            assert known in (None, threshold)
            rows = finished(journal, photos, empty)
            assert rows == written[: len(rows)]
            journal.append({"threshold": asdict(threshold)} if known is None else {"rows": []})

    with open_journal(folder / "out") as journal:
        begin(journal, folder / "out", asked, overwrite=False)
        journal.append({"threshold": asdict(threshold)})
        for first in range(0, len(photos), 2):
            rows = [asdict(row) for row in written[first : first + 2]]
            journal.append({"seconds": 0.1, "stamps": [None, None], "rows": rows})
    return [Seed(folder / "out" / "journal.jsonl", read)]


def _zip(folder: Path) -> list[Seed]:
    Image.fromarray(_picture()).save(folder / "photo.png")
    for name, kind in (("stored.zip", zipfile.ZIP_STORED), ("packed.zip", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(folder / name, "w", kind) as archive:
            for number in range(3):
                archive.write(folder / "photo.png", f"photos/{number}.png")
            archive.writestr("notes.txt", "a" * 5000)
    number = 0

    def read(path: Path) -> None:
        nonlocal number
        number += 1
        into = folder / f"unpacked {number}"
        outside = sorted(folder.iterdir())
        limits = Limits(files=20, file_bytes=1 << 20, total_bytes=1 << 22)
        try:
            found = unpack_zip(path, into, limits)
            assert all(one.resolve().is_relative_to(into.resolve()) for one in found)
            assert sum(one.stat().st_size for one in found) <= limits.total_bytes
        except BaseException:
            assert not into.exists()
            raise
        finally:
            assert sorted(one for one in folder.iterdir() if one != into) == outside
            _remove(into)

    return [Seed(folder / name, read) for name in ("stored.zip", "packed.zip")]


def _archives(folder: Path) -> list[Seed]:
    return [Seed(path, read) for path, read in hostile_archives.archives(folder)]


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    if folder.exists():
        folder.rmdir()


def _colmap(folder: Path) -> list[Seed]:
    for kind in ("text", "binary"):
        scene = folder / kind
        model = scene / "sparse" / "0"
        model.mkdir(parents=True)
        (scene / "images").mkdir()
        for name in ("1.png", "2.png"):
            Image.fromarray(_picture()).save(scene / "images" / name)
        (model / "cameras.txt").write_text("1 PINHOLE 32 24 40 41 15 13\n2 SIMPLE_RADIAL 32 24 80 16 12 0.05\n")
        (model / "images.txt").write_text(
            "1 0.7 0 0.7 0 1 2 3 1 1.png\n10.5 11.5 7 20 21 9\n2 1 0 0 0 0 0 5 2 2.png\n\n"
        )
        (model / "points3D.txt").write_text("9 4 5 6 40 50 60 0.5 1 1\n7 1 2 3 10 20 30 0.1 1 0\n")
    pycolmap.Reconstruction(str(model)).write_binary(str(model))
    for path in model.glob("*.txt"):
        path.unlink()
    models = [folder / kind / "sparse" / "0" for kind in ("text", "binary")]
    return [
        Seed(path, lambda path: colmap.read(path.parent, path.parents[2]))
        for model in models
        for path in sorted(model.iterdir())
    ]


def _langsplat(folder: Path) -> list[Seed]:
    paths = [folder / f"level {level}.pth" for level in range(3)]
    write_levels(paths, _gaussians(), _field())
    seeds = [Seed(paths[0], lambda path: read_levels([path], "embedded", 2))]
    # Few bytes that claim to be many values, which no disk made: whatever else is changed, they take no memory.
    (fields, number) = torch.load(paths[0], weights_only=True)
    count = 10**9
    tensors = [one.detach() for one in fields[1:8]]
    claims = {
        "stride 0": [one[:1].clone().expand(count, *one.shape[1:]) for one in tensors],
        "sparse": [torch.sparse_coo_tensor(size=(count, *one.shape[1:]), check_invariants=True) for one in tensors],
        "meta": [torch.empty(count, *one.shape[1:], device="meta") for one in tensors],
    }
    for name, claimed in claims.items():
        torch.save(((fields[0], *claimed, *fields[8:]), number), folder / f"{name}.pth")
        seeds.append(Seed(folder / f"{name}.pth", _read_refused))
    return seeds


def _read_refused(path: Path) -> None:
    try:
        read_levels([path], "embedded", 2)
    except InputError:
        return
    raise AssertionError(f"{path.name} was believed")


def _images(folder: Path) -> list[Seed]:
    picture = Image.fromarray(_picture())
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(folder / "photo.jpg", exif=exif)
    picture.save(folder / "progressive.jpg", progressive=True)
    for name in ("photo.png", "photo.webp", "photo.bmp", "photo.ppm", "photo.tif"):
        picture.save(folder / name)
    picture.save(folder / "packed.tif", compression="tiff_lzw")
    picture.quantize(16).save(folder / "palette.png")
    Image.fromarray(_picture()[:, :, 0].astype(np.uint16) * 16).save(folder / "deep.png")
    Image.fromarray(_picture()[:, :, 0].astype(np.float32)).save(folder / "float.tif")
    Image.fromarray((_picture()[:, :, 0] > 99).astype(np.uint8) * 255).save(folder / "mask.png")

    def read(path: Path) -> None:
        read_image(path)
        white_level([path])

    names = [path.name for path in sorted(folder.iterdir())]
    # A third of a megabyte that holds as many pixels as Pillow opens of itself.
    large = Seed(huge_png(folder / "large.png", 13_300, depth=16), read_image, only_whole=True)
    return [Seed(folder / "mask.png", defect_pixels), *(Seed(folder / name, read) for name in names), large]


def _uploads(folder: Path) -> list[Seed]:
    def read(path: Path) -> None:
        check_image(path, Limits())
        checked_images([path], Limits())

    return [Seed(seed.path, read) for seed in _images(folder)[1:] if not seed.only_whole]


def _masks(folder: Path) -> list[Seed]:
    labels = folder / "segmentations"
    (labels / "00").mkdir(parents=True)
    Image.fromarray(_picture()[:, :, 0]).save(labels / "00" / "cup.png")
    (labels / "classes.txt").write_text("cup\n")

    def read(path: Path) -> None:
        folder = path.parent if path.suffix == ".txt" else path.parents[1]
        for view in read_masks(folder):
            for category in view.categories:
                view.shown(category, 16, 12)

    return [Seed(labels / "classes.txt", read), Seed(labels / "00" / "cup.png", read)]


FAMILIES = (
    Family("ply", _ply),
    Family("splat and spz", _splats),
    Family("safetensors", _safetensors),
    Family("npy and npz", _arrays),
    Family("json", _json),
    Family("journal", _journal),
    Family("zip", _zip, private=True),
    Family("archives", _archives),
    Family("colmap", _colmap),
    Family("langsplat", _langsplat),
    Family("images", _images, memory_mib=2048),
    Family("uploads", _uploads, private=True),
    Family("masks", _masks, memory_mib=2048),
)
