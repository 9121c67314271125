"""Structure from motion and triangulation on a rendered room corner whose cameras and walls are known."""

import json

import cv2
import numpy as np
import pycolmap
import pytest
from PIL import Image
from scene_corner import FOCAL, HEIGHT, WIDTH, Shot, shots, textures, write_transforms

from encoders.errors import InputError
from splat.scene import load_scene, matching, points
from splat.scene.cameras import Camera
from splat.scene.undistort import Lens
from splat.scene.video import sample_frames


@pytest.fixture(scope="module")
def corner():
    return shots(10)


def wall_distance(xyz):
    """Distance of points [P, 3] from the nearest of the corner's three planes x = 0, y = 0, z = 0."""
    return np.abs(xyz).min(axis=1)


class Said(list):
    """A report that remembers its messages."""

    def __call__(self, done, total, message):
        self.append(message)


def test_photos_get_the_cameras_they_were_taken_with(tmp_path, corner, capfd):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored a quarter turn counterclockwise, to be turned clockwise by whoever shows it
    for index, shot in enumerate(corner):
        name = tmp_path / "scene" / f"my photo {index}.png"
        name.parent.mkdir(exist_ok=True)
        if index == 4:
            Image.fromarray(np.ascontiguousarray(np.rot90(shot.image, 1))).save(name, exif=exif)
        else:
            Image.fromarray(shot.image).save(name)
    whole = (tmp_path / "scene" / "my photo 0.png").read_bytes()
    (tmp_path / "scene" / "half.jpg").write_bytes(b"\xff\xd8\xff" + whole[:2000])
    (tmp_path / "scene" / "empty.jpg").write_bytes(b"")
    (tmp_path / "scene" / "notes.txt").write_text("no photo")
    said = Said()
    scene = load_scene(tmp_path / "scene", cache_dir=tmp_path / "cache", report=said)

    assert capfd.readouterr().out == ""  # `query --json` prints JSON and nothing else
    assert [camera.name for camera in scene.cameras] == [f"my photo {index}" for index in range(10)]
    assert any("half.jpg" in message for message in said)
    assert any("empty.jpg" in message for message in said)
    assert (scene.cameras[4].width, scene.cameras[4].height) == (WIDTH, HEIGHT)
    np.testing.assert_allclose(scene.cameras[0].K[0, 0], FOCAL, rtol=0.03)

    # Up to a similarity, the cameras stand where they stood and look where they looked.
    truth = [Camera("", WIDTH, HEIGHT, np.eye(3), shot.viewmat) for shot in corner]
    found, real = (np.stack([c.center for c in cameras]) for cameras in (scene.cameras, truth))
    similarity = pycolmap.estimate_sim3d(found, real)
    spread = np.linalg.norm(real - real.mean(axis=0), axis=1).max()
    moved = np.stack([similarity * center for center in found])
    assert np.linalg.norm(moved - real, axis=1).max() < 0.02 * spread
    rotation = similarity.rotation.matrix()
    for camera, shot in zip(scene.cameras, corner, strict=True):
        assert rotation @ camera.forward @ shot.viewmat[2, :3] > np.cos(np.radians(1.0))
    assert len(scene.points) > 300
    on_walls = wall_distance(np.stack([similarity * point for point in scene.points.astype(float)]))
    assert np.median(on_walls) < 0.04  # the walls are 4 wide

    # The second time, structure from motion is read and not done again.
    (tmp_path / "scene" / "notes.txt").unlink()
    said.clear()
    again = load_scene(tmp_path / "scene", cache_dir=tmp_path / "cache", report=said)
    assert again.fingerprint == scene.fingerprint
    assert not any("finding cameras" in message for message in said)
    assert any("2 of 12 photos" in message for message in said)


def test_photos_of_different_things_are_refused(tmp_path):
    for index, texture in enumerate(textures()):
        Image.fromarray(texture).save(tmp_path / f"{index}.png")
    with pytest.raises(InputError, match="do not overlap enough"):
        load_scene(tmp_path)


