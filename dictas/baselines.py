"""What DictAS is compared with: other ways to use the same tokens of the same few normal images.

All are `dictas.detector.Detector`s, deterministic by their seed, and compare queries with what they remember
some at a time, in bounded memory.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from dictas.coreset import coreset
from dictas.detector import Backbone, Batch
from dictas.lookup import CHUNK_VALUES, lookup
from dictas.model import aggregated
from encoders.base import Encoder
from encoders.state_prompts import state_vectors


@runtime_checkable
class ScoresImages(Protocol):
    """A detector with its own idea of an image's score; that of the others is `dictas.detector.image_score`."""

    def scores(self, query: Batch, maps: Tensor) -> Tensor:
        """How anomalous each image is, float32 [B], given the `Detector.maps` [B, h, w] of the same batch."""
        ...


class NearestNeighbour:
    """Distance to the most similar of all remembered patches, as AnomalyDINO does (Damm et al. 2025, section 3).

    A patch is its layers' tokens, each of unit length, side by side; half the cosine distance, 0..1.
    """

    name = "nearest_neighbour"

    def remember(self, support: Sequence[Batch]) -> None:
        """Keep every patch."""
        self._bank = torch.cat([_described(batch).flatten(0, 1) for batch in support])

    def maps(self, query: Batch) -> Tensor:
        """See `Detector.maps`."""
        # Between unit vectors the squared distance is twice the cosine distance.
        distances, _ = nearest(_described(query).flatten(0, 1), self._bank)
        return (distances.square() / 4).view(-1, *query.grid)


class PatchCore:
    """PatchCore (Roth et al. 2022): locally aware patches, a coreset of them, euclidean distance to the nearest.

    Args:
        seed: of the coreset.
        share: size of the coreset; the paper's 1 %, 10 % and 25 % hardly differ.
        neighbours: how many of the coreset say whether a match is itself exceptional (b in equation 7).
    """

    name = "patchcore"

    def __init__(self, seed: int = 0, share: float = 0.1, neighbours: int = 9) -> None:
        self._seed, self._share, self._neighbours = seed, share, neighbours

    def remember(self, support: Sequence[Batch]) -> None:
        """Choose the coreset."""
        patches = torch.cat([_locally_aware(batch).flatten(0, 1) for batch in support])
        self._bank = patches[coreset(patches, self._share, self._seed)]
        # One factor for the whole class brings distances to 0..1 and leaves their order and ratios alone.
        self._scale = 1.0 / (2.0 * self._bank.norm(dim=1).max().clamp_min(1e-12))

    def maps(self, query: Batch) -> Tensor:
        """See `Detector.maps`; 1 for what is farther than the remembered patches can be from each other."""
        distances, _ = nearest(_locally_aware(query).flatten(0, 1), self._bank)
        return (distances * self._scale).clamp(max=1.0).view(-1, *query.grid)

    def scores(self, query: Batch, maps: Tensor) -> Tensor:
        """The farthest patch's distance, the less the more its match is an outlier itself (equations 6 and 7)."""
        farthest, places = maps.flatten(1).max(dim=1)
        patches = _locally_aware(query)[torch.arange(len(maps), device=maps.device), places]
        distances, matches = nearest(patches, self._bank)
        around = torch.cdist(self._bank[matches], self._bank).topk(
            min(self._neighbours, len(self._bank)), largest=False
        )
        to_neighbours = (patches[:, None] - self._bank[around.indices]).norm(dim=-1)
        if to_neighbours.shape[1] == 1:
            return farthest
        return farthest * (1.0 - (distances - to_neighbours.logsumexp(dim=1)).exp()).clamp(min=0.0)


