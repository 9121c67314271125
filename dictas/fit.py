"""Self-supervised training of the generators: only normal images, defects are put on them (DictAS, section 3.3)."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from dictas.checkpoint import save_detector
from dictas.detector import Backbone
from dictas.episodes import HELD_OUT, Episode, EpisodeConfig, Episodes, Material, stream
from dictas.fit_state import Progress, TrainingState
from dictas.generators import Standardise
from dictas.losses import COVERED, SegmentationLoss, TextAlignment, contrast_loss, query_loss
from dictas.model import DictAS, ModelConfig
from encoders.errors import InputError
from encoders.locks import locked_folder, sweep
from encoders.progress import Report, silent

LEFT_BEHIND = (".training.*.tmp.safetensors", ".detector.*.tmp.safetensors")
"""Patterns of files that were being written when a process was killed."""


@dataclass(frozen=True)
class FitConfig:
    """How generators are trained.

    Attributes:
        episode: size and make-up of episodes.
        steps: optimisation steps.
        batch: episodes per step.
        learning_rate: the highest.
        schedule: "cosine" warms up over the first twentieth and falls to 0 along a cosine.
        clip: longer gradients are shortened to this (0: none is).
        standardise: give token channels mean 0 and variance 1 first; otherwise they are taken as they are.
        betas, weight_decay: of AdamW.
        contrast, text, segmentation: weights of the losses beside L_query.
        freeze_values: stop training g_V after the first drop of the validation score (the paper; there g_V does not
            describe queries).
        ema: smoothing of the weights that are kept.
        validate_every: steps between validations.
        validation: episodes per validation.
        seed: of everything random.
    """

    episode: EpisodeConfig = field(default_factory=EpisodeConfig)
    steps: int = 2400
    batch: int = 2
    learning_rate: float = 1.5e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    clip: float = 1.0
    standardise: bool = True
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4
    contrast: float = 0.1
    text: float = 0.1
    segmentation: float = 1.0
    freeze_values: bool = False
    ema: float = 0.995
    validate_every: int = 300
    validation: int = 60
    seed: int = 0

    @classmethod
    def paper(cls, images: int) -> "FitConfig":
        """The paper's: 30 epochs over ``images`` photos, batches of 24, its defects, its losses alone, raw tokens."""
        return cls(
            EpisodeConfig(side=336, shots=1, queries=1, anomalous=0.5, kinds=("perlin",)),
            steps=max(1, 30 * images // 24),
            batch=24,
            learning_rate=1e-4,
            schedule="constant",
            clip=0.0,
            standardise=False,
            betas=(0.5, 0.999),
            weight_decay=0.0,
            segmentation=0.0,
            freeze_values=True,
            validate_every=max(1, images // 24),
        )


class Trainer:
    """The generators and what is trained along with them."""

    def __init__(self, model: DictAS, backbone: Backbone, config: FitConfig, texts: np.ndarray | None) -> None:
        self.model, self.backbone, self.config = model, backbone, config
        self.segmentation = SegmentationLoss()
        lookups = model.config.groups * len(model.config.neighbourhoods)
        value_dims = [
            model.config.value_dim if model.config.generators == "shared" else sum(model.config.channels[i] for i in g)
            for g in lookups
        ]
        self.alignment = None if texts is None else TextAlignment(value_dims, texts)

    @property
    def trained(self) -> nn.ModuleDict:
        """All modules with parameters, by name."""
        modules: dict[str, nn.Module] = {"model": self.model, "segmentation": self.segmentation}
        if self.alignment is not None:
            modules["alignment"] = self.alignment
        return nn.ModuleDict(modules)

    def distances(self, episode: Episode) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
        """Distances and coverage [q, h, w] of an episode's queries, and what was compared."""
        support = self.backbone.batch(list(episode.support))
        query = self.backbone.batch(list(episode.queries))
        found, compared = self.model.distances(query, self.model.entries([support]))
        masks = torch.from_numpy(episode.masks).to(found.device, torch.float32)[:, None]
        coverage = nn.functional.adaptive_avg_pool2d(masks, query.grid)[:, 0]
        return found, coverage, compared

    def loss(self, episode: Episode) -> Tensor:
        """``L_query + λ CQC + λ TAC`` (the paper's equation), plus the segmentation loss."""
        config = self.config
        found, coverage, compared = self.distances(episode)
        loss = query_loss(found, coverage) + config.contrast * contrast_loss(found, coverage)
        if self.alignment is not None and config.text:
            anomalous = torch.from_numpy(episode.masks.any(axis=(1, 2))).to(found.device)
            loss = loss + config.text * self.alignment(compared, anomalous)
        if config.segmentation:
            loss = loss + config.segmentation * self.segmentation(found, coverage)
        return loss

    @torch.no_grad()
    def score(self, episodes: Sequence[Episode]) -> float:
        """Average precision of abnormal tokens over some episodes."""
        scores, truth = [], []
        for episode in episodes:
            found, coverage, _ = self.distances(episode)
            scores.append(found.flatten().cpu().numpy())
            truth.append((coverage > COVERED / 2).flatten().cpu().numpy())
        return float(average_precision_score(np.concatenate(truth), np.concatenate(scores)))


def learning_rate(step: int, config: FitConfig) -> float:
    """Of step 0, 1, ...: see `FitConfig.schedule`; the warm-up is linear."""
    if config.schedule == "constant":
        return config.learning_rate
    warm = max(1, config.steps // 20)
    if step < warm:
        return config.learning_rate * (step + 1) / warm
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, config.steps - warm)))


