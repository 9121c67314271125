"""A dictionary that learns from views as they come, and never needs to see one again.

Online dictionary learning (Mairal et al., JMLR 2010): what was seen so far is kept as two small matrices,
``A = Σ c cᵀ`` and ``B = Σ c xᵀ``; each batch is coded with the dictionary of the moment, added to them, and the atoms
are improved one after the other. Old batches fade, so that codes of a bad beginning do not stay for ever.
"""

from dataclasses import dataclass

import torch

from encoders.errors import InputError
from encoders.progress import Report, silent
from splat.codes import densify
from splat.coding import Coding, code
from splat.region_views import NO_REGIONS, RegionViews

_DEAD = 1e-6
"""Share of the mean usage below which an atom counts as unused."""


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

    def learn(self, vectors: torch.Tensor, weights: torch.Tensor | None = None) -> None:
        """Take in a batch.

        Args:
            vectors: float [M, D]. weights: how much each counts, at least 0. float [M]; all the same if None.
        """
        if not len(vectors):
            return
        shares = vectors.new_ones(len(vectors)) if weights is None else weights.to(vectors)
        shares = (shares / shares.mean().clamp_min(1e-12)).sqrt()[:, None]
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
        errors = missed.norm(dim=1) * shares
        for atom in dead.cpu().tolist():
            worst = int(errors.argmax())
            if float(errors[worst]) < 1e-3:
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
        passes: how often all views are gone through. A region counts by its area.

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
        for level, dictionary in enumerate(known):
            area = view.areas(level)
            present = area > 0
            seen |= bool(present.any())
            dictionary.learn(view.embeddings[present], area[present].float())
        report(step + 1, passes * len(views), "learning the dictionary")
    if not seen:
        raise InputError(NO_REGIONS)
    return torch.stack([dictionary.atoms for dictionary in known])
