"""Gaussians selected in space: shown alone, left out, recoloured, and written to files."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import cast

import torch
from torch import Tensor

import encoders
from app.scenes import Shown
from encoders.errors import InputError
from splat.gaussians import Gaussians, save_ply
from splat.query import select_gaussians
from splat.recolor import hide, recolor
from splat.samples import Sample, SampleEncoder, mean_codes

EVERYTHING, ONLY, WITHOUT, RECOLOURED = "everything", "selection only", "without selection", "selection recoloured"
WAYS = (EVERYTHING, ONLY, WITHOUT, RECOLOURED)
"""How a selection is shown."""

AVERAGE = "the scene on average"
"""A sample must be more like a Gaussian than this is (`splat.prepared.prepare`)."""

KEPT = 4
"""So many changed scenes are kept in memory, for all visitors together; each may be as large as its scene."""


@dataclass(frozen=True)
class Selection:
    """Gaussians that a visitor picked out.

    Attributes:
        names: of the things that were looked for.
        chosen: bool [N]
        way: how it is shown, one of `WAYS`.
        color: RGB 0..1 of a recoloured selection.
    """

    names: tuple[str, ...]
    chosen: Tensor
    way: str = ONLY
    color: tuple[float, float, float] = (1.0, 0.25, 0.2)

    @property
    def count(self) -> int:
        """How many Gaussians."""
        return int(self.chosen.sum())


def select(
    scene: Shown,
    wanted: Mapping[str, Sample | None],
    levels: Mapping[str, int],
    encoder: encoders.Encoder,
    negatives: tuple[str, ...],
    threshold: float,
) -> Selection:
    """The Gaussians of all things looked for together.

    Args:
        wanted: by name; a sample of the scene, or None for a phrase.
        levels: the level at which to select a thing; a phrase that is not in it is selected at its best level.

    Raises:
        InputError: nothing answers to any of them, or as `splat.select.select_gaussians`.
    """
    trained = scene.trained
    chosen = torch.zeros(len(trained.gaussians), dtype=torch.bool, device=trained.gaussians.device)
    for name, sample in wanted.items():
        level = levels.get(name)
        asked, rivals = encoder, negatives
        if sample is not None:
            level = trained.field.levels - 1 if level is None else level
            codes = {name: sample.codes, AVERAGE: mean_codes(trained.gaussians, trained.field)}
            asked = cast(encoders.Encoder, SampleEncoder(encoder, trained.field, level, codes))
            rivals = (*negatives, AVERAGE)
        chosen |= select_gaussians(trained.gaussians, trained.field, name, asked, rivals, level, threshold)
    if not bool(chosen.any()):
        names = ", ".join(repr(name) for name in wanted)
        raise InputError(f"No Gaussian answers to {names}; try another phrase or a lower threshold.")
    return Selection(tuple(wanted), chosen)


def apply(scene: Shown, selection: Selection | None) -> Gaussians:
    """The scene as the selection shows it, with as many Gaussians as before."""
    gaussians = scene.trained.gaussians
    if selection is None or selection.way == EVERYTHING:
        return gaussians
    if selection.way == RECOLOURED:
        return recolor(gaussians, torch.tensor(selection.color), selection.chosen)
    return hide(gaussians, ~selection.chosen if selection.way == ONLY else selection.chosen)


def write_selection(path: Path, scene: Shown, selection: Selection | None, rest: bool) -> None:
    """Write what was selected, or with ``rest`` everything else, as a 3DGS PLY.

    Raises:
        InputError: nothing was selected, or nothing is left.
    """
    if selection is None:
        raise InputError("Nothing is selected; look for something and press Select in 3D first.")
    kept = ~selection.chosen if rest else selection.chosen
    if not bool(kept.any()):
        raise InputError("Nothing is left to write.")
    save_ply(path, scene.trained.gaussians.subset(kept))


@dataclass
class Changed:
    """Changed scenes of the visitors who look at them, as few as memory allows."""

    _kept: "OrderedDict[tuple[int, int], tuple[Shown, Selection, Gaussians]]" = field(default_factory=OrderedDict)
    _guard: Lock = field(default_factory=Lock)

    def __call__(self, scene: Shown, selection: Selection | None) -> Gaussians:
        """`apply`, remembered."""
        if selection is None or selection.way == EVERYTHING:
            return scene.trained.gaussians
        key = (id(scene), id(selection))
        with self._guard:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][2]
        changed = apply(scene, selection)
        with self._guard:
            # Scene and selection are kept with the result, so that their ids are nobody else's meanwhile.
            self._kept[key] = (scene, selection, changed)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return changed
