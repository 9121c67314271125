"""What both halves of the program see the world through: vision-language encoders and region segmenters.

A name is ``KIND`` or ``KIND:OPTIONS``. To add an encoder, write a class with the methods of `Encoder` and put
one line into the table.
"""

from collections.abc import Callable
from typing import Any

import torch

from encoders.base import LEVELS, Encoder, Regions
from encoders.errors import InputError

__all__ = [
    "ENCODERS",
    "LEVELS",
    "REGIONS",
    "Encoder",
    "InputError",
    "Regions",
    "create",
    "create_regions",
    "difference",
]


def _embedded(options: str, device: str) -> Encoder:
    from encoders.embedded import EmbeddedEncoder

    _no_options("embedded", options)
    return EmbeddedEncoder(device)


def _openclip(options: str, device: str) -> Encoder:
    from encoders.openclip import OpenClipEncoder

    return OpenClipEncoder(options, device)


def _embedded_regions(options: str, device: str) -> Regions:
    from encoders.regions_embedded import EmbeddedRegions

    _no_options("embedded", options)
    return EmbeddedRegions(device=device)


def _sam_regions(options: str, device: str) -> Regions:
    from encoders.regions_sam import SamRegions

    return SamRegions(options, device)


# Values are functions that import on call: transformers and open_clip take seconds to import.
ENCODERS: dict[str, Callable[[str, str], Encoder]] = {"embedded": _embedded, "openclip": _openclip}
REGIONS: dict[str, Callable[[str, str], Regions]] = {"embedded": _embedded_regions, "sam": _sam_regions}


def create(name: str, device: str = "cpu") -> Encoder:
    """The encoder called ``name``.

    Args:
        name: ``embedded`` (two small models that were installed with the program; no download) or
            ``openclip:MODEL[:PRETRAINED_OR_PATH]`` (any model of the open_clip library; see
            `encoders.openclip`).
        device: ``cpu``, ``cuda``, ``cuda:1``, ...

    Raises:
        InputError: no such encoder, its weights cannot be loaded, or there is no such device.
    """
    return _create(ENCODERS, "encoder", name, device)


def difference(known: str, encoder: Encoder) -> str:
    """Why tokens of ``encoder`` are not those of the encoder called ``known``, in a few words; "" if they may be.

    One encoder has several names: weights that were downloaded for one may lie in a file for another. Weights are
    not compared, only what names and architectures tell.
    """
    kind, _, options = known.partition(":")
    other, _, its_options = encoder.name.partition(":")
    if kind != other:
        return "they are of different kinds"
    if kind == "openclip":
        from encoders.openclip import OpenClipEncoder, architecture_difference

        if isinstance(encoder, OpenClipEncoder):
            return architecture_difference(options, its_options, encoder)
    return ""


def create_regions(name: str, device: str = "cpu") -> Regions:
    """The segmenter called ``name``: ``embedded`` or ``sam:TYPE:PATH`` (see `encoders.regions_sam`).

    Raises:
        InputError: no such segmenter, its weights cannot be loaded, or there is no such device.
    """
    return _create(REGIONS, "regions", name, device)


def _create(table: dict[str, Callable[[str, str], Any]], option: str, name: str, device: str) -> Any:
    kind, _, options = name.partition(":")
    if kind not in table:
        raise InputError(f"There is no --{option} {name!r}; known are {', '.join(sorted(table))}.")
    _check_device(device)
    return table[kind](options, device)


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"The device {device!r} cannot be used on this machine; try cpu.") from error


def _no_options(kind: str, options: str) -> None:
    if options:
        raise InputError(f"{kind!r} takes no options, but {options!r} was given after the colon.")
