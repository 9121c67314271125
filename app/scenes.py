"""The trained scenes that the app shows: the only run folders a visitor can reach, and only by their position."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import encoders
from encoders.errors import InputError
from splat.device import splat_device
from splat.feature_colors import gaussian_colors
from splat.scene.orbit import scene_up
from splat.train_config import pick_device
from splat.trained import Trained


@dataclass(eq=False)
class Shown:
    """A scene with what is worked out once for all visitors.

    Attributes:
        name: what visitors read.
        trained: Gaussians, language field and cameras.
    """

    name: str
    trained: Trained
    _colors: dict[int, Tensor] = field(default_factory=dict)
    _guard: Lock = field(default_factory=Lock)

    @cached_property
    def up(self) -> NDArray[np.float64]:
        """The scene's upright, a unit vector."""
        return scene_up(self.trained.cameras)

    def feature_colors(self, level: int) -> Tensor:
        """Each Gaussian's feature of a level as a colour. float32 [N, 3]"""
        with self._guard:
            if level not in self._colors:
                self._colors[level] = gaussian_colors(self.trained.gaussians, self.trained.field, level)
            return self._colors[level]


class Scenes:
    """Trained scenes by position, and the encoders they are asked with, each loaded once.

    Args:
        folders: run folders to begin with; more may be added while the app runs.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        InputError: one of the folders is no finished run.
    """

    def __init__(self, folders: Sequence[Path] = (), device: str = "auto") -> None:
        self._device = device
        self._shown: list[Shown] = []
        self._encoders: dict[str, encoders.Encoder] = {}
        self._guard, self._loading = Lock(), Lock()
        for folder in folders:
            self.add(folder)

    def __len__(self) -> int:
        return len(self._shown)

    def add(self, folder: Path) -> int:
        """Show another finished run, or one that is shown already as it is now.

        Returns:
            Its position, which it keeps.

        Raises:
            InputError: it is no finished run.
        """
        place = folder.resolve()
        scene = Shown(place.name, Trained.load(place, splat_device(self._device)))
        with self._guard:
            known = [shown.trained.folder for shown in self._shown]
            if place in known:
                self._shown[known.index(place)] = scene
                return known.index(place)
            self._shown.append(scene)
            return len(self._shown) - 1

    def names(self) -> list[tuple[str, int]]:
        """(label, position) of every scene; those that are called alike are numbered."""
        labels: list[str] = []
        for shown in self._shown:
            again = sum(label.split(" (")[0] == shown.name for label in labels)
            labels.append(f"{shown.name} ({again + 1})" if again else shown.name)
        return [(label, position) for position, label in enumerate(labels)]

    def get(self, position: int) -> Shown:
        """The scene at a position.

        Raises:
            InputError: there is none.
        """
        if not self._shown:
            raise InputError("There is no scene yet; make one in the tab New scene.")
        if not isinstance(position, int) or not 0 <= position < len(self._shown):
            raise InputError(f"There is no scene {position}; their numbers go from 0 to {len(self._shown) - 1}.")
        return self._shown[position]

    def views(self, position: int) -> list[str]:
        """Names of a scene's cameras, held-out ones first."""
        trained = self.get(position).trained
        held_out = set(trained.test_names)
        return sorted((camera.name for camera in trained.cameras), key=lambda name: (name not in held_out, name))

    def encoder(self, position: int) -> encoders.Encoder:
        """The encoder that a scene was fitted with, loaded when it is first asked for.

        Raises:
            InputError: there is no such scene, or its encoder cannot be loaded.
        """
        name = self.get(position).trained.field.encoder
        with self._loading:
            if name not in self._encoders:
                self._encoders[name] = encoders.create(name, device=pick_device(self._device))
            return self._encoders[name]
