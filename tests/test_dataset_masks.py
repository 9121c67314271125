"""Masks: which belongs to which image, and what they say in whatever form they come."""

import shutil

import cv2
import numpy as np
import pytest
from dataset_folders import MVTEC, picture, sentence, tree
from PIL import Image

from dictas.datasets import Sample, read_dataset, read_mask
from dictas.masks import defect_pixels
from encoders.errors import InputError
from encoders.files import read_image


def test_masks_of_a_kind_are_all_there_or_none(tmp_path):
    tree(tmp_path, MVTEC)
    shutil.rmtree(tmp_path / "ground_truth/dent")
    (item,) = read_dataset(tmp_path)
    (dent,) = (sample for sample in item.test if sample.kind == "dent")
    assert dent.anomalous
    assert dent.mask is None
    with pytest.raises(InputError, match=r'dent/000\.png of kind "dent" has no mask'):
        read_mask(dent, (4, 6))
    (tmp_path / "ground_truth/cut/001_mask.png").unlink()
    with pytest.raises(InputError, match=r"cut/001\.PNG has no mask in .*ground_truth/cut") as error:
        read_dataset(tmp_path)
    sentence(error)


def test_masks_in_a_folder_of_another_name_do_not_get_lost(tmp_path):
    tree(tmp_path, MVTEC)
    (tmp_path / "ground_truth/dent").rename(tmp_path / "ground_truth/dents")
    with pytest.raises(InputError, match=r"masks in .*ground_truth/dents belong to no folder in .*test"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("000.png", "000.bmp"),
        ("000.png", "000_mask.png"),
        ("000.jpg", "000_GT.png"),
        ("a.b.JPG", "a.b-gt.tif"),
        ("IMG_1.jpg", "img_1_segmentation.png"),
        ("x_mask.png", "x_mask.png"),
        ("x_mask.png", "x_mask_mask.png"),
        ("flat 2.png", "flat 2 ground truth.png"),
    ],
)
def test_masks_are_matched_by_stem(tmp_path, image, mask):
    # "0000" and "1000" are there to be mistaken for it.
    tree(tmp_path, "train/good/a.png test/cut/0000.png ground_truth/cut/0000.png test/cut/10.png")
    tree(tmp_path, "ground_truth/cut/10_mask.png")
    picture(tmp_path / "test/cut" / image)
    picture(tmp_path / "ground_truth/cut" / mask, mode="L")
    (item,) = read_dataset(tmp_path)
    assert {sample.path.name: sample.mask.name for sample in item.test} == {
        "0000.png": "0000.png",
        "10.png": "10_mask.png",
        image: mask,
    }


def test_two_masks_of_one_image_are_refused_unless_case_tells_them_apart(tmp_path):
    tree(tmp_path, "train/good/a.png test/cut/a.png test/cut/A.png ground_truth/cut/a.png ground_truth/cut/A.png")
    (item,) = read_dataset(tmp_path)
    assert [sample.mask.name for sample in item.test] == [sample.path.name for sample in item.test]
    picture(tmp_path / "ground_truth/cut/a.bmp", mode="L")
    with pytest.raises(InputError, match=r"a\.png has two masks, .*a\.bmp and .*a\.png|.*a\.png and .*a\.bmp") as error:
        read_dataset(tmp_path)
    sentence(error)


TRUTH = np.zeros((8, 12), bool)
TRUTH[2:5, 3:9] = True


def _grey(path, high):
    Image.fromarray((TRUTH * high).astype(np.uint8)).save(path)


def _deep(path):
    cv2.imwrite(str(path), (TRUTH * 65535).astype(np.uint16))


def _labels16(path):
    cv2.imwrite(str(path), (TRUTH * np.arange(1, 13)).astype(np.uint16))


def _palette(path):
    image = Image.fromarray((TRUTH * np.arange(12) % 3 + TRUTH).astype(np.uint8), "P")
    image.putpalette([0, 0, 0, 200, 0, 0, 0, 40, 0, 0, 0, 60])
    image.save(path)


def _white_first(path):
    """A palette whose number 0 is white: what counts are colours."""
    image = Image.fromarray((~TRUTH).astype(np.uint8), "P")
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.save(path)


def _red(path):
    Image.fromarray(TRUTH[..., None] * np.array([255, 0, 0], np.uint8)).save(path)


