"""Training material: a few normal images, and queries of the same class with defects put on them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from dictas.augmentation import augment_support
from dictas.images import Photo, find_images, read
from dictas.procedural import draw_class
from dictas.synthesis import add_anomalies
from dictas.textures import FolderTextures, ProceduralTextures, TextureSource
from encoders.errors import InputError
from encoders.workers import begin_worker

HELD_OUT = 1_000_000_000
"""Numbers of validation episodes start here, where training never comes."""
ONE_IN = 10
"""A folder of at least so many photos keeps one in so many of them for validation."""


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
    kinds: of `dictas.synthesis.KINDS`, the defects; None for all.
    """

    side: int = 256
    shots: int = 3
    queries: int = 3
    anomalous: float = 0.75
    kinds: tuple[str, ...] | None = None


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
    """Every episode is one of some photos; all its images are strong augmentations of it (the paper)."""

    def __init__(self, photos: Sequence[Photo]) -> None:
        self._photos = photos

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


@dataclass(frozen=True)
class Material:
    """What episodes are made of.

    Attributes:
        source: of normal images.
        textures: of defects.
        validation: of normal images in validation; None if ``source`` never gives the same one twice, or has too
            few to keep some apart.
        folders: those that are read, by their purpose.
    """

    source: Source
    textures: TextureSource
    validation: Source | None = None
    folders: Mapping[str, str] = field(default_factory=dict)


class Episodes(Dataset[Episode]):
    """Episode number i is the same whoever asks for it: training resumes where it stopped."""

    def __init__(self, material: Material, config: EpisodeConfig, seed: int) -> None:
        self._material, self._config, self._seed = material, config, seed

    def __getitem__(self, number: int) -> Episode:
        cv2.setNumThreads(1)
        config, rng = self._config, np.random.default_rng((self._seed, number))
        shots = int(rng.integers(1, config.shots + 1))
        source = self._material.source
        if number >= HELD_OUT and self._material.validation is not None:
            source = self._material.validation
        images = source.normal(rng, config.side, shots + config.queries)
        queries, masks = [], []
        for image, product in images[shots:]:
            if rng.random() < config.anomalous:
                changed, mask = add_anomalies(image, product, rng, self._material.textures, config.kinds)
            else:
                changed, mask = image, np.zeros(image.shape[:2], bool)
            queries.append(changed)
            masks.append(mask)
        return Episode(np.stack([image for image, _ in images[:shots]]), np.stack(queries), np.stack(masks))


def split_photos(folder: Path) -> tuple[list[Photo], list[Photo]]:
    """The photos to train on and those kept for validation, every tenth; none are where there are fewer than ten.

    Raises:
        InputError: the folder is missing or has no images.
    """
    photos = find_images(folder)
    if not photos:
        raise InputError(f"There are no images in {folder} to train on; give a folder of photos.")
    kept = photos[ONE_IN - 1 :: ONE_IN]
    return [photo for place, photo in enumerate(photos, 1) if place % ONE_IN], kept


def material(images: Path | None, textures: Path | None) -> Material:
    """Photos of a folder, or procedural ones; with textures of a folder, or procedural ones.

    Raises:
        InputError: a folder is missing or has no images.
    """
    drawn = ProceduralTextures() if textures is None else FolderTextures(textures)
    given = {"images": images, "textures": textures}
    folders = {purpose: str(folder.resolve()) for purpose, folder in given.items() if folder is not None}
    if images is None:
        return Material(ProceduralSource(), drawn, folders=folders)
    training, validation = split_photos(images)
    return Material(FolderSource(training), drawn, FolderSource(validation) if validation else None, folders)


def stream(data: Episodes, numbers: Sequence[int], workers: int) -> Iterator[Episode]:
    """Episodes of these numbers in order, made by ``workers`` processes ahead of time (0: by this one).

    Raises:
        InputError: what they are made of cannot be read.
    """
    made = DataLoader(
        _Told(data),
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=begin_worker,
    )
    for episode in made:
        if isinstance(episode, str):
            raise InputError(episode)
        yield episode


class _Told(Dataset[Episode | str]):
    """Episodes, or the sentence that says why there is none: an error raised in a worker arrives as a traceback."""

    def __init__(self, data: Episodes) -> None:
        self._data = data

    def __getitem__(self, number: int) -> Episode | str:
        try:
            return self._data[number]
        except InputError as error:
            return str(error)
