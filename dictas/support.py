"""The few normal images: read, turned if the part may lie at any angle, and remembered once.

What a detector remembers is kept in ``dictionary.safetensors`` in the output folder and used again as long as the
support images, the model and the options are the same.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from dictas.detector import Backbone, Detector
from dictas.images import find_images
from dictas.memory import Memory
from dictas.tiles import Tiling, prepared_batches
from encoders.checkpoints import DamagedCheckpoints, load_checkpoint, save_checkpoint
from encoders.errors import InputError
from encoders.files import read_image, white_level

NAME = "dictionary.safetensors"
MOST = 256
"""Photos; a folder with more is the wrong one, or one of all photos."""

Image = NDArray[np.uint8]


class Learned(Detector, Protocol):
    """A detector with weights, whose memory of normal images can be kept in a file.

    Attributes:
        config: its settings; equal ones have equal ``repr``.
    """

    config: Any

    def state_dict(self) -> Mapping[str, Any]:
        """The weights by name, as of a `torch.nn.Module`."""
        ...

    def dictionary_state(self) -> dict[str, torch.Tensor]:
        """What it remembers."""
        ...

    def load_dictionary_state(self, state: dict[str, torch.Tensor]) -> None:
        """Remember what `dictionary_state` of an equal detector returned."""
        ...


@dataclass(frozen=True)
class Support:
    """Normal images and how they are shown to the detector.

    Attributes:
        names: relative to the support folder.
        images: uint8 [H, W, 3] each.
        digest: of the files' contents.
        rotations: how many copies of each, itself included, turned by equal angles.
        duplicates: names of files that are left out, because they are byte for byte another one. Left in, each would
            know its copy: leave-one-out would find all good parts alike.
        white: at which they were read, and other photos of the same camera should be; see
            `encoders.files.white_level`.
    """

    names: tuple[str, ...]
    images: tuple[Image, ...]
    digest: str
    rotations: int = 1
    duplicates: tuple[str, ...] = ()
    white: int | None = None

    def memory(self, detector: Detector, backbone: Backbone, tiling: Tiling | None, size: int) -> Memory:
        """What the detector keeps of each image, turned and cut as asked.

        Args:
            size: pictures shown to the backbone at a time.
        """
        memory = Memory(detector, len(self.images))
        for image in self.images:
            for batch in prepared_batches(backbone, rotated(image, self.rotations), tiling, size):
                memory.add(batch)
            memory.finish()
        return memory


def read_support(folder: Path, rotations: int = 1, skip: Collection[Path] = ()) -> Support:
    """Read the normal images in a folder (or one file); of files with the same bytes the first.

    Args:
        rotations: see `Support`.
        skip: folders below, of other images.

    Raises:
        InputError: there is no image, or one that cannot be read, or more than `MOST`.
    """
    if rotations < 1:
        raise InputError(f"--rotations is {rotations}; give 1 (no turned copies) or more.")
    photos = find_images(folder, skip)
    if not photos:
        raise InputError(f"There is no image in the support folder {folder}; put 1 to 16 photos of good parts there.")
    if len(photos) > MOST:
        below = " with its subfolders" if any("/" in photo.name for photo in photos) else ""
        raise InputError(
            f"The support folder {folder} holds {len(photos):,} images{below}, {MOST} are the most; give a folder with "
            "1 to 16 photos of good parts."
        )
    kept: dict[bytes, tuple[str, Image]] = {}
    duplicates = []
    white = white_level(photo.path for photo in photos)
    for photo in photos:
        image = read_image(photo.path, white=white)
        content = hashlib.blake2b(photo.path.read_bytes()).digest()
        if content in kept:
            duplicates.append(photo.name)
        else:
            kept[content] = photo.name, image
    digest = hashlib.blake2b(b"".join(kept), digest_size=16).hexdigest()
    names, images = zip(*kept.values(), strict=True)
    return Support(names, images, digest, rotations, tuple(duplicates), white)


def rotated(image: Image, rotations: int) -> Iterator[Image]:
    """``rotations`` copies of an image uint8 [H, W, 3], turned by multiples of 360° / ``rotations``, itself first.

    Quarter turns are exact. Others keep the size: what turns out of the picture is lost, and the corners are filled
    with the picture mirrored at its border, which invents no edges and no colours.
    """
    return (turned(image, 360.0 * number / rotations) for number in range(rotations))


def turned(image: Image, degrees: float) -> Image:
    """An image turned counter-clockwise; see `rotated`."""
    quarters = degrees / 90.0
    if quarters == round(quarters):
        return np.ascontiguousarray(np.rot90(image, round(quarters)))
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    turned = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(turned, np.uint8)


def model_digest(detector: Learned) -> str:
    """Identifies a detector's settings and weights, wherever they came from."""
    digest = hashlib.blake2b(repr(detector.config).encode(), digest_size=16)
    for name, value in sorted(detector.state_dict().items()):
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def keep(detector: Learned, path: Path, fingerprint: Mapping[str, Any]) -> None:
    """Keep what the detector remembers in ``path``, with a checksum."""
    kept = {"fingerprint": json.dumps(fingerprint, sort_keys=True)}
    save_checkpoint(path, detector.dictionary_state(), kept, keep=False)


def recall(detector: Learned, path: Path, fingerprint: Mapping[str, Any]) -> bool:
    """Let the detector remember what ``path`` holds; False if that is damaged or was not made with ``fingerprint``.

    Raises:
        InputError: the file is there and cannot be read, for now.
    """
    try:
        found = load_checkpoint(path)
    except DamagedCheckpoints:
        return False
    if found is None or found.metadata.get("fingerprint") != json.dumps(fingerprint, sort_keys=True):
        return False
    detector.load_dictionary_state(found.tensors)
    return True
