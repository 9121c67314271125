"""The scripts on small archives of the same structure: what they leave is what the published data sets hold."""

import hashlib
import importlib
import os
import subprocess
import sys

import pytest
from small_archives import (
    MVTEC,
    SCRIPTS,
    contents,
    fetch,
    files_of,
    get,
    pixels,
    prepare,
    refused,
    script,
    tar,
    unpack,
    zipped,
)  # fmt: skip

from dictas.datasets import read_dataset


def test_mvtec(tmp_path, capsys):
    archive = tar(tmp_path / "mvtec_anomaly_detection.tar.xz", contents(MVTEC))
    out = tmp_path / "data" / "mvtec"
    assert get(script("mvtec"), "--out", out, "--archive", archive) == 0
    said = capsys.readouterr().out
    assert "CC BY-NC-SA 4.0" in said
    assert "2 classes, 5 images" in said
    assert files_of(out) == sorted([*MVTEC.split()[1:], "SOURCE.txt"])
    assert (out / "bottle/train/good/000.png").read_bytes() == pixels("bottle/train/good/000.png")
    assert [item.name for item in read_dataset(out)] == ["bottle", "cable"]
    assert os.listdir(out.parent) == ["mvtec"]
    assert archive.exists()
    assert get(script("mvtec"), "--out", out, "--archive", archive) == 0
    assert "is there already" in capsys.readouterr().out


def test_several_archives_are_one_data_set(tmp_path):
    one, two = (
        tar(tmp_path / f"{name}.tar.xz", {k: v for k, v in contents(MVTEC).items() if k.startswith(name)})
        for name in ("bottle", "cable")
    )
    assert get(script("mvtec"), "--out", tmp_path / "out", "--archive", one, two) == 0
    assert [item.name for item in read_dataset(tmp_path / "out")] == ["bottle", "cable"]


def test_visa_is_split(tmp_path):
    rows = [
        "object,split,label,image,mask",
        "candle,train,normal,candle/Data/Images/Normal/0001.JPG,",
        "candle,test,normal,candle/Data/Images/Normal/0000.JPG,",
        "candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png",
    ]
    files = contents(
        """candle/Data/Images/Normal/0000.JPG candle/Data/Images/Normal/0001.JPG
        candle/Data/Images/Anomaly/000.JPG candle/Data/Masks/Anomaly/000.png"""
    )
    files["split_csv/1cls.csv"] = "\n".join(rows).encode()
    archive = tar(tmp_path / "VisA.tar", files, "w")
    assert get(script("visa"), "--out", tmp_path / "visa", "--archive", archive) == 0
    assert files_of(tmp_path / "visa") == [
        "SOURCE.txt",
        "candle/ground_truth/anomaly/000.png",
        "candle/test/anomaly/000.JPG",
        "candle/test/good/0000.JPG",
        "candle/train/good/0001.JPG",
    ]


def test_mvtec3d_leaves_depth_in_the_archive(tmp_path):
    parts = """train/good/rgb/000.png train/good/xyz/000.tiff test/good/rgb/000.png test/good/gt/000.png
        test/hole/rgb/001.png test/hole/gt/001.png test/hole/xyz/001.tiff validation/good/rgb/000.png"""
    archive = tar(tmp_path / "3d.tar.xz", contents(parts, "bagel/"))
    unpack.unpack(archive, tmp_path / "raw", script("mvtec3d").skip)
    assert not list((tmp_path / "raw").rglob("*.tiff"))
    assert get(script("mvtec3d"), "--out", tmp_path / "out", "--archive", archive) == 0
    assert files_of(tmp_path / "out") == [
        "SOURCE.txt",
        "bagel/ground_truth/hole/001.png",
        "bagel/test/good/000.png",
        "bagel/test/hole/001.png",
        "bagel/train/good/000.png",
    ]


