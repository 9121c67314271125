"""Every layout, built small, against lists of what must be found; and masks, draws and broken input."""

import csv
import os
import random
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dictas.datasets import LAYOUTS, InspectionClass, Sample, draw_support, read_dataset, read_mask
from dictas.masks import defect_pixels
from encoders.errors import InputError
from encoders.files import read_image

SHARED = Path(__file__).parents[2] / "shared" / "data"


def picture(path, size=(6, 4), mode="RGB", value=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode != "RGB" else (value,) * 3).save(path)
    return path


def tree(root, text):
    for line in text.split():
        picture(root / line, mode="L" if "ground" in line or "/gt/" in line or "label" in line else "RGB")


def told(item, root):
    """A class as sorted lines, to compare with a literal."""
    normal = [path.relative_to(root).as_posix() for path in item.normal]
    test = []
    for sample in item.test:
        mask = "-" if sample.mask is None else sample.mask.relative_to(root).as_posix()
        test.append(f"{sample.kind} {sample.path.relative_to(root).as_posix()} {mask}")
    return normal, test


def sentence(error):
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert len(text) < 700
    return text


MVTEC = """train/good/000.png train/good/001.png test/good/000.png test/cut/000.png test/cut/001.PNG test/dent/000.png
    ground_truth/cut/000_mask.png ground_truth/cut/001_mask.png ground_truth/dent/000_mask.png"""


def test_mvtec(tmp_path):
    for name in ("bottle", "cable"):
        tree(tmp_path / name, MVTEC)
    (tmp_path / "readme.txt").write_text("CC")
    (tmp_path / "license_files").mkdir()
    classes = read_dataset(tmp_path)
    assert [item.name for item in classes] == ["bottle", "cable"]
    assert told(classes[1], tmp_path / "cable") == (
        ["train/good/000.png", "train/good/001.png"],
        [
            "cut test/cut/000.png ground_truth/cut/000_mask.png",
            "cut test/cut/001.PNG ground_truth/cut/001_mask.png",
            "dent test/dent/000.png ground_truth/dent/000_mask.png",
            "good test/good/000.png -",
        ],
    )
    assert [sample.anomalous for sample in classes[1].test] == [True, True, True, False]
    assert read_dataset(tmp_path / "cable")[0] == classes[1]
    assert read_dataset(tmp_path, "mpdd") == classes


def test_a_class_given_as_the_current_folder_has_a_name(tmp_path, monkeypatch):
    tree(tmp_path / "bottle", MVTEC)
    monkeypatch.chdir(tmp_path / "bottle")
    assert read_dataset(Path("."))[0].name == "bottle"


VISA_ROWS = [
    ("candle", "train", "normal", "candle/Data/Images/Normal/0002.JPG", ""),
    ("candle", "train", "normal", "candle/Data/Images/Normal/0001.JPG", ""),
    ("candle", "test", "normal", "candle/Data/Images/Normal/0000.JPG", ""),
    ("candle", "test", "anomaly", "candle/Data/Images/Anomaly/000.JPG", "candle/Data/Masks/Anomaly/000.png"),
    ("pcb1", "train", "normal", "pcb1/Data/Images/Normal/0001.JPG", ""),
    ("pcb1", "test", "anomaly", "pcb1/Data/Images/Anomaly/000.JPG", "pcb1/Data/Masks/Anomaly/000.png"),
]


