"""The scripts on small archives of the same structure, from files and from a server that breaks off."""

import hashlib
import importlib
import io
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from dictas.datasets import read_dataset
from encoders.errors import InputError

SCRIPTS = Path(__file__).parents[1] / "data_scripts"
sys.path.insert(0, str(SCRIPTS))

fetch = importlib.import_module("fetch")
prepare = importlib.import_module("prepare")


def script(name):
    return importlib.import_module(name).DATASET


def pixels(name):
    stream = io.BytesIO()
    kind = {"jpg": "JPEG", "tiff": "TIFF"}.get(name.rpartition(".")[2].lower(), name.rpartition(".")[2].upper())
    Image.new("L", (8, 8), len(name)).save(stream, format={"JPG": "JPEG"}.get(kind, kind))
    return stream.getvalue()


def contents(text, root=""):
    files = {}
    for name in text.split():
        files[root + name] = pixels(name) if "." in name and not name.endswith((".csv", ".txt")) else b"text"
    return files


def tar(path, files, mode="w:xz"):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def zipped(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def files_of(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def get(dataset, *arguments, **options):
    return prepare.main(dataset, arguments=[str(argument) for argument in arguments], **options)


def refused(capsys, dataset, *arguments):
    """Status 2 and one sentence, which is returned."""
    assert get(dataset, *arguments) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert said.endswith((".", ".)"))
    return said


MVTEC = """readme.txt bottle/train/good/000.png bottle/test/good/000.png bottle/test/cut/000.png
    bottle/ground_truth/cut/000_mask.png cable/train/good/000.png cable/test/bent/000.png
    cable/ground_truth/bent/000_mask.png"""


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
    fetch.unpack(archive, tmp_path / "raw", script("mvtec3d").skip)
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


# A plain tar has no checksum of its contents and ends in padding.
DAMAGES = [("w", damage) for damage in ("half", "text", "empty")] + [
    (mode, damage)
    for mode in ("w:xz", "w:gz", "w:bz2", "zip")
    for damage in ("half", "tail", "flipped", "text", "empty")
]


@pytest.mark.parametrize(("mode", "damage"), DAMAGES)
def test_damaged_archives_leave_nothing(tmp_path, capsys, mode, damage):
    files = {**contents(MVTEC), "bottle/noise.bin": os.urandom(20000), "zz/last.png": pixels("zz/last.png")}
    archive = tmp_path / "given.archive"
    whole = (zipped(archive, files) if mode == "zip" else tar(archive, files, mode)).read_bytes()
    middle = len(whole) // 2
    archive.write_bytes(
        {
            "half": whole[:middle],
            "tail": whole[:-9],
            "flipped": whole[:middle]
            + bytes(byte ^ 255 for byte in whole[middle : middle + 64])
            + whole[middle + 64 :],
            "text": b"<html>Please log in</html>" * 100,
            "empty": b"",
        }[damage]
    )
    said = refused(capsys, script("mvtec"), "--out", tmp_path / "out", "--archive", archive)
    assert "given.archive" in said
    assert os.listdir(tmp_path) == ["given.archive"]


def test_a_plain_tar_cut_between_members_is_damaged(tmp_path):
    archive = tar(tmp_path / "given.tar", contents(MVTEC), "w")
    with tarfile.open(archive) as bundle:
        cut = bundle.getmembers()[-1].offset
    archive.write_bytes(archive.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"given\.tar is damaged .*ends too early"):
        fetch.unpack(archive, tmp_path / "raw")


def link(name, target, kind=tarfile.SYMTYPE):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    "member",
    [
        tarfile.TarInfo("../evil.png"),
        tarfile.TarInfo("bottle/../../../evil.png"),
        link("bottle/evil", "../../.."),
        link("bottle/evil", "/etc/passwd"),
        link("bottle/evil", "../../../evil.png", tarfile.LNKTYPE),
        link("bottle/evil", "", tarfile.CHRTYPE),
    ],
    ids=lambda member: member.name + member.linkname,
)
def test_tar_members_outside_the_folder_are_refused(tmp_path, capsys, member):
    home = tmp_path / "home"
    home.mkdir()
    archive = home / "given.tar"
    with tarfile.open(tar(archive, contents(MVTEC), "w"), "a") as bundle:
        bundle.addfile(member)
    said = refused(capsys, script("mvtec"), "--out", home / "out", "--archive", archive)
    assert "given.tar is not safe to unpack" in said
    assert os.listdir(home) == ["given.tar"]
    assert os.listdir(tmp_path) == ["home"]


@pytest.mark.parametrize("name", ["../evil.png", "a/../../evil.png", "/evil.png", "..\\evil.png", "C:\\evil.png"])
def test_zip_members_outside_the_folder_are_refused(tmp_path, capsys, name):
    home = tmp_path / "home"
    home.mkdir()
    archive = zipped(home / "given.zip", {**contents(MVTEC), name: b"evil"})
    said = refused(capsys, script("mvtec"), "--out", home / "out", "--archive", archive)
    assert "given.zip is not safe to unpack" in said
    assert os.listdir(home) == ["given.zip"]
    assert os.listdir(tmp_path) == ["home"]


def test_zip_links_and_passwords_are_refused(tmp_path):
    for change, text in (("external_attr", "leads out"), ("flag_bits", "encrypted")):
        archive = tmp_path / f"{change}.zip"
        with zipfile.ZipFile(archive, "w") as bundle:
            member = zipfile.ZipInfo("bottle/link")
            if change == "external_attr":
                member.external_attr = 0o120777 << 16
            bundle.writestr(member, "/etc/passwd")
        if change == "flag_bits":
            data = bytearray(archive.read_bytes())
            data[data.index(b"PK\x01\x02") + 8] |= 1
            archive.write_bytes(data)
        with pytest.raises(InputError, match=text):
            fetch.unpack(archive, tmp_path / "raw")


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


class Server:
    """Serves one file; breaks off after ``limit`` bytes of each answer, or answers with ``status``."""

    def __init__(self, data, limit=1 << 40, ranges=True, status=0):
        self.data, self.limit, self.ranges, self.status = data, limit, ranges, status
        self.starts = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/files/given.tar.xz?download=1"

    def answer(self, request):
        asked = request.headers.get("Range", "")
        start = int(asked[6:-1]) if asked and self.ranges else 0
        self.starts.append(start)
        if self.status:
            request.send_error(self.status)
        elif start >= len(self.data):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.data)}")
            request.end_headers()
        else:
            request.send_response(206 if start else 200)
            request.send_header("Content-Length", str(len(self.data) - start))
            request.end_headers()
            request.wfile.write(self.data[start : start + self.limit])

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def no_pause(monkeypatch):
    monkeypatch.setattr(fetch.time, "sleep", lambda _: None)


