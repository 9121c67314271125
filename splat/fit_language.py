"""Fit a language field to frozen Gaussians: a dictionary per level and a sparse code per Gaussian and level."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from encoders.base import LEVELS
from encoders.errors import InputError
from encoders.progress import Report, silent
from splat.codes import MAX_ATOMS, LanguageField
from splat.coding import CODINGS, Coding
from splat.dictionary import kmeans_dictionary
from splat.features import FeatureStore
from splat.fit_lift import LiftConfig, fit_lift
from splat.fit_sgd import SgdConfig, fit_sgd
from splat.gaussians import Gaussians
from splat.online_dictionary import online_dictionary
from splat.region_views import RegionViews
from splat.scene import Camera


@dataclass(frozen=True)
class LanguageConfig:
    """Settings of the language stage.

    Attributes:
        atoms: L, dictionary size per level, 2..256.
        nonzeros: K, atoms per Gaussian and level, 1..16 and at most `atoms`.
        solver: "lift" (closed form, seconds) or "sgd" (LangSplatV2's optimisation).
        rounds: `lift` only: improvements of dictionary and codes, 0 or more.
        coding: `lift` only: how codes are chosen, see `splat.coding` (those of `sgd` are non-negative).
        dictionary: what it starts from: "kmeans" of all regions together, as in the paper, or "online", learnt view
            by view (`splat.online_dictionary`). None: "kmeans".
        iterations: `sgd` only: steps of one view each; the paper's 10,000.
        learning_rate: `sgd` only: Adam's step size for atoms and logits.
        warm_start: `sgd` only: start from the `lift` solution instead of from k-means alone.
        checkpoint_every: `sgd` only: steps between checkpoints.
        stride: fit to every stride-th pixel in both directions; None leaves about 50,000 pixels per view,
            1 is the paper's.
        seed: of k-means and of the order of views.
    """

    atoms: int = 64
    nonzeros: int = 4
    solver: Literal["lift", "sgd"] = "lift"
    rounds: int = 2
    coding: Coding = "nonnegative"
    dictionary: Literal["kmeans", "online"] | None = None
    iterations: int = 10_000
    learning_rate: float = 2.5e-3
    warm_start: bool = False
    checkpoint_every: int = 500
    stride: int | None = None
    seed: int = 0

    @property
    def start(self) -> Literal["kmeans", "online"]:
        """What dictionaries start from."""
        return self.dictionary or "kmeans"

    def __post_init__(self) -> None:
        """Raises: InputError for values out of range."""
        problem = ""
        if not 2 <= self.atoms <= MAX_ATOMS:
            problem = f"--atoms is {self.atoms}; choose 2 to {MAX_ATOMS}"
        elif not 1 <= self.nonzeros <= min(16, self.atoms):
            problem = f"--nonzeros is {self.nonzeros}; choose 1 to {min(16, self.atoms)}"
        elif self.solver not in ("lift", "sgd"):
            problem = f'--solver is "{self.solver}"; choose lift or sgd'
        elif self.coding not in CODINGS:
            problem = f'--coding is "{self.coding}"; choose {", ".join(CODINGS)}'
        elif self.solver == "sgd" and self.coding != "nonnegative":
            problem = f"--coding {self.coding} needs --solver lift; codes of sgd are non-negative"
        elif self.dictionary not in (None, "kmeans", "online"):
            problem = f'--dictionary is "{self.dictionary}"; choose kmeans or online'
        elif self.rounds < 0 or self.iterations < 1 or self.learning_rate <= 0 or self.checkpoint_every < 1:
            problem = "rounds, iterations, learning rate and checkpoint interval must be positive"
        elif self.stride is not None and self.stride < 1:
            problem = f"the stride is {self.stride}; choose 1 or more"
        if problem:
            raise InputError(f"{problem}.")


def fit_language(
    gaussians: Gaussians,
    cameras: Sequence[Camera],
    store: FeatureStore,
    config: LanguageConfig | None = None,
    report: Report = silent,
    checkpoint_dir: Path | None = None,
) -> tuple[LanguageField, dict[str, Any]]:
    """Fit dictionaries and codes so that the splatted features match the regions' embeddings.

    Geometry stays as it is. All three levels are fitted together, in one splat per view.

    Args:
        gaussians: the scene, N Gaussians; fitting runs on their device.
        cameras: training cameras, each with features in `store`.
        store: region maps and embeddings per view.
        config: settings; `LanguageConfig()` if left out.
        report: progress.
        checkpoint_dir: where the `sgd` solver saves itself and resumes from. The `lift` solver takes seconds
            to minutes and starts over.

    Returns:
        field: dictionaries and codes of all N Gaussians, on their device.
        stats: ``loss`` (mean 1 - cos over pixels and levels), ``losses`` (over time), ``solver``, ``seconds``.

    Raises:
        InputError: no views, features missing or of the wrong size, or no regions at all.
    """
    config = config or LanguageConfig()
    started = time.perf_counter()
    if len(gaussians) == 0:
        raise InputError("The scene has no Gaussians; run the rgb stage again.")
    views = RegionViews(gaussians, cameras, store, config.stride)
    if config.start == "online":
        learnt = (config.atoms, config.nonzeros, config.coding, config.seed)
        atoms = online_dictionary(views, len(LEVELS), *learnt, report=report)
    else:
        atoms = kmeans_dictionary(views, len(LEVELS), config.atoms, config.seed, report)
    lift_config = LiftConfig(config.nonzeros, config.coding, config.rounds)
    if config.solver == "lift":
        atoms, codes, losses = fit_lift(views, atoms, lift_config, report)
    else:
        start, checkpoint = None, checkpoint_dir / "sgd.safetensors" if checkpoint_dir else None
        sgd_config = SgdConfig(
            nonzeros=config.nonzeros,
            iterations=config.iterations,
            learning_rate=config.learning_rate,
            checkpoint_every=config.checkpoint_every,
            seed=config.seed,
        )
        if config.warm_start:
            atoms, start, _ = fit_lift(views, atoms, lift_config, report)
        atoms, codes, losses = fit_sgd(views, atoms, sgd_config, start, checkpoint, report)
    field = LanguageField(atoms.detach(), codes.indices, codes.weights.detach(), store.encoder)
    stats = {
        "solver": config.solver,
        "loss": losses[-1],
        "losses": losses,
        "seconds": time.perf_counter() - started,
    }
    return field, stats
