"""Layouts of data sets: which files are what, and one sentence for folders that cannot be read as any."""

import csv
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from dataset_folders import MVTEC, picture, sentence, tree

from dictas.datasets import LAYOUTS, draw_support, read_dataset, read_mask
from encoders.errors import InputError
from encoders.files import read_image

SHARED = Path(__file__).parents[2] / "shared" / "data"


def told(item, root):
    """A class as sorted lines, to compare with a literal."""
    normal = [path.relative_to(root).as_posix() for path in item.normal]
    test = []
    for sample in item.test:
        mask = "-" if sample.mask is None else sample.mask.relative_to(root).as_posix()
        test.append(f"{sample.kind} {sample.path.relative_to(root).as_posix()} {mask}")
    return normal, test


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
