"""A trained run at a glance: what can be said of it before its Gaussians are loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from splat.codes import LanguageField
from splat.gaussians import ply_vertices
from splat.run import Run
from splat.scene import Camera, load_cameras
from splat.trained import Trained


@dataclass(frozen=True)
class Outline:
    """What a list of runs tells of one.

    Attributes:
        folder: the run folder.
        encoder: that it was described with.
        gaussians: how many.
        views: names of its cameras, held-out ones first.
    """

    folder: Path
    encoder: str
    gaussians: int
    views: tuple[str, ...]

    @classmethod
    def of(cls, trained: Trained) -> "Outline":
        """The outline of a run that is loaded."""
        views = _held_out_first(trained.cameras, trained.test_names)
        return cls(trained.folder, trained.field.encoder, len(trained.gaussians), views)

    @classmethod
    def read(cls, folder: Path) -> "Outline":
        """Look at a run whose stages are all finished; of the Gaussians only the number is read.

        Raises:
            InputError: not a run folder, not finished, damaged, from a newer version, or its files do not
                belong together. Values that make no sense are found only by `Trained.load`.
        """
        run = Run.open(folder)
        run.require("rgb", "language")
        run.check_language()
        field = LanguageField.load(run.language_path)
        count = ply_vertices(run.gaussians_path).count
        run.check_counts(count, len(field))
        return cls(run.folder, field.encoder, count, _held_out_first(*load_cameras(run.cameras_path)))


def _held_out_first(cameras: Sequence[Camera], test_names: Sequence[str]) -> tuple[str, ...]:
    held_out = set(test_names)
    return tuple(sorted((camera.name for camera in cameras), key=lambda name: (name not in held_out, name)))
