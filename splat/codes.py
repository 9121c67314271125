"""A language field: one small dictionary per level, and a few (atom, weight) pairs per Gaussian.

Level 0 is subparts, 1 parts, 2 wholes. The feature of Gaussian i at level l is
``sum_k weights[i, l, k] * atoms[l, indices[i, l, k]]``, a vector as long as the encoder's; it is only ever
built for a few Gaussians at a time (`LanguageField.decode`), because everything else can be done with the
codes themselves (docs/language_field.md).
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from encoders.base import LEVELS
from encoders.errors import InputError
from encoders.files import atomic_path

FORMAT_VERSION = 1
"""Version of ``language.safetensors``; files with a higher one are refused."""

MAX_ATOMS = 256
"""Atom indices are stored in one byte."""


def sparsify(logits: torch.Tensor, nonzeros: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn dense logits into sparse codes: ``renormalise(top-K(softmax(logits)))`` (LangSplatV2, eq. 6).

    Args:
        logits: any real numbers. [..., L], L <= 256.
        nonzeros: K, 1..L.

    Returns:
        indices: the K largest logits' positions. uint8 [..., K]
        weights: positive, sum to one, differentiable in `logits`. float [..., K]
    """
    top, indices = torch.topk(logits, nonzeros, dim=-1)
    # softmax over all atoms, restricted and renormalised, is softmax over the kept ones.
    return indices.to(torch.uint8), torch.softmax(top, dim=-1)


def densify(indices: torch.Tensor, weights: torch.Tensor, atoms: int) -> torch.Tensor:
    """Write codes out as dense rows over the dictionary: [..., K] and [..., K] -> [..., atoms]."""
    dense = weights.new_zeros(*weights.shape[:-1], atoms)
    return dense.scatter_add(-1, indices.long(), weights)


@dataclass
class Codes:
    """Sparse codes of N Gaussians.

    Attributes:
        indices: uint8 [N, levels, K]
        weights: float32 [N, levels, K]; zero where a slot is unused
    """

    indices: torch.Tensor
    weights: torch.Tensor

    def rescale(self, norms: torch.Tensor) -> None:
        """Let the weights take over what atoms lose in length [levels, L], so that the features stay the same."""
        levels = torch.arange(len(norms), device=norms.device)
        self.weights *= norms[levels[:, None], self.indices.long()]


@dataclass
class LanguageField:
    """Dictionaries and codes, the whole content of ``language.safetensors``.

    Attributes:
        atoms: unit-norm dictionary rows. float32 [levels, L, D], L <= 256
        indices: which atoms a Gaussian uses. uint8 [N, levels, K], each < L
        weights: how much of each; zero means the slot is unused. float32 [N, levels, K]
        encoder: name of the encoder whose space the atoms live in
    """

    atoms: torch.Tensor
    indices: torch.Tensor
    weights: torch.Tensor
    encoder: str

    def __len__(self) -> int:
        return self.indices.shape[0]

    @property
    def levels(self) -> int:
        """Number of levels."""
        return self.atoms.shape[0]

    def to(self, device: str | torch.device) -> "LanguageField":
        """The same field on a device."""
        return LanguageField(self.atoms.to(device), self.indices.to(device), self.weights.to(device), self.encoder)

    def gram(self) -> torch.Tensor:
        """Inner products of the atoms, ``G = A A^T``. [levels, L, L]"""
        return self.atoms @ self.atoms.transpose(1, 2)

    def scores(self, vectors: torch.Tensor) -> torch.Tensor:
        """Inner products of the atoms with `vectors` [T, D]. [levels, T, L]"""
        return vectors.to(self.atoms) @ self.atoms.transpose(1, 2)

    def decode(self, rows: torch.Tensor | slice = slice(None)) -> torch.Tensor:
        """Features of some Gaussians, written out. [n, levels, D]

        For all of a big scene this is gigabytes: pass `rows`, a mask, an index or a slice.
        """
        dense = densify(self.indices[rows], self.weights[rows], self.atoms.shape[1])
        return torch.einsum("nla,lad->nld", dense, self.atoms)

    def subset(self, rows: torch.Tensor | slice) -> "LanguageField":
        """The same dictionary with the codes of some Gaussians only."""
        return LanguageField(self.atoms, self.indices[rows], self.weights[rows], self.encoder)

    def save(self, path: Path) -> None:
        """Write ``language.safetensors`` atomically: atoms and weights as fp16, indices as bytes.

        Raises:
            InputError: the tensors contradict each other or hold values that are not finite.
        """
        _check(self, "The language field in memory", "fit it again")
        tensors = {
            "atoms": self.atoms.detach().cpu().to(torch.float16).contiguous(),
            "indices": self.indices.cpu().contiguous(),
            "weights": self.weights.detach().cpu().to(torch.float16).contiguous(),
        }
        metadata = {
            "format": "dictsplat.language",
            "version": str(FORMAT_VERSION),
            "encoder": self.encoder,
            "levels": json.dumps(LEVELS[: self.levels]),
        }
        with atomic_path(Path(path)) as temporary:
            save_file(tensors, temporary, metadata=metadata)

    @classmethod
    def load(cls, path: Path) -> "LanguageField":
        """Read ``language.safetensors``.

        Raises:
            InputError: the file is missing, damaged, from a newer version, or not a language field.
        """
        try:
            with safe_open(str(path), framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != "dictsplat.language":
                    raise InputError(f"{path} holds no language field; fit one with `dictsplat train`.")
                version = metadata.get("version", "")
                if not version.isdigit():
                    raise InputError(f"{path} has no format version; fit the language stage again.")
                if int(version) > FORMAT_VERSION:
                    raise InputError(
                        f"{path} has format version {version}, this dictsplat reads {FORMAT_VERSION}; update dictsplat."
                    )
                missing = {"atoms", "indices", "weights"} - set(file.keys())
                if missing:
                    names = ", ".join(sorted(missing))
                    raise InputError(f"{path} lacks {names}; fit the language stage again.")
                field = cls(
                    file.get_tensor("atoms").float(),
                    file.get_tensor("indices"),
                    file.get_tensor("weights").float(),
                    metadata.get("encoder", ""),
                )
        except FileNotFoundError:
            raise InputError(f"{path} does not exist; fit it with `dictsplat train`.") from None
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} cannot be read ({error}); fit the language stage again.") from error
        _check(field, str(path), "fit the language stage again")
        return field


def _check(field: LanguageField, where: str, remedy: str) -> None:
    atoms, indices, weights = field.atoms, field.indices, field.weights
    problem = ""
    if atoms.ndim != 3 or not 1 <= atoms.shape[1] <= MAX_ATOMS:
        problem = f"atoms of shape {list(atoms.shape)} instead of [levels, 1..{MAX_ATOMS}, D]"
    elif indices.dtype != torch.uint8 or indices.ndim != 3 or indices.shape[1] != atoms.shape[0]:
        problem = f"{indices.dtype} indices {list(indices.shape)} instead of uint8 [N, {atoms.shape[0]}, K]"
    elif weights.shape != indices.shape:
        problem = f"weights of shape {list(weights.shape)} for indices of shape {list(indices.shape)}"
    elif indices.numel() and int(indices.max()) >= atoms.shape[1]:
        problem = f"atom index {int(indices.max())} in a dictionary of {atoms.shape[1]}"
    elif not bool(torch.isfinite(atoms).all()) or not bool(torch.isfinite(weights).all()):
        problem = "numbers that are not finite"
    elif not field.encoder:
        problem = "no encoder name"
    if problem:
        raise InputError(f"{where} has {problem}; {remedy}.")
