"""SAM regions with a tiny random model that is really saved to and loaded from disk."""

import os
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

import encoders
from encoders.errors import InputError
from encoders.regions_sam import SamOptions, SamRegions, _RememberingEncoder, mask_nms

SIDE = 64


def build_tiny(checkpoint: str | None = None) -> Sam:
    assert checkpoint is None, "the library would unpickle it"
    torch.manual_seed(0)
    width = 16
    encoder = ImageEncoderViT(
        img_size=SIDE, patch_size=16, embed_dim=width, depth=1, num_heads=2, out_chans=width,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6), use_rel_pos=True, window_size=2,
    )  # fmt: skip
    prompts = PromptEncoder(
        embed_dim=width, image_embedding_size=(4, 4), input_image_size=(SIDE, SIDE), mask_in_chans=4
    )
    transformer = TwoWayTransformer(depth=1, embedding_dim=width, mlp_dim=16, num_heads=2)
    decoder = MaskDecoder(
        transformer_dim=width, transformer=transformer, num_multimask_outputs=3, iou_head_hidden_dim=16
    )
    return Sam(encoder, prompts, decoder).eval()


EVERYTHING = SamOptions(points_per_side=3, pred_iou=0.0, stability=0.0, crop_layers=0, min_area=0, nms_score=-10.0)


@pytest.fixture
def checkpoint(tmp_path, monkeypatch) -> Path:
    monkeypatch.setitem(sam_model_registry, "tiny", build_tiny)
    model = build_tiny()
    with torch.no_grad():
        for parameter in model.mask_decoder.parameters():
            parameter.mul_(3)  # masks that differ from prompt to prompt
    torch.save(model.state_dict(), tmp_path / "sam.pth")
    return tmp_path / "sam.pth"


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def test_each_level_takes_one_of_the_three_masks_of_a_prompt(checkpoint):
    regions = SamRegions(f"tiny:{checkpoint}", options=SamOptions(1, 0.0, 0.0, 0, 0))
    sam = build_tiny()
    sam.load_state_dict(torch.load(checkpoint, weights_only=True))
    predictor = SamPredictor(sam)
    predictor.set_image(picture())
    expected, quality, _ = predictor.predict(np.array([[30.0, 20.0]]), np.array([1]), multimask_output=True)
    assert expected.any(axis=(1, 2)).all()
    encoder = _RememberingEncoder(regions._sam.image_encoder)
    calls = []
    regions._sam.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    for level in range(3):
        masks, scores = regions._masks(picture(), level, encoder)
        np.testing.assert_array_equal(masks[0], expected[level])
        assert abs(scores[0]) <= abs(quality[level]) + 1e-6  # times a stability of 0..1
    assert len(calls) == 1  # three scales, one look at the picture


def test_regions_of_a_picture(checkpoint):
    regions = encoders.create_regions(f"sam:tiny:{checkpoint}")
    regions.options = EVERYTHING
    assert isinstance(regions, encoders.Regions)
    assert regions.name == f"sam:tiny:{checkpoint}"
    ids = regions.segment(picture())
    assert ids.shape == (3, 40, 60)
    assert ids.dtype == np.int32
    used = [set(np.unique(level[level >= 0])) for level in ids]
    assert sorted(set().union(*used)) == list(range(ids.max() + 1))
    assert sum(len(level) for level in used) == ids.max() + 1
    np.testing.assert_array_equal(regions.segment(picture()), ids)


def test_the_librarys_crops_and_clean_up_run_too(checkpoint):
    options = SamOptions(points_per_side=2, pred_iou=0.0, stability=0.0, crop_layers=1, min_area=20)
    ids = SamRegions(f"tiny:{checkpoint}", options=options).segment(picture())
    assert ids.shape == (3, 40, 60)


