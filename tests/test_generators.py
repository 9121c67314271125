"""Generators against their definitions, written out once more."""

import pytest
import torch

from dictas.generators import (
    BLOCKS,
    AttentionBlock,
    ConvolutionBlock,
    PaperGenerators,
    RelativeStem,
    SharedGenerators,
    Standardise,
)

GRID = (5, 7)


def tokens(channels, count=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, GRID[0] * GRID[1], channels, generator=generator, dtype=torch.float64)


def stirred(module):
    """In double precision, with all parameters random: nothing is silenced any more."""
    generator = torch.Generator().manual_seed(1)
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3)
    return module


def test_the_stem_sees_tokens_and_what_they_have_more_than_their_image():
    stem, standardise, x = stirred(RelativeStem(6, 4)), Standardise(6).double(), tokens(6)
    standardise.fit(3.0 * tokens(6, seed=1) + 2.0)
    standard = standardise(x)
    relative = standard - standard.mean(dim=1, keepdim=True)
    expected = stem.linear(torch.cat([standard, relative], dim=-1))
    torch.testing.assert_close(stem(x, standardise), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("channels", [12, 128, 208])
def test_blocks_start_as_the_identity_and_keep_any_width(kind, channels):
    block, x = BLOCKS[kind](channels).double(), tokens(channels)
    assert torch.equal(block(x, GRID), x)
    assert not torch.allclose(stirred(block)(x, GRID), x)


def test_attention_heads_are_about_64_wide():
    assert [AttentionBlock(channels).heads for channels in (12, 64, 128, 208, 1024)] == [1, 1, 2, 2, 16]


def layer_norm(x, layer):
    scaled = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + layer.eps).sqrt()
    return scaled * layer.weight + layer.bias


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / 2**0.5))


def mlp(x, first, last, activation=gelu):
    return activation(x @ first.weight.T + first.bias) @ last.weight.T + last.bias


def test_an_attention_block_is_softmax_attention_and_a_perceptron():
    block, x = stirred(AttentionBlock(128)), tokens(128)
    expected = []
    for image in x:
        projected = layer_norm(image, block.norm) @ block.inputs.weight.T + block.inputs.bias
        heads = []
        for head in range(2):
            query, key, value = (
                projected[:, 128 * part + 64 * head : 128 * part + 64 * head + 64] for part in (0, 1, 2)
            )
            weights = torch.exp(query @ key.T / 8)
            heads.append(weights / weights.sum(1, keepdim=True) @ value)
        mixed = image + torch.cat(heads, dim=1) @ block.mixed.weight.T + block.mixed.bias
        expected.append(mixed + mlp(layer_norm(mixed, block.mlp[0]), block.mlp[1], block.mlp[3]))
    torch.testing.assert_close(block(x, GRID), torch.stack(expected), rtol=1e-9, atol=1e-9)


def test_a_convolution_block_sees_5_by_5_of_the_grid_of_each_channel():
    block, x = stirred(ConvolutionBlock(3)), tokens(3)
    rows, columns = GRID
    for image, found in zip(x, block(x, GRID), strict=True):
        padded = torch.zeros(rows + 4, columns + 4, 3, dtype=torch.float64)
        padded[2:-2, 2:-2] = image.reshape(rows, columns, 3)
        around = torch.empty(rows * columns, 3, dtype=torch.float64)
        for row in range(rows):
            for column in range(columns):
                window = padded[row : row + 5, column : column + 5]
                for channel in range(3):
                    product = (window[:, :, channel] * block.around.weight[channel, 0]).sum()
                    around[row * columns + column, channel] = product + block.around.bias[channel]
        normed = (around - around.mean()) / (around.var(unbiased=False) + block.norm.eps).sqrt()
        normed = normed * block.norm.weight + block.norm.bias
        torch.testing.assert_close(
            found, image + mlp(normed, block.mlp[0], block.mlp[2], lambda x: x.clamp_min(0)), rtol=1e-9, atol=1e-9
        )


def test_standardised_tokens_have_mean_0_and_variance_1():
    standardise, x = Standardise(4).double(), 5 + 3 * tokens(4)
    standardise.fit(x)
    found = standardise(x).flatten(0, 1)
    torch.testing.assert_close(found.mean(0), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-9)
    torch.testing.assert_close(found.std(0), torch.ones(4, dtype=torch.float64))


def test_a_channel_that_never_changes_stays_finite():
    standardise = Standardise(2)
    standardise.fit(torch.ones(9, 2))
    assert torch.equal(standardise(torch.ones(1, 3, 2)), torch.zeros(1, 3, 2))


@pytest.mark.parametrize("kind", BLOCKS)
def test_the_papers_values_are_tokens_plus_a_block_and_its_scale_is_in_the_query(kind):
    generators, x = stirred(PaperGenerators(16, kind)), tokens(16)
    generators.standardise.fit(3 * x + 1)
    standard = generators.standardise(x)
    queries, targets = generators.for_query(x, GRID)
    keys, values = generators.for_support(x, GRID)
    assert torch.equal(targets, standard)
    torch.testing.assert_close(queries * 4, generators.to_query(standard, GRID))
    torch.testing.assert_close(keys, generators.to_key(standard, GRID))
    change = generators.to_value(standard, GRID) - standard
    assert change.abs().max() > 0.1
    torch.testing.assert_close(values, standard + change)


def test_before_training_the_papers_values_are_the_tokens_and_queries_meet_their_keys():
    generators, x = PaperGenerators(16, "attention").double(), tokens(16)
    (queries, _), (keys, values) = generators.for_query(x, GRID), generators.for_support(x, GRID)
    torch.testing.assert_close(values, x)
    torch.testing.assert_close(queries * 4, keys)


def test_shared_keys_have_unit_length_and_queries_the_sharpness():
    generators, x = stirred(SharedGenerators(6, "convolution", 2, 12, 9, 5)), tokens(6)
    queries, targets = generators.for_query(x, GRID)
    keys, values = generators.for_support(x, GRID)
    for vectors in (targets, keys, values):
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(x.shape[:2], dtype=torch.float64))
    torch.testing.assert_close(queries.norm(dim=-1), generators.log_sharpness.exp().expand(x.shape[:2]))
    assert torch.equal(targets, values)  # g_V describes both sides
    assert (queries.shape[-1], values.shape[-1]) == (9, 5)


def test_shared_queries_start_as_their_keys_times_the_root_of_their_width():
    generators, x = SharedGenerators(6, "convolution", 2, 12, 9, 5).double(), tokens(6)
    torch.testing.assert_close(generators.for_query(x, GRID)[0], generators.for_support(x, GRID)[0] * 3)


@pytest.mark.parametrize(
    "make", [lambda: PaperGenerators(8, "attention"), lambda: SharedGenerators(8, "attention", 1, 8, 8, 8)]
)
def test_parameters_of_values_move_values_and_leave_keys_alone(make):
    generators, x = stirred(make()), tokens(8)
    keys, values = generators.for_support(x, GRID)
    with torch.no_grad():
        for parameter in generators.value_parameters():
            parameter.add_(0.1)
    new_keys, new_values = generators.for_support(x, GRID)
    assert torch.equal(keys, new_keys)
    assert not torch.allclose(values, new_values)
