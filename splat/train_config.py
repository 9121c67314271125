"""What a training is asked to do, checked before any work starts."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from encoders.devices import parse_device
from encoders.errors import InputError
from splat.coding import Coding
from splat.run import STAGES

PRESETS = ("fast", "default", "paper")
SOLVERS = ("lift", "sgd")
STRATEGIES = ("default", "mcmc")


@dataclass(frozen=True)
class TrainConfig:
    """What a training is asked to do.

    Attributes:
        scene: folder of photos, COLMAP folder, folder with `transforms.json`, or video.
        scale: images are resized by it first; None picks 1, 1/2, 1/4, ... for about 1000 pixels at most.
        hold_out: every so-manieth view is held out, 0 for none; None keeps the scene's own split, or takes 8, see
            `splat.scene.load_scene`.
        preset: "fast", "default" or "paper", see `splat.fit_rgb.RgbConfig`.
        strategy: "default" or "mcmc", how Gaussians are added and removed, see there too.
        stages: the ones to run, of `splat.run.STAGES`; earlier ones must then be done already.
        encoder, regions: names for `encoders.create` and `encoders.create_regions`.
        solver: "lift" (closed form) or "sgd" (the paper's).
        atoms, nonzeros: dictionary size per level, and how many of its atoms a Gaussian uses.
        coding, dictionary: how codes are chosen and what dictionaries start from, see `splat.fit_language`.
        device: "auto", "cpu", "cuda" or "cuda:N", see `splat.device` for splatting and `pick_device` for encoders.
        gaussians: a 3DGS PLY trained elsewhere, in this scene's coordinates; replaces the rgb stage.
        features: a folder of LangSplat's features of these photos (`splat.interchange.langsplat_features`), of
            ``encoder``; replaces the features stage.
    """

    scene: Path
    scale: float | None = None
    hold_out: int | None = None
    preset: str = "default"
    strategy: Literal["default", "mcmc"] = "default"
    stages: tuple[str, ...] = STAGES
    encoder: str = "embedded"
    regions: str = "embedded"
    solver: Literal["lift", "sgd"] = "lift"
    atoms: int = 64
    nonzeros: int = 4
    coding: Coding = "nonnegative"
    dictionary: Literal["kmeans", "online"] | None = None
    device: str = "auto"
    seed: int = 0
    gaussians: Path | None = None
    features: Path | None = None

    def check(self) -> None:
        """Raise `InputError` for values no training can use (`LanguageConfig` checks its own)."""
        _one_of("--preset", self.preset, PRESETS)
        _one_of("--strategy", self.strategy, STRATEGIES)
        _one_of("--solver", self.solver, SOLVERS)
        parse_device(self.device)
        if not self.stages:
            raise InputError(f"--stages is empty; give some of {','.join(STAGES)}.")
        for stage in self.stages:
            _one_of("--stages", stage, STAGES)
        if self.scale is not None and not 0.0 < self.scale <= 1.0:
            raise InputError(f"--scale is {self.scale}; give a number above 0 and up to 1.")
        if self.hold_out is not None and (self.hold_out < 0 or self.hold_out == 1):
            raise InputError(f"--hold-out is {self.hold_out}; give 0 to train on all views, or a number from 2.")
        if self.gaussians is not None and not self.gaussians.is_file():
            raise InputError(f"The Gaussians {self.gaussians} do not exist; check --gaussians.")
        if self.features is not None and not self.features.is_dir():
            raise InputError(f"The features folder {self.features} does not exist; check --features.")

    def to_json(self) -> dict[str, Any]:
        """The config as `run.json` keeps it, with absolute paths."""
        given = {"scene": self.scene, "gaussians": self.gaussians, "features": self.features}
        paths = {name: None if path is None else str(path.absolute()) for name, path in given.items()}
        return asdict(self) | paths | {"stages": list(self.stages)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], source: Path) -> "TrainConfig":
        """Read what `to_json` wrote into ``source``, a `run.json`.

        Raises:
            InputError: a key is missing, unknown, or has a value of another type.
        """
        unknown = sorted(value.keys() - {field.name for field in fields(cls)})
        if unknown:
            raise InputError(
                f"{source} has an option {unknown[0]!r} that this dictsplat does not know; upgrade dictsplat, "
                "or train into another --out."
            )
        try:
            # Before there was a choice it was this.
            return TypeAdapter(cls).validate_python({"dictionary": "kmeans", **value})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in ("config", *first["loc"]))
            raise InputError(
                f"{source} is damaged ({where}: {first['msg']}); restore it, or train into another --out."
            ) from error


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{option} is {value!r}; give one of {', '.join(allowed)}.")
