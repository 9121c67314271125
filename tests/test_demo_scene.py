"""The demo scene: geometry against a ray tracer written differently, files, ground truth, resuming."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from encoders.errors import InputError
from splat.scene.demo import demo_cameras, write_demo_scene
from splat.scene.raycast import Face, Texture, render
from splat.scene.room import BACK, CATEGORIES, FRONT, LEFT, RIGHT, TOP, build_room

SIZE = {"width": 96, "height": 72, "train_views": 5, "test_views": 3, "samples": 2}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return write_demo_scene(tmp_path_factory.mktemp("demo"), **SIZE)


def transforms(folder):
    return json.loads((folder / "transforms.json").read_text())


def trace(faces, K, viewmat, x, y):
    """Index, s and t of the first front-facing rectangle on the ray through (x, y), by ray-plane tests."""
    to_world = np.linalg.inv(viewmat)
    origin, direction = to_world[:3, 3], to_world[:3, :3] @ np.linalg.solve(K, [x, y, 1.0])
    best = (np.inf, -1, 0.0, 0.0)
    for index, face in enumerate(faces):
        normal = np.cross(face.right, face.down)
        slope = normal @ direction
        if slope <= 0:
            continue
        distance = normal @ (face.corner - origin) / slope
        offset = origin + distance * direction - face.corner
        s = offset @ face.right / (face.right @ face.right)
        t = offset @ face.down / (face.down @ face.down)
        if 0 < distance < best[0] and 0 <= s <= 1 and 0 <= t <= 1:
            best = (distance, index, s, t)
    return best[1:]


def test_labels_and_colours_agree_with_ray_by_ray_tracing():
    faces = build_room()
    K = np.array([[90.0, 0, 60], [0, 95.0, 45], [0, 0, 1]])
    viewmat = demo_cameras(5, 0)["train_001"]
    picture, labels = render(faces, K, viewmat, 120, 90, samples=1)
    rng = np.random.default_rng(0)
    differences = []
    for x, y in rng.integers([120, 90], size=(400, 2)):
        index, s, t = trace(faces, K, viewmat, x + 0.5, y + 0.5)
        assert labels[y, x] == faces[index].label
        # Colour of the texture's nearest texel after a Gaussian blur about as wide as the pixel's footprint.
        image = faces[index].texture.image
        footprint = [trace(faces, K, viewmat, x + 0.5 + dx, y + 0.5 + dy) for dx in (-1, 1) for dy in (-1, 1)]
        if any(other[0] != index for other in footprint):
            continue
        ss, ts = zip(*[other[1:] for other in footprint], strict=True)
        width = max((max(ss) - min(ss)) * image.shape[1], (max(ts) - min(ts)) * image.shape[0]) / 2
        column, row = int(s * image.shape[1] - 1e-9), int(t * image.shape[0] - 1e-9)
        reach = max(1, round(width / 2))
        patch = image[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
        differences.append(np.abs(patch.mean(axis=(0, 1)) - picture[y, x]).mean())
    assert len(differences) > 200
    assert np.median(differences) < 4
    assert np.percentile(differences, 95) < 25


def test_a_face_seen_head_on_shows_its_picture_exactly():
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, size=(6, 8, 3), dtype=np.uint8)
    face = Face(np.array([-4.0, -3.0, 10.0]), np.array([8.0, 0, 0]), np.array([0, 6.0, 0]), Texture(image), 3)
    K = np.array([[10.0, 0, 6], [0, 10.0, 5], [0, 0, 1]])
    picture, labels = render([face], K, np.eye(4), 12, 10, samples=1)
    np.testing.assert_array_equal(picture[2:8, 2:10], image)
    expected = np.zeros((10, 12))
    expected[2:8, 2:10] = 3
    np.testing.assert_array_equal(labels, expected)
    assert picture[expected == 0].max() == 0


def test_a_face_seen_from_behind_is_invisible():
    texture = Texture(np.full((2, 2, 3), 9, np.uint8))
    face = Face(np.array([4.0, -3.0, 10.0]), np.array([-8.0, 0, 0]), np.array([0, 6.0, 0]), texture)
    picture, _ = render([face], np.array([[10.0, 0, 6], [0, 10, 5], [0, 0, 1]]), np.eye(4), 12, 10)
    assert picture.max() == 0


@pytest.mark.parametrize("depth", [3.9, 36.0])
def test_a_distant_checkerboard_turns_grey_instead_of_aliasing(depth):
    board = ((np.indices((512, 512)).sum(axis=0) % 2) * 255).astype(np.uint8)
    texture = Texture(np.repeat(board[..., None], 3, axis=2))
    far_left = np.array([-2.0, 1.0, depth + 0.1])
    floor = Face(far_left, np.array([4.0, 0, 0]), np.array([0, 0, -depth]), texture, 1)
    picture, labels = render([floor], np.array([[60.0, 0, 40], [0, 60, 30], [0, 0, 1]]), np.eye(4), 80, 60)
    # Without its border, whose pixels are part black; and only where a pixel is some squares wide.
    inside = cv2.erode(labels.astype(np.uint8), np.ones((3, 3)), borderValue=0) > 0
    inside[54:] = False
    assert inside.sum() > 20
    assert np.abs(picture[inside].astype(float) - 127.5).max() < 12


def test_every_pixel_of_every_view_is_covered_and_cameras_stay_in_the_room():
    faces = build_room()
    covered = [Face(face.corner, face.right, face.down, face.texture, 1) for face in faces]
    K = np.array([[40.0, 0, 32], [0, 40, 24], [0, 0, 1]])
    cameras = demo_cameras(60, 12)
    for viewmat in cameras.values():
        centre = -viewmat[:3, :3].T @ viewmat[:3, 3]
        assert (centre > [LEFT, FRONT, 0]).all()
        assert (centre < [RIGHT, BACK, TOP]).all()
    for name in ("train_000", "train_019", "train_059", "test_005"):
        assert (render(covered, K, cameras[name], 64, 48, 1)[1] == 1).all()


def test_held_out_cameras_stand_apart_from_training_cameras():
    cameras = demo_cameras(60, 12)
    centres = {name: -pose[:3, :3].T @ pose[:3, 3] for name, pose in cameras.items()}
    train = np.stack([centre for name, centre in centres.items() if name.startswith("train")])
    test = np.stack([centre for name, centre in centres.items() if name.startswith("test")])
    assert train.shape == (60, 3)
    assert test.shape == (12, 3)
    nearest = np.linalg.norm(test[:, None] - train[None], axis=2).min(axis=1)
    assert nearest.min() > 0.1
    assert nearest.max() < 0.5


def test_transforms_list_every_image_with_opengl_poses(demo):
    content = transforms(demo)
    assert content["train_filenames"] == [f"images/train_{i:03d}.png" for i in range(5)]
    assert content["test_filenames"] == [f"images/test_{i:03d}.png" for i in range(3)]
    files = [frame["file_path"] for frame in content["frames"]]
    assert files == content["train_filenames"] + content["test_filenames"]
    for frame in content["frames"]:
        assert Image.open(demo / frame["file_path"]).size == (96, 72) == (content["w"], content["h"])
        pose = np.array(frame["transform_matrix"])
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-9)
        assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
        # OpenGL: the camera looks along its own -z, here into the room, and its y points up.
        assert -pose[1, 2] > 0.5
        assert pose[2, 1] > 0.5


def test_a_known_corner_projects_onto_its_object(demo):
    """The poses in the file, read as OpenGL, put the front of the cat's box where the exact mask has it."""
    content = transforms(demo)
    face = next(face for face in build_room() if face.label == CATEGORIES.index("cat") + 1)
    frame = content["frames"][-2]
    middle = face.corner + 0.5 * face.right + 0.5 * face.down
    x, y, z = (np.linalg.inv(frame["transform_matrix"]) @ [*middle, 1.0])[:3]
    u = content["cx"] + content["fl_x"] * x / -z
    v = content["cy"] + content["fl_y"] * -y / -z
    mask = np.array(Image.open(demo / "labels" / Path(frame["file_path"]).stem / "cat.png"))
    assert mask[int(v), int(u)] == 255


