"""LangSplatV2's solver: dictionary atoms and code logits by Adam, one view at a time, in code space."""

from dataclasses import dataclass
from pathlib import Path

import torch

from encoders.progress import Report, silent
from splat.codes import Codes, sparsify
from splat.fit_checkpoint import load_checkpoint, save_checkpoint
from splat.region_views import RegionView, RegionViews, pixel_cosines

_UNUSED = 2.0
"""How far below its smallest used logit a Gaussian's other logits start, after a warm start."""


@dataclass(frozen=True)
class SgdConfig:
    """Settings of the paper's solver.

    Attributes:
        nonzeros: K, atoms per Gaussian and level.
        iterations: steps of one view each.
        learning_rate: of Adam, for atoms and logits alike.
        checkpoint_every: steps between checkpoints.
        seed: of the first logits and of the order of views.
    """

    nonzeros: int = 4
    iterations: int = 10_000
    learning_rate: float = 2.5e-3
    checkpoint_every: int = 500
    seed: int = 0


def fit_sgd(
    views: RegionViews,
    atoms: torch.Tensor,
    config: SgdConfig,
    start: Codes | None = None,
    checkpoint: Path | None = None,
    report: Report = silent,
) -> tuple[torch.Tensor, Codes, list[float]]:
    """Minimise the mean ``1 - cos`` between splatted features and regions' embeddings (LangSplatV2, eq. 7).

    The cosine is taken in code space, so a step costs a splat of codes and its adjoint, and no pixel ever has
    an embedding. All levels are optimised in one render.

    Args:
        views: training views.
        atoms: dictionary to start from. [levels, L, D]
        config: settings.
        start: codes to start from; small random logits if None.
        checkpoint: file to save to and to resume from, if it fits these settings and this data.
        report: told after every step.

    Returns:
        atoms: unit-norm dictionary. [levels, L, D]
        codes: codes of all Gaussians; weights are positive.
        losses: mean loss of each tenth of the steps since the start or the last resume.
    """
    params = torch.nn.ParameterDict({"atoms": atoms.clone(), "logits": _first_logits(views, atoms, config, start)})
    optimizers: dict[str, torch.optim.Optimizer] = {
        name: torch.optim.Adam([param], lr=config.learning_rate, fused=True) for name, param in params.items()
    }
    identity = f"{config} {list(atoms.shape)} {views.identity()} {start is not None}"
    step, note = load_checkpoint(checkpoint, identity, params, optimizers, {}) if checkpoint else (0, "")
    if note:
        report(step, config.iterations, note)
    history: list[float] = []
    while step < config.iterations:
        index = _view_of_step(step, len(views), config.seed)
        loss = view_loss(views, index, views.view(index), params["atoms"], params["logits"], config.nonzeros)
        if loss is not None:
            for optimizer in optimizers.values():
                optimizer.zero_grad(set_to_none=True)
            loss.backward()
            for optimizer in optimizers.values():
                optimizer.step()
            history.append(float(loss.detach()))
        step += 1
        if checkpoint and (step % config.checkpoint_every == 0 or step == config.iterations):
            save_checkpoint(checkpoint, identity, step, params, optimizers, {})
        recent = history[-100:]
        mean = sum(recent) / len(recent) if recent else 0.0
        report(step, config.iterations, f"loss {mean:.4f}")
    with torch.no_grad():
        unit = torch.nn.functional.normalize(params["atoms"], dim=2)
        codes = Codes(*sparsify(params["logits"], config.nonzeros))
        codes.rescale(params["atoms"].norm(dim=2))
    return unit, codes, _tenths(history)


def view_loss(
    views: RegionViews,
    index: int,
    view: RegionView,
    atoms: torch.Tensor,
    logits: torch.Tensor,
    nonzeros: int,
) -> torch.Tensor | None:
    """Mean ``1 - cos`` over the pixels with a region at any level of one view; None if there are none.

    Args:
        atoms: differentiable. [levels, L, D]
        logits: differentiable. [N, levels, L]
    """
    indices, weights = sparsify(logits, nonzeros)
    image = views.codes(index, indices, weights, atoms.shape[1])
    losses = []
    for level in range(len(atoms)):
        pixels = torch.nonzero(view.ids[level] >= 0)[:, 0]
        if len(pixels):
            ids = view.ids[level, pixels]
            along = view.embeddings @ atoms[level].T
            losses.append(1 - pixel_cosines(image[pixels, level], along, ids, atoms[level]))
    return torch.cat(losses).mean() if losses else None


def _first_logits(views: RegionViews, atoms: torch.Tensor, config: SgdConfig, start: Codes | None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(config.seed)
    # Drawn on the CPU, so that a run starts alike on every device.
    logits = (0.01 * torch.randn(views.gaussians, *atoms.shape[:2], generator=generator)).to(atoms.device)
    if start is not None:
        used = start.weights.clamp_min(1e-3).log()
        logits += used.amin(2, keepdim=True) - _UNUSED
        # An unused slot repeats atom 0 with no weight and must not push down a used atom 0.
        logits.scatter_reduce_(2, start.indices.long(), used, "amax")
    return logits


def _view_of_step(step: int, count: int, seed: int) -> int:
    """Every view once per epoch, in an order that a resumed run repeats."""
    epoch, position = divmod(step, count)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
    return int(order[position])


def _tenths(history: list[float]) -> list[float]:
    size = max(1, len(history) // 10)
    chunks = [history[begin : begin + size] for begin in range(0, len(history), size)]
    return [sum(chunk) / len(chunk) for chunk in chunks] or [0.0]
