"""Gaussians trained elsewhere, for a scene that is read here: moved into its frame, and held against its photos.

nerfstudio turns, moves and shrinks a scene before it trains, and exports Gaussians in that frame. What it did stands in
``dataparser_transforms.json`` beside the training's ``config.yml``; with a copy of it beside the PLY it is undone.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, Field, FiniteFloat, ValidationError
from scipy.spatial.transform import Rotation
from scipy.special import sph_harm_y

from encoders.errors import InputError
from encoders.files import parse_json
from splat.evaluate import renderer
from splat.gaussians import Gaussians
from splat.image_metrics import psnr
from splat.scene import Scene
from splat.scene.cameras import Row4, first_problem

DATA_PARSER = "dataparser_transforms.json"

VIEWS_TO_COMPARE = 4
"""Training views, spread evenly, by which Gaussians are held against the photos."""

_NOT_ROTATION = 1e-3
_BEFORE_IT_WAS_SAID = ((0, 1, 0, 0), (1, 0, 0, 0), (0, 0, -1, 0))
"""What nerfstudio did to COLMAP's axes when it did not write ``applied_transform`` yet."""

_Record = TypeVar("_Record", bound=BaseModel)
Row34 = Annotated[list[Row4], Field(min_length=3, max_length=3)]


class _DataParser(BaseModel):
    """What nerfstudio did to the original scene: first the transform, then the scale."""

    transform: Row34
    scale: FiniteFloat = Field(gt=0)


class _Applied(BaseModel):
    """What had been done to the original scene before ``transforms.json`` was written."""

    applied_transform: Row34 | None = None
    applied_scale: FiniteFloat = Field(default=1.0, gt=0)


def is_moved(source: Path) -> bool:
    """Whether a file beside ``source`` says that its Gaussians lie in a frame of nerfstudio's."""
    return (source.parent / DATA_PARSER).is_file()


def in_frame_of(gaussians: Gaussians, source: Path, scene: Path) -> Gaussians:
    """The Gaussians of ``source`` in the coordinates of ``scene``; they themselves if nothing says that they moved.

    Raises:
        InputError: ``dataparser_transforms.json`` beside ``source`` cannot be used.
    """
    if not is_moved(source):
        return gaussians
    path = source.parent / DATA_PARSER
    parsed = _read(path, _DataParser)
    applied, earlier = _applied(scene)
    # From the scene's frame, which the original was brought into by ``earlier``, to theirs.
    moved_by = _square(parsed.transform) @ np.linalg.inv(earlier)
    rotation, translation, scale = moved_by[:3, :3], moved_by[:3, 3], parsed.scale / applied
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=_NOT_ROTATION) or np.linalg.det(rotation) < 0:
        raise InputError(f"{path} does not turn the scene {scene} but bends it; remove it if it is of another scene.")
    return moved(gaussians, rotation.T, -rotation.T @ translation, 1 / scale)


def moved(
    gaussians: Gaussians, rotation: NDArray[np.float64], translation: NDArray[np.float64], scale: float
) -> Gaussians:
    """The scene shrunk by ``scale``, then turned by ``rotation`` [3, 3], then moved by ``translation`` [3].

    A point x comes to lie at ``rotation @ (scale * x) + translation``. Colours that depend on the direction turn too.
    """
    turn = Rotation.from_matrix(rotation)
    places = gaussians.means.detach().double().cpu().numpy() * scale
    quats = gaussians.quats.detach().double().cpu().numpy()
    x, y, z, w = turn.as_quat()
    # Their product, whatever their lengths are.
    product = np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]])
    sh = gaussians.sh.detach().double().cpu().numpy().copy()
    for degree in range(1, 4):
        band = slice(degree**2, (degree + 1) ** 2)
        sh[:, band] = np.einsum("ij,njc->nic", _band_matrix(degree, turn), sh[:, band])
    return replace(
        gaussians,
        means=_like(gaussians.means, turn.apply(places) + translation),
        quats=_like(gaussians.quats, quats @ product.T),
        log_scales=gaussians.log_scales + float(np.log(scale)),
        sh=_like(gaussians.sh, sh),
    )


def complaint(gaussians: Gaussians, scene: Scene) -> str:
    """What to say of Gaussians that show less of the scene's photos than a plain picture would; empty if they do not.

    They are compared in `VIEWS_TO_COMPARE` training views, by PSNR, with each photo's mean colour.
    """
    render = renderer(gaussians)
    chosen = scene.train[:: -(-len(scene.train) // VIEWS_TO_COMPARE)]
    photos = [scene.image(index) / np.float32(255) for index in chosen]
    theirs = np.mean([psnr(render(scene.cameras[i]), photo) for i, photo in zip(chosen, photos, strict=True)])
    plain = np.mean([psnr(np.broadcast_to(photo.mean(axis=(0, 1)), photo.shape), photo) for photo in photos])
    if theirs >= plain:
        return ""
    return (
        f"they do not show the photos ({theirs:.1f} dB, their mean colour alone {plain:.1f}): are they of this scene, "
        "and in its coordinates?"
    )


def _applied(scene: Path) -> tuple[float, NDArray[np.float64]]:
    """What ``transforms.json`` says was done to the original scene: a scale and a transform [4, 4]."""
    path = scene if scene.suffix.lower() == ".json" else scene / "transforms.json"
    if not path.is_file():
        return 1.0, np.eye(4)
    applied = _read(path, _Applied)
    if applied.applied_transform is not None:
        return applied.applied_scale, _square(applied.applied_transform)
    old = (path.parent / "colmap" / "sparse" / "0").exists()
    return applied.applied_scale, _square(_BEFORE_IT_WAS_SAID) if old else np.eye(4)


def _read(path: Path, kind: type[_Record]) -> _Record:
    try:
        return kind.model_validate(parse_json(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error
    except ValidationError as error:
        raise InputError(f"{path} is not usable: {first_problem(error)}.") from error
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}).") from error


def _square(rows: object) -> NDArray[np.float64]:
    return np.vstack([np.array(rows, np.float64), [0, 0, 0, 1]])


def _band_matrix(degree: int, turn: Rotation) -> NDArray[np.float64]:
    """How one degree's coefficients change when what they describe is turned. [2 degree + 1, 2 degree + 1]

    The turned colour in a direction is the old one in the direction turned back, and harmonics of one degree turn into
    each other: solved from more directions than there are unknowns.
    """
    directions = np.random.default_rng(degree).normal(size=(32, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    matrix, *_ = np.linalg.lstsq(
        _harmonics(degree, directions), _harmonics(degree, turn.inv().apply(directions)), rcond=None
    )
    return np.asarray(matrix, np.float64)


def _harmonics(degree: int, directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """The real harmonics of one degree as 3DGS has them, in orders -degree to degree. [P, 2 degree + 1]"""
    polar, azimuth = np.arccos(directions[:, 2].clip(-1, 1)), np.arctan2(directions[:, 1], directions[:, 0])
    values = [sph_harm_y(degree, order, polar, azimuth) for order in range(degree + 1)]
    sines = [np.sqrt(2) * values[order].imag for order in range(degree, 0, -1)]
    cosines = [np.sqrt(2) * values[order].real for order in range(1, degree + 1)]
    return np.stack([*sines, values[0].real, *cosines], axis=1)


def _like(tensor: torch.Tensor, values: NDArray[np.float64]) -> torch.Tensor:
    return torch.as_tensor(values, dtype=tensor.dtype, device=tensor.device)
