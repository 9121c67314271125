"""How a thing is called when it is as it should be, and when it is not: prompt ensembles for two states.

WinCLIP's compositional ensemble (Jeong et al. 2023, section 4.1 and appendix): every state in every template.
Averaged, the words about the photo cancel out and the state remains.
"""

import numpy as np
from numpy.typing import NDArray

from encoders.base import Encoder
from encoders.errors import InputError

NORMAL_STATES = (
    "{}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
)
ABNORMAL_STATES = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")
_PHOTOS = ("a cropped photo", "a close-up photo", "a bright photo", "a dark photo", "a jpeg corrupted photo")
TEMPLATES = tuple(
    f"{photo} of {article} {noun}"
    for photo, noun in (
        *((photo, "{}") for photo in (*_PHOTOS, "a blurry photo", "a photo")),
        ("a photo", "small {}"),
        ("a photo", "large {}"),
        ("a photo", "{} for visual inspection"),
        ("a photo", "{} for anomaly detection"),
    )
    for article in ("a", "the")
)


def state_prompts(name: str = "object") -> tuple[list[str], list[str]]:
    """The ensembles for a thing called ``name``: prompts for its normal and for its abnormal states.

    Underscores in names, as folders have them, are read as spaces.
    """
    thing = " ".join(name.replace("_", " ").split()) or "object"
    normal, abnormal = (
        [template.format(state.format(thing)) for state in states for template in TEMPLATES]
        for states in (NORMAL_STATES, ABNORMAL_STATES)
    )
    return normal, abnormal


def state_vectors(encoder: Encoder, name: str = "object") -> NDArray[np.float32]:
    """One unit vector per state, the mean of its ensemble: float32 [2, D], normal first.

    Raises:
        InputError: the encoder has no text tower, or ``name`` is too long for it.
    """
    if not hasattr(encoder, "encode_text"):
        raise InputError(f"The encoder {encoder.name} has no text tower and cannot be asked in words.")
    means = np.stack([encoder.encode_text(prompts).mean(axis=0) for prompts in state_prompts(name)])
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), np.float32)