def test_too_few_readable_photos_are_refused(tmp_path):
    photo = Image.fromarray(textures()[0])
    for index in range(2):
        photo.save(tmp_path / f"{index}.png")
    for name in ("broken.jpg", "zero.jpg"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"2 readable photos \(2 cannot be read: broken\.jpg, zero\.jpg\)"):
        load_scene(tmp_path)
    (tmp_path / "0.png").write_bytes(b"")
    (tmp_path / "1.png").write_bytes(b"")
    with pytest.raises(InputError, match="0 readable photos"):
        load_scene(tmp_path)


def test_triangulated_points_lie_on_the_walls(tmp_path, corner, monkeypatch):
    content = write_transforms(tmp_path, corner)
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    scene = load_scene(tmp_path, cache_dir=tmp_path / "cache")
    assert len(scene.points) > points.ENOUGH_POINTS
    assert np.median(wall_distance(scene.points)) < 0.01  # the walls are 4 wide
    assert np.quantile(wall_distance(scene.points), 0.9) < 0.05
    # Each colour is what a training photo shows there.
    camera, image = scene.cameras[scene.train[3]], scene.image(scene.train[3]).astype(float)
    pixel = (scene.points @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3]) @ camera.K.T
    x, y = (pixel[:, :2] / pixel[:, 2:]).astype(int).T
    seen = (pixel[:, 2] > 0) & (x >= 0) & (x < WIDTH) & (y >= 0) & (y < HEIGHT)
    assert seen.mean() > 0.4
    assert np.median(np.abs(image[y[seen], x[seen]] - scene.point_colors[seen])) < 20

    # Without a cache the same points come out; a spoilt cache is made anew; a good one is used.
    fresh = load_scene(tmp_path)
    np.testing.assert_array_equal(fresh.points, scene.points)
    (tmp_path / "cache" / "points.npz").write_bytes(b"PK\x03\x04 half")
    np.testing.assert_array_equal(load_scene(tmp_path, cache_dir=tmp_path / "cache").points, scene.points)
    monkeypatch.setattr(points, "triangulate", lambda *_: pytest.fail("the cached points were not used"))
    np.testing.assert_array_equal(load_scene(tmp_path, cache_dir=tmp_path / "cache").points, scene.points)


def test_without_texture_points_are_random_where_the_cameras_look(tmp_path, corner):
    grey = [Shot(np.full_like(shot.image, 50 + index), shot.viewmat) for index, shot in enumerate(corner)]
    (tmp_path / "transforms.json").write_text(json.dumps(write_transforms(tmp_path, grey)))
    said = Said()
    scene = load_scene(tmp_path, report=said)
    assert any("0 points could be triangulated" in message for message in said)
    assert len(scene.points) == points.RANDOM_POINTS
    np.testing.assert_array_equal(load_scene(tmp_path).points, scene.points)
    counts = np.zeros(len(scene.points))
    for index in scene.train:
        camera = scene.cameras[index]
        pixel = (scene.points @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3]) @ camera.K.T
        inside = (pixel[:, :2] >= 0).all(1) & (pixel[:, :2] <= pixel[:, 2:] * [WIDTH, HEIGHT]).all(1)
        counts += inside & (pixel[:, 2] > 0)
    assert counts.min() >= 1
    assert np.median(counts) >= 4
    # The cameras look at (1.2, -1.2, -1.2) from about 5 away.
    assert np.linalg.norm(np.median(scene.points, axis=0) - [1.2, -1.2, -1.2]) < 1.0
    assert {50 + index for index in scene.train} == set(np.unique(scene.point_colors))


def test_cameras_side_by_side_are_random_points_in_front(corner):
    cameras = []
    for x in range(4):
        viewmat = np.eye(4)
        viewmat[0, 3] = -x
        cameras.append(Camera(str(x), 40, 30, np.array([[40.0, 0, 20], [0, 40, 15], [0, 0, 1]]), viewmat))
    xyz, colors = points.random_points(cameras, lambda index: np.full((30, 40, 3), index, np.uint8), count=100)
    assert xyz.shape == colors.shape == (100, 3)
    assert (xyz[:, 2] > 0).all()