class UntrainedLookup:
    """DictAS without its generators: queries, keys and values are the tokens themselves.

    Per layer and neighbourhood, ``1 - cos`` between a token and what the lookup makes of it, halved; the mean.
    Tokens are brought to length C^½ first, as the norm at a generator's entrance would: the product of raw tokens
    prefers long keys to similar ones (on magnetic tiles AUPRO 0.73 instead of 0.79).
    """

    name = "untrained_lookup"

    def __init__(self, projection: str = "sparsemax", neighbourhoods: Sequence[int] = (1, 3)) -> None:
        self._projection, self._neighbourhoods = projection, tuple(neighbourhoods)

    def remember(self, support: Sequence[Batch]) -> None:
        """Keep every token of every layer and neighbourhood."""
        described = [self._tokens(batch) for batch in support]
        self._keys = [torch.cat([part.flatten(0, 1) for part in parts]) for parts in zip(*described, strict=True)]

    def maps(self, query: Batch) -> Tensor:
        """See `Detector.maps`."""
        distances = []
        for tokens, keys in zip(self._tokens(query), self._keys, strict=True):
            flat = tokens.flatten(0, 1)
            found = lookup(flat, keys, keys, self._projection, tokens.shape[-1] ** -0.5)
            distances.append((1.0 - F.cosine_similarity(flat, found, dim=-1)) / 2)
        return torch.stack(distances).mean(dim=0).clamp(0.0, 1.0).view(-1, *query.grid)

    def _tokens(self, batch: Batch) -> list[Tensor]:
        """[B, P, C] per layer and neighbourhood, of length C^½."""
        found = [aggregated(tokens, batch.grid, width) for tokens in batch.tokens for width in self._neighbourhoods]
        return [F.normalize(tokens, dim=-1) * tokens.shape[-1] ** 0.5 for tokens in found]


class TextOnly:
    """How much more a place looks like "damaged" than like "flawless", in words and without any normal image.

    After WinCLIP's zero-shot score (Jeong et al. 2023, section 4), with the encoder's dense vectors in the place
    of windows.

    Args:
        name: what the inspected thing is called.

    Raises:
        InputError: the encoder has no text tower.
    """

    name = "text_only"
    TEMPERATURE = 0.07

    def __init__(self, encoder: Encoder, name: str = "object") -> None:
        self._encoder = encoder
        self._states = torch.from_numpy(state_vectors(encoder, name))

    def remember(self, support: Sequence[Batch]) -> None:
        """Nothing: words say what is normal."""

    def maps(self, query: Batch) -> Tensor:
        """See `Detector.maps`; the probability of the abnormal state."""
        found = []
        for image in query.images:
            dense = torch.from_numpy(self._encoder.encode_dense(image))
            abnormal = (dense @ self._states.T / self.TEMPERATURE).softmax(dim=-1)[..., 1]
            found.append(F.interpolate(abnormal[None, None], query.grid, mode="bilinear", align_corners=False)[0, 0])
        return torch.stack(found)


Baseline = NearestNeighbour | PatchCore | UntrainedLookup | TextOnly

BASELINES: dict[str, Callable[[Backbone, str], Baseline]] = {
    NearestNeighbour.name: lambda _backbone, _name: NearestNeighbour(),
    PatchCore.name: lambda _backbone, _name: PatchCore(),
    UntrainedLookup.name: lambda _backbone, _name: UntrainedLookup(),
    TextOnly.name: lambda backbone, name: TextOnly(backbone.encoder, name),
}
"""Makes a baseline for a backbone and what the inspected thing is called."""


def nearest(queries: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
    """Euclidean distance [P] to, and index [P] of, the nearest of ``bank`` [M, C] for each of ``queries`` [P, C]."""
    half_squares = bank.square().sum(dim=1) / 2
    rows = max(1, CHUNK_VALUES // len(bank))
    indices = torch.cat(
        [torch.addmm(half_squares, some, bank.T, alpha=-1).argmin(dim=1) for some in queries.split(rows)]
    )
    # Written out, because through the product the distance of nearly equal vectors would be rounding noise.
    return (queries - bank[indices]).norm(dim=1), indices


def _described(batch: Batch) -> Tensor:
    """All layers side by side, each of equal weight, together of unit length. [B, P, C]"""
    layers = [F.normalize(tokens, dim=-1) for tokens in batch.tokens]
    return torch.cat(layers, dim=-1) / len(layers) ** 0.5


def _locally_aware(batch: Batch) -> Tensor:
    """All layers side by side, each the mean over 3 x 3 tokens. [B, P, C]"""
    return torch.cat([aggregated(tokens, batch.grid, 3) for tokens in batch.tokens], dim=-1)
