"""Samples of a scene against its features written out: the code of a pixel, its phrases, and more of the same."""

import numpy as np
import pytest
import torch
from test_query import DIM, WordEncoder, blobs, make_scene, view

from encoders.errors import InputError
from splat.phrases import DEFAULT_NEGATIVES
from splat.prepared import prepare, prepared_maps
from splat.query import select_gaussians
from splat.rasterize import rasterize_features
from splat.samples import SampleEncoder, describe, mean_codes, sample, sample_scores
from splat.scene import stack


def feature_map(gaussians, field, level: int) -> torch.Tensor:
    camera = view()
    features = field.decode()[:, level].contiguous()
    image, _ = rasterize_features(*gaussians.geometry, features, *stack([camera]), camera.width, camera.height)
    return image[0]


@pytest.mark.parametrize("pixel", [(96, 64), (0, 0), (191, 127), (70, 90)])
def test_a_pixels_code_decodes_to_its_feature(pixel):
    gaussians, field = make_scene(300)
    found = sample(gaussians, field, view(), *pixel, "here")
    for level in range(3):
        expected = feature_map(gaussians, field, level)[pixel[1], pixel[0]]
        torch.testing.assert_close(found.codes[level] @ field.atoms[level], expected, atol=2e-6, rtol=1e-4)


def test_places_without_anything_are_refused():
    gaussians, field = make_scene(1)
    gaussians.means[:] = torch.tensor([0.0, 0.0, -5.0])
    with pytest.raises(InputError, match="nothing at that place"):
        sample(gaussians, field, view(), 10, 10, "here")
    for x, y in ((-1, 0), (0, -1), (192, 0), (0, 128)):
        with pytest.raises(InputError, match="no pixel"):
            sample(gaussians, field, view(), x, y, "here")


def test_scores_are_inner_products_with_the_unit_feature():
    _, field = make_scene()
    codes = torch.rand(3, 2, field.atoms.shape[1], generator=torch.Generator().manual_seed(5))
    codes[1, 1] = 0.0
    found = sample_scores(field, codes)
    for level in range(3):
        features = codes[level].double() @ field.atoms[level].double()
        unit = features / features.norm(dim=1, keepdim=True).clamp_min(1e-12)
        expected = unit @ field.atoms[level].double().T
        torch.testing.assert_close(found[level].double(), expected, atol=1e-5, rtol=1e-5)
    assert not found[1, 1].any()


def test_the_mean_code_is_the_mean_of_the_features():
    gaussians, field = make_scene(90)
    area = gaussians.scales.sort(dim=1).values[:, 1:].prod(dim=1)
    mass = (gaussians.opacities * area).double()
    expected = torch.einsum("n,nld->ld", mass / mass.sum(), field.decode().double())
    found = torch.einsum("la,lad->ld", mean_codes(gaussians, field), field.atoms)
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-5)


def test_phrases_are_ranked_by_relevancy_and_name_their_level():
    gaussians, field = make_scene(300)
    found = sample(gaussians, field, view(), 96, 64, "here")
    features = torch.stack([found.codes[level] @ field.atoms[level] for level in range(3)]).double()
    encoder = WordEncoder({"thing": features[1].float()})
    vocabulary = ["tree", "thing", "house", "lamp", "wall"]
    best = describe(found, gaussians, field, encoder, vocabulary, count=4)
    texts = torch.from_numpy(encoder.encode_text([*vocabulary, *DEFAULT_NEGATIVES])).double()
    similar = torch.nn.functional.normalize(features, dim=1) @ texts.T
    pairs = torch.softmax(10 * torch.stack(torch.broadcast_tensors(similar[:, :5, None], similar[:, None, 5:])), 0)[0]
    relevancy, level = pairs.amin(2).max(0)
    order = relevancy.argsort(descending=True)[:4].tolist()
    assert [one.phrase for one in best] == [vocabulary[i] for i in order]
    assert best[0].phrase == "thing"
    assert [one.level for one in best] == [int(level[i]) for i in order]
    np.testing.assert_allclose([one.relevancy for one in best], relevancy[order], atol=1e-5)


def test_more_of_the_same_is_found_in_the_view_and_in_space():
    gaussians, field, encoder = blobs()
    camera = view()
    cat = int(_image_x(camera, -1.5)), camera.height // 2
    found = sample(gaussians, field, camera, *cat, "like this")
    assert float(found.codes[2, 0]) > 0.5  # the cat's atom
    prepared = prepare(gaussians, field, [found], encoder)
    maps = prepared_maps(prepared, gaussians, field, camera)[0, 2]
    dog = int(_image_x(camera, 0.0)), camera.height // 2
    assert maps[cat[1], cat[0]] > 0.8
    assert maps[dog[1], dog[0]] < 0.5
    named = SampleEncoder(encoder, field, 2, {"like this": found.codes})
    selected = select_gaussians(gaussians, field, "like this", named, level=2)  # type: ignore[arg-type]
    assert selected[:60].float().mean() > 0.9
    assert not selected[60:120].any()


def _image_x(camera, x: float) -> float:
    point = camera.viewmat @ np.array([x, 0.0, 4.0, 1.0])
    return camera.K[0, 0] * point[0] / point[2] + camera.K[0, 2]


def test_a_sample_encoder_is_the_encoder_for_everything_else():
    gaussians, field = make_scene(300)
    found = sample(gaussians, field, view(), 96, 64, "here")
    encoder = WordEncoder()
    wrapped = SampleEncoder(encoder, field, 1, {"here": found.codes})
    vectors = wrapped.encode_text(["tree", "here", "object"])
    np.testing.assert_array_equal(vectors[[0, 2]], encoder.encode_text(["tree", "object"]))
    feature = (found.codes[1] @ field.atoms[1]).numpy()
    np.testing.assert_allclose(vectors[1], feature / np.linalg.norm(feature), atol=1e-6)
    assert vectors.shape == (3, DIM)
