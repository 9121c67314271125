"""Where a training stands, on disk: it continues there after being stopped."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from dictas.generators import Generators
from encoders.checkpoints import load_checkpoint, save_checkpoint
from encoders.errors import InputError


class Progress(BaseModel):
    """Attributes:
    step: steps done.
    loss: running mean.
    best: best validation score so far (average precision).
    scores: (step, score) of all validations.
    values_frozen: g_V is trained no more.
    """

    step: int = 0
    loss: float = 0.0
    best: float = float("-inf")
    scores: list[tuple[int, float]] = []
    values_frozen: bool = False
    partial: float = 0.0

    def add_loss(self, loss: float) -> None:
        """Add one episode's share of the step's loss."""
        self.partial += loss

    def validated(self, score: float) -> None:
        """Note a validation."""
        self.scores.append((self.step, score))
        self.best = max(self.best, score)

    def line(self) -> str:
        """For a person who waits."""
        score = f", AP {self.scores[-1][1]:.3f}" if self.scores else ""
        return f"loss {self.loss:.3f}{score}"


class TrainingState:
    """Weights, their running mean, Adam's moments and `Progress`, in ``training.safetensors`` of a folder.

    Attributes:
        note: what `resume` has to tell the person who waits; else empty.
    """

    def __init__(self, out: Path, identity: dict[str, Any], trained: nn.ModuleDict, ema: float) -> None:
        self._path = out / "training.safetensors"
        self._identity = json.dumps(identity, sort_keys=True)
        self._trained, self._ema = trained, ema
        self._mean: dict[str, Tensor] = {}
        self._moments: dict[str, Tensor] = {}
        self._adam: torch.optim.AdamW | None = None
        self.progress = Progress()
        self.note = ""

    def begin(self, device: str) -> None:
        """Start from the weights as they are."""
        self._trained.to(device)
        self._mean = {name: value.clone() for name, value in self._trained.state_dict().items()}

    def resume(self, device: str) -> bool:
        """Load what `save` left; False if there is nothing.

        Raises:
            InputError: it is of another configuration, or damaged.
        """
        found = load_checkpoint(self._path)
        if found is None:
            return False
        if found.metadata.get("identity") != self._identity:
            raise InputError(
                f"{self._path.parent} holds a training with other options or of "
                "another version; give those, or another --out."
            )
        self.progress, self.note = Progress.model_validate_json(found.metadata["progress"]), found.note
        tensors = {name: value.to(device) for name, value in found.tensors.items()}
        part = lambda prefix: {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}  # noqa: E731
        self._trained.load_state_dict(part("weights."))
        self._trained.to(device)
        self._mean, self._moments = part("mean."), part("adam.")
        return True

    def optimizer(self, learning_rate: float, betas: tuple[float, float], decay: float) -> torch.optim.AdamW:
        """AdamW over everything trained, with the moments that were loaded."""
        adam = torch.optim.AdamW(self._trained.parameters(), lr=learning_rate, betas=betas, weight_decay=decay)
        for name, parameter in self._trained.named_parameters():
            kinds = ("step", "exp_avg", "exp_avg_sq")
            found = {kind: self._moments.get(f"{kind}.{name}") for kind in kinds}
            step = found["step"]
            if step is not None and all(value is not None for value in found.values()):
                # Adam counts steps on the CPU, wherever its moments are.
                adam.state[parameter] = {**found, "step": step.cpu()}
        self._adam = adam
        if self.progress.values_frozen:
            self.freeze_values()
        return adam

    def stepped(self) -> None:
        """Count a step: running means of weights and loss."""
        progress = self.progress
        progress.step += 1
        # A plain mean at first, so that the random start is forgotten.
        keep = min(self._ema, progress.step / (progress.step + 20))
        with torch.no_grad():
            for name, value in self._trained.state_dict().items():
                self._mean[name].lerp_(value, 1 - keep)
        smooth = min(0.98, 1 - 1 / progress.step)
        progress.loss = smooth * progress.loss + (1 - smooth) * progress.partial
        progress.partial = 0.0

    def freeze_values(self) -> None:
        """Train g_V no more."""
        self.progress.values_frozen = True
        for module in self._trained.modules():
            if isinstance(module, Generators):
                for parameter in module.value_parameters():
                    parameter.requires_grad_(False)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, modules have the running mean of their weights."""
        current = {name: value.clone() for name, value in self._trained.state_dict().items()}
        self._trained.load_state_dict(self._mean)
        try:
            yield
        finally:
            self._trained.load_state_dict(current)

    def save(self) -> None:
        """Write everything, atomically; what was saved before is kept too."""
        assert self._adam is not None
        tensors = {f"weights.{name}": value for name, value in self._trained.state_dict().items()}
        tensors |= {f"mean.{name}": value for name, value in self._mean.items()}
        for name, parameter in self._trained.named_parameters():
            tensors |= {f"adam.{kind}.{name}": value for kind, value in self._adam.state.get(parameter, {}).items()}
        metadata = {"identity": self._identity, "progress": self.progress.model_dump_json()}
        save_checkpoint(self._path, tensors, metadata)
