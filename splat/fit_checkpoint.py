"""Checkpoints of an optimisation in one safetensors file: parameters, Adam state, densification state, random state."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from encoders.files import atomic_path

VERSION = "1"


def save_checkpoint(
    path: Path,
    identity: str,
    step: int,
    params: torch.nn.ParameterDict,
    optimizers: dict[str, torch.optim.Optimizer],
    state: dict[str, Any],
) -> None:
    """Write everything needed to continue at ``step``, atomically.

    Args:
        identity: text that must be equal for a run to continue from this file (settings, data).
        optimizers: fused ones, which keep all of their state on the parameter's device.
        state: of gsplat's strategy; its tensors are kept, its numbers come from the settings.
    """
    tensors: dict[str, Tensor] = {"random": torch.get_rng_state()}
    device = next(iter(params.values())).device
    if device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(device)
    for name, param in params.items():
        tensors[f"param.{name}"] = param
        tensors |= {f"adam.{name}.{key}": value for key, value in optimizers[name].state[param].items()}
    tensors |= {f"state.{key}": value for key, value in state.items() if isinstance(value, Tensor)}
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    metadata = {"version": VERSION, "identity": identity, "step": json.dumps(step)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def load_checkpoint(
    path: Path,
    identity: str,
    params: torch.nn.ParameterDict,
    optimizers: dict[str, torch.optim.Optimizer],
    state: dict[str, Any],
) -> int:
    """Put a checkpoint back and return its step; 0, with nothing changed, if there is none that fits.

    A damaged file or one of other settings counts as none: the run starts again rather than stops. A run may go on
    on another device than it was on; it ends the same only on the CPU, where sums are taken in a fixed order.
    """
    if not path.is_file():
        return 0
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("version") != VERSION or metadata.get("identity") != identity:
                return 0
            step = int(metadata["step"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, KeyError, ValueError):
        return 0
    if any(f"param.{name}" not in tensors for name in params):
        return 0
    device = next(iter(params.values())).device
    for name in list(params):
        optimizer = optimizers[name]
        optimizer.state.clear()
        params[name] = torch.nn.Parameter(tensors[f"param.{name}"].to(device))
        optimizer.param_groups[0]["params"] = [params[name]]
        prefix = f"adam.{name}."
        moments = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if moments:
            optimizer.state[params[name]] = {key: value.to(device) for key, value in moments.items()}
    state |= {key.removeprefix("state."): v.to(device) for key, v in tensors.items() if key.startswith("state.")}
    torch.set_rng_state(tensors["random"])
    if device.type == "cuda" and "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"], device)
    return step
