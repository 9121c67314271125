"""Pictures of where the defect is: which belongs to which image, and which of its pixels mean "defect"."""

import re
import struct
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from dictas.samples import Sample
from encoders.errors import InputError
from encoders.files import MAX_PIXELS, WithinFile

MARK = re.compile(r"[ _.-]?(?:masks?|gt|ground[ _-]?truth|labels?|seg(?:mentation)?)$", re.IGNORECASE)
"""What may follow the image's name in its mask's: MVTec's and MPDD's "000_mask", "000_GT", ..."""
FLAIR = re.compile(r"(?<=_)flair(?=_|$)", re.IGNORECASE)
"""BraTS tells channels apart in the middle of the name: the truth of "00002_flair_60" is "00002_seg_60"."""

MOST_LABELS = 127
"""A picture without a brighter pixel holds numbers of labels (VisA's go from 1), not shades of grey."""
LOSSY = ("JPEG", "MPO")
"""Formats whose noise must not be taken for labels."""


def masks_of(images: Sequence[Path], masks: Sequence[Path]) -> list[Path | None]:
    """The mask of each image, if it has one: of the same name, suffix and case aside, or with a `MARK` after it.

    Raises:
        InputError: an image has two.
    """
    exact, marked = defaultdict(list), defaultdict(list)
    for mask in masks:
        exact[mask.stem.casefold()].append(mask)
        if MARK.search(mask.stem):
            marked[MARK.sub("", mask.stem).casefold()].append(mask)
    return [_mask_of(image, exact, marked) for image in images]


def _mask_of(image: Path, exact: dict[str, list[Path]], marked: dict[str, list[Path]]) -> Path | None:
    stem = image.stem.casefold()
    found = exact.get(stem) or marked.get(stem) or exact.get(FLAIR.sub("seg", stem)) or []
    # Where case is all that tells two images apart, it also tells their masks apart.
    found = [mask for mask in found if mask.stem.startswith(image.stem)] or found
    if len(found) > 1:
        raise InputError(f"The image {image} has two masks, {found[0]} and {found[1]}; remove the wrong one.")
    return found[0] if found else None


def read_mask(sample: Sample, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Where the sample's defect is, bool [H, W]; nowhere for good samples.

    Args:
        shape: (H, W) of the sample's image, upright.

    Raises:
        InputError: nobody has drawn where the defect is, or the mask cannot be read or does not fit the image.
    """
    if not sample.anomalous:
        return np.zeros(shape, bool)
    if sample.mask is None:
        raise InputError(f'The image {sample.path} of kind "{sample.kind}" has no mask; only images can be judged.')
    defect = defect_pixels(sample.mask)
    if defect.shape != shape:
        raise InputError(
            f"The mask {sample.mask} has {defect.shape[1]}x{defect.shape[0]} pixels but its image {sample.path} has "
            f"{shape[1]}x{shape[0]} (upright); draw the mask on the image as viewers show it."
        )
    return defect


def defect_pixels(path: Path) -> NDArray[np.bool_]:
    """The pixels that a mask marks, bool [H, W].

    Any mode is read: grey, palette and colour (the brightest channel counts; what is transparent does not), 1 to 32
    bits, floating point; an EXIF turn is followed. Two kinds of pictures are common:

    - labels, as numbers up to `MOST_LABELS` (VisA) or as a palette's colours: everything but 0 or black is a defect;
    - black and white, whose edges may be soft and, after JPEG, noisy: what is brighter than half of the brightest
      pixel is a defect. Taking everything but 0 here makes thin cracks half as large again.

    Raises:
        InputError: the file is missing, empty, truncated, no image or too large.
    """
    try:
        with WithinFile(path) as file, Image.open(file) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(
                    f"The mask {path} has {image.width}x{image.height} pixels, more than dictsplat reads; shrink it."
                )
            lossy = image.format in LOSSY
            values = _values(ImageOps.exif_transpose(image))
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"The mask {path} does not exist.") from None
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, EOFError, struct.error, MemoryError) as error:
        raise InputError(f"The mask {path} cannot be read ({error}); replace it.") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"The mask {path} is too large ({error}); shrink it.") from error
    peak = values.max(initial=0)
    numbers = peak <= MOST_LABELS and not lossy and np.issubdtype(values.dtype, np.integer)
    return np.asarray(values > (0 if numbers else peak / 2), np.bool_)


def _values(image: Image.Image) -> NDArray[Any]:
    """[H, W], 0 where there is nothing."""
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    if image.mode == "L" and "transparency" not in image.info:
        return np.asarray(image)
    if image.mode.startswith("I"):
        return np.asarray(image)
    if image.mode == "F":
        return np.nan_to_num(np.asarray(image), posinf=0.0, neginf=0.0)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        pixels = np.asarray(image.convert("RGBA"))
        return np.where(pixels[..., 3] > 0, pixels[..., :3].max(axis=2), 0)
    pixels = np.asarray(image.convert("RGB"))
    if image.mode == "P" and (pixels != pixels[..., :1]).any():
        return np.any(pixels, axis=2).astype(np.uint8)  # its colours stand for labels, dark ones like bright ones
    return pixels.max(axis=2)
