"""Which of the photos have a known answer: masks matched by name."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from dictas.images import Photo, find_images
from dictas.masks import masks_of
from dictas.samples import GOOD, Sample
from encoders.errors import InputError

LABELLED = "labelled"
"""Kind of the samples whose mask was given."""


def match_masks(photos: Sequence[Photo], folder: Path) -> dict[int, Sample]:
    """The photos with a known answer, by their place in the list.

    These are the ones that have a mask in ``folder`` in the same subfolder and of the same name (see
    `dictas.masks.masks_of`), and those in a folder called `GOOD`, as in MVTec's layout, where there is nothing to mark.

    Raises:
        InputError: no mask belongs to a photo, or two to one.
    """
    masks = _by_folder(find_images(folder))
    found: dict[int, Sample] = {}
    for place, members in _by_folder(photos).items():
        drawn = [path for _, path in masks.get(place, [])]
        matches = masks_of([path for _, path in members], drawn)
        for (index, path), mask in zip(members, matches, strict=True):
            if mask is not None:
                found[index] = Sample(path, LABELLED, mask)
            elif GOOD in place.split("/"):
                found[index] = Sample(path, GOOD, None)
    if not any(sample.anomalous for sample in found.values()):
        raise InputError(
            f"No mask in {folder} belongs to an image; masks are named like their image, NAME.png or NAME_mask.png, "
            "in the same subfolder."
        )
    return dict(sorted(found.items()))


def _by_folder(photos: Sequence[Photo]) -> dict[str, list[tuple[int, Path]]]:
    """Places in the list and paths of the photos in each subfolder."""
    folders: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for index, photo in enumerate(photos):
        folders[str(PurePosixPath(photo.name).parent)].append((index, photo.path))
    return folders


def labels_digest(photos: Sequence[Photo], labels: dict[int, Sample]) -> str:
    """Identifies which photos are labelled, and how, whatever others there are."""
    digest = hashlib.blake2b(digest_size=16)
    for index, sample in labels.items():
        content = sample.mask.read_bytes() if sample.mask else b""
        digest.update(photos[index].name.encode() + b"\0" + hashlib.blake2b(content).digest())
    return digest.hexdigest()