def test_btad_and_mpdd(tmp_path):
    files = contents("01/train/ok/0.bmp 01/test/ok/1.bmp 01/test/ko/2.bmp 01/ground_truth/ko/2.png")
    btad = zipped(tmp_path / "btad.zip", {f"BTech_Dataset_transformed/{name}": data for name, data in files.items()})
    assert get(script("btad"), "--out", tmp_path / "btad", "--archive", btad) == 0
    assert files_of(tmp_path / "btad" / "01") == [
        "ground_truth/ko/2.png",
        "test/good/1.bmp",
        "test/ko/2.bmp",
        "train/good/0.bmp",
    ]
    mpdd = zipped(
        tmp_path / "MPDD.zip",
        contents("train/good/0.png test/good/0.png test/hole/1.png ground_truth/hole/1_mask.png", "MPDD/tubes/"),
    )
    assert get(script("mpdd"), "--out", tmp_path / "mpdd", "--archive", mpdd) == 0
    assert read_dataset(tmp_path / "mpdd")[0].test[1].mask.name == "1_mask.png"


BMAD = """train/good/img/1.png test/good/img/2.png test/Ungood/img/3.png test/Ungood/label/3.png
    valid/good/img/4.png valid/Ungood/img/5.png valid/Ungood/label/5.png"""
MVFA = """valid/good/img/4.png test/good/img/2.png test/Ungood/img/3.png test/Ungood/anomaly_mask/3.png"""
DICTAS = """train/good/1.png test/good/2.png test/Ungood/3.png ground_truth/Ungood/3.png"""


@pytest.mark.parametrize(
    ("name", "root", "parts"),
    [
        ("resc", "Retina_RESC/", BMAD),
        ("resc", "data/Retina_RESC_AD/", MVFA),
        ("resc", "DATA_Google/RESC/retina/", DICTAS),
        ("brats", "BMAD/Brain/", BMAD),
        ("brats", "Brain_AD/", MVFA),
        ("brats", "DATA_Google/BrasTS/brain/", DICTAS),
    ],
)
def test_medical_data_from_each_of_its_copies(tmp_path, name, root, parts):
    files = contents(parts, root)
    # Archives hold other data sets, too; they are left alone.
    files |= contents(DICTAS, root.replace("Retina_RESC", "Liver").replace("Brain", "Liver").replace("/brain", "/x"))
    archive = zipped(tmp_path / "given.zip", files)
    assert get(script(name), "--out", tmp_path / name, "--archive", archive) == 0
    (item,) = read_dataset(tmp_path / name)
    assert item.name == name
    assert [(sample.kind, sample.mask and sample.mask.name) for sample in item.test] == [
        ("Ungood", "3.png"),
        ("good", None),
    ]
    assert len(item.normal) == 1


def test_medical_data_without_the_class(tmp_path, capsys):
    archive = zipped(tmp_path / "given.zip", contents(BMAD, "Liver/"))
    said = refused(capsys, script("resc"), "--out", tmp_path / "resc", "--archive", archive)
    assert "given.zip is not RESC, or not all of it: there is no class retina_resc or" in said


def test_dtd(tmp_path, capsys):
    dtd = importlib.import_module("dtd")
    files = contents("dtd/images/banded/banded_0002.jpg dtd/images/dotted/dotted_0001.jpg dtd/labels/test1.txt")
    archive = tar(tmp_path / "dtd-r1.0.1.tar.gz", files, "w:gz")
    options = {"convert": dtd.keep_images}
    assert get(dtd.DATASET, "--out", tmp_path / "dtd", "--archive", archive, **options) == 0
    assert "2 textures" in capsys.readouterr().out
    assert files_of(tmp_path / "dtd") == [
        "SOURCE.txt",
        "images/banded/banded_0002.jpg",
        "images/dotted/dotted_0001.jpg",
    ]
    other = tar(tmp_path / "other.tar", contents("images/readme.txt"), "w")
    assert get(dtd.DATASET, "--out", tmp_path / "no", "--archive", other, **options) == 2
    assert "no textures images/NAME/*.jpg" in capsys.readouterr().err


def test_incomplete_data_is_told_without_temporary_names(tmp_path, capsys):
    files = contents(MVTEC + " bottle/test/cut/001.png")
    archive = tar(tmp_path / "given.tar.xz", files)
    said = refused(capsys, script("mvtec"), "--out", tmp_path / "out", "--archive", archive)
    assert "given.tar.xz is not MVTec AD, or not all of it" in said
    assert "bottle/test/cut/001.png has no mask" in said
    assert ".tmp" not in said
    assert os.listdir(tmp_path) == ["given.tar.xz"]


