import contextlib
import json
import os
import stat
import subprocess
import sys
import tracemalloc
import warnings

import cv2
import hostile
import numpy as np
import pytest
from PIL import Image

from encoders import files
from encoders.errors import InputError
from encoders.files import atomic_folder, atomic_path, read_image, white_level, write_json, write_png

RANDOM = np.random.default_rng(0)


def test_atomic_path_replaces_the_file_only_when_the_block_ends(tmp_path):
    target = tmp_path / "deep" / "result.npz"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".npz"
        temporary.write_bytes(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    assert os.listdir(target.parent) == ["result.npz"]


def test_atomic_path_keeps_the_old_file_when_the_block_fails(tmp_path):
    target = tmp_path / "result.bin"
    target.write_bytes(b"old")

    def fail():
        with atomic_path(target) as temporary:
            temporary.write_bytes(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["result.bin"]


def test_atomic_path_gives_ordinary_permissions(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("")
    with atomic_path(tmp_path / "atomic") as temporary:
        temporary.write_text("")
    assert stat.S_IMODE((tmp_path / "atomic").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_atomic_folder_appears_whole_or_not_at_all(tmp_path):
    def fail():
        with atomic_folder(tmp_path / "model") as partial:
            (partial / "a.bin").write_bytes(b"1")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fail()
    assert os.listdir(tmp_path) == []
    with atomic_folder(tmp_path / "model") as partial:
        (partial / "a.bin").write_bytes(b"1")
        assert not (tmp_path / "model").exists()
    assert (tmp_path / "model" / "a.bin").read_bytes() == b"1"
    with atomic_folder(tmp_path / "model") as partial:  # somebody else was faster
        (partial / "a.bin").write_bytes(b"2")
    assert (tmp_path / "model" / "a.bin").read_bytes() == b"1"
    assert os.listdir(tmp_path) == ["model"]


def test_write_json_round_trips_and_refuses_nan(tmp_path):
    path = tmp_path / "run.json"
    write_json(path, {"psnr": 28.5, "name": "café"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"psnr": 28.5, "name": "café"}
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"psnr": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8"))["psnr"] == 28.5


def test_write_png_round_trips_through_another_reader(tmp_path):
    image = RANDOM.integers(0, 256, (7, 5, 3), dtype=np.uint8)
    write_png(tmp_path / "a.png", image)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a.png"))[:, :, ::-1], image)
    deep = RANDOM.integers(0, 65536, (7, 5), dtype=np.uint16)
    write_png(tmp_path / "b.png", deep)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "b.png"), cv2.IMREAD_UNCHANGED), deep)


# What has to be done to the stored pixels, from the EXIF specification's table of orientations.
EXIF_TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", EXIF_TURNS)
def test_read_image_turns_photos_upright(tmp_path, orientation):
    stored = RANDOM.integers(0, 256, (6, 9, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), EXIF_TURNS[orientation](stored))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", upright=False), stored)


@pytest.mark.parametrize(("bits", "white"), [(8, 1023), (10, 1023), (12, 4095), (14, 16383), (16, 65535)])
def test_the_white_level_of_cameras_that_fill_a_part_of_16_bits(tmp_path, bits, white):
    brightest = 2**bits - 1
    ramp = np.linspace(0, brightest, 24).round().astype(np.uint16).reshape(4, 6)
    paths = [tmp_path / "dark.png", tmp_path / "bright.png", tmp_path / "colour.png"]
    write_png(paths[0], ramp // 8)
    write_png(paths[1], ramp)
    write_png(paths[2], np.full((4, 6, 3), 255, np.uint8))
    assert white_level(paths) == white
    assert white_level(paths[2:]) is white_level([]) is None
    for path, pixels in zip(paths, (ramp // 8, ramp), strict=False):
        shown = read_image(path, white=white)
        np.testing.assert_array_equal(shown[..., 0], np.round(pixels * (255.0 / white)))
    assert read_image(paths[1]).max() == round(255 * brightest / 65535)
    np.testing.assert_array_equal(read_image(paths[2], white=white), read_image(paths[2]))


def test_what_is_brighter_than_white_is_clipped(tmp_path):
    write_png(tmp_path / "glare.png", np.array([[0, 512, 1023, 1024, 60000]], np.uint16))
    assert read_image(tmp_path / "glare.png", white=1023)[0, :, 0].tolist() == [0, 128, 255, 255, 255]


def test_the_white_level_of_a_broken_image_is_refused(tmp_path):
    (tmp_path / "empty.png").touch()
    with pytest.raises(InputError, match=r"empty\.png cannot be read"):
        white_level([tmp_path / "empty.png"])


def test_read_image_keeps_16_bit_pictures(tmp_path):
    grey = np.array([[0, 257, 32768, 65535]], np.uint16)
    cv2.imwrite(str(tmp_path / "bright.png"), grey)
    np.testing.assert_array_equal(read_image(tmp_path / "bright.png")[0, :, 0], [0, 1, 128, 255])
    cv2.imwrite(str(tmp_path / "dark.png"), np.array([[0, 100, 200]], np.uint16))
    # A 16-bit photo of a dark room is dark; its small values do not make it an 8-bit one.
    np.testing.assert_array_equal(read_image(tmp_path / "dark.png")[0, :, 0], [0, 0, 1])
    colour = RANDOM.integers(0, 65536, (4, 4, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "colour.png"), colour)
    off = read_image(tmp_path / "colour.png").astype(float) - colour[:, :, ::-1] / 257.0
    assert np.abs(off).max() <= 1.0


def test_read_image_keeps_floating_point_pictures(tmp_path):
    Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32)).save(tmp_path / "unit.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "unit.tif")[0, :, 1], [0, 128, 255])
    Image.fromarray(np.array([[0.0, np.nan, 51.0, 255.0]], np.float32)).save(tmp_path / "bytes.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "bytes.tif")[0, :, 1], [0, 0, 51, 255])


@pytest.mark.parametrize(
    ("mode", "colour", "suffix", "expected"),
    [
        ("CMYK", (0, 255, 255, 0), ".jpg", (255, 0, 0)),
        ("CMYK", (255, 0, 0, 0), ".tif", (0, 255, 255)),
        ("RGBA", (10, 200, 30, 128), ".png", (10, 200, 30)),
        ("LA", (90, 0), ".png", (90, 90, 90)),
        ("L", 77, ".png", (77, 77, 77)),
        ("1", 1, ".png", (255, 255, 255)),
    ],
)
def test_read_image_converts_every_mode_to_rgb(tmp_path, mode, colour, suffix, expected):
    path = tmp_path / f"a{suffix}"
    Image.new(mode, (16, 8), colour).save(path)
    image = read_image(path)
    assert image.shape == (8, 16, 3)
    assert image.dtype == np.uint8
    np.testing.assert_allclose(image[4, 8], expected, atol=3)


def test_read_image_converts_palettes(tmp_path):
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, 200, 100, 50])
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0, 0], [200, 100, 50])


def _jpeg(path):
    Image.fromarray(RANDOM.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    return path.read_bytes()


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "header only", "text", "folder"])
def test_read_image_names_the_file_it_cannot_read(tmp_path, damage):
    path = tmp_path / "photo.jpg"
    whole = _jpeg(path)
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        content = {
            "empty": b"",
            "truncated": whole[: len(whole) // 2],
            "header only": whole[:20],
            "text": b"hello",
        }
        path.write_bytes(content[damage])
    with pytest.raises(InputError, match=r"photo\.jpg") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_read_image_survives_a_damaged_exif_block(tmp_path):
    path = tmp_path / "photo.jpg"
    image = Image.fromarray(np.full((8, 8, 3), 90, np.uint8))
    image.save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\xff broken")
    np.testing.assert_allclose(read_image(path), 90, atol=2)


def test_read_image_names_a_tiff_whose_tags_have_other_types(tmp_path):
    path = tmp_path / "photo.tif"
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    start = content.index((273).to_bytes(2, "little"), int.from_bytes(content[4:8], "little"))  # StripOffsets
    content[start + 2] = 5  # a fraction, at the place that was the pixels'
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"photo\.tif cannot be read"):
        read_image(path)


