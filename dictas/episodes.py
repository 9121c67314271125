"""Training material: a few normal images, and queries of the same class with defects put on them."""

import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from dictas.augmentation import augment_support
from dictas.images import find_images, read
from dictas.procedural import draw_class
from dictas.synthesis import add_anomalies
from dictas.textures import FolderTextures, ProceduralTextures, TextureSource
from encoders.errors import InputError


@dataclass(frozen=True)
class Episode:
    """One class for one moment.

    Attributes:
        support: normal images. uint8 [k, H, W, 3]
        queries: other images of the class. uint8 [q, H, W, 3]
        masks: where queries have defects. bool [q, H, W]
    """

    support: NDArray[np.uint8]
    queries: NDArray[np.uint8]
    masks: NDArray[np.bool_]


@dataclass(frozen=True)
class EpisodeConfig:
    """Attributes:
    side: height and width of the images.
    shots: most support images; each episode has 1 to so many.
    queries: queries per episode.
    anomalous: share of them that get defects.
    """

    side: int = 256
    shots: int = 3
    queries: int = 3
    anomalous: float = 0.75


Specimen = tuple[NDArray, NDArray | None]
"""An image uint8 [side, side, 3], and where the product is in it, bool [side, side] (None: everywhere)."""


class Source(Protocol):
    """Where the normal images come from."""

    def normal(self, rng: np.random.Generator, side: int, count: int) -> Sequence[Specimen]:
        """``count`` normal images of one class."""
        ...


class ProceduralSource:
    """Every episode is another class of `dictas.procedural`, every image another specimen of it."""

    def normal(self, rng: np.random.Generator, side: int, count: int) -> Sequence[Specimen]:
        """See `Source`."""
        drawn = draw_class(rng)
        return [drawn.sample(rng, (side, side)) for _ in range(count)]


class FolderSource:
    """Every episode is one photo of a folder; all its images are strong augmentations of it (the paper)."""

    def __init__(self, folder: Path) -> None:
        self._photos = find_images(folder)
        if not self._photos:
            raise InputError(f"There are no images in {folder} to train on; give a folder of photos.")

    def __len__(self) -> int:
        return len(self._photos)

    def normal(self, rng: np.random.Generator, side: int, count: int) -> Sequence[Specimen]:
        """See `Source`. Photos that cannot be read are passed over.

        Raises:
            InputError: none of twenty photos could be read.
        """
        for _ in range(20):
            found = self._photos[int(rng.integers(len(self._photos)))]
            image = read(found).image
            if image is None:
                continue
            photo = np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
            # The first one stays as it is, the query of the paper's pair.
            return [(photo if number == 0 else augment_support(photo, rng), None) for number in range(count)][::-1]
        raise InputError(f"Twenty images in a row could not be read, {found.path} last; replace or remove them.")


class Episodes(Dataset[Episode]):
    """Episode number i is the same whoever asks for it: training resumes where it stopped.

    Attributes:
        folders: those it reads, by their purpose.
    """

    def __init__(
        self,
        source: Source,
        config: EpisodeConfig,
        textures: TextureSource,
        seed: int,
        folders: Mapping[str, str] | None = None,
    ) -> None:
        self._source, self._config, self._textures, self._seed = source, config, textures, seed
        self.folders = dict(folders or {})

    def __getitem__(self, number: int) -> Episode:
        cv2.setNumThreads(1)
        config, rng = self._config, np.random.default_rng((self._seed, number))
        shots = int(rng.integers(1, config.shots + 1))
        images = self._source.normal(rng, config.side, shots + config.queries)
        queries, masks = [], []
        for image, product in images[shots:]:
            if rng.random() < config.anomalous:
                changed, mask = add_anomalies(image, product, rng, self._textures)
            else:
                changed, mask = image, np.zeros(image.shape[:2], bool)
            queries.append(changed)
            masks.append(mask)
        return Episode(np.stack([image for image, _ in images[:shots]]), np.stack(queries), np.stack(masks))


def episodes(images: Path | None, textures: Path | None, config: EpisodeConfig, seed: int) -> Episodes:
    """Of a folder of photos, or procedural ones; with textures of a folder, or procedural ones.

    Raises:
        InputError: a folder is missing or has no images.
    """
    source = ProceduralSource() if images is None else FolderSource(images)
    drawn = ProceduralTextures() if textures is None else FolderTextures(textures)
    given = {"images": images, "textures": textures}
    folders = {purpose: str(folder.resolve()) for purpose, folder in given.items() if folder is not None}
    return Episodes(source, config, drawn, seed, folders)


def stream(data: Episodes, numbers: Sequence[int], workers: int) -> Iterator[Episode]:
    """Episodes of these numbers in order, made by ``workers`` processes ahead of time (0: by this one)."""
    yield from DataLoader(
        data,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_ignore_interrupts,
    )


def _ignore_interrupts(_worker: int) -> None:
    # Ctrl-C reaches every process of a terminal; the parent ends its workers, they need not complain.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
