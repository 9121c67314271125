"""What ``--device`` means, for both halves."""

import torch

from encoders.errors import InputError


def parse_device(name: str) -> torch.device | None:
    """What ``--device`` asks for: None for "auto", else cpu, cuda or cuda:N.

    Raises:
        InputError: it is none of these, or there are GPUs and N is not among them.
    """
    if name == "auto":
        return None
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    # torch takes large numbers modulo 256.
    if device is None or str(device) != name or (device.type != "cuda" and name != "cpu"):
        raise InputError(f"--device is {name!r}; give one of auto, cpu, cuda, cuda:N.")
    count = torch.cuda.device_count() if device.index is not None else 0
    if count and device.index >= count:
        raise InputError(f"--device is {name!r}, but the GPUs here are cuda:0 to cuda:{count - 1}; give one of them.")
    return device


def pick_device(name: str) -> str:
    """The device of encoders for ``--device`` auto, cpu, cuda or cuda:N.

    Raises:
        InputError: no such device, or torch sees no GPU and one was asked for.
    """
    device = parse_device(name)
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device {name} was asked for, but torch sees no CUDA device; use --device cpu.")
    return name
