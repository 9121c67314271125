"""How often good photos exceed the limit that `dictas.thresholds` sets for them.

Classes are those of `dictas.procedural`, numbers that training does not reach; each has 1, 2 or 4 support images and
ten good queries. Prints, per number of support images and stated rate, the realised rate, and what the limits assume:
the spread of logarithms of good scores, and how much higher they are than those of changed copies of one image.

    python benchmarks/false_alarms.py [--classes 40] [--checkpoint FILE]
"""

import argparse
from pathlib import Path

import numpy as np

from dictas.checkpoint import load_detector
from dictas.detector import Backbone, Detector
from dictas.procedural import draw_class
from dictas.support import Support
from dictas.thresholds import from_support
from dictas.tiles import judge_image

SIDE = 256
QUERIES = 10
RATES = (0.01, 0.05)


def class_rates(
    backbone: Backbone, detector: Detector, seed: int
) -> tuple[dict[tuple[int, float], float], float, float]:
    """Realised rates by (support images, stated rate); spread of log scores; their gap to those of changed copies."""
    rng = np.random.default_rng((77, seed))
    drawn = draw_class(rng)
    photos = [drawn.sample(rng, (SIDE, SIDE))[0] for _ in range(4 + QUERIES)]
    support, queries = photos[:4], photos[4:]
    realised: dict[tuple[int, float], float] = {}
    spread = gap = 0.0
    for shots in (1, 2, 4):
        known = Support(tuple(map(str, range(shots))), tuple(support[:shots]), digest="")
        memory = known.memory(detector, backbone, None, 1)
        limits = [from_support(backbone, detector, known.images, memory, rate, None, 1) for rate in RATES]
        memory.recall()
        scores = [judge_image(backbone, detector, photo, None, 1).score for photo in queries]
        for rate, limit in zip(RATES, limits, strict=True):
            realised[shots, rate] = float(np.mean(np.array(scores) >= limit.image))
        logs = np.log(scores)
        if shots == 1:
            gap = float(logs.mean() - np.log(max(limits[0].samples)))
        spread = float(logs.std())
    return realised, spread, gap


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=40)
    parser.add_argument("--checkpoint", type=Path)
    arguments = parser.parse_args()
    backbone, detector = load_detector(arguments.checkpoint)
    found = [class_rates(backbone, detector, seed) for seed in range(arguments.classes)]
    print("| support images | stated | realised |\n|---|---|---|")
    for key in found[0][0]:
        print(f"| {key[0]} | {key[1]:.0%} | {np.mean([rates[key] for rates, _, _ in found]):.1%} |")
    spreads, gaps = (np.array([one[place] for one in found]) for place in (1, 2))
    low, median, high = np.percentile(spreads, [5, 50, 95])
    print(f"\nspread of log scores: median {median:.2f}, nine in ten {low:.2f} to {high:.2f}")
    print(f"gap to changed copies of one image: mean {gaps.mean():.2f}, deviation {gaps.std():.2f}")


if __name__ == "__main__":
    main()
