"""Archives of scenes as people get them: split, rootless, numbered, incomplete. Nothing is lost without a word."""

import importlib
import json
import shutil
from pathlib import Path

import pytest
import small_archives
from small_scenes import DSC, FRAMES, label, packed, sparse_scene, split

from splat.protocols import read_benchmark
from splat.scene import load_scene

scenes = importlib.import_module("scenes")
mipnerf360 = importlib.import_module("mipnerf360")


def get(name: str, *arguments: object) -> int:
    return int(small_archives.get(small_archives.script(name), *arguments, convert=scenes.to_scenes))


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Gives archives to a script and returns the sentence; nothing is left."""

    def refuse(name: str, *archives: Path) -> str:
        capsys.readouterr()
        assert get(name, "--out", tmp_path / "data" / "out", "--from-archive", *archives) == 2
        assert list((tmp_path / "data").iterdir()) == []
        said = capsys.readouterr().err.strip()
        assert "\n" not in said
        assert ".tmp" not in said
        return said

    return refuse


def masks(scene: Path, *views: str) -> Path:
    for view in views:
        (scene / "segmentations" / view).mkdir(parents=True)
        shutil.copy(next((scene / "images").iterdir()), scene / "segmentations" / view / "cup.png")
    (scene / "segmentations" / "classes.txt").write_text("cup\n")
    return scene


def test_labels_of_gags_get_the_names_of_the_photos_at_their_places(tmp_path: Path, capsys) -> None:
    photos = packed(tmp_path / "360_v2.zip", {"garden": sparse_scene(tmp_path / "garden", DSC)})
    folder = label(label(tmp_path / "labels", "frame_00002", "second"), "frame_00005", "fifth")
    labels = packed(tmp_path / "labels.zip", {"Mip-NeRF360-OVS/garden": folder})
    assert get("mipnerf360", "--from-archive", photos, labels, "--out", tmp_path / "out") == 0
    garden = tmp_path / "out" / "garden"
    said = capsys.readouterr().out
    assert "1 scene; not in it: bicycle bonsai counter kitchen room stump; garden: its labels were numbered" in said
    assert sorted(path.name for path in garden.iterdir()) == ["images", "labels", "sparse"]
    assert (garden / "labels" / "protocol.txt").read_text() == "mipnerf360\n"
    benchmark = read_benchmark(garden / "labels")
    # As GAGS counts: its views sorted by name, the first of them 1.
    views = sorted(camera.name for camera in load_scene(garden).cameras)
    assert {one.name: one.categories for one in benchmark.labels} == {views[1]: ["second"], views[4]: ["fifth"]}
    assert benchmark.protocol.name == "mipnerf360"


def test_the_number_is_the_one_that_gags_reads(tmp_path: Path) -> None:
    photos = packed(tmp_path / "360_v2.zip", {"garden": sparse_scene(tmp_path / "garden", DSC)})
    labels = packed(tmp_path / "l.zip", {"garden": label(tmp_path / "labels", "frame_00009", said="frame_00003")})
    assert get("mipnerf360", "--from-archive", photos, labels, "--out", tmp_path / "out") == 0
    assert [one.name for one in read_benchmark(tmp_path / "out/garden/labels").labels] == [Path(DSC[2]).stem]


def test_labels_that_are_called_like_photos_keep_their_names(tmp_path: Path, capsys) -> None:
    scene = sparse_scene(tmp_path / "ramen", FRAMES[1:])
    folder = label(tmp_path / "label", "frame_00003")
    archive = packed(tmp_path / "lerf_ovs.zip", {"lerf_ovs/ramen": scene, "lerf_ovs/label/ramen": folder})
    assert get("lerf_ovs", "--from-archive", archive, "--out", tmp_path / "out") == 0
    assert [path.name for path in (tmp_path / "out/ramen/labels").iterdir()] == ["frame_00003.json"]
    assert "numbered" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["frame_00007"], "frame_00007.json is of photo 7, but there are 6 photos"),
        (["frame_00000"], "but there are 6 photos"),
        (["teapot"], "teapot.json has no photo: none has that name, and it is not a number"),
        (["frame_00001", "frame_1"], "are of one photo, DSCF4667"),
        (["frame_00001", "DSCF4668"], "frame_00001.json has no photo, though others have"),
    ],
)
def test_labels_that_fit_no_photo_are_refused(tmp_path: Path, refused, names: list[str], told: str) -> None:
    files = {"garden": sparse_scene(tmp_path / "garden", DSC)}
    for name in names:
        files["ovs/garden"] = label(tmp_path / "labels", name)
    assert told in refused("mipnerf360", packed(tmp_path / "given.zip", files))


def test_masks_of_3d_ovs_are_found_by_their_number(tmp_path: Path) -> None:
    archive = packed(tmp_path / "bed.zip", {"bed": masks(sparse_scene(tmp_path / "bed", DSC), "00", "03")})
    assert get("ovs3d", "--from-archive", archive, "--out", tmp_path / "out") == 0
    names = [one.name for one in read_benchmark(tmp_path / "out/bed/segmentations").labels]
    assert names == [Path(DSC[0]).stem, Path(DSC[3]).stem]


@pytest.mark.parametrize("top", ["3D-OVS/bed", "bed", ""])
def test_a_folder_that_google_drive_split_is_whole_again(tmp_path: Path, top: str) -> None:
    scene = masks(sparse_scene(tmp_path / "bed"), "frame_00001", "frame_00004")
    whole = packed(tmp_path / "whole.zip", {top: scene})
    parts = split([tmp_path / f"bed-20240501T101112Z-00{number}.zip" for number in (1, 2, 3)], whole)
    assert get("ovs3d", "--from-archive", *parts, "--out", tmp_path / "out") == 0
    wanted = [file for file in small_archives.files_of(scene) if file != "poses_bounds.npy"]
    assert small_archives.files_of(tmp_path / "out" / "bed") == wanted
    assert len(load_scene(tmp_path / "out" / "bed").cameras) == len(FRAMES)


def test_photos_in_a_part_that_was_forgotten_are_missed(tmp_path: Path, capsys) -> None:
    scene = sparse_scene(tmp_path / "bed")
    for name in FRAMES[:2]:
        (scene / "images" / name).unlink()
    assert get("ovs3d", "--from-archive", packed(tmp_path / "a.zip", {"bed": scene}), "--out", tmp_path / "out") == 0
    assert "bed: 2 of the 6 images of the model have no file and are left out" in capsys.readouterr().out


def test_parts_that_contradict_each_other_are_refused(tmp_path: Path, refused) -> None:
    one, two = (packed(tmp_path / f"{name}.zip", {"bed": sparse_scene(tmp_path / name)}) for name in "ab")
    assert get("ovs3d", "--from-archive", one, two, "--out", tmp_path / "equal") == 0
    (tmp_path / "b" / "images" / FRAMES[3]).write_bytes(b"another photo")
    said = refused("ovs3d", one, packed(tmp_path / "b.zip", {"bed": tmp_path / "b"}))
    assert f"b.zip and another archive have different files bed/images/{FRAMES[3]}; leave one of the two out." in said


def test_texts_of_the_authors_may_differ_between_parts(tmp_path: Path) -> None:
    archives = []
    for name in ("bed", "sofa"):
        (tmp_path / f"{name}.txt").write_text(name)
        files = {f"3D-OVS/{name}": sparse_scene(tmp_path / name), "3D-OVS/README.txt": tmp_path / f"{name}.txt"}
        archives.append(packed(tmp_path / f"{name}.zip", files))
    assert get("ovs3d", "--from-archive", *archives, "--out", tmp_path / "out") == 0


def test_zips_without_a_folder_are_scenes_of_their_own_name(tmp_path: Path) -> None:
    archives = [packed(tmp_path / f"{name}.zip", {"": sparse_scene(tmp_path / name)}) for name in ("bed", "sofa")]
    assert get("ovs3d", "--from-archive", *archives, "--out", tmp_path / "out") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["SOURCE.txt", "bed", "sofa"]


def test_the_same_scene_in_two_places_is_refused(tmp_path: Path, refused) -> None:
    scene = sparse_scene(tmp_path / "bed")
    archives = packed(tmp_path / "x.zip", {"bed": scene}), packed(tmp_path / "y.zip", {"old/bed": scene})
    assert "there are two scenes bed, 0/bed and 1/old/bed" in refused("ovs3d", *archives)


def test_two_labels_of_one_name_are_refused(tmp_path: Path, refused) -> None:
    photos = packed(tmp_path / "p.zip", {"garden": sparse_scene(tmp_path / "garden", DSC)})
    archives = [
        packed(tmp_path / f"{name}.zip", {f"{name}/garden": label(tmp_path / name, "frame_00001", name)})
        for name in ("v1", "v2")
    ]
    assert "there are two different labels frame_00001.json of garden" in refused("mipnerf360", photos, *archives)


def test_scenes_are_found_whatever_their_case(tmp_path: Path) -> None:
    scene, folder = sparse_scene(tmp_path / "scene"), label(tmp_path / "labels", "frame_00002")
    archive = packed(tmp_path / "l.zip", {"Teatime": scene, "label/teatime": folder, "RAMEN": scene})
    assert get("lerf_ovs", "--from-archive", archive, "--out", tmp_path / "out") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["SOURCE.txt", "ramen", "teatime"]
    assert (tmp_path / "out/teatime/labels/frame_00002.json").is_file()


def test_photos_without_cameras_are_named(tmp_path: Path, refused, capsys) -> None:
    bed, sofa = sparse_scene(tmp_path / "bed"), sparse_scene(tmp_path / "sofa")
    shutil.rmtree(sofa / "sparse")
    archive = packed(tmp_path / "given.zip", {"bed": bed, "sofa": sofa})
    assert get("ovs3d", "--from-archive", archive, "--out", tmp_path / "out") == 0
    assert "left out, having photos and no cameras: sofa" in capsys.readouterr().out
    said = refused("ovs3d", packed(tmp_path / "sofa.zip", {"sofa": sofa}))
    assert "poses_bounds.npy has cameras, but not COLMAP's" in said


def no_model(scene: Path) -> str:
    shutil.rmtree(scene / "sparse" / "0")
    (scene / "sparse" / "notes.txt").write_text("")
    return "ramen/sparse holds no COLMAP model"


def half_a_model(scene: Path) -> str:
    path = scene / "sparse" / "0" / "images.bin"
    path.write_bytes(path.read_bytes()[:40])
    return "images.bin ends too early"


def no_photos(scene: Path) -> str:
    for path in (scene / "images").iterdir():
        path.unlink()
    (scene / "images" / "notes.txt").write_text("")
    return "None of the 6 images of the COLMAP model in ramen/sparse/0 was found"


def no_picture(scene: Path) -> str:
    (scene / "images" / FRAMES[2]).write_text("<html>log in</html>")
    return FRAMES[2]


def no_json(scene: Path) -> str:
    (scene / "labels").mkdir()
    (scene / "labels" / "frame_00001.json").write_text("not json")
    return "ramen/labels/frame_00001.json is not valid JSON"


def other_json(scene: Path) -> str:
    (scene / "labels").mkdir()
    (scene / "labels" / "frame_00001.json").write_text(json.dumps({"a": 1}))
    return "is neither LERF nor labelme format"


def no_classes(scene: Path) -> str:
    (masks(scene, "frame_00001") / "segmentations" / "classes.txt").unlink()
    return "ramen/segmentations has no classes.txt"


@pytest.mark.parametrize("spoil", [no_model, half_a_model, no_photos, no_picture, no_json, other_json, no_classes])
def test_scenes_that_are_not_whole_are_refused(tmp_path: Path, refused, spoil) -> None:
    scene = sparse_scene(tmp_path / "ramen")
    told = spoil(scene)
    assert told in refused("lerf_ovs", packed(tmp_path / "lerf_ovs.zip", {"lerf_ovs/ramen": scene}))


def test_mipnerf360_is_fetched_and_takes_labels_beside_it(tmp_path: Path, capsys) -> None:
    photos = packed(tmp_path / "360_v2.zip", {"garden": sparse_scene(tmp_path / "garden", DSC)})
    labels = packed(tmp_path / "l.zip", {"garden": label(tmp_path / "labels", "frame_00001")})
    arguments = ["--url", photos.as_uri(), "--from-archive", labels, "--out", tmp_path / "data" / "out"]
    assert get("mipnerf360", *arguments) == 0
    assert (tmp_path / "data/out/garden/labels" / f"{Path(DSC[0]).stem}.json").is_file()
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["out"]
    capsys.readouterr()
    with pytest.raises(SystemExit):
        small_archives.prepare.main(mipnerf360.DATASET, scenes.to_scenes, ["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert mipnerf360.DATASET.url.startswith("https://")
    assert "which is fetched from https://" in shown
    assert "by hand" not in shown
