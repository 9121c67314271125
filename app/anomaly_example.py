"""Photos to try the inspection with: blister packs that a program draws, some of them damaged."""

from pathlib import Path

import cv2
import numpy as np

from dictas.procedural import ProceduralClass
from dictas.synthesis import add_anomalies

PRODUCT = ProceduralClass("blister", 3)
SIDE = 400
GOOD = 4
DEFECTS = ("", "crack", "", "stain", "", "chip", "", "scratch", "paste", "", "pit", "")
"""What is wrong with each photo to judge; "" is nothing."""
SEED = 11
QUALITY = 92


def write_example(folder: Path) -> tuple[list[Path], list[Path]]:
    """Write photos of good packs and of packs to judge into a folder; the same ones every time.

    Returns:
        Paths of the good ones, and of those to judge; these are named by their number and what is wrong with them.
    """
    rng = np.random.default_rng(SEED)
    good = [folder / f"good {number}.jpg" for number in range(1, GOOD + 1)]
    judge = [folder / f"{number:02} {defect or 'fine'}.jpg" for number, defect in enumerate(DEFECTS, 1)]
    for path, defect in zip([*good, *judge], [""] * GOOD + list(DEFECTS), strict=True):
        photo, product = PRODUCT.sample(rng, (SIDE, SIDE))
        if defect:
            photo, _ = add_anomalies(photo, product, rng, kinds=[defect])
        cv2.imwrite(str(path), photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return good, judge
