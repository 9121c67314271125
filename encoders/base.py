"""What the rest of the program sees of a vision-language model and of an image segmenter."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

LEVELS = ("subpart", "part", "whole")
"""The three granularities of regions, in the order of the first axis of region ids (SAM's three masks)."""


@runtime_checkable
class Encoder(Protocol):
    """Images and phrases as unit vectors of one space.

    Attributes:
        name: what `encoders.create` was called with; written into files that hold this encoder's vectors.
        dim: length D of a vector.
        max_text_tokens: longest phrase in tokens, special tokens included.
        layers: how many layers `patch_tokens` can take tokens from.
        patch_side: height and width to which `patch_tokens` squashes images; None if it takes them as they are.
    """

    name: str
    dim: int
    max_text_tokens: int

    @property
    def layers(self) -> int: ...

    @property
    def patch_side(self) -> int | None: ...

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Phrases -> unit vectors float32 [P, D].

        Raises:
            InputError: a phrase is empty or has more than `max_text_tokens` tokens.
        """
        ...

    def encode_image(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Whole images uint8 [H, W, 3], of any sizes -> unit vectors float32 [B, D]."""
        ...

    def encode_dense(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """One image uint8 [H, W, 3] -> a unit vector per location of a coarse grid, float32 [h, w, D]."""
        ...

    def encode_regions(self, image: NDArray[np.uint8], region_ids: NDArray[np.integer]) -> NDArray[np.float32]:
        """One image uint8 [H, W, 3] and its region ids [levels, H, W] -> unit vectors float32 [R, D].

        Row r belongs to the region whose id is r; R is the largest id + 1.
        """
        ...

    def patch_tokens(self, images: NDArray[np.uint8], layers: Sequence[int]) -> list[torch.Tensor]:
        """Inner features of a batch uint8 [B, H, W, 3]: per layer (counted from 1) float32 [B, P, C].

        The P tokens lie row by row on the grid `patch_grid(H, W)`, without a class token; C may differ
        between layers. The tensors are on the encoder's device and carry no gradient.

        Raises:
            InputError: a layer that the model does not have.
        """
        ...

    def patch_grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the token grid for images of ``height`` x ``width`` pixels."""
        ...


@runtime_checkable
class Regions(Protocol):
    """Cuts an image into regions at three granularities.

    Attributes:
        name: what `encoders.create_regions` was called with.
    """

    name: str

    def segment(self, image: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Image uint8 [H, W, 3] -> region ids int32 [3, H, W] for `LEVELS`, -1 where there is no region.

        Ids are counted through: 0..R-1 over all three levels, each id on one level only.
        """
        ...
