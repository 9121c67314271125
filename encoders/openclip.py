"""Any model of the open_clip library: by name and pretrained tag, local checkpoint, local folder or config.

``openclip:MODEL[:PRETRAINED_OR_PATH]`` where MODEL is a name the library knows (``ViT-B-16``), a JSON
config file of its format, a folder with ``open_clip_config.json`` and weights, or ``hf-hub:ORG/REPO``; and
PRETRAINED_OR_PATH a tag (``laion2b_s34b_b88k``) or a checkpoint file (``.safetensors`` or ``.pt``).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from encoders.crops import CropOptions, region_crops
from encoders.errors import InputError
from encoders.text_prompts import checked_phrases, too_long

DEFAULT_MODEL = "ViT-B-16"
DEFAULT_PRETRAINED = "laion2b_s34b_b88k"
BATCH = 32


class OpenClipEncoder:
    """See the module; implements `encoders.base.Encoder`, D as the model has it (512 for ViT-B-16)."""

    def __init__(self, options: str = "", device: str = "cpu") -> None:
        """Load the model named by ``options``, ``MODEL[:PRETRAINED_OR_PATH]``; empty for the default.

        Raises:
            InputError: no such model, tag or file, a file of another model, or a download that failed.
        """
        import open_clip

        self.name = f"openclip:{options}" if options else f"openclip:{DEFAULT_MODEL}:{DEFAULT_PRETRAINED}"
        model, pretrained = _parse(options)
        try:
            self._model, _, self._preprocess = open_clip.create_model_and_transforms(
                model, pretrained=pretrained, device=device, require_pretrained=True, weights_only=True
            )
            self._tokenizer = open_clip.get_tokenizer(model)
        except Exception as error:  # hub, file and key errors of several libraries
            raise _load_error(self.name, model, pretrained, error) from error
        self._model.eval().requires_grad_(False)
        self._device = device
        self._visual = self._model.visual
        size = self._visual.image_size
        self._size: tuple[int, int] = (size, size) if isinstance(size, int) else tuple(size)
        self._crops = CropOptions(size=self._size[0])
        self.max_text_tokens = int(getattr(self._tokenizer, "context_length", None) or 77)
        self.dim = self.encode_text(["a"]).shape[1]

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Phrases, as they are (no template) -> unit vectors float32 [P, D].

        Raises:
            InputError: a phrase is empty or too long for the model.
        """
        phrases = checked_phrases(texts)
        for phrase in phrases:
            tokens = self._count_tokens(phrase)
            if tokens > self.max_text_tokens:
                raise too_long(phrase, tokens, self.max_text_tokens)
        if not phrases:
            return np.zeros((0, self.dim), np.float32)
        vectors = self._model.encode_text(self._tokenizer(phrases).to(self._device), normalize=True)
        return vectors.float().cpu().numpy()

    def _count_tokens(self, text: str) -> int:
        inner = getattr(self._tokenizer, "tokenizer", None)
        if inner is not None:
            return len(inner(text)["input_ids"])
        return len(self._tokenizer.encode(text)) + 2  # start and end of text

    def encode_image(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Images of any sizes, through the model's own preprocessing -> unit vectors float32 [B, D]."""
        vectors = [np.zeros((0, self.dim), np.float32)]
        for start in range(0, len(images), BATCH):
            batch = [self._preprocess(Image.fromarray(image)) for image in images[start : start + BATCH]]
            vectors.append(self._encode(torch.stack(batch)))
        return np.concatenate(vectors)

    def encode_regions(self, image: NDArray[np.uint8], region_ids: NDArray[np.integer]) -> NDArray[np.float32]:
        """LangSplat's recipe: box of the region, rest blackened, padded to a square. float32 [R, D]"""
        vectors = np.zeros((int(region_ids.max(initial=-1)) + 1, self.dim), np.float32)
        crops = list(region_crops(image, region_ids, self._crops))
        found = self.encode_image([picture for _, picture in crops])
        for (regions, _), vector in zip(crops, found, strict=True):
            vectors[regions] = vector
        return vectors

    @torch.inference_mode()
    def _encode(self, batch: Tensor) -> NDArray[np.float32]:
        return self._model.encode_image(batch.to(self._device), normalize=True).float().cpu().numpy()

    @torch.inference_mode()
    def encode_dense(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The last block's patch tokens through the projection that is meant for the class token.

        An approximation: CLIP trains only the class token, so single tokens match text less well than a crop
        does. The image is squashed to the model's size. float32 [h, w, D]
        """
        tokens = self._intermediates(image[None], [self.layers], normalize=True)[0]
        projection = self._visual.proj
        if projection is not None:
            tokens = tokens @ projection
        unit = torch.nn.functional.normalize(tokens[0].float(), dim=-1)
        return unit.reshape(*self.patch_grid(*image.shape[:2]), -1).cpu().numpy()

    @property
    def patch_side(self) -> int:
        """Side of the model's input."""
        return self._size[0]

    @torch.no_grad()
    def patch_tokens(self, images: NDArray[np.uint8], layers: Sequence[int]) -> list[Tensor]:
        """Outputs of transformer blocks, without the class token; images are squashed to the model's size."""
        return [tokens.float() for tokens in self._intermediates(images, layers, normalize=False)]

    def _intermediates(self, images: NDArray[np.uint8], layers: Sequence[int], normalize: bool) -> list[Tensor]:
        wrong = [layer for layer in layers if not 1 <= layer <= self.layers]
        if wrong:
            raise InputError(f"{self.name} has layers 1 to {self.layers}; {wrong[0]} was asked for.")
        indices = sorted({layer - 1 for layer in layers})
        output = self._visual.forward_intermediates(
            self._squashed(images),
            indices=indices,
            normalize_intermediates=normalize,
            intermediates_only=True,
            output_fmt="NLC",
        )
        taken = dict(zip(indices, output["image_intermediates"], strict=True))
        return [taken[layer - 1] for layer in layers]

    @property
    def layers(self) -> int:
        """Transformer blocks.

        Raises:
            InputError: the model is no ViT of the library's.
        """
        transformer = getattr(self._visual, "transformer", None)
        if transformer is None or not hasattr(self._visual, "forward_intermediates"):
            raise InputError(f"{self.name} has no patch tokens; choose a ViT of open_clip, such as ViT-B-16.")
        return len(transformer.resblocks)

    def patch_grid(self, height: int, width: int) -> tuple[int, int]:
        """Patches per column and row of the model's input; the image's own size does not matter."""
        _ = self.layers  # says so if there are none
        rows, columns = self._visual.grid_size
        return int(rows), int(columns)

    def _squashed(self, images: NDArray[np.uint8]) -> Tensor:
        batch = torch.from_numpy(np.array(images)).to(self._device).permute(0, 3, 1, 2).float() / 255
        if batch.shape[-2:] != self._size:
            batch = torch.nn.functional.interpolate(
                batch, self._size, mode="bicubic", align_corners=False, antialias=True
            ).clamp(0, 1)
        mean = torch.tensor(self._visual.image_mean, device=self._device).reshape(1, 3, 1, 1)
        std = torch.tensor(self._visual.image_std, device=self._device).reshape(1, 3, 1, 1)
        return (batch - mean) / std


def _parse(options: str) -> tuple[str, str | None]:
    """``MODEL[:PRETRAINED_OR_PATH]`` as the library's model name and pretrained argument."""
    import open_clip

    if options.startswith(("hf-hub:", "local-dir:")):
        return options, None
    model, _, pretrained = options.partition(":")
    model = model or DEFAULT_MODEL
    path = Path(model)
    if path.is_dir():
        return f"local-dir:{model}", None
    if path.suffix == ".json":
        if not path.is_file():
            raise InputError(f"There is no open_clip config at {model}; correct the path.")
        open_clip.add_model_config(path)
        model = path.stem
        if model not in open_clip.list_models():
            raise InputError(f"{path} is not an open_clip model config (embed_dim, vision_cfg, text_cfg).")
        if not pretrained:
            raise InputError(f"Name a checkpoint after the config: openclip:{path}:CHECKPOINT.")
    if not pretrained:
        tags = open_clip.list_pretrained_tags_by_model(model)
        pretrained = DEFAULT_PRETRAINED if DEFAULT_PRETRAINED in tags or not tags else tags[0]
    return model, pretrained


def architecture_difference(known: str, options: str, encoder: OpenClipEncoder) -> str:
    """Why the model of ``known`` is not that of ``options``, which ``encoder`` is; "" if it may be.

    Both are ``MODEL[:PRETRAINED_OR_PATH]``. Names of the library are compared, and where one is a file or folder,
    the numbers of layers and patches. A "-quickgelu" at the end is overlooked: the library adds it for some tags,
    and for the same weights in a file one has to.
    """
    import open_clip

    (model, pretrained), (other, its_pretrained) = (_names(text) for text in (known, options))
    plain = [name.removesuffix("-quickgelu") for name in (model, other)]
    if all(name in open_clip.list_models() for name in (model, other)):
        if plain[0] != plain[1]:
            return f"{model} and {other} are different models"
        tags = open_clip.list_pretrained_tags_by_model(model)
        if pretrained in tags and its_pretrained in tags and pretrained != its_pretrained:
            return f"{pretrained} and {its_pretrained} are different weights"
    try:
        layers = encoder.layers
    except InputError as error:
        return str(error).rstrip(".")
    vision = _vision_config(model)
    for what, wanted, found in (
        ("layers", vision.get("layers"), layers),
        ("pixels a side", vision.get("image_size"), encoder.patch_side),
        ("pixels a patch", vision.get("patch_size"), encoder.patch_side // encoder.patch_grid(1, 1)[0]),
    ):
        if isinstance(wanted, int) and wanted != found:
            return f"it has {found} {what}, not {wanted}"
    return ""


def _names(options: str) -> tuple[str, str]:
    if options.startswith(("hf-hub:", "local-dir:")):
        return options, ""
    model, _, pretrained = options.partition(":")
    return model or DEFAULT_MODEL, pretrained or DEFAULT_PRETRAINED


def _vision_config(model: str) -> dict[str, Any]:
    """What is known about a model without loading it: the library's or a local config's ``vision_cfg``, or {}."""
    import open_clip

    path = Path(model.removeprefix("local-dir:"))
    path = path / "open_clip_config.json" if path.is_dir() else path
    if path.suffix == ".json" and path.is_file():
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
            config = config.get("model_cfg", config)
        except (OSError, ValueError, AttributeError):
            return {}
    else:
        config = open_clip.get_model_config(model) if model in open_clip.list_models() else None
    return (config or {}).get("vision_cfg", {})


def _load_error(name: str, model: str, pretrained: str | None, error: Exception) -> InputError:
    import open_clip

    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    local = ":" in model or pretrained is None or Path(pretrained).is_file()
    if not local and model not in open_clip.list_models():
        return InputError(f"open_clip knows no model {model!r}; try ViT-B-16, or give a config or folder.")
    if local and not model.startswith("hf-hub:"):
        return InputError(f"{name} cannot be loaded: {reason}.")
    if not model.startswith("hf-hub:"):
        tags = open_clip.list_pretrained_tags_by_model(model)
        if pretrained not in tags:
            return InputError(
                f"{pretrained} is neither a file nor a pretrained tag of {model}; tags are {', '.join(tags)}."
            )
    return InputError(
        f"The weights of {name} could not be downloaded ({reason}); download the checkpoint elsewhere "
        f"and give its path: openclip:{model.removeprefix('hf-hub:')}:/path/to/checkpoint.safetensors."
    )
