"""Types of the native extension, see cuda/lookup_bindings.cpp. All tensors are contiguous CPU tensors."""

from torch import Tensor

def isa() -> str: ...

class PackedKeys:
    """Keys, float32 [M, C] with M >= 1, laid out for `support`."""

    def __init__(self, keys: Tensor) -> None: ...
    def support(self, queries: Tensor, threads: int) -> tuple[Tensor, Tensor, Tensor]:
        """Sparsemax over ``queries @ keys.T``, of queries float32 [P, C]: the weights above 0, row after row.

        Returns ``offsets`` int32 [P + 1], where each row begins; ``indices`` int32 [N], the keys of a row in
        ascending order; ``weights`` float32 [N], which sum to 1 in each row. A query whose scores are not all
        finite numbers gets a single entry: key 0 with the weight NaN.
        """
