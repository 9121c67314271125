"""Archives that are damaged, encrypted or lead out of their folder are refused, and leave nothing."""

import os
import tarfile
import zipfile

import pytest
from small_archives import MVTEC, contents, files_of, get, pixels, refused, script, tar, unpack, zipped

from encoders.errors import InputError

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
        unpack.unpack(archive, tmp_path / "raw")


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
            unpack.unpack(archive, tmp_path / "raw")


def changed(archive, method):
    """A zip whose one member claims to be packed by another method."""
    data = bytearray(archive.read_bytes())
    for signature, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        data[data.index(signature) + at] = method
    archive.write_bytes(data)
    return archive


def test_zips_of_windows_are_refused_in_words(tmp_path, capsys):
    """Its Explorer packs what is larger than 2 GB with Deflate64, which Python cannot read."""
    archive = changed(zipped(tmp_path / "big.zip", {"bottle/train/good/0.png": b"x" * 999}), method=9)
    said = refused(capsys, script("mvtec"), "--out", tmp_path / "out", "--archive", archive)
    assert "big.zip is packed with Deflate64, as Windows packs large zips" in said
    assert "tar -cf" in said
    assert "uncommon method" in refused(
        capsys, script("mvtec"), "--out", tmp_path / "out", "--archive", changed(archive, method=93)
    )


@pytest.mark.parametrize("name", ["./", "././", "."])
def test_zip_members_without_a_name_are_passed_over(tmp_path, name):
    archive = zipped(tmp_path / "given.zip", {**contents(MVTEC), name: b""})
    assert get(script("mvtec"), "--out", tmp_path / "out", "--archive", archive) == 0
    assert len(files_of(tmp_path / "out")) == 8


def test_a_zip_member_with_an_empty_name_is_passed_over(tmp_path):
    archive = zipped(tmp_path / "given.zip", contents(MVTEC))
    with zipfile.ZipFile(archive, "a") as bundle:
        nameless = zipfile.ZipInfo("x")
        nameless.filename = ""
        bundle.writestr(nameless, b"")
    assert get(script("mvtec"), "--out", tmp_path / "out", "--archive", archive) == 0


def test_backslashes_of_windows_make_folders(tmp_path):
    archive = zipped(tmp_path / "given.zip", {"MPDD\\tubes\\a.png": b"x", "MPDD\\empty\\": b""})
    unpack.unpack(archive, tmp_path / "raw")
    assert files_of(tmp_path / "raw") == ["MPDD/tubes/a.png"]


@pytest.mark.parametrize("pack", [tar, zipped])
def test_what_systems_leave_behind_stays_in_the_archive(tmp_path, pack):
    files = {"a/1.png": b"x", "__MACOSX/a/._1.png": b"x", "a/.DS_Store": b"x", "./b/2.png": b"x", "a/.x/3.png": b"x"}
    unpack.unpack(pack(tmp_path / "given", files), tmp_path / "raw")
    assert files_of(tmp_path / "raw") == ["a/1.png", "b/2.png"]


@pytest.mark.parametrize("pack", [tar, zipped])
@pytest.mark.parametrize("names", [("a", "a/b.png"), ("x" * 300 + "/b.png",)])
def test_names_that_cannot_be_are_refused_in_words(tmp_path, pack, names):
    archive = pack(tmp_path / "given", dict.fromkeys(names, b"x"))
    with pytest.raises(InputError, match=r"given has a file .* that cannot be written|given is damaged"):
        unpack.unpack(archive, tmp_path / "raw")


def test_debug_shows_where_a_fault_happened(tmp_path, capsys, monkeypatch):
    archive = zipped(tmp_path / "given.zip", contents(MVTEC))

    def faulty(*_):
        raise AssertionError("a fault")

    monkeypatch.setattr(unpack, "_place", faulty)
    arguments = ["--out", tmp_path / "out", "--archive", archive]
    assert get(script("mvtec"), *arguments) == 1
    assert "add --debug" in capsys.readouterr().err
    assert get(script("mvtec"), *arguments, "--debug") == 1
    assert "Traceback" in capsys.readouterr().err
