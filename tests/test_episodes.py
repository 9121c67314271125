"""Episodes that a detector is trained on: what is drawn, and from which photos."""

import dataclasses

import fitting
import numpy as np
import pytest
from fitting import FIT, MODEL, backbone, striped, weights
from inspection import save, texture
from PIL import Image

from dictas.episodes import HELD_OUT, EpisodeConfig, Episodes, FolderSource, material, stream
from dictas.fit import fit
from dictas.images import find_images
from encoders.errors import InputError


@pytest.fixture
def photos(tmp_path):
    for number in range(5):
        save(tmp_path / "photos" / f"{number}.png", texture(number, 48, 64))
    return tmp_path / "photos"


def content(episode):
    return episode.support.tobytes(), episode.queries.tobytes(), episode.masks.tobytes()


@pytest.mark.parametrize("source", ["drawn", "photos"])
def test_episodes_depend_on_their_number_only(photos, source):
    def make(seed=0):
        folder = photos if source == "photos" else None
        return Episodes(material(folder, folder), EpisodeConfig(side=48, shots=2, queries=2), seed)

    numbers = range(3, 9)
    alone = [content(episode) for episode in stream(make(), numbers, workers=0)]
    helped = [content(episode) for episode in stream(make(), numbers, workers=2)]
    backwards = [content(make()[number]) for number in reversed(numbers)][::-1]
    assert alone == helped == backwards
    assert len(set(alone)) == len(numbers)
    assert content(make(seed=1)[3]) != alone[0]


def test_episodes_are_made_as_configured():
    config = EpisodeConfig(side=32, shots=3, queries=2, anomalous=0.75)
    data = striped(dataclasses.replace(FIT, episode=config))
    made = [data[number] for number in range(150)]
    shots = [len(episode.support) for episode in made]
    assert set(shots) == {1, 2, 3}
    for episode in made:
        assert episode.support.shape[1:] == (32, 32, 3)
        assert episode.queries.shape == (2, 32, 32, 3)
        assert (episode.masks.dtype, episode.masks.shape) == (bool, (2, 32, 32))
    share = np.mean([mask.any() for episode in made for mask in episode.masks])
    assert share == pytest.approx(0.75, abs=0.1)


def test_defects_are_where_masks_say():
    """Without defects, the same episode differs from it within the masks (and three pixels around) only."""
    config = EpisodeConfig(side=32, shots=1, queries=1, anomalous=1.0)
    data = striped(dataclasses.replace(FIT, episode=config))
    plain = fitting.Stripes()
    for number in range(10):
        rng = np.random.default_rng((0, number))
        rng.integers(1, 2)
        normal = [image for image, _ in plain.normal(rng, 32, 2)]
        episode = data[number]
        assert np.array_equal(episode.support[0], normal[0])
        changed = (episode.queries[0] != normal[1]).any(axis=2)
        assert (changed & episode.masks[0]).any()
        rows, columns = np.nonzero(changed & ~episode.masks[0])
        for row, column in zip(rows, columns, strict=True):
            near = episode.masks[0][max(row - 3, 0) : row + 4, max(column - 3, 0) : column + 4]
            assert near.any()


def test_broken_photos_are_passed_over(photos):
    whole = (photos / "0.png").read_bytes()
    (photos / "half.png").write_bytes(whole[: len(whole) // 2])
    (photos / "text.jpg").write_text("no photo")
    (photos / "empty.jpg").touch()
    Image.fromarray(texture(1)).save(photos / "whole.jpg")
    (photos / "cut.jpg").write_bytes((photos / "whole.jpg").read_bytes()[:300])
    source = FolderSource(find_images(photos))
    for seed in range(30):
        made = source.normal(np.random.default_rng(seed), 32, 3)
        assert len(made) == 3
        assert all(image.shape == (32, 32, 3) and product is None for image, product in made)


def test_the_last_query_of_a_photo_is_the_photo_itself(tmp_path):
    save(tmp_path / "only.png", texture(4, 32, 32))
    made = FolderSource(find_images(tmp_path)).normal(np.random.default_rng(0), 32, 3)
    assert np.array_equal(made[-1][0], texture(4, 32, 32))
    assert not np.array_equal(made[0][0], made[1][0])


def test_a_folder_of_nothing_but_broken_photos_is_refused(tmp_path):
    (tmp_path / "text.jpg").write_text("no photo")
    with pytest.raises(InputError, match=r"Twenty images in a row could not be read, .*text\.jpg last"):
        FolderSource(find_images(tmp_path)).normal(np.random.default_rng(0), 32, 2)


@pytest.mark.parametrize(("count", "kept"), [(9, 0), (10, 1), (19, 1), (30, 3)])
def test_every_tenth_photo_is_kept_for_validation(tmp_path, count, kept):
    for number in range(count):
        save(tmp_path / f"{number}.png", np.full((32, 32, 3), 8 * number, np.uint8))
    given = material(tmp_path, None)
    # Each photo is one grey, so its own augmentations apart an episode's last query tells which it was made of.
    data = Episodes(given, EpisodeConfig(side=32, shots=1, queries=1, anomalous=0.0), 0)
    trained, held_out = (
        {int(data[start + number].queries[0, 0, 0, 0]) // 8 for number in range(150)} for start in (0, HELD_OUT)
    )
    assert (given.validation is not None) == (kept > 0)
    if kept:
        assert held_out == set(range(9, count, 10))
        assert trained == set(range(count)) - held_out
    else:
        assert trained == held_out == set(range(count))


def test_few_kept_photos_do_not_set_the_standard(tmp_path):
    """The only photo kept for validation is black, tokens of the others have another mean."""
    for number in range(10):
        save(tmp_path / "photos" / f"{number}.png", texture(number) if number < 9 else np.zeros((64, 64, 3), np.uint8))
    config = dataclasses.replace(FIT, steps=1)
    fit(backbone(), MODEL, material(tmp_path / "photos", None), config, tmp_path / "out", workers=0)
    mean = weights(tmp_path / "out")["weights.model.generators.0.standardise.mean"]
    assert mean[:3].min() > 0.2


def test_seed_and_episodes_are_those_of_the_configuration(tmp_path, monkeypatch):
    made = []
    real = Episodes.__init__

    def noted(self, given, config, seed):
        made.append((config, seed))
        real(self, given, config, seed)

    monkeypatch.setattr(Episodes, "__init__", noted)
    config = dataclasses.replace(FIT, steps=1, seed=5)
    fitting.run(tmp_path, config)
    assert made == [(config.episode, 5)]


@pytest.mark.parametrize("workers", [0, 1])
def test_what_goes_wrong_in_a_worker_is_one_sentence(tmp_path, workers):
    (tmp_path / "text.jpg").write_text("no photo")
    data = Episodes(material(tmp_path, None), EpisodeConfig(side=32), 0)
    with pytest.raises(InputError) as error:
        list(stream(data, range(3), workers))
    expected = f"Twenty images in a row could not be read, {tmp_path / 'text.jpg'} last; replace or remove them."
    assert str(error.value) == expected


def test_folders_without_images_are_refused(tmp_path):
    with pytest.raises(InputError, match="no images in"):
        material(tmp_path, None)
    with pytest.raises(InputError, match="no folder"):
        material(tmp_path / "none", None)
    with pytest.raises(InputError, match="texture folder"):
        material(None, tmp_path / "none")
