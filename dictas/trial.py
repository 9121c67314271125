"""One class judged after one draw of support images: every detector sees the same tokens and is timed by itself."""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dictas.baselines import ScoresImages, TextOnly
from dictas.datasets import Sample, read_mask
from dictas.detector import Batch, Detector
from dictas.images import Loaded, Photo, batches
from dictas.memory import Memory
from dictas.metrics import image_metrics, pixel_metrics
from dictas.samples import GOOD
from dictas.stream import Judge
from dictas.support import rotated
from dictas.tiles import Box, Judgement, assembled, boxes, prepared_batches
from encoders.errors import InputError
from encoders.files import read_image, white_level

LONGEST_SIDE = 640
"""Pixels are compared at the mask's own resolution, but images longer than this at this length. Maps are computed on
far coarser grids and lose nothing by it."""
MOST_SUPPORT_BYTES = 2**31
"""Tokens shown to baselines, which thin nothing or only when they have seen all. They make several copies."""
BACKBONE = "backbone"
"""Name of its time among those of detectors."""

Map = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Judged:
    """What the detectors found in one test image. Maps stay on the token grid, which is small, until they are needed.

    Attributes:
        shape: (H, W) of the image.
        truth: its mask at compared resolution, None where nobody has drawn one.
        boxes: the parts that were shown, the whole image unless it was tiled.
        prepared: (height, width) at which the parts were shown.
        token_maps: per detector, a map [h, w] per part.
        scores: of detectors with their own idea of it, the score of the image.
    """

    sample: Sample
    shape: tuple[int, int]
    truth: Mask | None
    boxes: list[Box]
    prepared: tuple[int, int]
    token_maps: dict[str, list[Tensor]]
    scores: dict[str, float]


