"""A run folder from a scene that another program trained."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError

from encoders.base import Encoder
from encoders.errors import InputError
from encoders.files import parse_json
from encoders.progress import Report, silent
from encoders.storage import storage_errors
from splat.codes import LanguageField
from splat.gaussians import Gaussians, save_ply
from splat.interchange.langsplat_v2 import find_checkpoint, read_levels
from splat.run import Run, file_digest
from splat.same_training import WITHOUT_PHOTOS
from splat.scene import Camera, load_scene, save_cameras
from splat.scene.cameras import PictureSize, Row3
from splat.scene.capture import view_names
from splat.scene.images import IMAGE_SUFFIXES
from splat.scene.scale import automatic_scale
from splat.train_config import TrainConfig


class _CameraOf3dgs(PictureSize):
    """A camera in the ``cameras.json`` that 3DGS writes beside its results.

    Attributes:
        position: of the camera in the world. rotation: camera to world.
    """

    img_name: str = Field(min_length=1)
    position: Row3
    rotation: Annotated[list[Row3], Field(min_length=3, max_length=3)]
    fx: FiniteFloat = Field(gt=0)
    fy: FiniteFloat = Field(gt=0)


def read_3dgs_cameras(path: Path) -> list[Camera]:
    """The cameras of a ``cameras.json`` of 3DGS, whose optical axis is in the middle of the picture.

    They are called as `splat.scene.load_scene` would call the photos.

    Raises:
        InputError: the file is missing, not of this kind, or has two cameras or more of one name.
    """
    try:
        records = TypeAdapter(list[_CameraOf3dgs]).validate_python(parse_json(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(
            f"The cameras {path} cannot be read ({error.strerror}); say where the photos are with --scene."
        ) from error
    except (ValidationError, ValueError) as error:
        raise InputError(f"{path} is no cameras.json of 3DGS ({str(error).splitlines()[0]}).") from error
    if not records:
        raise InputError(f"{path} names no cameras; say where the photos are with --scene.")
    cameras = []
    for name, one in zip(_names([record.img_name for record in records], path), records, strict=True):
        viewmat = np.eye(4)
        viewmat[:3, :3] = np.array(one.rotation).T
        viewmat[:3, 3] = -viewmat[:3, :3] @ one.position
        K = np.array([[one.fx, 0, one.width / 2], [0, one.fy, one.height / 2], [0, 0, 1]])
        cameras.append(Camera(name, one.width, one.height, K, viewmat))
    return sorted(cameras, key=lambda camera: camera.name)


def _names(files: list[str], path: Path) -> list[str]:
    """Names of views by ``img_name``, which is a file's name, with its folder or not, and mostly without its suffix."""
    for file, count in Counter(files).items():
        if not file.replace("\\", "/").rpartition("/")[2].strip("."):
            raise InputError(f"{path} has a camera whose img_name {file!r} names no image.")
        if count > 1:
            raise InputError(
                f"{path} has {count} cameras for the image {file}, perhaps of several folders; say where these are "
                "with --scene."
            )
    # What stands behind another dot is no suffix: IMG.0001 and IMG.0002 are two.
    return view_names([file if Path(file).suffix.lower() in IMAGE_SUFFIXES else f"{file}.png" for file in files], path)


def import_langsplat_v2(
    paths: Sequence[Path],
    folder: Path,
    encoder: Encoder,
    nonzeros: int = 4,
    scene: Path | None = None,
    scale: float | None = None,
    hold_out: int = 0,
    report: Report = silent,
) -> None:
    """Make a run folder from checkpoints of LangSplatV2.

    Args:
        paths: checkpoints or model folders, see `splat.interchange.langsplat_v2.read_levels`.
        folder: the run; must not be one already.
        encoder: what the features were made with.
        scene: the photos that the scene was trained on; its cameras are taken, and the run can be scored against the
            photos. Without it the cameras of the first model folder's ``cameras.json`` are taken.
        scale: of the photos, see `splat.train_config.TrainConfig`; only with ``scene``.
        hold_out: every so-manieth view was held out of its training. 0 for none: so LangSplatV2 trains, unless it was
            started with --eval, when it was 8.

    Raises:
        InputError: a checkpoint, the cameras, the encoder, an option or the folder cannot be used.
    """
    if scale is not None and scene is None:
        raise InputError("--scale shrinks photos, and none were given; say where they are with --scene.")

    def read() -> tuple[Gaussians, LanguageField]:
        gaussians, field = read_levels(paths, encoder.name, nonzeros)
        if field.atoms.shape[2] != encoder.dim:
            raise InputError(
                f"The codebooks have {field.atoms.shape[2]} dimensions, the encoder {encoder.name} {encoder.dim}; "
                "name the right one with --encoder."
            )
        return gaussians, field

    source = find_checkpoint(paths[0])
    config = TrainConfig(scene or source.parent, scale, encoder=encoder.name, nonzeros=nonzeros, hold_out=hold_out)
    config.check()
    _make_run(folder, read, source, scene, config, report)


def _make_run(
    folder: Path,
    read: Callable[[], tuple[Gaussians, LanguageField]],
    source: Path,
    scene: Path | None,
    config: TrainConfig,
    report: Report,
) -> None:
    with storage_errors(folder), Run.locked(folder) as run:
        if run.record is not None:
            raise InputError(f"{folder} is a run already; choose another --out.")
        report(0, 3, "reading checkpoints")
        gaussians, field = read()
        report(1, 3, "reading cameras")
        if scene is None:
            cameras = read_3dgs_cameras(source.parent / "cameras.json")
            held_out = [camera.name for camera in cameras[:: config.hold_out]] if config.hold_out else []
            fingerprint = f"{WITHOUT_PHOTOS}{source.absolute()}"
        else:
            config = replace(config, scale=config.scale or automatic_scale(scene))
            loaded = load_scene(
                scene, config.scale or 1.0, run.scene_cache_path, with_points=False, hold_out=config.hold_out
            )
            cameras, held_out, fingerprint = loaded.cameras, loaded.test_names, loaded.fingerprint
        report(2, 3, "writing the run")
        save_ply(run.gaussians_path, gaussians)
        field.save(run.language_path)
        save_cameras(run.cameras_path, cameras, held_out)
        digest = file_digest(run.gaussians_path)
        atoms, nonzeros = field.atoms.shape[1], field.indices.shape[2]
        run.begin(replace(config, atoms=atoms, nonzeros=nonzeros).to_json(), fingerprint)
        run.mark("rgb", "done", {"digest": digest}, 0.0, {"digest": digest, "gaussians": len(gaussians)})
        run.mark("language", "done", {"gaussians": digest, "imported": str(source.absolute())}, 0.0)
        views = f"{len(cameras)} cameras, {len(held_out)} of them held out"
        report(3, 3, f"{len(gaussians):,} Gaussians with {field.levels} levels, {views}")
