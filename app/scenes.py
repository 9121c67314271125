"""The trained scenes that the app shows: the only run folders a visitor can reach, and only by their position."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock, RLock
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import encoders
from encoders.devices import pick_device
from encoders.errors import InputError
from splat.device import splat_device
from splat.feature_colors import gaussian_colors
from splat.outline import Outline
from splat.scene.orbit import scene_up
from splat.trained import Trained

KEPT = 4
"""Scenes that stay loaded although nobody looks at them, the first one besides."""


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
    """Trained scenes by position, each loaded when it is first shown, and the encoders they are asked with.

    Those that were shown last stay loaded, and so do those that somebody looks at. The first one always does, because
    every page begins with it.

    Args:
        folders: run folders to begin with; more may be added while the app runs.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Attributes:
        left_out: what is wrong with those folders that are no finished runs, a sentence for each.

    Raises:
        InputError: there are folders, and none of them is a finished run.
    """

    def __init__(self, folders: Sequence[Path] = (), device: str = "auto") -> None:
        self._device = device
        self._outlines: list[Outline] = []
        self._recent: OrderedDict[int, Shown] = OrderedDict()
        self._alive: WeakValueDictionary[int, Shown] = WeakValueDictionary()
        self._encoders: dict[str, encoders.Encoder] = {}
        self._guard, self._loading, self._encoding = RLock(), Lock(), Lock()
        self.left_out: list[str] = []
        for folder in folders:
            try:
                if self._outlines:
                    self._list(Outline.read(folder.resolve()))
                else:
                    self.add(folder)
            except InputError as error:
                self.left_out.append(str(error))
        if self.left_out and not self._outlines:
            raise InputError(self.left_out[0])

    def __len__(self) -> int:
        return len(self._outlines)

    def add(self, folder: Path) -> int:
        """Show another finished run, or one that is shown already as it is now.

        Returns:
            Its position, which it keeps.

        Raises:
            InputError: it is no finished run.
        """
        with self._loading:
            scene = self._load(folder.resolve())
            position = self._list(Outline.of(scene.trained))
            self._keep(position, scene)
            return position

    def names(self) -> list[tuple[str, int]]:
        """(label, position) of every scene; those that are called alike are numbered."""
        labels: list[str] = []
        for outline in self._outlines:
            label, number = outline.folder.name, 1
            while label in labels:
                number += 1
                label = f"{outline.folder.name} ({number})"
            labels.append(label)
        return [(label, position) for position, label in enumerate(labels)]

    def outline(self, position: int) -> Outline:
        """What is known about the scene at a position without loading it.

        Raises:
            InputError: there is none.
        """
        if not self._outlines:
            raise InputError("There is no scene yet; make one in the tab New scene.")
        if not isinstance(position, int) or not 0 <= position < len(self._outlines):
            raise InputError(f"There is no scene {position}; their numbers go from 0 to {len(self._outlines) - 1}.")
        return self._outlines[position]

    def get(self, position: int) -> Shown:
        """The scene at a position; the same object for as long as anyone holds it and it is not added anew.

        Raises:
            InputError: there is none, or it was spoilt since it was listed.
        """
        self.outline(position)
        if (scene := self._known(position)) is not None:
            return scene
        with self._loading:
            if (scene := self._known(position)) is not None:  # loaded meanwhile, for somebody else
                return scene
            folder = self.outline(position).folder
            try:
                scene = self._load(folder)
            except InputError as error:
                # Whoever started the app sees its folders; visitors need not.
                raise InputError(str(error).replace(f"{folder.parent}/", "")) from None
            self._list(Outline.of(scene.trained))
            self._keep(position, scene)
            return scene

    def encoder(self, position: int) -> encoders.Encoder:
        """The encoder that a scene was fitted with, loaded when it is first asked for.

        Raises:
            InputError: there is no such scene, or its encoder cannot be loaded.
        """
        name = self.outline(position).encoder
        with self._encoding:
            if name not in self._encoders:
                self._encoders[name] = encoders.create(name, device=pick_device(self._device))
            return self._encoders[name]

    def _load(self, folder: Path) -> Shown:
        return Shown(folder.name, Trained.load(folder, splat_device(self._device)))

    def _list(self, outline: Outline) -> int:
        """The position of a run, which is listed now if it was not."""
        with self._guard:
            known = [each.folder for each in self._outlines]
            if outline.folder in known:
                position = known.index(outline.folder)
                self._outlines[position] = outline
                return position
            self._outlines.append(outline)
            return len(known)

    def _known(self, position: int) -> Shown | None:
        """The scene if it is loaded."""
        with self._guard:
            scene = self._alive.get(position)
            if scene is not None:
                self._keep(position, scene)
            return scene

    def _keep(self, position: int, scene: Shown) -> None:
        """Have a scene stay loaded, and let go of the one that was left alone for longest."""
        with self._guard:
            self._alive[position] = self._recent[position] = scene
            self._recent.move_to_end(position)
            others = [each for each in self._recent if each != 0]
            for old in others[:-KEPT]:
                del self._recent[old]
