"""Nothing that a visitor sends may fill the memory or the disk, leave its folder, or be taken for what it is not."""

import io
import os
import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hostile import huge_png
from PIL import Image

from app.uploads import MIB, Limits, check_image, checked_images, unpack_zip
from encoders.errors import InputError

FEW = Limits(files=4, file_bytes=200_000, total_bytes=300_000, pixels=100_000)


def photo(path: Path, side: int = 64, **options) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def archive(path: Path, files: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as target:
        for name, content in files.items():
            target.writestr(name, content)
    return path


def refused(path: Path, limits: Limits = FEW) -> str:
    """The sentence with which a zip is refused; nothing of it is left on the disk."""
    into = path.parent / "in" / "side"
    with pytest.raises(InputError) as error:
        unpack_zip(path, into, limits)
    assert not into.exists()
    assert path.name in str(error.value)
    assert str(path.parent) not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tiff", "ppm"])
def test_photos_pass(tmp_path: Path, suffix: str) -> None:
    paths = [photo(tmp_path / f"{number}.{suffix}") for number in range(3)]
    assert checked_images(paths, Limits()) == paths


def test_two_pictures_of_a_phone_in_one_file_are_a_photo(tmp_path: Path) -> None:
    frame = Image.open(photo(tmp_path / "1.jpg"))
    frame.save(tmp_path / "2.jpg", format="MPO", save_all=True, append_images=[frame])
    assert Image.open(tmp_path / "2.jpg").format == "MPO"
    assert checked_images([tmp_path / "2.jpg"], Limits()) == [tmp_path / "2.jpg"]


def test_what_is_no_photo_is_refused_by_its_own_name(tmp_path: Path) -> None:
    good = photo(tmp_path / "good.jpg")
    (tmp_path / "notes.jpg").write_text("Dear diary")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "torn.jpg").write_bytes(good.read_bytes()[:-900])
    (tmp_path / "torn.png").write_bytes(photo(tmp_path / "whole.png").read_bytes()[:-900])
    (tmp_path / "page.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    expected = {"notes.jpg": "no image", "empty.png": "empty", "torn.jpg": "damaged", "torn.png": "damaged"}
    for name, reason in (expected | {"page.jpg": "no image"}).items():
        with pytest.raises(InputError, match=f"^{name} is .*{reason}") as error:
            checked_images([good, tmp_path / name], Limits())
        assert str(tmp_path) not in str(error.value)


def test_uploads_that_were_cleared_away_are_asked_for_again(tmp_path: Path) -> None:
    gone = tmp_path / "gone.jpg"
    for look in (lambda: checked_images([gone], FEW), lambda: check_image(gone, FEW)):
        with pytest.raises(InputError, match=r"^gone\.jpg .* upload it again"):
            look()
    with pytest.raises(InputError, match=r"^gone\.zip .* upload it again"):
        unpack_zip(tmp_path / "gone.zip", tmp_path / "in", FEW)


def test_drawings_that_pillow_would_start_a_program_for_are_no_photos(tmp_path: Path) -> None:
    """Pillow opens EPS and hands it to Ghostscript."""
    path = tmp_path / "drawing.jpg"
    Image.new("RGB", (9, 9)).save(path, format="EPS")
    assert Image.open(path).format == "EPS"
    with pytest.raises(InputError, match="no image"):
        check_image(path, Limits())


def test_a_decompression_bomb_costs_nothing(tmp_path: Path) -> None:
    bomb = huge_png(tmp_path / "bomb.png")
    assert bomb.stat().st_size < 2 * MIB
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"^bomb\.png has more than 64 megapixels"):
            check_image(bomb, Limits())
        with pytest.raises(InputError, match="megapixels"):
            checked_images([bomb], Limits())
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()
    check_image(photo(tmp_path / "large.jpg", 316), FEW)
    with pytest.raises(InputError, match=r"0\.1 megapixels"):
        check_image(photo(tmp_path / "larger.jpg", 317), FEW)


def test_many_or_large_files_are_refused(tmp_path: Path) -> None:
    paths = [photo(tmp_path / f"{number}.bmp", 150) for number in range(5)]
    size = paths[0].stat().st_size
    assert checked_images(paths[:4], Limits(files=4, total_bytes=4 * size)) == paths[:4]
    with pytest.raises(InputError, match="5 files are too many; give 4"):
        checked_images(paths, Limits(files=4))
    with pytest.raises(InputError, match="are too much"):
        checked_images(paths, Limits(total_bytes=5 * size - 1))
    with pytest.raises(InputError, match=r"0\.bmp has .* are the most"):
        checked_images(paths, Limits(file_bytes=size - 1))