def visa(root):
    (root / "split_csv").mkdir(parents=True)
    with (root / "split_csv" / "1cls.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("object", "split", "label", "image", "mask"), *VISA_ROWS])
    for *_, image, mask in VISA_ROWS:
        picture(root / image)
        if mask:
            picture(root / mask, mode="L", value=3)


def test_visa_follows_the_published_split(tmp_path):
    visa(tmp_path)
    candle, pcb1 = read_dataset(tmp_path)
    assert (candle.name, pcb1.name) == ("candle", "pcb1")
    assert told(candle, tmp_path / "candle") == (
        ["Data/Images/Normal/0001.JPG", "Data/Images/Normal/0002.JPG"],
        [
            "anomaly Data/Images/Anomaly/000.JPG Data/Masks/Anomaly/000.png",
            "good Data/Images/Normal/0000.JPG -",
        ],
    )
    assert read_mask(candle.test[0], (4, 6)).all()  # labels count from 1
    assert read_dataset(tmp_path / "pcb1") == [pcb1]


def test_visa_says_what_is_missing(tmp_path):
    visa(tmp_path)
    (tmp_path / "candle/Data/Masks/Anomaly/000.png").unlink()
    with pytest.raises(InputError, match=r"1cls\.csv lists .*000\.png, which does not exist") as error:
        read_dataset(tmp_path)
    sentence(error)
    (tmp_path / "split_csv/1cls.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"1cls\.csv is not VisA's table") as error:
        read_dataset(tmp_path)
    sentence(error)
    (tmp_path / "split_csv/1cls.csv").unlink()
    with pytest.raises(InputError, match=r"1cls\.csv is missing"):
        read_dataset(tmp_path / "candle")


def test_converted_visa_below_its_wrapper(tmp_path):
    tree(
        tmp_path / "1cls" / "candle",
        "train/good/0001.JPG test/good/0000.JPG test/bad/000.JPG ground_truth/bad/000.png",
    )
    (candle,) = read_dataset(tmp_path)
    assert told(candle, tmp_path / "1cls" / "candle")[1][0] == "bad test/bad/000.JPG ground_truth/bad/000.png"


def test_btad(tmp_path):
    wrapped = tmp_path / "BTech_Dataset_transformed"
    tree(wrapped / "01", "train/ok/0000.bmp test/ok/0001.bmp test/ko/0000.bmp ground_truth/ko/0000.png")
    tree(wrapped / "03", "train/ok/0000.bmp test/ok/0001.bmp test/ko/0000.bmp ground_truth/ko/0000.bmp")
    first, third = read_dataset(tmp_path)
    assert told(first, wrapped / "01") == (
        ["train/ok/0000.bmp"],
        ["ko test/ko/0000.bmp ground_truth/ko/0000.png", "good test/ok/0001.bmp -"],
    )
    assert told(third, wrapped / "03")[1][0] == "ko test/ko/0000.bmp ground_truth/ko/0000.bmp"


def test_mvtec3d_takes_the_colour_photos(tmp_path):
    tree(
        tmp_path / "bagel",
        """train/good/rgb/000.png validation/good/rgb/000.png test/good/rgb/000.png test/good/gt/000.png
        test/hole/rgb/001.png test/hole/gt/001.png""",
    )
    for path in list(tmp_path.rglob("rgb/*.png")):
        xyz = path.parents[1] / "xyz" / f"{path.stem}.tiff"
        xyz.parent.mkdir()
        shutil.copy(path, xyz)
    (bagel,) = read_dataset(tmp_path)
    assert told(bagel, tmp_path / "bagel") == (
        ["train/good/rgb/000.png"],
        ["good test/good/rgb/000.png -", "hole test/hole/rgb/001.png test/hole/gt/001.png"],
    )


@pytest.mark.parametrize("layout", ["auto", "resc", "brats"])
def test_bmad(tmp_path, layout):
    tree(
        tmp_path / "Brain",
        """train/good/img/00003_60.png valid/good/img/1.png valid/Ungood/img/2.png valid/Ungood/label/2.png
        test/good/img/00000_96.png test/Ungood/img/00002_60.png test/Ungood/label/00002_60.png""",
    )
    tree(
        tmp_path / "Retina_RESC",
        "train/good/1.png test/good/img/5.png test/good/label/5.png test/Ungood/img/7.png test/Ungood/label/7.png",
    )
    brain, resc = read_dataset(tmp_path, layout)
    assert told(brain, tmp_path / "Brain") == (
        ["train/good/img/00003_60.png"],
        ["Ungood test/Ungood/img/00002_60.png test/Ungood/label/00002_60.png", "good test/good/img/00000_96.png -"],
    )
    assert told(resc, tmp_path / "Retina_RESC") == (
        ["train/good/1.png"],
        ["Ungood test/Ungood/img/7.png test/Ungood/label/7.png", "good test/good/img/5.png -"],
    )


def test_copies_of_bmad_by_others(tmp_path):
    tree(
        tmp_path / "Brain_AD",  # MVFA's
        """valid/good/img/a.png test/good/img/b.png test/Ungood/img/c.png test/Ungood/anomaly_mask/c.png""",
    )
    tree(
        tmp_path / "brain",  # DictAS's
        """train/good/BraTS_1_flair_70.png test/good/BraTS_2_flair_60.png test/tumour/BraTS_3_flair_60.png
        ground_truth/tumour/BraTS_3_seg_60.png""",
    )
    mvfa, dictas = read_dataset(tmp_path)
    assert told(mvfa, tmp_path / "Brain_AD") == (
        ["valid/good/img/a.png"],
        ["Ungood test/Ungood/img/c.png test/Ungood/anomaly_mask/c.png", "good test/good/img/b.png -"],
    )
    assert dictas.test[1].mask == tmp_path / "brain/ground_truth/tumour/BraTS_3_seg_60.png"


def test_plain_folder_sorted_by_kind(tmp_path):
    tree(tmp_path, "support/a.jpg query/ok/b.jpg query/scratch/c.jpg masks/scratch/c_GT.png query/dirt/d.jpg")
    (item,) = read_dataset(tmp_path)
    assert item.name == tmp_path.name
    assert told(item, tmp_path) == (
        ["support/a.jpg"],
        ["dirt query/dirt/d.jpg -", "good query/ok/b.jpg -", "scratch query/scratch/c.jpg masks/scratch/c_GT.png"],
    )


def test_plain_folder_with_masks_of_some(tmp_path):
    tree(tmp_path, "support/a.jpg query/b.jpg query/c.jpg masks/c.png")
    (item,) = read_dataset(tmp_path)
    assert told(item, tmp_path)[1] == ["good query/b.jpg -", "defect query/c.jpg masks/c.png"]
    (tmp_path / "masks/c.png").rename(tmp_path / "masks/x.png")
    with pytest.raises(InputError, match=r"Nothing tells which images in .*query show a defect"):
        read_dataset(tmp_path)


def test_every_layout_has_a_test_and_auto_says_what_it_looked_for(tmp_path):
    assert list(LAYOUTS) == ["visa", "btad", "mvtec3d", "resc", "brats", "mvtec", "mpdd", "folder"]
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(InputError, match="train/good") as error:
        read_dataset(tmp_path)
    text = sentence(error)
    assert str(tmp_path) in text
    assert all(layout.signs in text for layout in LAYOUTS.values())
    with pytest.raises(InputError, match='no layout "mvtek"; choose one of auto, visa'):
        read_dataset(tmp_path, "mvtek")
    with pytest.raises(InputError, match=r"no folder .*nowhere"):
        read_dataset(tmp_path / "nowhere")


def test_classes_of_several_data_sets_keep_apart(tmp_path):
    tree(tmp_path / "mvtec" / "wood", MVTEC)
    tree(tmp_path / "other" / "wood", MVTEC)
    tree(tmp_path / "other" / "steel", MVTEC)
    assert [item.name for item in read_dataset(tmp_path)] == ["mvtec/wood", "other/steel", "other/wood"]
    assert [item.name for item in read_dataset(tmp_path / "other")] == ["steel", "wood"]


@pytest.mark.parametrize("empty", ["train/good", "test"])
def test_a_class_without_images_is_named(tmp_path, empty):
    tree(tmp_path / "bottle", MVTEC)
    for path in list((tmp_path / "bottle" / empty).rglob("*.*")):
        path.unlink()
    (tmp_path / "bottle" / empty / "notes.txt").write_text("nothing here")
    with pytest.raises(InputError, match=f"bottle/{empty} holds no images") as error:
        read_dataset(tmp_path)
    sentence(error)


def test_what_is_no_image_is_left_out(tmp_path):
    tree(tmp_path, MVTEC)
    (tmp_path / "train/good/Thumbs.db").write_bytes(b"x")
    (tmp_path / "train/good/.000.png").write_bytes(b"x")
    (tmp_path / "test/.hidden").mkdir()
    (tmp_path / "test/empty").mkdir()
    (tmp_path / "train/good/deeper").mkdir()
    (item,) = read_dataset(tmp_path)
    assert (len(item.normal), len(item.test)) == (2, 4)


@pytest.mark.parametrize("place", ["train/good/000.png", "ground_truth/cut/000_mask.png"])
def test_empty_files_and_dangling_links_are_named(tmp_path, place):
    tree(tmp_path, MVTEC)
    (tmp_path / place).write_bytes(b"")
    with pytest.raises(InputError, match=f"{place} is empty") as error:
        read_dataset(tmp_path)
    sentence(error)
    (tmp_path / place).unlink()
    (tmp_path / place).symlink_to(tmp_path / "gone.png")
    with pytest.raises(InputError, match=f"{place} is a link"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("kept", ["test/cut/000.png", "test/good/000.png"])
@pytest.mark.parametrize("broken", ["empty", "dangling"])
def test_broken_test_images_are_left_to_the_judge(tmp_path, kept, broken):
    tree(tmp_path, MVTEC)
    expected = read_dataset(tmp_path)
    (tmp_path / kept).unlink()
    if broken == "empty":
        (tmp_path / kept).touch()
    else:
        (tmp_path / kept).symlink_to(tmp_path / "gone.png")
    assert read_dataset(tmp_path) == expected


@pytest.mark.parametrize(("wrapper", "left"), [(".", "metrics.json"), ("archive", "partial")])
def test_a_class_without_a_layout_beside_others_is_named(tmp_path, wrapper, left):
    root = tmp_path / wrapper
    for name in ("bottle", "cable"):
        tree(root / name, MVTEC)
    for name in ("split_csv", "license"):
        (root / name).mkdir()
        (root / name / "notes.txt").write_text("no images")
    tree(root / "results", "bottle/examples/000.png")  # of an earlier evaluation
    (root / "results" / left).mkdir()
    (root / "cable/train/good").rename(root / "cable/train/normal")
    with pytest.raises(InputError, match=r"/cable lies beside bottle, which is a class, and has images") as error:
        read_dataset(tmp_path)
    sentence(error)
    shutil.rmtree(root / "cable")
    assert [item.name for item in read_dataset(tmp_path)] == ["bottle"]


def test_links_in_a_circle_end(tmp_path):
    tree(tmp_path / "bottle", MVTEC)
    for place in ("loop", "bottle/test/loop", "bottle/train/good/loop", "bottle/ground_truth/loop"):
        (tmp_path / place).symlink_to(tmp_path, target_is_directory=True)
    (item,) = read_dataset(tmp_path)
    assert (item.name, len(item.normal), len(item.test)) == ("bottle", 2, 4)
    shutil.rmtree(tmp_path / "bottle")
    with pytest.raises(InputError, match="is a class to inspect"):
        read_dataset(tmp_path)


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


def _item(folder, count=20, name="bottle"):
    return InspectionClass(name, tuple(folder / f"{index:03}.png" for index in range(count)), ())


def test_draws_are_the_same_everywhere():
    # Numbers from the first run: they may change only together with a note that results changed.
    assert [path.stem for path in draw_support(_item(Path("/one")), 4, 0)] == ["010", "016", "018", "009"]
    assert [path.stem for path in draw_support(_item(Path("/one")), 4, 1)] == ["009", "013", "003", "010"]


def test_draws_depend_on_class_and_seed_alone(tmp_path):
    item = _item(tmp_path)
    shuffled = list(item.normal)
    random.Random(0).shuffle(shuffled)
    other = InspectionClass("bottle", tuple(shuffled), ())
    draws = {}
    for seed in range(5):
        four = draw_support(item, 4, seed)
        assert len(set(four)) == 4
        assert draw_support(other, 4, seed) == four
        assert draw_support(item, 2, seed) == four[:2]
        assert [path.name for path in draw_support(_item(Path("/elsewhere")), 4, seed)] == [p.name for p in four]
        draws[four] = seed
    assert len(draws) == 5
    assert draw_support(_item(tmp_path, name="cable"), 4, 0) not in draws
    counts = np.zeros(20)
    for seed in range(400):
        for path in draw_support(item, 4, seed):
            counts[int(path.stem)] += 1
    # Each image is drawn Binomial(400, 1/5) times: 80, standard deviation 8.
    assert np.abs(counts - 80).max() < 40


def test_draws_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match=r'"bottle" has 20 normal images in .*, but 21 were asked for') as error:
        draw_support(_item(tmp_path), 21, 0)
    sentence(error)
    with pytest.raises(InputError, match="at least 1"):
        draw_support(_item(tmp_path), 0, 0)
    assert sorted(draw_support(_item(tmp_path), 20, 3)) == sorted(_item(tmp_path).normal)


@pytest.mark.parametrize("place", ["fewshot/2-shot.txt", "fix_few_path/fix_2-shot.txt", "fix_2-shot.txt"])
def test_published_lists_of_support_images_come_first(tmp_path, place):
    for name in ("fryum", "pipe_fryum"):
        tree(tmp_path / name, MVTEC)
        tree(tmp_path / name, "train/good/002.png train/good/003.png")
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    # Another suffix, as in published lists that were made after conversion; and a class whose name holds another's.
    path.write_text(
        "visa/fryum/train/good/003.bmp\n\nvisa/pipe_fryum/train/good/000.bmp\r\nvisa/fryum/train/good/001.bmp"
    )
    path.with_name(path.name.replace("2-shot", "1-shot")).write_text("fryum/train/good/002.png\n")
    with pytest.raises(InputError, match=r'2-shot\.txt lists 1 images of class "pipe_fryum", its name says 2'):
        read_dataset(tmp_path)
    with path.open("a") as file:
        file.write("\nvisa/pipe_fryum/train/good/002.bmp\n")
    fryum, pipe = read_dataset(tmp_path)
    assert [file.stem for file in draw_support(fryum, 2, 0)] == ["003", "001"]
    assert [file.stem for file in draw_support(fryum, 1, 0)] == ["002"]
    assert [file.stem for file in draw_support(pipe, 2, 0)] == ["000", "002"]
    free = InspectionClass(fryum.name, fryum.normal, ())
    assert draw_support(fryum, 2, 1) == draw_support(free, 2, 1)  # further seeds are drawn
    assert draw_support(fryum, 3, 0) == draw_support(free, 3, 0)  # and so is what has no list
    assert read_dataset(tmp_path / "fryum") == [fryum]
    with path.open("a") as file:
        file.write("visa/fryum/train/good/999.bmp\n")
    with pytest.raises(InputError, match=r"2-shot\.txt lists .*999\.bmp, which is not among the images in") as error:
        read_dataset(tmp_path)
    sentence(error)


def test_many_images_are_listed_quickly_and_in_order(tmp_path):
    tree(tmp_path, "train/good/0.png test/good/0.png")
    for index in random.Random(1).sample(range(1, 1500), 1499):
        os.link(tmp_path / "test/good/0.png", tmp_path / f"test/good/{index}.png")
    (item,) = read_dataset(tmp_path)
    assert [int(sample.path.stem) for sample in item.test] == list(range(1500))


@pytest.mark.skipif(not (SHARED / "magnetic_tile").is_dir(), reason="the magnetic tile photos are not here")
def test_real_magnetic_tiles():
    (item,) = read_dataset(SHARED / "magnetic_tile")
    kinds = [sample.kind for sample in item.test]
    assert (len(item.normal), kinds.count("good")) == (16, 40)
    for kind in ("blowhole", "crack"):
        samples = [sample for sample in item.test if sample.kind == kind]
        assert len(samples) == len(list((SHARED / "magnetic_tile/test" / kind).iterdir()))
        for sample in samples[:10]:
            assert sample.mask.stem == sample.path.stem
            truth = cv2.imread(str(sample.mask), cv2.IMREAD_GRAYSCALE)
            mask = read_mask(sample, read_image(sample.path).shape[:2])
            np.testing.assert_array_equal(mask, truth > 127)
            assert 0 < mask.mean() < 0.2


@pytest.mark.skipif(not (SHARED / "cable").is_dir(), reason="the cable photos are not here")
def test_real_cable():
    (item,) = read_dataset(SHARED / "cable")
    (wire,) = item.test
    assert (wire.kind, wire.anomalous, len(item.normal)) == ("bent_wire", True, 4)
    assert set(draw_support(item, 4, 0)) == set(item.normal)
    assert 0 < read_mask(wire, read_image(wire.path).shape[:2]).mean() < 0.2