def fit(
    backbone: Backbone,
    model_config: ModelConfig,
    material: Material,
    config: FitConfig,
    out: Path,
    texts: np.ndarray | None = None,
    workers: int = 1,
    device: str = "cpu",
    report: Report = silent,
) -> Progress:
    """Train, continuing where an earlier call with the same configuration stopped.

    Args:
        backbone: the frozen encoder, layers and size.
        model_config: what to train.
        material: what episodes are made of, as ``config.episode`` and ``config.seed`` say.
        config: how to train.
        out: folder; gets ``detector.safetensors``, the weights of the best validation, and ``training.*``.
        texts: unit vectors of the normal and the abnormal state [2, D]; None trains without text alignment.
        workers: processes that make episodes.

    Returns:
        what was validated when.

    Raises:
        InputError: ``out`` holds a training with another configuration or on other photos, or another process
            trains there.
    """
    torch.manual_seed(config.seed)
    model = DictAS(model_config)
    trainer = Trainer(model, backbone, config, texts)
    trained = trainer.trained
    identity = {"model": dataclasses.asdict(model_config), "fit": dataclasses.asdict(config), **material.folders}
    data = Episodes(material, config.episode, config.seed)
    held_out = [data[HELD_OUT + number] for number in range(config.validation)]
    with locked_folder(out):
        sweep(out, LEFT_BEHIND)
        state = TrainingState(out, identity, trained, config.ema)
        if state.resume(device):
            if state.note:
                report(state.progress.step, config.steps, state.note)
        else:
            if config.standardise:
                # Few photos are kept for validation; they do not tell how tokens vary.
                apart = material.validation is not None
                _fit_standardisation(trainer, [data[n] for n in range(config.validation)] if apart else held_out)
            state.begin(device)
        optimizer = state.optimizer(learning_rate=config.learning_rate, betas=config.betas, decay=config.weight_decay)
        progress = state.progress
        for episode_number, episode in enumerate(
            stream(data, range(progress.step * config.batch, config.steps * config.batch), workers)
        ):
            loss = trainer.loss(episode) / config.batch
            if not torch.isfinite(loss):
                raise InputError(
                    f"Training diverged at step {progress.step + 1}; start it anew with another --seed and --out."
                )
            loss.backward()
            progress.add_loss(loss.item())
            if (episode_number + 1) % config.batch:
                continue
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(progress.step, config)
            if config.clip:
                nn.utils.clip_grad_norm_(trained.parameters(), config.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            state.stepped()
            if progress.step % config.validate_every == 0 or progress.step == config.steps:
                _validate(state, lambda: trainer.score(held_out), model, config, out)
            report(progress.step, config.steps, progress.line())
        return progress


def _validate(state: TrainingState, score: Callable[[], float], model: DictAS, config: FitConfig, out: Path) -> None:
    progress = state.progress
    with state.averaged():
        found = score()
        if found > progress.best:
            save_detector(out / "detector.safetensors", model)
    if found < progress.best and config.freeze_values:
        state.freeze_values()
    progress.validated(found)
    state.save()


@torch.no_grad()
def _fit_standardisation(trainer: Trainer, episodes: Sequence[Episode]) -> None:
    """Means and deviations of tokens over normal images."""
    batches = [trainer.backbone.batch(list(episode.support)) for episode in episodes]
    model = trainer.model
    for generators, group in zip(model.generators, model.config.groups, strict=True):
        tokens = [torch.cat([batch.tokens[layer] for layer in group], dim=-1) for batch in batches]
        standardise = generators.get_submodule("standardise")
        assert isinstance(standardise, Standardise)
        standardise.fit(torch.cat([some.flatten(0, 1) for some in tokens]).cpu())
