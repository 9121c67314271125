"""A trained run, loaded for asking: Gaussians, language field and cameras that belong together."""

from dataclasses import dataclass
from pathlib import Path

from encoders.errors import InputError
from splat.codes import LanguageField
from splat.gaussians import Gaussians, load_ply
from splat.run import Run
from splat.scene import Camera, load_cameras


@dataclass(frozen=True)
class Trained:
    """What a query needs.

    Attributes:
        folder: the run folder.
        gaussians: N Gaussians.
        field: their language codes.
        cameras: every camera of the run. test_names: those that were held out from training.
    """

    folder: Path
    gaussians: Gaussians
    field: LanguageField
    cameras: list[Camera]
    test_names: list[str]

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "Trained":
        """Load a run whose stages are all finished, its Gaussians and their codes onto a device.

        Raises:
            InputError: not a run folder, not finished, damaged, from a newer version, or its files do not
                belong together.
        """
        run = Run.open(folder)
        run.require("rgb", "language")
        run.check_language()
        gaussians = load_ply(run.gaussians_path)
        field = LanguageField.load(run.language_path)
        run.check_counts(len(gaussians), len(field))
        cameras, test_names = load_cameras(run.cameras_path)
        return cls(run.folder, gaussians.to(device), field.to(device), cameras, test_names)

    def camera(self, name: str) -> Camera:
        """The camera called ``name``.

        Raises:
            InputError: there is none; the message names some that there are.
        """
        by_name = {camera.name: camera for camera in self.cameras}
        if name not in by_name:
            some = ", ".join(list(by_name)[:5]) + (", ..." if len(by_name) > 5 else "")
            raise InputError(f"{self.folder} has no view {name!r}; its {len(by_name)} views are {some}.")
        return by_name[name]

    def held_out(self) -> list[Camera]:
        """The held-out cameras, or all of them when none was held out."""
        return [camera for camera in self.cameras if camera.name in set(self.test_names)] or self.cameras
