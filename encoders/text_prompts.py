"""Phrases: checking what a person typed, and the phrases that everything is compared with."""

from collections.abc import Sequence

from encoders.errors import InputError

NEGATIVES = ("object", "things", "stuff", "texture")
"""Canonical phrases of LERF (Kerr et al. 2023, section 3.4): a place is relevant if it beats all of these."""


def checked_phrases(texts: Sequence[str]) -> list[str]:
    """The phrases without surrounding and repeated white space.

    Raises:
        InputError: a phrase is empty.
    """
    phrases = [" ".join(text.split()) for text in texts]
    if not all(phrases):
        raise InputError('A phrase is empty; say what to look for, for example "coffee cup".')
    return phrases


def too_long(text: str, tokens: int, limit: int) -> InputError:
    """The error for a phrase of ``tokens`` tokens where ``limit`` fit."""
    start = text if len(text) <= 40 else text[:40] + "..."
    return InputError(f"The phrase {start!r} has {tokens} tokens and the encoder takes {limit}; shorten it.")
