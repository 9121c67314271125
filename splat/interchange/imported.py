"""A run folder from a scene that another program trained."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, Field, FiniteFloat, TypeAdapter, ValidationError

from encoders.base import Encoder
from encoders.errors import InputError
from encoders.files import parse_json
from encoders.progress import Report, silent
from encoders.storage import storage_errors
from splat.codes import LanguageField
from splat.gaussians import Gaussians, save_ply
from splat.interchange.langsplat_v2 import find_checkpoint, read_levels
from splat.run import Run, file_digest
from splat.scene import Camera, load_scene, save_cameras
from splat.scene.cameras import Row3
from splat.scene.scale import automatic_scale
from splat.train_config import TrainConfig


class _CameraOf3dgs(BaseModel):
    """A camera in the ``cameras.json`` that 3DGS writes beside its results.

    Attributes:
        position: of the camera in the world. rotation: camera to world.
    """

    img_name: str = Field(min_length=1)
    width: int = Field(gt=0, le=100_000)
    height: int = Field(gt=0, le=100_000)
    position: Row3
    rotation: Annotated[list[Row3], Field(min_length=3, max_length=3)]
    fx: FiniteFloat = Field(gt=0)
    fy: FiniteFloat = Field(gt=0)


def read_3dgs_cameras(path: Path) -> list[Camera]:
    """The cameras of a ``cameras.json`` of 3DGS, whose optical axis is in the middle of the picture.

    Raises:
        InputError: the file is missing or not of this kind.
    """
    try:
        records = TypeAdapter(list[_CameraOf3dgs]).validate_python(parse_json(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(
            f"The cameras {path} cannot be read ({error.strerror}); say where the photos are with --scene."
        ) from error
    except (ValidationError, ValueError) as error:
        raise InputError(f"{path} is no cameras.json of 3DGS ({str(error).splitlines()[0]}).") from error
    cameras: dict[str, Camera] = {}
    for one in records:
        viewmat = np.eye(4)
        viewmat[:3, :3] = np.array(one.rotation).T
        viewmat[:3, 3] = -viewmat[:3, :3] @ one.position
        K = np.array([[one.fx, 0, one.width / 2], [0, one.fy, one.height / 2], [0, 0, 1]])
        name = Path(one.img_name).stem
        cameras.setdefault(name, Camera(name, one.width, one.height, K, viewmat))
    if not cameras:
        raise InputError(f"{path} names no cameras; say where the photos are with --scene.")
    return sorted(cameras.values(), key=lambda camera: camera.name)


def import_langsplat_v2(
    paths: Sequence[Path],
    folder: Path,
    encoder: Encoder,
    nonzeros: int = 4,
    scene: Path | None = None,
    scale: float | None = None,
    report: Report = silent,
) -> None:
    """Make a run folder from checkpoints of LangSplatV2.

    Args:
        paths: checkpoints or model folders, see `splat.interchange.langsplat_v2.read_levels`.
        folder: the run; must not be one already.
        encoder: what the features were made with.
        scene: the photos that the scene was trained on; its cameras are taken, and the run can be scored against the
            photos. Without it the cameras of the first model folder's ``cameras.json`` are taken.
        scale: of the photos, see `splat.train_config.TrainConfig`.

    Raises:
        InputError: a checkpoint, the cameras, the encoder or the folder cannot be used.
    """

    def read() -> tuple[Gaussians, LanguageField]:
        gaussians, field = read_levels(paths, encoder.name, nonzeros)
        if field.atoms.shape[2] != encoder.dim:
            raise InputError(
                f"The codebooks have {field.atoms.shape[2]} dimensions, the encoder {encoder.name} {encoder.dim}; "
                "name the right one with --encoder."
            )
        return gaussians, field

    _make_run(folder, read, find_checkpoint(paths[0]), scene, scale, encoder.name, report)


def _make_run(
    folder: Path,
    read: Callable[[], tuple[Gaussians, LanguageField]],
    source: Path,
    scene: Path | None,
    scale: float | None,
    encoder: str,
    report: Report,
) -> None:
    with storage_errors(folder), Run.locked(folder) as run:
        if run.record is not None:
            raise InputError(f"{folder} is a run already; choose another --out.")
        report(0, 3, "reading checkpoints")
        gaussians, field = read()
        report(1, 3, "reading cameras")
        if scene is None:
            cameras, held_out = read_3dgs_cameras(source.parent / "cameras.json"), []
            fingerprint = f"imported from {source.absolute()}"
        else:
            scale = scale or automatic_scale(scene)
            loaded = load_scene(scene, scale, run.scene_cache_path, with_points=False)
            cameras, held_out, fingerprint = loaded.cameras, loaded.test_names, loaded.fingerprint
        report(2, 3, "writing the run")
        save_ply(run.gaussians_path, gaussians)
        field.save(run.language_path)
        save_cameras(run.cameras_path, cameras, held_out)
        digest = file_digest(run.gaussians_path)
        atoms, nonzeros = field.atoms.shape[1], field.indices.shape[2]
        config = TrainConfig(scene or source.parent, scale, encoder=encoder, atoms=atoms, nonzeros=nonzeros)
        run.begin(config.to_json(), fingerprint)
        run.mark("rgb", "done", {"digest": digest}, 0.0, {"digest": digest, "gaussians": len(gaussians)})
        run.mark("language", "done", {"gaussians": digest, "imported": str(source.absolute())}, 0.0)
        report(3, 3, f"{len(gaussians):,} Gaussians with {field.levels} levels, {len(cameras)} cameras")
