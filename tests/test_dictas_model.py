"""Maps of the detector against the formula, computed once more in double precision with loops and sorting."""

import dataclasses

import numpy as np
import pytest
import torch
from fitting import CELL, MODEL, SIDE, backbone

from dictas.detector import Batch
from dictas.model import DictAS, ModelConfig, aggregated

SEPARATE = dataclasses.replace(MODEL, joint=False, neighbourhoods=(1, 3))
PAPER = dataclasses.replace(SEPARATE, generators="paper", block="attention", max_entries=0)
CONFIGS = {
    "joint": MODEL,
    "neighbourhoods": dataclasses.replace(MODEL, neighbourhoods=(1, 3)),
    "separate": SEPARATE,
    "paper": PAPER,
}


def image(seed, height=SIDE, width=SIDE):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // CELL, width // CELL, 3)).repeat(CELL, 0).repeat(CELL, 1)
    return np.clip(coarse + rng.normal(0, 20, coarse.shape), 0, 255).astype(np.uint8)


def batch(*seeds, height=SIDE, width=SIDE):
    return backbone().batch([image(seed, height, width) for seed in seeds])


def detector(config, seed=0):
    """With random weights, unlike those before training."""
    torch.manual_seed(seed)
    model = DictAS(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    return model


def doubled(batch):
    return Batch(batch.images, [tokens.double() for tokens in batch.tokens], batch.grid)


def neighbourhood_means(tokens, grid, side):
    """Tokens [B, P, C]."""
    rows, columns = grid
    square = tokens.reshape(len(tokens), rows, columns, -1)
    means, reach = torch.empty_like(square), side // 2
    for row in range(rows):
        for column in range(columns):
            window = square[:, max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1]
            means[:, row, column] = window.mean(dim=(1, 2))
    return means.flatten(1, 2)


def sparsemax(scores):
    """By its definition: sort, find the support, take off the threshold."""
    best = sorted(scores, reverse=True)
    size = max(k for k in range(1, len(best) + 1) if 1 + k * best[k - 1] > sum(best[:k]))
    threshold = (sum(best[:size]) - 1) / size
    return [max(score - threshold, 0.0) for score in scores]


def expected_maps(model, support, query):
    """The mean over lookups of ``(1 - cos(target, sparsemax(q K^T) V)) / 2``."""
    model = model.double()
    groups = [[0, 1]] if model.config.joint else [[0], [1]]
    maps = []
    for generators, group in zip(model.generators, groups, strict=True):
        for side in model.config.neighbourhoods:
            keys, values = [], []
            for one in support:
                tokens = neighbourhood_means(torch.cat([one.tokens[g] for g in group], 2), one.grid, side)
                for key, value in zip(*generators.for_support(tokens, one.grid), strict=True):
                    keys.append(key)
                    values.append(value)
            keys, values = torch.cat(keys).detach().numpy(), torch.cat(values).detach().numpy()
            tokens = neighbourhood_means(torch.cat([query.tokens[g] for g in group], 2), query.grid, side)
            queries, targets = generators.for_query(tokens, query.grid)
            found = []
            for q, target in zip(
                queries.flatten(0, 1).detach().numpy(), targets.flatten(0, 1).detach().numpy(), strict=True
            ):
                retrieved = np.array(sparsemax((keys @ q).tolist())) @ values
                cosine = retrieved @ target / (np.linalg.norm(retrieved) * np.linalg.norm(target))
                found.append((1 - cosine) / 2)
            maps.append(np.array(found).reshape(len(queries), *query.grid))
    model.float()
    return np.mean(maps, axis=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_maps_follow_the_formula(name):
    model = detector(CONFIGS[name])
    support, query = [batch(1), batch(2, 3)], batch(4, 1)
    model.remember(support)
    found = model.maps(query)
    assert (found.dtype, found.shape) == (torch.float32, (2, *query.grid))
    expected = expected_maps(model, [doubled(one) for one in support], doubled(query))
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)
    assert found[0].max() > 0.02
    assert 0 <= found.min() <= found.max() <= 1


@pytest.mark.parametrize("joint", [True, False])
def test_what_the_support_shows_is_found_in_it(joint):
    """Queries start as their own keys: where they are sharp, each finds itself."""
    torch.manual_seed(0)
    model = DictAS(dataclasses.replace(MODEL, joint=joint))
    for generators in model.generators:
        generators.log_sharpness.data.fill_(12.0)
    model.remember([batch(1, 2)])
    known, strange = model.maps(batch(2)), model.maps(batch(7))
    assert 0 <= known.min() <= known.max() < 1e-3
    assert strange.mean() > 50 * known.mean()


def test_maps_of_a_batch_are_those_of_its_images():
    model = detector(SEPARATE)
    model.remember([batch(1)])
    together = model.maps(batch(4, 5))
    alone = torch.cat([model.maps(batch(4)), model.maps(batch(5))])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


def test_the_dictionary_of_some_images_is_the_union_of_theirs():
    model = detector(SEPARATE)
    shapes = [(SIDE, SIDE), (SIDE, 2 * SIDE)]
    batches = [batch(number, height=height, width=width) for number, (height, width) in enumerate(shapes)]
    together = model.entries(batches)
    assert len(together) == 4
    for number, (keys, values) in enumerate(together):
        single = [model.entries([one])[number] for one in batches]
        assert torch.equal(keys, torch.cat([pair[0] for pair in single]))
        assert torch.equal(values, torch.cat([pair[1] for pair in single]))
        assert len(keys) == 3 * (SIDE // CELL) ** 2


def test_support_and_query_may_have_other_shapes():
    model = detector(MODEL)
    support = [batch(1), batch(2, height=2 * SIDE), batch(3, width=2 * SIDE)]
    model.remember(support)
    query = batch(4, height=SIDE, width=2 * SIDE)
    expected = expected_maps(model, [doubled(one) for one in support], doubled(query))
    np.testing.assert_allclose(model.maps(query).numpy(), expected, atol=2e-5)


def test_thinning_keeps_so_many_entries_and_the_rare_ones_among_them():
    model = DictAS(dataclasses.replace(MODEL, max_entries=6, block="attention"))
    plain = np.full((SIDE, SIDE, 3), 90, np.uint8)
    marked = plain.copy()
    marked[8:12, 8:12] = (250, 10, 10)
    support = [backbone().batch([plain, plain, marked])]
    model.remember(support)
    (everything, _), (keys, values) = model.entries(support)[0], model._entries[0]
    assert (len(everything), len(keys), len(values)) == (3 * 64, 6, 6)
    for key in keys:
        assert (everything - key).norm(dim=1).min() == 0
    rare = everything[128 + 2 * 8 + 2]
    assert (keys - rare).norm(dim=1).min() < 1e-6
    other = (everything[:128] - rare).norm(dim=1)
    assert other.min() > 0.05


def test_a_dictionary_outlives_its_detector():
    model, other = detector(SEPARATE), detector(SEPARATE)
    model.remember([batch(1, 2)])
    state = model.dictionary_state()
    assert sorted(state) == [f"{kind}.{number}" for kind in ("keys", "values") for number in range(4)]
    other.load_dictionary_state({name: tensor.clone() for name, tensor in state.items()})
    assert torch.equal(model.maps(batch(5)), other.maps(batch(5)))


def test_remembering_again_forgets():
    model, other = detector(MODEL), detector(MODEL)
    model.remember([batch(1)])
    model.remember([batch(2)])
    other.remember([batch(2)])
    assert torch.equal(model.maps(batch(5)), other.maps(batch(5)))


def test_neighbourhood_means_at_the_edge_are_over_what_exists():
    tokens = torch.rand(2, 6, 3, dtype=torch.float64)
    torch.testing.assert_close(aggregated(tokens, (2, 3), 3), neighbourhood_means(tokens, (2, 3), 3))
    assert aggregated(tokens, (2, 3), 1) is tokens


def test_distances_pass_gradients_to_all_generators():
    model = detector(MODEL)
    found, compared = model.distances(batch(4), model.entries([batch(1)]))
    found.mean().backward()
    assert len(compared) == 1
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all()
        if "weight" in name:
            assert parameter.grad.abs().max() > 0, name


def test_config_groups():
    config = ModelConfig("cells", (2, 5, 9), (1, 1, 1), 64)
    assert config.groups == [[0, 1, 2]]
    assert dataclasses.replace(config, joint=False).groups == [[0], [1], [2]]
