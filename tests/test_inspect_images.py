"""Finding and reading the photos that people really have in their folders."""

import os

import numpy as np
import pytest
from inspection import save, texture
from PIL import Image

from dictas.images import BATCH_PIXELS, Loaded, batches, find_images, load
from dictas.journal import NAME
from dictas.outputs import output_names
from encoders.errors import InputError


def names(folder, **options):
    return [photo.name for photo in find_images(folder, **options)]


def touch(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")


def test_order_is_that_of_people_and_hidden_files_are_left_out(tmp_path):
    touch(
        tmp_path, "10.png", "9.JPG", "b/2.tif", "b/11.tiff", "a.bmp", "notes.txt", ".hidden.png", ".git/x.png", "B.jpeg"
    )
    assert names(tmp_path) == ["9.JPG", "10.png", "a.bmp", "b/2.tif", "b/11.tiff", "B.jpeg"]


def test_order_does_not_depend_on_the_file_system(tmp_path, monkeypatch):
    touch(tmp_path, *(f"{folder}/{number}.png" for folder in "ab" for number in range(12)), "A/3.png", "a/03.png")
    expected = names(tmp_path)
    real = type(tmp_path).iterdir
    monkeypatch.setattr(type(tmp_path), "iterdir", lambda self: sorted(real(self), reverse=True))
    assert names(tmp_path) == expected


def test_links_neither_loop_nor_repeat_nor_lose_anything(tmp_path):
    query = tmp_path / "query"
    touch(query, "part/1.png")
    touch(tmp_path, "elsewhere/2.png", "3.png")
    (query / "part" / "loop").symlink_to(query, target_is_directory=True)
    (query / "up").symlink_to(tmp_path, target_is_directory=True)
    (query / "same").symlink_to(query / "part", target_is_directory=True)
    (query / "other").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (query / "other again").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "back").symlink_to(query, target_is_directory=True)
    (query / "file.png").symlink_to(tmp_path / "3.png")
    (query / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (query / "self.png").symlink_to(query / "self.png")
    os.mkfifo(query / "pipe.png")
    assert names(query) == ["file.png", "gone.png", "other/2.png", "part/1.png", "self.png"]
    loaded = list(load(find_images(query)))
    assert [bool(photo.error) for photo in loaded] == [True] * 5
    assert "does not exist" in loaded[1].error


def test_results_within_the_folder_are_no_photos(tmp_path):
    touch(tmp_path, "1.png", "out/overlays/1.jpg", "earlier/masks/1.png", f"earlier/{NAME}")
    assert names(tmp_path, skip=[tmp_path / "out"]) == ["1.png"]


def test_a_folder_that_may_not_be_opened_is_an_unreadable_photo(tmp_path, monkeypatch):
    touch(tmp_path, "a/1.png", "b/2.png", "b/c/3.png", "d/4.png")
    real_iterdir, real_exists = type(tmp_path).iterdir, type(tmp_path).exists

    def iterdir(self):
        if self.name in ("b", "locked"):
            raise PermissionError(13, "Permission denied", str(self))
        return real_iterdir(self)

    def exists(self, **options):
        if self.parent.name == "b":
            raise PermissionError(13, "Permission denied", str(self))
        return real_exists(self, **options)

    monkeypatch.setattr(type(tmp_path), "iterdir", iterdir)
    monkeypatch.setattr(type(tmp_path), "exists", exists)
    assert names(tmp_path, closed=True) == ["a/1.png", "b", "d/4.png"]
    loaded = list(load(find_images(tmp_path, closed=True)))
    assert loaded[1].error == f"The folder {tmp_path / 'b'} cannot be opened; give the permission to, or remove it."
    with pytest.raises(InputError, match=r"The folder .*b cannot be opened \(Permission denied\)"):
        find_images(tmp_path)
    (tmp_path / "locked").mkdir()
    with pytest.raises(InputError, match=r"The folder .*locked cannot be opened \(Permission denied\)"):
        find_images(tmp_path / "locked", closed=True)


def test_errors_of_names_that_are_no_text_are_text(tmp_path, monkeypatch):
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    path.write_bytes(b"x")
    (loaded,) = load(find_images(tmp_path))
    assert r"caf\xe9.png cannot be read" in loaded.error
    loaded.error.encode()
    monkeypatch.setattr("dictas.images.read_image", lambda path, **_: {}[path])
    (loaded,) = load(find_images(tmp_path))
    loaded.error.encode()


def test_files_and_folders_to_skip_are_left_out(tmp_path):
    touch(tmp_path, "1.png", "2.png", "good/3.png", "masks/4.png", "bad/5.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    skip = [tmp_path / "2.png", tmp_path / "good", tmp_path / "masks", tmp_path.parent]
    assert names(tmp_path, skip=skip) == ["1.png", "bad/5.png", "loop.png"]
    assert names(tmp_path / "good", skip=[tmp_path, tmp_path / "good"]) == ["3.png"]


def test_a_file_is_a_list_of_one_and_nothing_is_an_error(tmp_path):
    touch(tmp_path, "1.png")
    assert names(tmp_path / "1.png") == ["1.png"]
    with pytest.raises(InputError, match="There is no folder"):
        find_images(tmp_path / "missing")


def test_names_that_are_no_text_have_one(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")
    (name,) = names(tmp_path)
    assert name == r"caf\xe9.png"
    name.encode()


@pytest.mark.parametrize("workers", [0, 2])
def test_every_kind_of_photo_is_read_and_every_damage_reported(tmp_path, workers):
    colour = texture(1, 40, 60, spot=(0, 0))
    save(tmp_path / "01 rgb.png", colour)
    save(tmp_path / "02 grey.png", colour[..., 0])
    save(tmp_path / "03 deep.png", colour[..., 0].astype(np.uint16) * 257)
    Image.fromarray(colour).convert("RGBA").save(tmp_path / "04 alpha.png")
    Image.fromarray(colour).convert("CMYK").save(tmp_path / "05 cmyk.TIF", format="TIFF")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(np.ascontiguousarray(np.rot90(colour))).save(tmp_path / "06 turned.png", exif=exif)
    (tmp_path / "07 empty.png").write_bytes(b"")
    save(tmp_path / "08 whole.jpg", texture(2, 200, 300))
    (tmp_path / "08 whole.jpg").rename(tmp_path / "whole")
    (tmp_path / "08 torn.jpg").write_bytes((tmp_path / "whole").read_bytes()[:4000])
    (tmp_path / "09 text.jpg").write_text("no image")
    photos = find_images(tmp_path)
    loaded = list(load(photos, lambda_free_half, workers))
    assert [photo.index for photo in loaded] == list(range(9))
    for photo in loaded[:6]:
        expected = colour if photo.index in (0, 3, 4, 5) else np.repeat(colour[..., :1], 3, axis=2)
        np.testing.assert_allclose(photo.image.astype(int), expected, atol=1)
        np.testing.assert_array_equal(photo.prepared, photo.image[::2, ::2])
    for photo in loaded[6:]:
        assert photo.image is None
        assert str(photos[photo.index].path) in photo.error
    assert [photo.index for photo in load(photos, None, workers, start=7)] == [7, 8]
    assert list(load(photos, None, workers, start=9)) == []


def lambda_free_half(image):
    return image[::2, ::2]


def test_an_unknown_exception_of_a_decoder_is_a_damaged_photo(tmp_path, monkeypatch):
    monkeypatch.setattr("dictas.images.read_image", lambda path, **_: {}[path])
    save(tmp_path / "1.png", texture(0))
    (loaded,) = load(find_images(tmp_path))
    assert "1.png cannot be read (KeyError" in loaded.error


def loaded_list(shapes):
    return [
        Loaded(index, error="broken")
        if shape is None
        else Loaded(index, np.empty((*shape, 3), np.uint8), np.empty((*shape, 3), np.uint8))
        for index, shape in enumerate(shapes)
    ]


def grouped(loaded, size):
    return [[photo.index for photo in group] for group in batches(loaded, size)]


def test_groups_have_one_shape_and_end_at_their_size():
    a, b = (4, 6), (6, 4)
    loaded = loaded_list([a, a, a, None, a, b, None, b, a])
    assert grouped(loaded, 3) == [[0, 1, 2], [3, 4], [5, 6, 7], [8]]
    assert grouped(loaded_list([None] * 5), 2) == [[0, 1], [2, 3], [4]]
    assert grouped([], 2) == []


def test_groups_of_large_photos_are_small():
    large = (int((BATCH_PIXELS / 2) ** 0.5), int((BATCH_PIXELS / 2) ** 0.5))
    assert grouped(loaded_list([large] * 5), 8) == [[0, 1], [2, 3], [4]]


def test_to_begin_again_behind_a_group_gives_the_same_groups():
    rng = np.random.default_rng(0)
    shapes = [[(4, 6), (6, 4), None][kind] for kind in rng.choice(3, 300, p=[0.7, 0.2, 0.1])]
    loaded = loaded_list(shapes)
    whole = grouped(loaded, 4)
    for place, group in enumerate(whole):
        assert grouped(loaded[group[0] :], 4) == whole[place:]


def test_outputs_of_different_photos_have_different_names(tmp_path):
    long = "x" * 230
    photos = [
        "a.png",
        "a.jpg",
        "b.png",
        "c/a.png",
        "B.JPG",
        "a.png.bmp",
        "d.jpg",
        "d.png/e.png",
        f"{long}1.png",
        f"{long}2.png",
    ]
    found = output_names(photos)
    assert found[2:4] == ["b.png", "c/a"]  # b and B would be one file on some disks
    assert len({name.casefold() for name in found}) == len(photos)
    assert found[6] + ".png" != "d.png"
    assert max(len(name) for name in found) <= 130
    assert output_names(["a.png", "b/c.d.png"]) == ["a", "b/c.d"]
