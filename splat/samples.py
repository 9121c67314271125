"""What is at a pixel: its code, the phrases that describe it best, and how to look for more of the same.

A pixel's feature is ``F = W A`` (docs/language_field.md). Compared with other features of the same dictionary it never
has to be written out: ``F' F = W' (G W)`` with ``G = A A^T``, so G W is to a feature what ``A t`` is to a text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.base import Encoder
from encoders.errors import InputError
from splat.codes import LanguageField, densify
from splat.gaussians import Gaussians
from splat.phrases import DEFAULT_NEGATIVES, relevancy_of_codes, text_scores
from splat.rasterize import lift
from splat.scene import Camera, stack


@dataclass(frozen=True)
class Sample:
    """A pixel's code.

    Attributes:
        name: what it is called among other things to look for.
        codes: W of each level, on the device of the Gaussians. float32 [levels, L]
    """

    name: str
    codes: Tensor


@dataclass(frozen=True)
class Description:
    """How well a phrase describes a sample: its relevancy 0..1 (0.5: as well as generic phrases do) and level."""

    phrase: str
    relevancy: float
    level: int


def sample(gaussians: Gaussians, field: LanguageField, camera: Camera, x: int, y: int, name: str) -> Sample:
    """The code of pixel (x, y), counted from the top left.

    Raises:
        InputError: no such pixel, or nothing is rendered there.
    """
    if not (0 <= x < camera.width and 0 <= y < camera.height):
        raise InputError(f"There is no pixel ({x}, {y}) in a view of {camera.width} x {camera.height}.")
    viewmats, intrinsics = stack([camera])
    here = torch.zeros(1, camera.height, camera.width, 1, device=gaussians.device)
    here[0, y, x] = 1.0
    with torch.inference_mode():
        # A picture that is 1 at this pixel, splatted back, is how much each Gaussian adds to the pixel: a few numbers
        # where a picture of codes would be hundreds of megabytes.
        shares = lift(*gaussians.geometry, here, viewmats, intrinsics)[0][:, 0]
        rows = shares.nonzero()[:, 0]
        dense = densify(field.indices[rows], field.weights[rows], field.atoms.shape[1])
        found = (shares[rows, None, None] * dense).sum(0)
    if not bool((found != 0).any()):
        raise InputError("There is nothing at that place; click where the scene is.")
    return Sample(name, found)


def sample_scores(field: LanguageField, codes: Tensor) -> Tensor:
    """Inner products of the atoms with the unit feature of each code, at its own level.

    Args:
        codes: [levels, S, L].

    Returns:
        float32 [levels, S, L]; zeros where a level has no feature
    """
    products = codes @ field.gram()
    norms = (products * codes).sum(-1, keepdim=True).clamp_min(0.0).sqrt()
    return torch.where(norms > 1e-6, products / norms.clamp_min(1e-6), 0.0)


def mean_codes(gaussians: Gaussians, field: LanguageField) -> Tensor:
    """The mean code of a scene, every Gaussian weighted by what it shows: what is everywhere. float32 [levels, L]"""
    area = gaussians.scales.detach().sort(dim=1).values[:, 1:].prod(dim=1)
    mass = gaussians.opacities.detach() * area
    mass = mass / mass.sum().clamp_min(1e-30)
    mean = field.weights.new_zeros(field.levels, field.atoms.shape[1])
    for level in range(field.levels):
        shares = mass[:, None] * field.weights[:, level]
        mean[level].index_add_(0, field.indices[:, level].long().flatten(), shares.flatten())
    return mean


class SampleEncoder:
    """An encoder that knows samples by name as well: their features at one level are "texts" for whoever takes texts.

    Attributes:
        name, dim, max_text_tokens: of the encoder it stands in for.
    """

    def __init__(self, encoder: Encoder, field: LanguageField, level: int, codes: Mapping[str, Tensor]) -> None:
        """Args: codes: by name, of all levels. [levels, L]"""
        self.name, self.dim, self.max_text_tokens = encoder.name, encoder.dim, encoder.max_text_tokens
        self._encoder = encoder
        vectors = {name: (code[level] @ field.atoms[level]).cpu().numpy() for name, code in codes.items()}
        self._vectors = {name: vector / max(float(np.linalg.norm(vector)), 1e-12) for name, vector in vectors.items()}

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Phrases and names of samples -> unit vectors float32 [P, D]."""
        phrases = [text for text in texts if text not in self._vectors]
        encoded = iter(self._encoder.encode_text(phrases) if phrases else ())
        return np.stack([self._vectors[text] if text in self._vectors else next(encoded) for text in texts])


def describe(
    found: Sample,
    gaussians: Gaussians,
    field: LanguageField,
    encoder: Encoder,
    vocabulary: Sequence[str],
    negatives: Sequence[str] = DEFAULT_NEGATIVES,
    count: int = 5,
) -> list[Description]:
    """The phrases of a vocabulary that describe a sample best, best first; each at the level where it does so best.

    Raises:
        InputError: as `splat.phrases.text_scores`.
    """
    scores = text_scores(gaussians, field, vocabulary, encoder, negatives)
    return rank(found, field, scores, vocabulary, count)


def rank(
    found: Sample, field: LanguageField, scores: Tensor, vocabulary: Sequence[str], count: int
) -> list[Description]:
    """`describe` with the vocabulary's `text_scores` [levels, V + negatives, L], which are worth keeping."""
    gram, size = field.gram(), len(vocabulary)
    relevancy = torch.stack(
        [relevancy_of_codes(found.codes[i : i + 1], scores[i], gram[i], size)[:, 0] for i in range(field.levels)]
    )
    best, level = relevancy.max(0)
    order = best.argsort(descending=True, stable=True)[:count].tolist()
    return [Description(vocabulary[i], float(best[i]), int(level[i])) for i in order]