def test_a_script_fetches_verifies_and_cleans_up(tmp_path, no_pause):
    data = tar(tmp_path / "x.tar.xz", contents(MVTEC)).read_bytes()
    (tmp_path / "x.tar.xz").unlink()
    with Server(data) as server:
        checksum = "sha256:" + hashlib.sha256(data).hexdigest()
        assert get(script("mvtec"), "--out", tmp_path / "out", "--url", server.url, "--checksum", checksum) == 0
    assert os.listdir(tmp_path) == ["out"]
    assert len(read_dataset(tmp_path / "out")) == 2


def test_the_checksum_of_the_official_address_is_used(tmp_path, no_pause, capsys):
    archive = tar(tmp_path / "official.tar.xz", contents(MVTEC))
    dataset = prepare.Dataset("X", "page", "licence", "cite", archive.as_uri(), "md5:" + "0" * 32)
    said = refused(capsys, dataset, "--out", tmp_path / "out")
    assert "its md5 is" in said
    assert "run the same command" in said
    assert os.listdir(tmp_path) == ["official.tar.xz"]
    right = hashlib.md5(archive.read_bytes()).hexdigest()
    dataset = prepare.Dataset("X", "page", "licence", "cite", archive.as_uri(), f"md5:{right}")
    assert get(dataset, "--out", tmp_path / "out") == 0