def test_read_image_makes_no_room_for_what_a_block_only_claims(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    block = content.index(b"IDAT") - 4
    content[block : block + 4] = (2**31 - 1).to_bytes(4, "big")
    path.write_bytes(content)
    tracemalloc.start()
    with contextlib.suppress(InputError):  # all of its pixels may be there
        read_image(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 2**20


def test_read_image_refuses_decompression_bombs(tmp_path, monkeypatch):
    _jpeg(tmp_path / "photo.jpg")
    monkeypatch.setattr(files, "MAX_PIXELS", 64 * 64 - 1)
    with pytest.raises(InputError, match="64x64 pixels"):
        read_image(tmp_path / "photo.jpg")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [13_500, 14_100, 14_200])
def test_the_limit_of_pixels_is_ours_and_not_pillows(tmp_path, side):
    path = hostile.huge_png(tmp_path / "poster.png", side)
    if side**2 > files.MAX_PIXELS:
        with pytest.raises(InputError, match=rf"{side}x{side} pixels, more than dictsplat reads"):
            read_image(path)
    else:  # more than the 179 million that Pillow would open
        with warnings.catch_warnings(action="error"), Image.open(path) as image:
            assert image.size == (side, side)


def _deep_png(path):
    hostile.huge_png(path, 4000, depth=16)


def _lying_jpeg(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (5000, 3200), (10, 200, 30)).save(path, exif=exif)


def _float_tif(path):
    Image.fromarray(np.full((4000, 4000), 0.5, np.float32)).save(path)


@pytest.mark.parametrize(("suffix", "write"), [(".png", _deep_png), (".jpg", _lying_jpeg), (".tif", _float_tif)])
def test_read_image_takes_a_small_multiple_of_the_picture(tmp_path, suffix, write):
    path = tmp_path / f"large{suffix}"
    write(path)
    program = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from encoders.files import read_image\n"
        "def peak():\n"
        "    return int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) * 1024\n"
        "before = peak()\n"
        "pixels = read_image(Path(sys.argv[1]))\n"
        "print(pixels.size, peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    size, taken = map(int, done.stdout.split())
    assert size == 16_000_000 * 3
    assert size <= taken < 3.5 * size


def test_strips_join_without_a_seam(tmp_path, monkeypatch):
    deep = RANDOM.integers(0, 65536, (37, 23), dtype=np.uint16)
    write_png(tmp_path / "deep.png", deep)
    colour = RANDOM.integers(0, 256, (37, 23, 3), dtype=np.uint8)
    write_png(tmp_path / "colour.png", colour)
    depths = RANDOM.random((37, 23)).astype(np.float32) * 255
    depths[36, 22] = 255.0  # the white level is that of all strips
    Image.fromarray(depths).save(tmp_path / "depth.tif")
    monkeypatch.setattr(files, "STRIP_PIXELS", 5 * 23)
    np.testing.assert_array_equal(read_image(tmp_path / "colour.png"), colour)
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png")[..., 2], np.round(deep * (255.0 / 65535)))
    np.testing.assert_array_equal(read_image(tmp_path / "depth.tif")[..., 0], np.round(depths.astype(float)))
