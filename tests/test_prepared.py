"""Prepared questions give the answers of `query_view`, in whole and in the parts that a moving picture needs."""

import numpy as np
import pytest
import torch
from test_query import WordEncoder, make_scene, view

from encoders.errors import InputError
from splat.prepared import find, likeliest_levels, prepare, prepared_maps
from splat.query import query_view, relevancy_maps
from splat.samples import sample

WORDS = ["tree", "house"]


def test_phrases_are_answered_as_by_query_view():
    gaussians, field = make_scene(300)
    encoder = WordEncoder()
    prepared = prepare(gaussians, field, WORDS, encoder)
    for levels, level in ((None, None), ([1, 1], 1)):
        found = find(prepared, gaussians, field, view(), 0.3, levels)
        expected = query_view(gaussians, field, view(), WORDS, encoder, level=level, threshold=0.3)
        for one, other in zip(found, expected, strict=True):
            assert (one.phrase, one.level, one.point, one.box) == (other.phrase, other.level, other.point, other.box)
            np.testing.assert_array_equal(one.mask, other.mask)
            np.testing.assert_allclose(one.relevancy, other.relevancy, atol=1e-6)
            assert one.confidence == pytest.approx(other.confidence, abs=1e-6)
            assert one.seconds > 0


def test_each_thing_may_have_a_level_of_its_own():
    gaussians, field = make_scene(300)
    prepared = prepare(gaussians, field, WORDS, WordEncoder())
    first, second = find(prepared, gaussians, field, view(), levels=[2, 0])
    alone = [find(prepared, gaussians, field, view(), levels=[level] * 2) for level in (2, 0)]
    np.testing.assert_array_equal(first.mask, alone[0][0].mask)
    np.testing.assert_array_equal(second.mask, alone[1][1].mask)
    assert (first.level, second.level) == (2, 0)


def test_samples_do_not_change_what_is_said_of_phrases():
    gaussians, field = make_scene(300)
    encoder = WordEncoder()
    here = sample(gaussians, field, view(), 96, 64, "like this")
    prepared = prepare(gaussians, field, ["tree", here, "house"], encoder)
    assert prepared.names == ("tree", "like this", "house")
    maps = prepared_maps(prepared, gaussians, field, view())
    expected = relevancy_maps(gaussians, field, view(), WORDS, encoder)
    torch.testing.assert_close(maps[[0, 2]], expected)
    alone = prepared_maps(prepare(gaussians, field, [here], encoder), gaussians, field, view())
    torch.testing.assert_close(maps[1], alone[0])


def test_fewer_levels_are_the_same_levels():
    gaussians, field = make_scene(300)
    prepared = prepare(gaussians, field, WORDS, WordEncoder())
    every = prepared_maps(prepared, gaussians, field, view())
    torch.testing.assert_close(prepared_maps(prepared, gaussians, field, view(), [2, 0]), every[:, [2, 0]])


def test_a_smaller_splat_gives_nearly_the_same_map():
    gaussians, field = make_scene(300)
    prepared = prepare(gaussians, field, WORDS, WordEncoder())
    full = prepared_maps(prepared, gaussians, field, view())
    small = prepared_maps(prepared, gaussians, field, view(), width=96)
    assert small.shape == full.shape
    seen = full > 0
    assert float((small - full)[seen].abs().mean()) < 0.01
    torch.testing.assert_close(prepared_maps(prepared, gaussians, field, view(), width=500), full)


def test_the_likeliest_level_and_unseen_pixels():
    maps = torch.tensor([[[0.1, 0.0, 0.9]], [[0.2, 0.0, 0.3]], [[0.1, 0.0, 0.2]]])
    np.testing.assert_array_equal(likeliest_levels(maps), [[1, 255, 0]])


def test_nothing_to_look_for_is_said():
    gaussians, field = make_scene()
    with pytest.raises(InputError, match="give a phrase"):
        prepare(gaussians, field, [], WordEncoder())
    with pytest.raises(InputError, match="empty"):
        prepare(gaussians, field, [" "], WordEncoder())
