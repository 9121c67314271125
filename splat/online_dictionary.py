"""A dictionary that learns from views as they come.

Online dictionary learning (Mairal et al., JMLR 2010): what was seen so far is kept as two small matrices,
``A = Σ c cᵀ`` and ``B = Σ c xᵀ``; each batch is coded with the dictionary of the moment, added to them, and the atoms
are improved one after the other. Old batches fade, so that codes of a bad beginning do not stay for ever.

No view is kept, so a stream of them can be learnt from: `learn_view`, with `OnlineDictionary.save` and `load` between
two sittings. `online_dictionary`, what fits start from, has all views at hand and goes through them twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from encoders.checkpoints import load_checkpoint, save_checkpoint
from encoders.errors import InputError
from encoders.progress import Report, silent
from splat.codes import densify
from splat.coding import CODINGS, Coding, code
from splat.region_views import NO_REGIONS, RegionView, RegionViews

FORMAT = "dictsplat.online_dictionary"
"""Of the files of `OnlineDictionary.save`; with `VERSION`."""
VERSION = "1"

_DEAD = 1e-6
"""Share of the mean usage below which an atom counts as unused."""
_MISSED = 1e-3
"""Error of a unit vector above which an unused atom may become it."""


@dataclass
class OnlineDictionary:
    """One level's dictionary and what it remembers.

    Attributes:
        atoms: unit vectors. float32 [L, D]
        products: ``A``. float64 [L, L]
        targets: ``B``. float64 [L, D]
        nonzeros: K of the codes. coding: see `splat.coding`.
        memory: what a batch's statistics are multiplied by when the next one comes, 0..1; 1 forgets nothing.
    """

    atoms: torch.Tensor
    products: torch.Tensor
    targets: torch.Tensor
    nonzeros: int = 4
    coding: Coding = "nonnegative"
    memory: float = 0.95

    @classmethod
    def start(
        cls, atoms: torch.Tensor, nonzeros: int = 4, coding: Coding = "nonnegative", memory: float = 0.95
    ) -> "OnlineDictionary":
        """With unit vectors [L, D] that know nothing yet."""
        count, _ = atoms.shape
        products = atoms.new_zeros(count, count, dtype=torch.float64)
        return cls(atoms.clone(), products, torch.zeros_like(atoms, dtype=torch.float64), nonzeros, coding, memory)

    def save(self, path: Path) -> None:
        """Write all that it knows, atomically; the file before is kept beside it (`encoders.checkpoints`)."""
        tensors = {"atoms": self.atoms, "products": self.products, "targets": self.targets}
        settings = {"nonzeros": str(self.nonzeros), "coding": self.coding, "memory": repr(self.memory)}
        save_checkpoint(path, tensors, {"format": FORMAT, "version": VERSION, **settings})

    @classmethod
    def load(cls, path: Path) -> "OnlineDictionary":
        """Read what `save` wrote, on the CPU; it goes on learning bit for bit as if it had not been away.

        Raises:
            InputError: the file is missing, damaged, of another version, or no such dictionary.
        """
        found = load_checkpoint(path)
        if found is None:
            raise InputError(f"The dictionary {path} does not exist; check the path.")
        about, tensors = found.metadata, found.tensors
        if about.get("format") != FORMAT:
            raise InputError(f"{path} holds no online dictionary; give a file of OnlineDictionary.save.")
        if about.get("version") != VERSION:
            raise InputError(
                f"{path} has version {about.get('version')}, this dictsplat reads {VERSION}; update dictsplat."
            )
        try:
            loaded = cls(
                **{name: tensors[name] for name in ("atoms", "products", "targets")},
                nonzeros=int(about["nonzeros"]),
                coding=cast(Coding, about["coding"]),
                memory=float(about["memory"]),
            )
        except (KeyError, ValueError):
            raise InputError(f"{path} lacks a part; learn the dictionary again.") from None
        problem = loaded._problem()
        if problem:
            raise InputError(f"{path} has {problem}; learn the dictionary again.")
        return loaded

    def _problem(self) -> str:
        """What contradicts itself, in words; empty if nothing."""
        count = self.atoms.shape[0] if self.atoms.ndim else 0
        kinds = self.atoms.dtype, self.products.dtype, self.targets.dtype
        shapes = self.products.shape == (count, count) and self.targets.shape == self.atoms.shape
        if self.atoms.ndim != 2 or not shapes or kinds != (torch.float32, torch.float64, torch.float64):
            return "atoms and statistics of shapes that do not go together"
        if not all(bool(torch.isfinite(one).all()) for one in (self.atoms, self.products, self.targets)):
            return "values that are not finite"
        if self.coding not in CODINGS or not 1 <= self.nonzeros <= count or not 0 <= self.memory <= 1:
            return "settings that no dictionary can have"
        return ""

    def learn(self, vectors: torch.Tensor, weights: torch.Tensor | None = None) -> None:
        """Take in a batch.

        Args:
            vectors: float [M, D].
            weights: how much each counts, at least 0, in one unit for all batches: a batch of small weights changes
                little. float [M]; 1 for each if None.
        """
        if not len(vectors):
            return
        shares = vectors.new_ones(len(vectors)) if weights is None else weights.to(vectors)
        shares = shares.sqrt()[:, None]
        indices, values = code(vectors @ self.atoms.T, self.atoms @ self.atoms.T, self.nonzeros, self.coding)
        dense = densify(indices, values, len(self.atoms)) * shares
        self.products = self.memory * self.products + (dense.T @ dense).double()
        self.targets = self.memory * self.targets + (dense.T @ (vectors * shares)).double()
        self._revive(vectors, indices, values, shares[:, 0])
        self.atoms = improved(self.atoms, self.products, self.targets)

    def _revive(self, vectors: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, shares: torch.Tensor) -> None:
        """Make the unused atoms of what the batch coded worst."""
        usage = self.products.diagonal()
        dead = torch.nonzero(usage <= _DEAD * usage.mean())[:, 0]
        if not len(dead):
            return
        missed = vectors - densify(indices, values, len(self.atoms)) @ self.atoms
        lengths = missed.norm(dim=1)
        errors = torch.where(lengths > _MISSED, lengths * shares, 0)
        for atom in dead.cpu().tolist():
            worst = int(errors.argmax())
            if float(errors[worst]) <= 0:
                return
            self.atoms[atom] = torch.nn.functional.normalize(vectors[worst], dim=0)
            self.targets[atom] = 0
            # What is like it needs no atom of its own any more.
            errors[vectors @ self.atoms[atom] > 0.95 * vectors.norm(dim=1)] = 0


def improved(atoms: torch.Tensor, products: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """One pass over the atoms (Mairal et al., algorithm 2), each put where it is best while the others stay.

    Args:
        atoms: unit vectors [L, D]. products: ``A`` [L, L]. targets: ``B`` [L, D].

    Returns:
        Unit vectors, float32 [L, D]; an atom that no code uses stays as it is.
    """
    fresh = atoms.double()
    usage = products.diagonal()
    for atom in torch.nonzero(usage > _DEAD * usage.mean())[:, 0].cpu().tolist():
        moved = fresh[atom] + (targets[atom] - products[atom] @ fresh) / usage[atom]
        length = float(moved.norm())
        if length > 1e-9:
            fresh[atom] = moved / length
    return fresh.float()


def learn_view(dictionaries: Sequence[OnlineDictionary], view: RegionView) -> bool:
    """Take in a view: each level's dictionary its regions there, which count by their share of the view's pixels.

    So every view has the same say, whatever its size and however many regions it was cut into, but for pixels that lie
    in none.

    Returns:
        Whether the view has a region at any of the levels.
    """
    seen = False
    for level, dictionary in enumerate(dictionaries):
        area = view.areas(level)
        present = area > 0
        seen |= bool(present.any())
        dictionary.learn(view.embeddings[present], area[present].float() / view.ids.shape[1])
    return seen


def online_dictionary(
    views: RegionViews,
    levels: int,
    atoms: int,
    nonzeros: int = 4,
    coding: Coding = "nonnegative",
    seed: int = 0,
    passes: int = 2,
    report: Report = silent,
) -> torch.Tensor:
    """Learn a dictionary per level from the regions of views, one view after the other.

    Args:
        passes: how often all views are gone through.

    Returns:
        unit-norm atoms, on the device of the views. float32 [levels, L, D]

    Raises:
        InputError: no view has a region at any level.
    """
    generator = torch.Generator().manual_seed(seed)
    known: list[OnlineDictionary] = []
    seen = False
    for step in range(passes * len(views)):
        view = views.view(step % len(views))
        if not known:
            for _ in range(levels):
                start = torch.randn(atoms, view.embeddings.shape[1], generator=generator)
                unit = torch.nn.functional.normalize(start, dim=1).to(view.embeddings)
                known.append(OnlineDictionary.start(unit, nonzeros, coding))
        seen |= learn_view(known, view)
        report(step + 1, passes * len(views), "learning the dictionary")
    if not seen:
        raise InputError(NO_REGIONS)
    return torch.stack([dictionary.atoms for dictionary in known])