def test_pairs_see_the_same_space_from_different_places(corner):
    K = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    cameras = [Camera(str(i), WIDTH, HEIGHT, K, shot.viewmat) for i, shot in enumerate(corner)]
    turned = np.diag([-1.0, 1.0, -1.0, 1.0]) @ corner[0].viewmat
    cameras += [
        Camera("behind", WIDTH, HEIGHT, K, turned),
        Camera("twin", WIDTH, HEIGHT, K, corner[0].viewmat),
    ]
    pairs = points.overlapping_pairs(cameras, neighbours=3)
    assert len(set(pairs)) == len(pairs)
    assert all(first < second for first, second in pairs)
    assert not any(10 in pair for pair in pairs)  # looks the other way
    assert (0, 11) not in pairs  # stands in the same place: no depth to be had
    partners = {i: {a + b - i for a, b in pairs if i in (a, b)} for i in range(10)}
    assert all(len(found) >= 3 for found in partners.values())


def test_many_photos_are_matched_with_those_that_look_alike(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    lenses = {}
    for index in range(12):  # three subjects in turns, each from four places
        texture = textures()[index % 3]
        x, y = random.integers(0, 60, 2)
        name = f"{index:02d}.png"
        Image.fromarray(texture[y : y + 300, x : x + 400]).save(tmp_path / name)
        lenses[name] = Lens("PINHOLE", 400, 300, (400.0, 400.0, 200.0, 150.0))
    database = tmp_path / "features.db"
    matching.extract(database, tmp_path, lenses, features=1000, trusted=())
    names = sorted(lenses)
    assert len(matching.likely_pairs(database, names)) == 12 * 11 // 2
    monkeypatch.setattr(matching, "EXHAUSTIVE_UP_TO", 5)
    pairs = matching.likely_pairs(database, names, neighbours=3, overlap=0)
    subject = {name: index % 3 for index, name in enumerate(names)}
    assert {frozenset(pair) for pair in pairs} == {
        frozenset((a, b)) for a in names for b in names if a != b and subject[a] == subject[b]
    }
    follow = matching.likely_pairs(database, names, neighbours=1, overlap=2)
    assert {(names[i], names[i + 1]) for i in range(11)} | {(names[i], names[i + 2]) for i in range(10)} <= set(follow)


def test_the_sharp_frames_of_a_video_are_taken(tmp_path):
    video = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 30, (320, 240))
    if not video.isOpened():
        pytest.skip("this OpenCV writes no mp4")
    picture = cv2.resize(textures()[0], (320, 240))
    sharp = {3, 14, 20, 37}
    for number in range(40):
        frame = picture if number in sharp else cv2.GaussianBlur(picture, (0, 0), 3)
        frame = frame.copy()
        frame[:8] = number * 6  # the frame's number, as the grey of its upper border
        video.write(frame)
    video.release()
    frames = tmp_path / "frames"
    frames.mkdir()
    sample_frames(tmp_path / "clip.mp4", frames, frames=4)
    numbers = [round(cv2.imread(str(file))[1:6].mean() / 6) for file in sorted(frames.iterdir())]
    assert len(numbers) == 4
    assert [number // 10 for number in numbers] == [0, 1, 2, 3]
    assert set(numbers) & sharp


@pytest.mark.parametrize("content", [b"", b"no video at all"])
def test_a_broken_video_is_refused(tmp_path, content, capfd):
    (tmp_path / "clip.mp4").write_bytes(content)
    with pytest.raises(InputError, match=r"clip\.mp4"):
        load_scene(tmp_path / "clip.mp4", cache_dir=tmp_path / "cache")
    assert capfd.readouterr().out == ""


def test_a_video_becomes_a_scene(tmp_path, corner):
    video = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (WIDTH, HEIGHT))
    if not video.isOpened():
        pytest.skip("this OpenCV writes no avi")
    for shot in corner:
        video.write(np.ascontiguousarray(shot.image[:, :, ::-1]))
    video.release()
    scene = load_scene(tmp_path / "clip.avi")
    assert len(scene.cameras) >= 8
    assert scene.image(0).shape == (HEIGHT, WIDTH, 3)
