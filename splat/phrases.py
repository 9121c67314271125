"""Phrases in dictionary space: what queries in views and in space start from."""

from collections.abc import Sequence

import torch

from encoders.base import LEVELS, Encoder
from encoders.errors import InputError
from encoders.text_prompts import NEGATIVES
from splat.codes import LanguageField
from splat.gaussians import Gaussians

DEFAULT_NEGATIVES = NEGATIVES
"""What a phrase must be likelier than unless something else is given: LERF's four."""

TEMPERATURE = 10.0
"""Similarities are multiplied by it before the softmax (LERF, section 3.3)."""


def text_scores(
    gaussians: Gaussians,
    field: LanguageField,
    phrases: Sequence[str],
    encoder: Encoder,
    negatives: Sequence[str] = DEFAULT_NEGATIVES,
) -> torch.Tensor:
    """Inner products of the atoms with phrases and then negatives: all a query needs of the texts.

    Returns:
        float32 [levels, P + negatives, L]

    Raises:
        InputError: a phrase is empty or too long, there are no phrases or negatives, the encoder is not the
            field's, or the field belongs to other Gaussians.
    """
    if len(field) != len(gaussians):
        raise InputError(
            f"The language field has codes for {len(field)} Gaussians but the scene has {len(gaussians)}; "
            "fit the language stage again."
        )
    if field.encoder != encoder.name:
        raise InputError(
            f"The language field was fitted with the encoder {field.encoder} and cannot be asked with "
            f"{encoder.name}; use --encoder {field.encoder}."
        )
    if not phrases:
        raise InputError("There is nothing to look for; give a phrase.")
    if not negatives:
        raise InputError("There are no negatives; give at least one generic phrase such as object.")
    texts = [*phrases, *negatives]
    if not all(text.strip() for text in texts):
        raise InputError("A phrase is empty; give some words to look for.")
    vectors = torch.as_tensor(encoder.encode_text(texts), dtype=torch.float32)
    return field.scores(vectors)


def check_level(level: int | None, field: LanguageField) -> None:
    """Raise InputError unless `level` is None or one of the field's."""
    if level is not None and level not in range(field.levels):
        names = ", ".join(f"{index} ({name})" for index, name in enumerate(LEVELS[: field.levels]))
        raise InputError(f"Level {level} does not exist; choose {names}.")


def relevancy_of_codes(dense: torch.Tensor, scores: torch.Tensor, gram: torch.Tensor, positives: int) -> torch.Tensor:
    """LERF's relevancy of features ``c A`` in code space (docs/language_field.md, eq. 6).

    Args:
        dense: codes c. [M, L]
        scores: inner products of texts and atoms, `positives` phrases first. [T, L]
        gram: inner products of the atoms. [L, L]
        positives: P, number of phrases.

    Returns:
        ``min_n softmax(10 [s_phrase, s_negative_n])[0]``, 0..1; 0 for empty codes. [P, M]
    """
    norm2 = ((dense @ gram) * dense).sum(1)
    similar = (scores @ dense.T) / norm2.clamp_min(1e-12).sqrt()
    margin = similar[:positives] - similar[positives:].amax(0)
    return torch.sigmoid(TEMPERATURE * margin) * (norm2 > 1e-12)
