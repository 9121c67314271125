"""Query, key and value generators: small networks on frozen tokens, shared by all classes (DictAS, section 3.2).

They are all that is trained. Two kinds of block let a token see its surroundings:

* "attention": transformer blocks, as in the paper; for the few, deep tokens of a ViT.
* "convolution": depthwise convolutions; for the many tokens of a CNN, where attention of all to all would cost
  more than the backbone.
"""

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

Kind = Literal["attention", "convolution"]
HEAD = 64
"""Channels per attention head, or more where it does not divide them."""


class Standardise(nn.Module):
    """Tokens [B, P, C] with mean 0 and variance 1 per channel over the training data."""

    mean: Tensor
    scale: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))

    def fit(self, tokens: Tensor) -> None:
        """Take mean and scale from tokens [..., C]."""
        flat = tokens.flatten(0, -2)
        self.mean.copy_(flat.mean(0))
        self.scale.copy_(1.0 / flat.std(0).clamp_min(1e-4))

    def forward(self, tokens: Tensor) -> Tensor:
        return (tokens - self.mean) * self.scale


class RelativeStem(nn.Module):
    """A linear map of each standardised token and of what it has more than the mean token of its image.

    So what light and exposure add to all tokens alike can be told from what is there.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * channels, width)

    def forward(self, tokens: Tensor, standardise: Standardise) -> Tensor:
        """Tokens [B, P, C], not standardised yet -> [B, P, width]."""
        own, relative = (part * standardise.scale for part in self.linear.weight.chunk(2, dim=1))
        # W s (x - m) + V s (x - mean x) + b = (W + V) s x - W s m - V s mean x + b: one pass over the tokens, not four.
        offset = self.linear.bias - own @ standardise.mean
        image = nn.functional.linear(tokens.mean(dim=1, keepdim=True), relative)
        return nn.functional.linear(tokens, own + relative, offset) - image


class AttentionBlock(nn.Module):
    """A pre-norm transformer block on tokens [B, P, C]; starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = next(heads for heads in range(max(1, channels // HEAD), 0, -1) if channels % heads == 0)
        self.norm = nn.LayerNorm(channels)
        self.inputs = nn.Linear(channels, 3 * channels)
        self.mixed = nn.Linear(channels, channels)
        self.mlp = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels)
        )
        _silence(self.mixed)
        _silence(self.mlp[-1])

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.inputs(self.norm(tokens)).chunk(3, -1)
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        tokens = tokens + self.mixed(mixed)
        return tokens + self.mlp(tokens)


class ConvolutionBlock(nn.Module):
    """Tokens [B, P, C] see 5 x 5 of the grid around them, channel by channel; starts as the identity.

    The norm is taken over all tokens of an image: how much they differ among each other is worth knowing.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.around = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.norm = nn.GroupNorm(1, channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 2 * channels), nn.ReLU(), nn.Linear(2 * channels, channels))
        _silence(self.mlp[-1])

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        around = self.around(tokens.transpose(1, 2).unflatten(2, grid))
        return tokens + self.mlp(self.norm(around).flatten(2).transpose(1, 2))


def _silence(layer: nn.Module) -> None:
    assert isinstance(layer, nn.Linear)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)


BLOCKS: dict[Kind, type[AttentionBlock] | type[ConvolutionBlock]] = {
    "attention": AttentionBlock,
    "convolution": ConvolutionBlock,
}


class Generators(nn.Module, ABC):
    """g_Q, g_K and g_V of one group of layers. Two kinds: `PaperGenerators`, `SharedGenerators`."""

    @abstractmethod
    def for_query(self, tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Tokens [B, P, C] -> queries [B, P, key_dim] with the scale of the lookup in them, and what retrieved
        values are compared with [B, P, value_dim]."""

    @abstractmethod
    def for_support(self, tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Tokens [B, P, C] -> keys [B, P, key_dim] and values [B, P, value_dim]."""

    @abstractmethod
    def value_parameters(self) -> list[nn.Parameter]:
        """Those of g_V alone, which training freezes first."""


class PaperGenerators(Generators):
    """The paper's: blocks as wide as the tokens, ``g_V(x) = x + block(x)``, compared with the query's own tokens."""

    def __init__(self, channels: int, kind: Kind) -> None:
        super().__init__()
        self.standardise = Standardise(channels)
        self.to_query, self.to_key, self.to_value = (BLOCKS[kind](channels) for _ in range(3))
        self.to_key.load_state_dict(self.to_query.state_dict())

    def for_query(self, tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        standard = self.standardise(tokens)
        return self.to_query(standard, grid) * tokens.shape[-1] ** -0.5, standard

    def for_support(self, tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        standard = self.standardise(tokens)
        return self.to_key(standard, grid), self.to_value(standard, grid)  # a block is x + ... already

    def value_parameters(self) -> list[nn.Parameter]:
        return list(self.to_value.parameters())


class SharedGenerators(Generators):
    """Narrower and quicker, and what retrieved values are compared with is learned as well.

    Tokens are brought to ``width`` channels and through ``depth`` blocks for all three generators, each of which then
    is one linear map: what the three have in common is computed once, and a query costs a fifth of the backbone.
    g_V describes the query too: raw tokens of a darker photo of the same thing differ from all of the support's, while
    g_V learns to leave out what light changes. Queries and keys have unit length, and a
    learned sharpness says how many entries sparsemax mixes. It starts at C^½: the paper's C^-½ for tokens whose
    channels have unit variance, as their squared length is C.
    """

    def __init__(self, channels: int, kind: Kind, depth: int, width: int, key_dim: int, value_dim: int) -> None:
        super().__init__()
        self.standardise = Standardise(channels)
        self.stem = RelativeStem(channels, width)
        self.trunk = nn.ModuleList(BLOCKS[kind](width) for _ in range(depth))
        self.to_query = nn.Linear(width, key_dim)
        self.to_key = nn.Linear(width, key_dim)
        # What is like should start by looking alike from both sides.
        self.to_key.load_state_dict(self.to_query.state_dict())
        self.to_value = nn.Linear(width, value_dim)
        self.log_sharpness = nn.Parameter(torch.tensor(0.5 * math.log(key_dim)))

    def for_query(self, tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        shared = self._shared(tokens, grid)
        return _unit(self.to_query(shared)) * self.log_sharpness.exp(), _unit(self.to_value(shared))

    def for_support(self, tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        shared = self._shared(tokens, grid)
        return _unit(self.to_key(shared)), _unit(self.to_value(shared))

    def _shared(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        shared = self.stem(tokens, self.standardise)
        for block in self.trunk:
            shared = block(shared, grid)
        return shared

    def value_parameters(self) -> list[nn.Parameter]:
        return list(self.to_value.parameters())


def _unit(vectors: Tensor) -> Tensor:
    return nn.functional.normalize(vectors, dim=-1)