@dataclass
class Trial:
    """What became of one class.

    Attributes:
        judged: the readable test images.
        unreadable: samples that could not be read, and why.
        seconds: spent per detector, and by the backbone for all of them.
    """

    judge: Judge
    judged: list[Judged] = field(default_factory=list)
    unreadable: list[tuple[Sample, str]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def map_of(self, found: Judged, name: str) -> Map:
        """A detector's map of one image at compared resolution, float32 [h, w]."""
        return self.judgement(found, name).map

    def judgement(self, found: Judged, name: str) -> Judgement:
        """`map_of`, and the score of the image: the detector's own, or that of `dictas.tiles`."""
        shape = compared_shape(*found.shape)
        maps = zip(found.boxes, ((token_map, found.prepared) for token_map in found.token_maps[name]), strict=True)
        tiling = self.judge.tiling
        values, score = assembled(shape if tiling is None else found.shape, tiling, maps)
        if values.shape != shape:
            values = np.asarray(cv2.resize(values, shape[::-1], interpolation=cv2.INTER_AREA), np.float32)
        return Judgement(values, found.scores.get(name, score))

    def measure(self, name: str, needs_backbone: bool = True) -> dict[str, Any]:
        """A detector's metrics on all images and on each kind of defect against the good ones, and its time."""
        began = time.perf_counter()
        judgements = [self.judgement(found, name) for found in self.judged]
        maps, scores = [one.map for one in judgements], [one.score for one in judgements]
        seconds = self.seconds[name] + time.perf_counter() - began + needs_backbone * self.seconds[BACKBONE]

        def metrics(kinds: Collection[str]) -> dict[str, float | None]:
            places = [place for place, found in enumerate(self.judged) if found.sample.kind in kinds]
            truths = [(maps[place], truth) for place in places if (truth := self.judged[place].truth) is not None]
            return {
                **pixel_metrics([values for values, _ in truths], [truth for _, truth in truths]),
                **image_metrics(
                    [scores[place] for place in places], [self.judged[place].sample.anomalous for place in places]
                ),
            }

        kinds = list(dict.fromkeys(found.sample.kind for found in self.judged))
        return {
            **metrics(kinds),
            "images": len(self.judged),
            "seconds": seconds,
            "per_kind": {kind: metrics([kind, GOOD]) for kind in kinds if kind != GOOD},
        }


@torch.no_grad()
def run_trial(
    judge: Judge,
    detectors: Sequence[Detector],
    support: Sequence[Path],
    samples: Sequence[Sample],
    workers: int,
    report: Callable[[int], None],
    rotations: int = 1,
) -> Trial:
    """Let the detectors remember the support and judge the samples.

    Args:
        judge: how images are shown; its own detector is not asked, and the white level comes from the support.
        support: normal images. rotations: copies of each, itself included, turned by equal angles.
        workers: processes that read images.
        report: called with the number of images done.

    Raises:
        InputError: a support image or a mask cannot be read, a mask does not fit its image, or the support is more
            than the baselines can remember.
    """
    judge = replace(judge, white=white_level(support))
    trial = Trial(judge)
    _remember(judge, detectors, support, rotations)
    photos = [Photo(sample.path.name, sample.path) for sample in samples]
    done = 0
    with closing(judge.read(photos, workers)) as loaded:
        for group in batches(loaded, judge.group_size()):
            trial.unreadable += [(samples[photo.index], photo.error) for photo in group if photo.image is None]
            _judge_group(trial, detectors, [photo for photo in group if photo.image is not None], samples)
            done += len(group)
            report(done)
    return trial


def _remember(judge: Judge, detectors: Sequence[Detector], support: Sequence[Path], rotations: int) -> None:
    """Show all detectors the support, each image to the backbone once, and keep no more than they need."""
    memories = [Memory(detector, len(support)) for detector in detectors]
    room = MOST_SUPPORT_BYTES
    for path in support:
        image = read_image(path, white=judge.white)
        for batch in prepared_batches(judge.backbone, rotated(image, rotations), judge.tiling, judge.size):
            for memory in memories:
                memory.add(batch)
            if not all(memory.condenses for memory in memories):
                room -= batch.images.nbytes + sum(tokens.nbytes for tokens in batch.tokens)
            if room < 0:
                raise InputError(
                    f"The baselines would remember more than {MOST_SUPPORT_BYTES >> 30} GiB of tokens of "
                    f"{len(support)} support images; use --baselines none, fewer --shots or --rotations, or a larger "
                    "--tile."
                )
        for memory in memories:
            memory.finish()
    for memory in memories:
        memory.recall()


def needs_backbone(detector: Detector) -> bool:
    """Whether the tokens' time is part of the detector's."""
    return not isinstance(detector, TextOnly)


def compared_shape(height: int, width: int) -> tuple[int, int]:
    """The resolution at which an image of ``height`` x ``width`` is compared with its mask; see `LONGEST_SIDE`."""
    factor = min(1.0, LONGEST_SIDE / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def shrunk(mask: Mask) -> Mask:
    """A mask bool [H, W] at compared resolution.

    A pixel is anomalous if any part of it is: a crack a pixel wide stays whole, where taking the nearest pixel or
    the majority would leave dots of it or nothing. Regions gain less than a pixel on each side, for all detectors.
    """
    shape = compared_shape(*mask.shape)
    if shape == mask.shape:
        return mask
    return np.asarray(cv2.resize(mask.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA) > 0)


def _judge_group(
    trial: Trial, detectors: Sequence[Detector], photos: Sequence[Loaded], samples: Sequence[Sample]
) -> None:
    """Judge photos of one prepared size, or one photo in tiles."""
    begun: list[Judged] = []
    parts: list[Judged] = []
    for photo in photos:
        assert photo.image is not None
        found = _begun(trial.judge, samples[photo.index], (photo.image.shape[0], photo.image.shape[1]), detectors)
        begun.append(found)
        parts += [found] * len(found.boxes)
    waiting = iter(parts)
    for batch in _seen(trial, photos):
        owners = [next(waiting) for _ in batch.images]
        for detector in detectors:
            with _timed(trial.seconds, detector.name):
                maps = detector.maps(batch)
                scores = detector.scores(batch, maps).tolist() if isinstance(detector, ScoresImages) else []
                maps = maps.cpu()
            for owner, token_map in zip(owners, maps, strict=True):
                owner.token_maps[detector.name].append(token_map.clone())
            for owner, score in zip(owners, scores, strict=False):
                owner.scores[detector.name] = max(score, owner.scores.get(detector.name, 0.0))
    trial.judged += begun


def _begun(judge: Judge, sample: Sample, shape: tuple[int, int], detectors: Sequence[Detector]) -> Judged:
    cut = [Box(0, 0, *shape)] if judge.tiling is None else boxes(*shape, judge.tiling)
    truth = shrunk(read_mask(sample, shape)) if sample.mask is not None or not sample.anomalous else None
    prepared = judge.backbone.prepared_size(*cut[0].shape)
    return Judged(sample, shape, truth, cut, prepared, {detector.name: [] for detector in detectors}, {})


def _seen(trial: Trial, photos: Sequence[Loaded]) -> Iterator[Batch]:
    """Batches of all parts of the photos in order; the backbone's time is noted."""
    shown = _shown(trial.judge, photos)
    while True:
        with _timed(trial.seconds, BACKBONE):
            batch = next(shown, None)
        if batch is None:
            return
        yield batch


def _shown(judge: Judge, photos: Sequence[Loaded]) -> Iterator[Batch]:
    if judge.tiling is not None:
        images = [photo.image for photo in photos if photo.image is not None]
        yield from prepared_batches(judge.backbone, images, judge.tiling, judge.size)
    elif photos:
        yield judge.backbone.batch([photo.prepared for photo in photos if photo.prepared is not None])


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    seconds[name] += time.perf_counter() - began
