"""The feature store and the stage that fills it."""

import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from encoders.errors import InputError
from splat.features import FeatureStore, ViewFeatures, extract_features


class Quarters:
    """Regions: the four quarters, the two halves, everything."""

    name = "quarters"

    def segment(self, image):
        height, width = image.shape[:2]
        row = (np.arange(height) >= height // 2)[:, None]
        column = (np.arange(width) >= width // 2)[None, :]
        ids = np.stack([2 * row + column, 4 + row + 0 * column, 6 + 0 * (row + column)])
        return ids.astype(np.int32)


class MeanColour:
    """Encoder: a region's mean colour."""

    name = "mean-colour"
    dim = 3

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.lock = threading.Lock()

    def encode_regions(self, image, ids):
        with self.lock:
            self.seen.append(int(image[0, 0, 0]))
        means = [image[(ids == region).any(axis=0)].mean(axis=0) for region in range(ids.max() + 1)]
        return np.array(means, np.float32) / np.linalg.norm(means, axis=1, keepdims=True)


def scene(count: int = 5, broken: int | None = None):
    """Views view_0 ...; pixel (0, 0) of each tells its number."""

    def image(index: int) -> np.ndarray:
        if index == broken:
            raise InputError("The image x.png cannot be read.")
        picture = np.random.default_rng(index).integers(1, 256, (12, 16, 3), dtype=np.uint8)
        picture[0, 0, 0] = index
        return picture

    cameras = [SimpleNamespace(name=f"view_{index}") for index in range(count)]
    return SimpleNamespace(cameras=cameras, train=list(range(1, count)), image=image)


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    store = FeatureStore(tmp_path / "features")
    store.describe(MeanColour.name, MeanColour.dim, Quarters.name)
    return store


def views(store: FeatureStore) -> list[str]:
    """What files there are, by their names without the suffix."""
    return sorted(path.stem for path in store.folder.glob("*.npz"))


def test_features_come_back_as_they_were(store):
    generator = np.random.default_rng(0)
    ids = generator.integers(-1, 9, (3, 20, 30)).astype(np.int32)
    embeddings = generator.normal(size=(9, 50)).astype(np.float16)
    for name in ("plain", "a/b c.d", ".hidden", "größe%2F"):
        store.write(name, ViewFeatures(ids, embeddings))
        back = FeatureStore(store.folder).read(name)
        np.testing.assert_array_equal(back.region_ids, ids)
        np.testing.assert_array_equal(back.embeddings, embeddings)
        assert (back.region_ids.dtype, back.embeddings.dtype) == (np.int32, np.float16)
        assert store.has(name)
    assert len(views(store)) == 4
    assert (store.encoder, store.dim) == ("mean-colour", 3)


def test_long_names_have_files_of_their_own(store):
    names = ["写真" * 40 + end for end in ("1", "2")] + ["x" * 251]  # 241 and 251 bytes, as file systems allow
    for index, name in enumerate(names):
        assert not store.has(name)
        store.write(name, ViewFeatures(np.full((3, 2, 2), index, np.int32), np.ones((3, 1), np.float16)))
    for index, name in enumerate(names):
        assert store.has(name)
        assert store.read(name).region_ids.max() == index
    assert len(views(store)) == len(names)


def test_more_regions_than_16_bits_count(store):
    ids = np.full((3, 4, 4), 40_000, np.int32)
    store.write("many", ViewFeatures(ids, np.zeros((40_001, 1), np.float16)))
    np.testing.assert_array_equal(store.read("many").region_ids, ids)


def test_region_maps_are_stored_compressed(store):
    ids = np.repeat(np.arange(3, dtype=np.int32), 480 * 360).reshape(3, 360, 480)
    store.write("view", ViewFeatures(ids, np.zeros((3, 8), np.float16)))
    (path,) = store.folder.glob("*.npz")
    assert path.stat().st_size < ids.size * 2 / 50


def test_damaged_files_are_named(store):
    store.write("view", ViewFeatures(np.zeros((3, 50, 50), np.int32), np.ones((1, 900), np.float16)))
    (path,) = store.folder.glob("*.npz")
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2 :] = bytes(255 - byte for byte in whole[len(whole) // 2 :])
    for content in (b"", whole[: len(whole) // 2], bytes(flipped), b"not a zip file at all"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"view\.npz"):
            store.read("view")
    np.savez(path, region_ids=np.full((3, 2, 2), 5), embeddings=np.zeros((2, 4)))
    with pytest.raises(InputError, match="does not hold features"):
        store.read("view")
    np.savez(path, region_ids=np.array([Path("x")], dtype=object), embeddings=np.zeros((2, 4)))
    with pytest.raises(InputError, match="damaged"):
        store.read("view")


def test_missing_features_say_what_to_run(store, tmp_path):
    with pytest.raises(InputError, match="no features of the view other; run the features stage"):
        store.read("other")
    with pytest.raises(InputError, match="holds no features"):
        _ = FeatureStore(tmp_path / "nowhere").encoder
    assert FeatureStore(tmp_path / "nowhere").empty
    (store.folder / "features.json").write_text("{")
    with pytest.raises(InputError, match=r"features\.json"):
        _ = store.dim
    (store.folder / "features.json").write_text('{"version": 99, "encoder": "x", "dim": 3}')
    with pytest.raises(InputError, match="newer dictsplat"):
        _ = store.dim


def test_a_store_belongs_to_one_encoder(store):
    store.write("view_1", ViewFeatures(np.zeros((3, 4, 4), np.int32), np.ones((1, 3), np.float16)))
    other = MeanColour()
    other.name = "other"
    with pytest.raises(InputError, match="holds features of mean-colour with quarters regions, not of other"):
        extract_features(scene(), other, Quarters(), store)


def test_a_store_without_views_may_change_its_encoder(store):
    other = MeanColour()
    other.name = "other"
    assert store.empty
    store.describe(other.name, other.dim, Quarters.name)
    assert store.encoder == "other"


def test_extraction_embeds_every_training_view(tmp_path):
    store, reports = FeatureStore(tmp_path), []
    extract_features(scene(), MeanColour(), Quarters(), store, lambda *report: reports.append(report))
    assert views(store) == ["view_1", "view_2", "view_3", "view_4"]
    assert [done for done, _, _ in reports] == [0, 1, 2, 3, 4]
    assert {total for _, total, _ in reports} == {4}
    image = scene().image(2)
    found = store.read("view_2")
    np.testing.assert_array_equal(found.region_ids, Quarters().segment(image))
    lower_left = image[6:, :8].reshape(-1, 3).mean(axis=0)
    np.testing.assert_allclose(found.embeddings[2], lower_left / np.linalg.norm(lower_left), atol=2e-3)


def test_extraction_continues_where_it_was(tmp_path):
    store, encoder, reports = FeatureStore(tmp_path), MeanColour(), []
    extract_features(scene(), encoder, Quarters(), store, views=[3, 1])
    assert sorted(encoder.seen) == [1, 3]
    extract_features(scene(), encoder, Quarters(), store, lambda *report: reports.append(report))
    assert sorted(encoder.seen) == [1, 2, 3, 4]
    assert [done for done, _, _ in reports] == [2, 3, 4]
    extract_features(scene(), encoder, Quarters(), store)
    assert len(encoder.seen) == 4


def test_a_view_that_fails_is_named_and_the_others_stay(tmp_path):
    store = FeatureStore(tmp_path)
    with pytest.raises(InputError, match=r"View view_4: The image x\.png cannot be read"):
        extract_features(scene(broken=4), MeanColour(), Quarters(), store)
    before = set(views(store))
    assert "view_4" not in before
    assert "view_1" in before
    extract_features(scene(), MeanColour(), Quarters(), store)
    assert views(store) == ["view_1", "view_2", "view_3", "view_4"]


def test_features_do_not_depend_on_the_number_of_threads(tmp_path):
    import torch

    threads = torch.get_num_threads()
    read = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            store = FeatureStore(tmp_path / str(count))
            extract_features(scene(), MeanColour(), Quarters(), store)
            assert torch.get_num_threads() == count
            read.append([store.read(name).embeddings for name in views(store)])
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(read[0], read[1])