def test_a_zip_of_photos_is_unpacked(tmp_path: Path) -> None:
    content = photo(tmp_path / "photo.jpg").read_bytes()
    files = {"a/1.jpg": content, "a/b/2.jpg": content + b"2", "3 ü.jpg": content + b"3"}
    hidden = {"__MACOSX/a/._1.jpg": b"x", ".DS_Store": b"x", "a/.hidden/4.jpg": b"x", "empty/": b"", "./": b""}
    found = unpack_zip(archive(tmp_path / "photos.zip", files | hidden), tmp_path / "in", Limits())
    assert {str(path.relative_to(tmp_path / "in")): path.read_bytes() for path in found} == files
    assert sorted(path for path in (tmp_path / "in").rglob("*") if path.is_file()) == sorted(found)


def test_members_without_a_name_are_passed_over(tmp_path: Path) -> None:
    path = archive(tmp_path / "photos.zip", {"1.jpg": b"x", "NAMELESS": b"y"})
    path.write_bytes(path.read_bytes().replace(b"NAMELESS", bytes(8)))  # Python cuts names at the first zero
    assert [found.name for found in unpack_zip(path, tmp_path / "in", Limits())] == ["1.jpg"]


@pytest.mark.parametrize(
    "name", ["../out.jpg", "a/../../out.jpg", "/etc/out.jpg", "..\\out.jpg", "C:\\out.jpg", "C:out.jpg", "\\out.jpg"]
)
def test_no_zip_leaves_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert "outside" in refused(archive(tmp_path / "z.zip", {"good.jpg": b"x", name: b"evil"}))
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "z.zip"])


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    info = zipfile.ZipInfo("passwd.jpg")
    info.create_system, info.external_attr = 3, (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as target:
        target.writestr(info, "/etc/passwd")
    assert "link" in refused(tmp_path / "z.zip")


def test_bombs_are_refused_unopened(tmp_path: Path) -> None:
    black = bytes(40 * MIB)
    many = archive(tmp_path / "expands.zip", {f"{number}.bmp": black for number in range(3)})
    assert many.stat().st_size < MIB
    assert "120 MiB" in refused(many, Limits())
    assert "too large" in refused(many, Limits(file_bytes=MIB))
    nested = io.BytesIO(many.read_bytes()).getvalue()
    assert "another zip" in refused(archive(tmp_path / "nested.zip", {"a/inner.ZIP": nested}), Limits())
    assert "holds 5 files" in refused(archive(tmp_path / "z.zip", {f"{n}.jpg": b"x" for n in range(5)}))
    assert "293 KiB" in refused(archive(tmp_path / "z.zip", {"1.jpg": os.urandom(180_000), "2.jpg": bytes(120_001)}))
    assert "293 KiB are the most" in refused(archive(tmp_path / "z.zip", {"1.jpg": os.urandom(300_001)}))
    packed = archive(tmp_path / "z.zip", {"1.jpg": b"x" * 99}, zipfile.ZIP_LZMA)
    assert "uncommon" in refused(packed)
    # Drawings of few colours shrink as much, and are small.
    assert unpack_zip(archive(tmp_path / "z.zip", {"mask.bmp": bytes(MIB)}), tmp_path / "masks", Limits())


def test_a_size_that_is_a_lie_does_not_help(tmp_path: Path) -> None:
    path = archive(tmp_path / "z.zip", {"1.bmp": bytes(8 * MIB)})
    content = path.read_bytes()
    true, claimed = struct.pack("<I", 8 * MIB), struct.pack("<I", 1000)
    assert content.count(true) == 2
    path.write_bytes(content.replace(true, claimed))
    assert "damaged" in refused(path)


def test_an_endless_table_of_contents_is_not_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as target:
        for number in range(40_000):
            target.writestr(f"{number}", b"")
    tracemalloc.start()
    try:
        assert "lists too many" in refused(tmp_path / "z.zip", Limits())
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()


def test_damaged_zips_are_refused(tmp_path: Path) -> None:
    whole = archive(tmp_path / "z.zip", {"1.jpg": os.urandom(5000), "2.jpg": os.urandom(5000)}).read_bytes()
    torn = {
        "empty": b"",
        "text": b"Dear diary",
        "cut": whole[:-200],
        "flipped": whole[:2000] + bytes([whole[2000] ^ 255]) + whole[2001:],
    }
    for name, content in torn.items():
        (tmp_path / f"{name}.zip").write_bytes(content)
        assert "damaged" in refused(tmp_path / f"{name}.zip")
    locked = bytearray(whole)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[whole.index(signature) + offset] |= 1
    (tmp_path / "locked.zip").write_bytes(locked)
    assert "encrypted" in refused(tmp_path / "locked.zip")


def test_names_that_no_disk_takes_are_refused(tmp_path: Path) -> None:
    assert "too long" in refused(archive(tmp_path / "z.zip", {"a" * 250 + ".jpg": b"x"}))
    assert "too long" in refused(archive(tmp_path / "z.zip", {"a/" * 40 + "1.jpg": b"x"}))
    assert "two things" in refused(archive(tmp_path / "z.zip", {"a": b"x", "a/1.jpg": b"x"}))
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as twice:
        twice.writestr("1.jpg", b"x")
        with pytest.warns(UserWarning, match="Duplicate"):
            twice.writestr("1.jpg", b"y")
    assert "two things" in refused(tmp_path / "twice.zip")