def test_checksums(tmp_path, capsys):
    archive = tar(tmp_path / "given.tar.xz", contents(MVTEC))
    right = hashlib.sha256(archive.read_bytes()).hexdigest()
    arguments = ["--out", tmp_path / "out", "--archive", archive, "--checksum"]
    assert "its sha256 is" in refused(capsys, script("mvtec"), *arguments, "sha256:" + "0" * 64)
    assert "has not the form" in refused(capsys, script("mvtec"), *arguments, "crc:12")
    assert os.listdir(tmp_path) == ["given.tar.xz"]
    assert get(script("mvtec"), *arguments, f"sha256:{right.upper()}") == 0
    fetch.verify(archive, "md5:" + hashlib.md5(archive.read_bytes()).hexdigest())


def test_archives_given_by_hand_are_compared_with_the_published_checksum(tmp_path, capsys):
    archive = tar(tmp_path / "given.tar.xz", contents(MVTEC))
    known = [name for name in ("mvtec", "visa", "btad", "mvtec3d", "dtd") if script(name).checksum]
    assert len(known) == 5
    for name in known:
        arguments = [script(name), "--out", tmp_path / "out", "--from-archive", archive]
        said = refused(capsys, *arguments, compared=True)
        assert "given.tar.xz is damaged or another version" in said
        assert "add --any-checksum if it was packed anew or is a part of it" in said
        assert os.listdir(tmp_path) == ["given.tar.xz"]
    right = hashlib.sha256(archive.read_bytes()).hexdigest()
    dataset = prepare.Dataset("X", "page", "licence", "cite", "https://x/y", f"sha256:{right}")
    assert get(dataset, "--out", tmp_path / "out", "--from-archive", archive, compared=True) == 0
    assert get(script("mvtec"), "--out", tmp_path / "any", "--archive", archive, "--any-checksum") == 0


@pytest.mark.parametrize("name", ["mpdd", "mvtec"])
def test_a_rootless_archive_gives_a_class_of_its_own_name(tmp_path, name):
    files = contents("train/good/0.png test/good/0.png test/hole/1.png ground_truth/hole/1_mask.png")
    archives = [zipped(tmp_path / f"{stem}.zip", files) for stem in ("tubes-20240501T101112Z-001", "bracket")]
    assert get(script(name), "--out", tmp_path / "out", "--from-archive", *archives) == 0
    assert [item.name for item in read_dataset(tmp_path / "out")] == ["bracket", "tubes"]


@pytest.mark.parametrize("name", ["mpdd", "resc", "brats", "lerf_ovs", "ovs3d"])
def test_the_licence_is_shown_before_a_person_goes_for_the_file(tmp_path, capsys, name):
    assert get(script(name), "--out", tmp_path / "out") == 2
    said = capsys.readouterr()
    assert f"is licensed under {script(name).licence}" in said.out
    assert script(name).cite in said.out
    assert script(name).page in said.err
    assert "--from-archive FILE" in said.err


def test_scripts_run_as_programs(tmp_path):
    command = [sys.executable, str(SCRIPTS / "mpdd.py"), "--out", str(tmp_path / "mpdd")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=SCRIPTS.parent)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "https://github.com/stepanje/MPDD" in done.stderr
    assert "--from-archive FILE" in done.stderr


def test_every_script_tells_its_licence_and_source():
    names = {path.stem for path in SCRIPTS.glob("*.py") if "DATASET" in path.read_text()}
    assert names >= {"mvtec", "visa", "mpdd", "btad", "mvtec3d", "resc", "brats", "dtd"}
    assert names >= {"lerf_ovs", "ovs3d", "mipnerf360"}
    readme = (SCRIPTS / "README.md").read_text()
    for name in names:
        dataset = script(name)
        assert dataset.licence
        assert dataset.cite
        assert dataset.page.startswith("https://")
        assert bool(dataset.url) != bool(dataset.by_hand)
        assert bool(dataset.url) == bool(dataset.checksum) or name == "mipnerf360"  # none is published
        assert f"{name}.py" in readme
        assert dataset.licence.split(" (")[0].split(",")[0] in readme
