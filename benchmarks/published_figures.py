"""What papers report on the sets that `published_scores.py` trains, and where each figure was read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Row = Mapping[str, float]

DIFFERENCE = 0.1
"""A mean and the columns beside it, all printed with one decimal, may be so far apart by rounding alone."""


@dataclass(frozen=True)
class Figures:
    """A row of a paper's table.

    Attributes:
        metric: its key in `metrics.json`.
        scenes: percent by scene; empty where only the mean was found.
        mean: percent, as it is printed beside them.
        source: where both were read, not where the method was published.
    """

    method: str
    metric: str
    scenes: Row
    mean: float
    source: str

    @property
    def computed(self) -> float | None:
        """Mean of the columns; None if there are none."""
        return sum(self.scenes.values()) / len(self.scenes) if self.scenes else None

    @property
    def differs(self) -> bool:
        """Whether the printed mean is not that of the columns."""
        return self.computed is not None and abs(self.computed - self.mean) > DIFFERENCE


@dataclass(frozen=True)
class Published:
    """A data set and what papers say about it.

    Attributes:
        folder: of the set. title: for people.
        protocol: of `splat.protocols.PROTOCOLS`, which all rows but those of competing classes were scored by.
        scenes: in the order of the table.
        metrics: key in `metrics.json` and heading.
        notes: what a reader of the figures should know.
    """

    folder: str
    title: str
    protocol: str
    scenes: tuple[str, ...]
    metrics: Mapping[str, str]
    figures: tuple[Figures, ...]
    notes: tuple[str, ...] = ()


def _figures(
    metric: str, source: str, scenes: Sequence[str], rows: Mapping[str, tuple[Sequence[float], float]]
) -> tuple[Figures, ...]:
    """Rows of one table: per method the columns (all of them or none) and the printed mean."""
    return tuple(
        Figures(method, metric, dict(zip(scenes, values, strict=True)) if values else {}, mean, source)
        for method, (values, mean) in rows.items()
    )


_LERF = ("ramen", "figurines", "teatime", "waldo_kitchen")
_OVS = ("bed", "bench", "room", "sofa", "lawn")
_360 = ("room", "counter", "garden", "bonsai")

_VALA = "Table 1 of VALA (arXiv 2509.05515), rows of the evaluation in 2D"
_SAGA = "Table 3 of SAGA (AAAI 2025), which Table 3 of N2F2 (ECCV 2024) agrees with; read in two notes on these papers"
_NOTE = "read in a note on LangSplatV2 (arXiv 2507.07136); the mean only"
_CARE = (
    "No source with LangSplatV2's scenes was found. The note that its mean is from gives LangSplat other figures "
    "({theirs}), so take it with care."
)

PUBLISHED = (
    Published(
        "lerf_ovs",
        "LERF_OVS",
        "lerf",
        _LERF,
        {"miou": "mIoU", "localization_accuracy": "located"},
        _figures(
            "miou",
            _VALA,
            _LERF,
            {
                "LangSplat": ((51.2, 44.7, 65.1, 44.5), 51.4),
                "GAGS": ((46.8, 53.6, 60.3, 55.8), 54.1),
                "LangSplatV2": ((51.8, 56.4, 72.2, 59.1), 59.9),
            },
        )
        + _figures(
            "localization_accuracy",
            _VALA,
            _LERF,
            {
                "LangSplat": ((73.2, 80.4, 88.1, 95.5), 84.3),
                "GAGS": ((69.0, 78.6, 88.1, 90.9), 81.7),
                "LangSplatV2": ((74.7, 82.1, 93.2, 86.4), 84.1),
            },
        ),
        (
            "Some comparisons give LangSplatV2 95.5 located in waldo_kitchen, which is LangSplat's figure, beside the "
            "same mean of 84.1; with it the mean would be 86.4. Table 2 of VCAR (ACM MM 2026) has 86.4, as above.",
        ),
    ),
    Published(
        "3d_ovs",
        "3D-OVS",
        "3d-ovs",
        _OVS,
        {"miou": "mIoU", "miou_argmax": "mIoU, classes competing", "pixel_accuracy": "accuracy, classes competing"},
        _figures("miou", _SAGA, _OVS, {"LangSplat": ((92.5, 94.2, 94.1, 90.0, 96.1), 93.4)})
        + _figures("miou", _NOTE, _OVS, {"LangSplatV2": ((), 94.6)})
        + _figures("miou_argmax", _SAGA, _OVS, {"3D-OVS": ((89.5, 89.3, 92.8, 74.0, 88.2), 86.8)}),
        (_CARE.format(theirs="88.8 here"),),
    ),
    Published(
        "mipnerf360",
        "Mip-NeRF 360, labels of GAGS",
        "mipnerf360",
        _360,
        {"miou": "mIoU", "localization_accuracy": "located"},
        _figures("miou", _NOTE, _360, {"LangSplatV2": ((), 69.4)}),
        (
            _CARE.format(theirs="on the other sets"),
            "Of other methods, and of what is located, no figure could be found.",
        ),
    ),
)
