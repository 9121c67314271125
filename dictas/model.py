"""DictAS: a dictionary of a few normal images, and what of a query cannot be looked up in it (arXiv 2508.13560)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from dictas.coreset import k_center
from dictas.detector import Batch
from dictas.generators import Generators, Kind, PaperGenerators, SharedGenerators
from dictas.lookup import lookup
from dictas.memory import Entries


@dataclass(frozen=True)
class ModelConfig:
    """What a detector is made of; written into its checkpoint.

    Attributes:
        encoder: see `encoders.create`.
        layers: layers of the encoder, from 1.
        channels: channels of the tokens of each layer.
        size: images are shown to the encoder with about ``size * size`` pixels.
        keep_aspect: keep their shape; otherwise they are squashed to a square.
        joint: layers are concatenated and looked up once; otherwise each has its own lookup (the paper).
        neighbourhoods: tokens are averaged over n x n before; one lookup for each n (the paper: 1 and 3).
        generators: "paper" or "shared", see `dictas.generators`.
        block: kind of block in them.
        depth, width, key_dim, value_dim: of "shared" generators.
        projection: one of `dictas.lookup.PROJECTIONS`.
        max_entries: larger dictionaries are thinned out to so many entries per lookup (0: never).
    """

    encoder: str
    layers: tuple[int, ...]
    channels: tuple[int, ...]
    size: int
    keep_aspect: bool = True
    joint: bool = True
    neighbourhoods: tuple[int, ...] = (1,)
    generators: Literal["paper", "shared"] = "shared"
    block: Kind = "convolution"
    depth: int = 2
    width: int = 64
    key_dim: int = 32
    value_dim: int = 64
    projection: str = "sparsemax"
    max_entries: int = 512

    @property
    def groups(self) -> list[list[int]]:
        """Positions in `layers` of the layers of each lookup."""
        every = list(range(len(self.layers)))
        return [every] if self.joint else [[layer] for layer in every]


class DictAS(nn.Module):
    """Generators and, after `remember`, a dictionary. Implements `dictas.detector.Detector`."""

    name = "dictas"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.generators = nn.ModuleList(self._generators(group) for group in config.groups)
        self._entries: Entries = []

    def _generators(self, group: list[int]) -> Generators:
        config, channels = self.config, sum(self.config.channels[layer] for layer in group)
        if config.generators == "paper":
            return PaperGenerators(channels, config.block)
        return SharedGenerators(channels, config.block, config.depth, config.width, config.key_dim, config.value_dim)

    def _lookups(self, batch: Batch) -> list[tuple[Generators, Tensor]]:
        """The generators of each lookup, of each group and neighbourhood, with their tokens [B, P, C]."""
        found = []
        for generators, group in zip(self.generators, self.config.groups, strict=True):
            assert isinstance(generators, Generators)
            tokens = torch.cat([batch.tokens[layer] for layer in group], dim=-1)
            found += [(generators, aggregated(tokens, batch.grid, n)) for n in self.config.neighbourhoods]
        return found

    def entries(self, support: Sequence[Batch]) -> Entries:
        """The dictionary of some images: per lookup its keys [M, key_dim] and values [M, value_dim]."""
        batches = [[g.for_support(tokens, batch.grid) for g, tokens in self._lookups(batch)] for batch in support]
        return [
            (torch.cat([keys.flatten(0, 1) for keys, _ in one]), torch.cat([values.flatten(0, 1) for _, values in one]))
            for one in zip(*batches, strict=True)
        ]

    @torch.inference_mode()
    def remember(self, support: Sequence[Batch]) -> None:
        """Build the dictionary of these images, thinned out where it is larger than ``max_entries``.

        Thinning keeps the entries that cover keys and values best (greedy k-center), so rare normal places stay
        and the many that look alike go. From there on a lookup costs the same for any number of images. For more
        images than fit in memory see `dictas.memory.Memory`.
        """
        self.remember_entries(self.joined([self.entries([batch]) for batch in support], self.limit))

    @property
    def limit(self) -> int:
        """``max_entries``"""
        return self.config.max_entries

    def joined(self, parts: Sequence[Entries], limit: int) -> Entries:
        """One dictionary of several, thinned out to ``limit`` entries per lookup (0: not at all)."""
        return [
            _thinned(torch.cat([keys for keys, _ in one]), torch.cat([values for _, values in one]), limit)
            for one in zip(*parts, strict=True)
        ]

    def remember_entries(self, entries: Entries) -> None:
        """Take this for the dictionary."""
        self._entries = entries

    def dictionary_state(self) -> dict[str, Tensor]:
        """The dictionary as named tensors: ``keys.0``, ``values.0``, ..."""
        state: dict[str, Tensor] = {}
        for number, (keys, values) in enumerate(self._entries):
            state |= {f"keys.{number}": keys, f"values.{number}": values}
        return state

    def load_dictionary_state(self, state: dict[str, Tensor]) -> None:
        """Take over what `dictionary_state` gave."""
        count = len(self.config.groups) * len(self.config.neighbourhoods)
        device = next(self.parameters()).device
        self._entries = [(state[f"keys.{n}"].to(device), state[f"values.{n}"].to(device)) for n in range(count)]

    @torch.inference_mode()
    def maps(self, query: Batch) -> Tensor:
        """``(1 - cos(query, retrieved)) / 2``, the mean over lookups. float32 [B, h, w]"""
        assert self._entries, "remember() comes first"
        return self.distances(query, self._entries)[0].clamp(0.0, 1.0)  # a cosine may round to more than 1

    def distances(
        self, query: Batch, entries: Sequence[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Differentiable `maps` over a given dictionary.

        Returns:
            distances [B, h, w] in 0..1, and per lookup what was compared: the query's description and what was
            retrieved, each [B, P, value_dim].
        """
        maps, compared = [], []
        for (generators, tokens), (keys, values) in zip(self._lookups(query), entries, strict=True):
            queries, targets = generators.for_query(tokens, query.grid)
            retrieved = lookup(queries.flatten(0, 1), keys, values, self.config.projection).view_as(targets)
            maps.append((1.0 - nn.functional.cosine_similarity(targets, retrieved, dim=-1)) / 2)
            compared.append((targets, retrieved))
        return torch.stack(maps).mean(0).unflatten(1, query.grid), compared


def aggregated(tokens: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Tokens [B, P, C] averaged over ``side`` x ``side`` of the grid, at its edge over those that exist."""
    if side == 1:
        return tokens
    rows = tokens.transpose(1, 2).unflatten(2, grid)
    pooled = nn.functional.avg_pool2d(rows, side, stride=1, padding=side // 2, count_include_pad=False)
    return pooled.flatten(2).transpose(1, 2)


def _unit(vectors: Tensor) -> Tensor:
    return nn.functional.normalize(vectors, dim=-1)


def _thinned(keys: Tensor, values: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    if not limit or len(keys) <= limit:
        return keys, values
    kept = k_center(torch.cat([_unit(keys), _unit(values)], dim=1), limit, seed=0)
    return keys[kept].contiguous(), values[kept].contiguous()