def test_label_polygons_fill_to_the_exact_masks(demo):
    for index in range(3):
        content = json.loads((demo / "labels" / f"test_{index:03d}.json").read_text())
        assert content["info"] == {"name": f"test_{index:03d}.png", "width": 96, "height": 72}
        assert {item["category"] for item in content["objects"]} == set(CATEGORIES)
        for category in CATEGORIES:
            mask = np.array(Image.open(demo / "labels" / f"test_{index:03d}" / f"{category}.png")) > 0
            filled = np.zeros((72, 96), np.uint8)
            inside_a_box = np.zeros((72, 96), bool)
            for item in content["objects"]:
                if item["category"] == category:
                    cv2.fillPoly(filled, [np.array(item["segmentation"], np.int32)], 1)
                    x0, y0, x1, y1 = item["bbox"]
                    inside_a_box[y0 : y1 + 1, x0 : x1 + 1] = True
            np.testing.assert_array_equal(filled > 0, mask)
            assert mask.sum() > 40
            assert inside_a_box[mask].all()


def test_a_complete_scene_is_left_alone_and_a_broken_one_is_finished(demo):
    photo, other = demo / "images" / "train_002.png", demo / "images" / "train_001.png"
    before = photo.read_bytes()
    untouched = {path: path.stat().st_mtime_ns for path in demo.rglob("*") if path.is_file()}
    write_demo_scene(demo, **SIZE)
    assert {path: path.stat().st_mtime_ns for path in demo.rglob("*") if path.is_file()} == untouched
    photo.unlink()
    (demo / "labels" / "test_001.json").unlink()
    write_demo_scene(demo, **SIZE)
    assert photo.read_bytes() == before
    assert (demo / "labels" / "test_001.json").exists()
    assert other.stat().st_mtime_ns == untouched[other]


def test_other_settings_replace_the_views(tmp_path):
    write_demo_scene(tmp_path, **{**SIZE, "train_views": 3, "test_views": 1})
    (tmp_path / "images" / "mine.png").write_bytes(b"kept")
    write_demo_scene(tmp_path, width=40, height=30, train_views=2, test_views=1, samples=1)
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == [
        "mine.png", "test_000.png", "train_000.png", "train_001.png",
    ]  # fmt: skip
    assert Image.open(tmp_path / "images" / "train_000.png").size == (40, 30)


def test_progress_is_reported(tmp_path):
    calls = []
    write_demo_scene(tmp_path, lambda *call: calls.append(call), 32, 24, 2, 1, 1)
    assert [call[:2] for call in calls] == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_an_empty_picture_is_refused(tmp_path):
    with pytest.raises(InputError, match="positive size"):
        write_demo_scene(tmp_path, width=0)
