"""From the metrics of each class and draw to what is reported: means, and how much they vary with the draw."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dictas.metrics import IMAGE_METRICS, PIXEL_METRICS

METRICS = (*PIXEL_METRICS, *IMAGE_METRICS)

Draw = Mapping[str, Any]
"""Metrics of one detector on one class after one draw of support images: `dictas.trial.Trial.measure`."""


def summarise(draws: Mapping[str, Sequence[Draw]]) -> dict[str, Any]:
    """A detector's draws by class, equally many of each, as one result.

    Returns:
        `METRICS`, the mean over classes of the mean over draws; ``std``, the standard deviation of the mean over
        classes from draw to draw; ``images_per_second``; and ``per_class``, the same of each class, there with
        ``per_kind`` of defect. Metrics that do not exist are None, and None is left out of means; so is the
        standard deviation of a single draw.
    """
    per_draw = [
        {name: mean(draw[name] for draw in column) for name in METRICS} for column in zip(*draws.values(), strict=True)
    ]
    per_class = {name: _class_summary(found) for name, found in draws.items()}
    return {
        **{name: mean(result[name] for result in per_class.values()) for name in METRICS},
        "std": {name: spread(draw[name] for draw in per_draw) for name in METRICS},
        "images_per_second": rate(draw for found in draws.values() for draw in found),
        "per_class": per_class,
    }


def _class_summary(found: Sequence[Draw]) -> dict[str, Any]:
    names = (*METRICS, "f1_threshold")
    kinds = dict.fromkeys(kind for draw in found for kind in draw["per_kind"])
    return {
        **{name: mean(draw[name] for draw in found) for name in names},
        "std": {name: spread(draw[name] for draw in found) for name in names},
        "images_per_second": rate(found),
        "images": found[0]["images"],
        "per_kind": {
            kind: {name: mean(draw["per_kind"].get(kind, {}).get(name) for draw in found) for name in names}
            for kind in kinds
        },
    }


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of those that exist."""
    found = [value for value in values if value is not None]
    return float(np.mean(found)) if found else None


def spread(values: Iterable[float | None]) -> float | None:
    """The sample standard deviation of those that exist."""
    found = [value for value in values if value is not None]
    return float(np.std(found, ddof=1)) if len(found) > 1 else None


def rate(draws: Iterable[Draw]) -> float | None:
    """Images per second over several draws."""
    found = list(draws)
    seconds = sum(draw["seconds"] for draw in found)
    return sum(draw["images"] for draw in found) / seconds if seconds > 0 else None
