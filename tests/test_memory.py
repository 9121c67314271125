"""What is kept of normal images: bounded, and as good as all of them where there is room."""

import dataclasses

import numpy as np
import pytest
import torch
from fitting import CELL, MODEL, SIDE, backbone
from inspection import ColourDistance

from dictas.memory import SPARE, Memory
from dictas.model import DictAS

PATCHES = (SIDE // CELL) ** 2


def batch(seed, images=1):
    rng = np.random.default_rng(seed)
    return backbone().batch(list(rng.integers(0, 256, (images, SIDE, SIDE, 3), np.uint8)))


def shown(model, images):
    memory = Memory(model, len(images))
    for batches in images:
        for one in batches:
            memory.add(one)
        memory.finish()
    return memory


def model_of(entries):
    torch.manual_seed(0)
    return DictAS(dataclasses.replace(MODEL, max_entries=entries)).eval()


@pytest.mark.parametrize("entries", [0, 100])
@pytest.mark.parametrize("without", [None, 1])
def test_few_images_are_remembered_as_if_all_were_shown_at_once(entries, without):
    model = model_of(entries)
    images = [[batch(1)], [batch(2)], [batch(3)]]
    shown(model, images).recall(without)
    kept = model.dictionary_state()
    model.remember([one for place, batches in enumerate(images) if place != without for one in batches])
    expected = model.dictionary_state()
    assert len(kept["keys.0"]) == (entries or PATCHES * (3 - (without is not None)))
    for name, value in kept.items():
        torch.testing.assert_close(value, expected[name])


def test_what_is_kept_of_many_images_and_tiles_is_bounded(monkeypatch):
    model = model_of(60)
    sizes = []
    real = DictAS.joined

    def joined(self, parts, limit):
        sizes.append(sum(len(part[0][0]) for part in parts))
        return real(self, parts, limit)

    monkeypatch.setattr(DictAS, "joined", joined)
    memory = shown(model, [[batch(10 * image + part, 2) for part in range(6)] for image in range(16)])
    memory.recall()
    assert max(sizes) <= SPARE * 60 + 2 * PATCHES
    assert len(model.dictionary_state()["keys.0"]) == 60
    # Each image is represented: its own entries are found again among the few.
    maps = [float(model.maps(batch(10 * image, 2)).mean()) for image in range(16)]
    assert max(maps) < 2 * min(maps)


def test_thinned_by_image_every_place_is_about_as_near_as_thinned_at_once():
    """The bound of the module: within twice the best, twice."""
    model = model_of(64)
    images = [[batch(number)] for number in range(8)]
    everything = model.entries([one for batches in images for one in batches])[0]

    def points(keys, values):
        return torch.cat([torch.nn.functional.normalize(part, dim=-1) for part in (keys, values)], dim=1)

    radii = []
    for remember in (lambda: shown(model, images).recall(), lambda: model.remember([one for [one] in images])):
        remember()
        state = model.dictionary_state()
        kept = points(state["keys.0"], state["values.0"])
        radii.append(float(torch.cdist(points(*everything), kept).amin(dim=1).max().detach()))
    assert radii[0] < 1.5 * radii[1]


def test_detectors_that_cannot_condense_are_shown_the_batches():
    detector = ColourDistance()
    images = [[batch(1), batch(2)], [batch(3)]]
    memory = shown(detector, images)
    assert not memory.condenses
    memory.recall()
    assert torch.equal(detector.known, torch.cat([one.tokens[0][0] for batches in images for one in batches]))
    memory.recall(without=0)
    assert torch.equal(detector.known, images[1][0].tokens[0][0])
