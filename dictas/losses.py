"""What generators are trained for (DictAS, section 3.3): normal places can be looked up, abnormal ones cannot."""

from collections.abc import Sequence

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

TEMPERATURE = 0.07
"""Of CLIP's comparison with text."""
COVERED = 0.3
"""Share of a token that a defect covers from which on the whole token counts as abnormal."""
HARDEST = 0.01
"""Share of normal tokens that count once more: the image's score is its highest token."""


def query_loss(distances: Tensor, coverage: Tensor) -> Tensor:
    """Mean distance of normal tokens (L_query); both [B, h, w], ``coverage`` the share of a token that is abnormal."""
    normal = coverage == 0
    return (distances * normal).sum() / normal.sum().clamp_min(1)


def contrast_loss(distances: Tensor, coverage: Tensor) -> Tensor:
    """Contrastive query constraint (CQC): ``relu(mean normal - mean abnormal distance)`` of images that have both."""
    normal, abnormal = (coverage == 0).flatten(1), (coverage > 0).flatten(1)
    both = normal.any(1) & abnormal.any(1)
    means = [(distances.flatten(1) * part).sum(1) / part.sum(1).clamp_min(1) for part in (normal, abnormal)]
    return (torch.relu(means[0] - means[1]) * both).sum() / both.sum().clamp_min(1)


class SegmentationLoss(nn.Module):
    """Distances as logits of a segmentation (not in the paper, whose terms ask for no margin).

    One slope and one offset for all classes, learned along: a distance has to mean the same everywhere. Binary
    cross-entropy with both classes of token weighing the same, the hardest normal tokens once more, and dice.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_slope = nn.Parameter(torch.tensor(3.0))
        self.offset = nn.Parameter(torch.tensor(0.15))

    def forward(self, distances: Tensor, coverage: Tensor) -> Tensor:
        """Both [B, h, w]."""
        logits = self.log_slope.exp() * (distances - self.offset)
        truth = (coverage / COVERED).clamp_max(1.0)
        # Tokens that a defect barely touches are uncertain either way.
        sure = torch.where((coverage > 0) & (coverage < COVERED / 3), 0.3, 1.0)
        each = nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction="none") * sure
        abnormal = truth > 0.5
        share = logits.sigmoid()
        overlap = (2 * (share * truth).sum((1, 2)) + 1) / (share.sum((1, 2)) + truth.sum((1, 2)) + 1)
        loss = 0.5 * (1 - overlap).mean()
        if abnormal.any():
            loss = loss + each[abnormal].mean()
        if not abnormal.all():
            normal = each[~abnormal]
            loss = loss + normal.mean() + 0.5 * normal.topk(max(1, int(HARDEST * len(normal)))).values.mean()
        return loss


class TextAlignment(nn.Module):
    """Text alignment constraint (TAC): the query as a whole reads as what it is, what was retrieved as normal.

    The means over tokens of all lookups, side by side, are brought to the space of texts by one linear layer.
    """

    texts: Tensor

    def __init__(self, value_dims: Sequence[int], texts: NDArray) -> None:
        """``texts``: unit vectors of the normal and the abnormal state, [2, D]; see `encoders.state_prompts`."""
        super().__init__()
        self.register_buffer("texts", torch.as_tensor(texts, dtype=torch.float32))
        self.fuse = nn.Linear(sum(value_dims), self.texts.shape[1])

    def forward(self, compared: Sequence[tuple[Tensor, Tensor]], anomalous: Tensor) -> Tensor:
        """Args:
        compared: per lookup the query's description and what was retrieved, each [B, P, value_dim].
        anomalous: which images show an anomaly. bool [B]
        """
        queries = torch.cat([query.mean(1) for query, _ in compared], dim=-1)
        retrieved = torch.cat([retrieved.mean(1) for _, retrieved in compared], dim=-1)
        states = torch.cat([anomalous.long(), torch.zeros_like(anomalous, dtype=torch.long)])
        seen = nn.functional.normalize(self.fuse(torch.cat([queries, retrieved])), dim=-1)
        return nn.functional.cross_entropy(seen @ self.texts.T / TEMPERATURE, states)
