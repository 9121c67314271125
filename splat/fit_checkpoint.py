"""Checkpoints of an optimisation: parameters, Adam state, densification state and random state."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from encoders import checkpoints

VERSION = "1"


def save_checkpoint(
    path: Path,
    identity: str,
    step: int,
    params: torch.nn.ParameterDict,
    optimizers: dict[str, torch.optim.Optimizer],
    state: dict[str, Any],
) -> None:
    """Write everything needed to continue at ``step``, atomically; the checkpoint before is kept too.

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
    checkpoints.save_checkpoint(path, tensors, {"version": VERSION, "identity": identity, "step": json.dumps(step)})


def load_checkpoint(
    path: Path,
    identity: str,
    params: torch.nn.ParameterDict,
    optimizers: dict[str, torch.optim.Optimizer],
    state: dict[str, Any],
) -> tuple[int, str]:
    """Put a checkpoint back; nothing is changed if there is none that fits.

    Where all are damaged, or of other settings, the run starts again rather than stops; damaged ones are kept under
    another name (`encoders.checkpoints.damaged_path`). A run may go on on another device than it was on; it ends the
    same only on the CPU, where sums are taken in a fixed order.

    Returns:
        step: to continue at; 0 if there is none that fits.
        note: one line for the person who waits, if a checkpoint was found to be damaged; else empty.

    Raises:
        InputError: a checkpoint cannot be read, for now.
    """
    try:
        found = checkpoints.load_checkpoint(path)
    except checkpoints.DamagedCheckpoints:
        checkpoints.set_aside(path, checkpoints.previous_path(path))
        return 0, "the checkpoint is damaged, starting again"
    if found is None or found.metadata.get("version") != VERSION or found.metadata.get("identity") != identity:
        return 0, ""
    tensors = found.tensors
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
    return int(found.metadata["step"]), found.note