def test_small_masks_lie_on_large_ones_and_covered_ones_have_no_id(checkpoint, monkeypatch):
    masks = np.zeros((3, 40, 60), dtype=bool)
    masks[0, 5:15, 5:15] = True
    masks[1, :30, :30] = True
    masks[2, 35:, 50:] = True
    regions = SamRegions(f"tiny:{checkpoint}", options=SamOptions(nms_inner=0.0))
    monkeypatch.setattr(regions, "_masks", lambda *_: (masks, np.array([0.8, 0.9, 0.95])))
    ids = regions.segment(picture())
    for level in range(3):
        assert ids[level, 10, 10] != ids[level, 20, 20]
        assert ids[level, 10, 10] >= 0
        assert ids[level, 33, 40] == -1
    np.testing.assert_array_equal(np.unique(ids), np.arange(-1, 9))


def test_no_masks_at_all_give_no_regions(checkpoint):
    options = SamOptions(points_per_side=2, pred_iou=1e9, stability=0.0, crop_layers=0)
    ids = SamRegions(f"tiny:{checkpoint}", options=options).segment(picture())
    assert (ids == -1).all()


def published_nms(masks: np.ndarray, scores: np.ndarray, options: SamOptions) -> list[int]:
    """LangSplat's suppression spelt out pair by pair."""
    order = sorted(range(len(masks)), key=lambda index: -scores[index])
    removed = set()
    for i, first in enumerate(order):
        for second in order[i + 1 :]:
            shared = (masks[first] & masks[second]).sum()
            if shared / (masks[first] | masks[second]).sum() > options.nms_iou:
                removed.add(second)
            of_first, of_second = shared / masks[first].sum(), shared / masks[second].sum()
            inner = 1 - of_first * of_second
            if of_first < 0.5 and of_second >= 0.85 and inner > 1 - options.nms_inner:
                removed.add(second)
            if of_first >= 0.85 and of_second < 0.5 and inner > 1 - options.nms_inner:
                removed.add(first)
    good = [index for index in order if scores[index] > options.nms_score]
    return [index for index in (good or order[:3]) if index not in removed]


@pytest.mark.parametrize("seed", range(6))
def test_mask_nms_agrees_with_the_published_loops(seed):
    generator = np.random.default_rng(seed)
    masks = np.zeros((40, 32, 32), dtype=bool)
    for mask in masks:
        y, x = generator.integers(0, 24, 2)
        height, width = generator.integers(3, 24, 2)
        mask[y : y + height, x : x + width] = True
    masks[20:25] = masks[:5]
    scores = generator.uniform(0.5, 1.0, len(masks))
    for options in (
        SamOptions(),
        SamOptions(nms_inner=0.9),
        SamOptions(nms_iou=0.3),
        SamOptions(nms_score=2.0),
    ):
        kept = mask_nms(masks, scores, options)
        assert kept.tolist() == published_nms(masks, scores, options)
    assert len(mask_nms(masks[:0], scores[:0], SamOptions())) == 0


class _Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_checkpoints_that_cannot_be_used_are_explained(checkpoint, tmp_path):
    with pytest.raises(InputError, match=r"not sam:TYPE:PATH with a TYPE of .*vit_b"):
        encoders.create_regions("sam:vit_x:/model.pth")
    with pytest.raises(InputError, match="not sam:TYPE:PATH"):
        encoders.create_regions("sam:vit_b")
    with pytest.raises(InputError, match="no Segment Anything checkpoint at"):
        encoders.create_regions(f"sam:tiny:{tmp_path}/none.pth")
    (tmp_path / "damaged.pth").write_bytes(checkpoint.read_bytes()[:1000])
    torch.save({"other": torch.zeros(2)}, tmp_path / "other.pth")
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(_Payload(tmp_path / "made"), protocol=2))
    for name in ("damaged", "other", "evil"):
        with pytest.raises(InputError, match=f"{name}.pth is not a tiny checkpoint"):
            encoders.create_regions(f"sam:tiny:{tmp_path}/{name}.pth")
    assert not (tmp_path / "made").exists()
