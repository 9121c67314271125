"""A hierarchy of regions: superpixels merged two by two until one is left.

Own code, because scikit-image's ``merge_hierarchical`` (a generic graph with Python callbacks) is far slower
and scikit-learn's clustering knows no boundaries and no shapes.
"""

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


@dataclass(frozen=True)
class MergeOptions:
    """What makes two neighbours a and b merge early. The cost of merging them is::

        size^size_power * ((1 - edge_share) |f_a - f_b|^2 + edge_share * edge_gain * e_ab)
          * (1 - enclosure * min(1, l_ab / shorter perimeter)) * (1 + void * emptiness)

    with ``size = A_a A_b / (A_a + A_b)`` in image areas (Ward's rule at power 1: big regions merge late),
    ``e_ab`` the mean edge strength and ``l_ab`` the length of the common boundary (holes merge early), and
    ``emptiness`` the part of their joint box that neither fills, over the square root of their area (compact
    regions merge early; Uijlings et al. 2013, "fill").
    """

    size_power: float = 0.9
    edge_share: float = 0.2
    edge_gain: float = 20.0
    enclosure: float = 0.8
    void: float = 2.0


@dataclass(frozen=True)
class MergeTree:
    """A binary tree over N superpixels 0..N-1; node N + k joins the two nodes ``children[k]``.

    Attributes:
        children: int [N - 1, 2].
        heights: merge costs, raised to be at least those of the children. float [N - 1]
    """

    children: NDArray[np.intp]
    heights: NDArray[np.float64]

    def cut(self, height: float) -> NDArray[np.intp]:
        """Region 0.. of each superpixel when merges above ``height`` are undone. int [N]"""
        count = len(self.children) + 1
        labels = np.full(2 * count - 1, -1, dtype=np.intp)
        regions = 0
        for node in range(2 * count - 2, -1, -1):
            if labels[node] < 0 and (node < count or self.heights[node - count] <= height):
                labels[node] = regions
                regions += 1
            if node >= count and labels[node] >= 0:
                labels[self.children[node - count]] = labels[node]
        return labels[:count]


def merge_tree(
    superpixels: NDArray[np.integer],
    features: NDArray[np.floating],
    edges: NDArray[np.floating],
    options: MergeOptions,
) -> MergeTree:
    """Merge neighbours, cheapest first.

    Args:
        superpixels: ids 0..N-1, all present, neighbours connected. int [H, W]
        features: a vector per superpixel. [N, D]
        edges: edge strength per pixel. [H, W]
        options: the cost.
    """
    count = int(superpixels.max()) + 1
    regions = _Regions(superpixels, features, edges, options)
    queue = [(regions.cost(a, b), a, b) for a in range(count) for b in regions.neighbours[a] if a < b]
    heapq.heapify(queue)
    children = np.zeros((count - 1, 2), dtype=np.intp)
    heights = np.zeros(2 * count - 1)
    node = count
    while node < 2 * count - 1:
        cost, a, b = heapq.heappop(queue)
        if not (regions.alive[a] and regions.alive[b]):
            continue
        children[node - count] = a, b
        heights[node] = max(cost, heights[a], heights[b])
        regions.join(a, b, node)
        for other in regions.neighbours[node]:
            heapq.heappush(queue, (regions.cost(node, other), node, other))
        node += 1
    return MergeTree(children, heights[count:])


class _Regions:
    """Sums over regions that merging only has to add up."""

    def __init__(
        self,
        superpixels: NDArray[np.integer],
        features: NDArray[np.floating],
        edges: NDArray[np.floating],
        options: MergeOptions,
    ) -> None:
        count = len(features)
        nodes = 2 * count - 1
        self.options = options
        self.pixels = float(superpixels.size)
        self.alive = np.ones(nodes, dtype=bool)
        area = np.bincount(superpixels.ravel(), minlength=count).astype(float)
        self.area: list[float] = [*area.tolist(), *[0.0] * (count - 1)]
        self.sums = np.zeros((nodes, features.shape[1]))
        self.sums[:count] = features * area[:, None]
        slices = ndimage.find_objects(superpixels + 1)
        self.boxes: list[tuple[int, int, int, int]] = [
            (rows.start, columns.start, rows.stop, columns.stop) for rows, columns in slices
        ]
        self.perimeter = [0.0] * nodes
        # Per neighbour: (length of the common boundary, edge strength summed over it).
        self.neighbours: list[dict[int, tuple[float, float]]] = [{} for _ in range(nodes)]
        for a, b, length, strength in _boundaries(superpixels, edges, count):
            self.neighbours[a][b] = self.neighbours[b][a] = (length, strength)
            self.perimeter[a] += length
            self.perimeter[b] += length

    def cost(self, a: int, b: int) -> float:
        options = self.options
        length, strength = self.neighbours[a][b]
        area_a, area_b = self.area[a], self.area[b]
        area = area_a + area_b
        difference = self.sums[a] / area_a - self.sums[b] / area_b
        distance = (1 - options.edge_share) * float(difference @ difference)
        distance += options.edge_share * options.edge_gain * strength / length
        size = (area_a * area_b / area / self.pixels) ** options.size_power
        shared = min(1.0, length / min(self.perimeter[a], self.perimeter[b]))
        top, left, bottom, right = _joint_box(self.boxes[a], self.boxes[b])
        empty = ((bottom - top) * (right - left) - area) / self.pixels / (area / self.pixels) ** 0.5
        return size * distance * (1 - options.enclosure * shared) * (1 + options.void * empty)

    def join(self, a: int, b: int, node: int) -> None:
        self.alive[a] = self.alive[b] = False
        self.area[node] = self.area[a] + self.area[b]
        self.sums[node] = self.sums[a] + self.sums[b]
        self.boxes.append(_joint_box(self.boxes[a], self.boxes[b]))
        self.perimeter[node] = self.perimeter[a] + self.perimeter[b] - 2 * self.neighbours[a][b][0]
        joint = self.neighbours[a]
        del joint[b]
        for other, (length, strength) in self.neighbours[b].items():
            if other != a:
                before = joint.get(other, (0.0, 0.0))
                joint[other] = (before[0] + length, before[1] + strength)
        self.neighbours[a], self.neighbours[b], self.neighbours[node] = {}, {}, joint
        for other, boundary in joint.items():
            self.neighbours[other].pop(a, None)
            self.neighbours[other].pop(b, None)
            self.neighbours[other][node] = boundary


def _joint_box(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _boundaries(
    ids: NDArray[np.integer], edges: NDArray[np.floating], count: int
) -> list[tuple[int, int, float, float]]:
    """(a, b, length, summed edge strength) of every pair a < b of neighbours, 4-connected."""
    pairs, strengths = [], []
    before, after, everything = slice(-1), slice(1, None), slice(None)
    for first, second in (((everything, before), (everything, after)), ((before,), (after,))):
        a, b = ids[first].ravel().astype(np.int64), ids[second].ravel().astype(np.int64)
        apart = a != b
        pairs.append((np.minimum(a, b) * count + np.maximum(a, b))[apart])
        strengths.append(np.maximum(edges[first], edges[second]).ravel()[apart])
    keys, inverse, lengths = np.unique(np.concatenate(pairs), return_inverse=True, return_counts=True)
    sums = np.bincount(inverse, weights=np.concatenate(strengths), minlength=len(keys))
    a, b = np.divmod(keys, count)
    return list(zip(a.tolist(), b.tolist(), lengths.astype(float).tolist(), sums.tolist(), strict=True))