@pytest.mark.parametrize("ranges", [True, False])
def test_downloads_go_on_where_they_broke_off(tmp_path, no_pause, ranges):
    data = os.urandom(10_000)
    reports = []
    with Server(data, limit=4_000 if ranges else 1 << 40, ranges=ranges) as server:
        (tmp_path / "file.part").write_bytes(data[:100] if ranges else b"something else")
        fetch.download(server.url, tmp_path / "file", lambda done, total, _: reports.append((done, total)))
        assert server.starts == ([100, 4100, 8100] if ranges else [0])
    assert (tmp_path / "file").read_bytes() == data
    assert reports[-1] == (10_000, 10_000)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("extra", [b"", b"too much"])
def test_a_download_that_is_complete_or_too_long_already(tmp_path, no_pause, extra):
    data = os.urandom(1_000)
    with Server(data) as server:
        (tmp_path / "file.part").write_bytes(data + extra)
        fetch.download(server.url, tmp_path / "file")
        assert server.starts == ([1000] if not extra else [1008, 0])
    assert (tmp_path / "file").read_bytes() == data


def test_a_download_that_keeps_breaking_is_kept_for_later(tmp_path, no_pause, capsys):
    data = tar(tmp_path / "x", {**contents(MVTEC), "noise": os.urandom(9000)}).read_bytes()
    (tmp_path / "x").unlink()
    arguments = ["--out", tmp_path / "out", "--url"]
    with Server(data, limit=1_000) as server:
        said = refused(capsys, script("mvtec"), *arguments, server.url)
        assert "run the same command again" in said
        assert (tmp_path / "out.given.tar.xz.part").read_bytes() == data[: 1_000 * fetch.ATTEMPTS]
        server.limit = 1 << 40
        assert get(script("mvtec"), *arguments, server.url) == 0
        assert server.starts[-1] == 1_000 * fetch.ATTEMPTS
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize(("status", "attempts"), [(404, 1), (503, 4)])
def test_a_server_that_refuses(tmp_path, no_pause, capsys, status, attempts):
    with Server(b"", status=status) as server:
        said = refused(capsys, script("mvtec"), "--out", tmp_path / "out", "--url", server.url)
        assert len(server.starts) == attempts
    assert str(status) in said
    assert "pass --archive FILE" in said
    assert os.listdir(tmp_path) == []


def test_a_page_instead_of_an_archive_is_not_kept(tmp_path, no_pause, capsys):
    with Server(b"<html>log in</html>") as server:
        said = refused(capsys, script("mvtec"), "--out", tmp_path / "out", "--url", server.url)
    assert "is damaged or no archive" in said
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("url", ["given.tar.xz", "javascript:x", "http://127.0.0.1:9/x.tar"])
def test_addresses_that_lead_nowhere(tmp_path, no_pause, capsys, url):
    said = refused(capsys, script("mvtec"), "--out", tmp_path / "out", "--url", url)
    assert url in said
    assert os.listdir(tmp_path) == []


def test_scripts_run_as_programs(tmp_path):
    command = [sys.executable, str(SCRIPTS / "mpdd.py"), "--out", str(tmp_path / "mpdd")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=SCRIPTS.parent)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "https://github.com/stepanje/MPDD" in done.stderr
    assert "--archive FILE" in done.stderr


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
        assert bool(dataset.url) == bool(dataset.checksum)
        assert f"{name}.py" in readme
        assert dataset.licence.split(" (")[0].split(",")[0] in readme