def _transparent(path):
    white = np.full((*TRUTH.shape, 4), 255, np.uint8)
    white[..., 3] = TRUTH * 255
    Image.fromarray(white).save(path)


def _soft(path):
    """Edges that fade over pixels outside, as after resizing."""
    grey = TRUTH * 255.0
    for shift in (-1, 1):
        for axis in (0, 1):
            grey = np.maximum(grey, np.roll(TRUTH * 100.0, shift, axis))
    Image.fromarray(grey.astype(np.uint8)).save(path)


def _turned(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(TRUTH * 255, 1).astype(np.uint8)).save(path, exif=exif)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("white.png", lambda path: _grey(path, 255)),
        ("label1.png", lambda path: _grey(path, 1)),
        ("label7.bmp", lambda path: _grey(path, 7)),
        ("bit.png", lambda path: Image.fromarray(TRUTH).save(path)),
        ("deep.png", _deep),
        ("labels16.png", _labels16),
        ("float.tif", lambda path: Image.fromarray(TRUTH.astype(np.float32)).save(path)),
        ("palette.png", _palette),
        ("whitefirst.png", _white_first),
        ("red.png", _red),
        ("transparent.png", _transparent),
        ("soft.png", _soft),
        ("turned.png", _turned),
        ("grey.jpg", lambda path: Image.fromarray((TRUTH * 255).astype(np.uint8)).save(path, quality=80)),
    ],
)
def test_masks_of_any_mode(tmp_path, name, write):
    write(tmp_path / name)
    mask = read_mask(Sample(tmp_path / "image.png", "cut", tmp_path / name), (8, 12))
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, TRUTH)


def test_jpeg_noise_is_no_defect(tmp_path):
    large = np.roll(np.kron(TRUTH, np.ones((16, 16), bool)), (3, 5), (0, 1))  # edges within JPEG's blocks of 8
    Image.fromarray((large * 255).astype(np.uint8)).save(tmp_path / "a.jpg", quality=60)
    assert (np.asarray(Image.open(tmp_path / "a.jpg")) > 0).sum() > 1.05 * large.sum()  # there is noise
    np.testing.assert_array_equal(defect_pixels(tmp_path / "a.jpg"), large)


def test_black_masks_and_good_samples_mark_nothing(tmp_path):
    picture(tmp_path / "black.png", mode="L", value=0)
    assert not read_mask(Sample(tmp_path / "a.png", "cut", tmp_path / "black.png"), (4, 6)).any()
    good = read_mask(Sample(tmp_path / "a.png", "good", None), (4, 6))
    assert (good.shape, good.dtype, good.any()) == ((4, 6), bool, False)


def test_masks_that_do_not_fit_name_both_files_and_sizes(tmp_path):
    picture(tmp_path / "mask.png", (5, 4), "L")
    with pytest.raises(InputError, match=r"mask\.png has 5x4 pixels but its image .*image\.png has 6x4") as error:
        read_mask(Sample(tmp_path / "image.png", "cut", tmp_path / "mask.png"), (4, 6))
    sentence(error)


def test_masks_fit_photos_as_their_exif_tag_turns_them(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise
    stored = np.zeros((8, 12, 3), np.uint8)
    stored[TRUTH] = 255
    tree(tmp_path, "train/good/a.png")
    for folder in ("test/cut", "ground_truth/cut"):
        (tmp_path / folder).mkdir(parents=True)
    Image.fromarray(stored).save(tmp_path / "test/cut/a.png", exif=exif)
    Image.fromarray((np.rot90(TRUTH, -1) * 255).astype(np.uint8)).save(tmp_path / "ground_truth/cut/a.png")
    (item,) = read_dataset(tmp_path)
    image = read_image(item.test[0].path)
    np.testing.assert_array_equal(read_mask(item.test[0], image.shape[:2]), image[..., 0] > 0)
    Image.fromarray((TRUTH * 255).astype(np.uint8)).save(tmp_path / "ground_truth/cut/a.png")
    with pytest.raises(InputError, match=r"12x8 pixels but its image .* has 8x12 \(upright\)"):
        read_mask(item.test[0], image.shape[:2])


@pytest.mark.parametrize("content", [b"", b"no image", None, "half"])
def test_masks_that_cannot_be_read_are_named(tmp_path, content):
    path = tmp_path / "mask.png"
    if content == "half":
        noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[:600])
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"mask\.png (cannot be read|does not exist)") as error:
        defect_pixels(path)
    assert "\n" not in str(error.value)
