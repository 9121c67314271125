"""What a fit is shown and what it reports: the same on every device, and on a GPU without waiting."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import test_fit_rgb
import torch
from pretend_cuda import pretend_cuda

from splat import fit_views
from splat.fit_views import FitViews, RecentFit
from splat.scene.scene import Scene

scene = test_fit_rgb.scene


@pytest.fixture
def cuda() -> Iterator[None]:
    with pretend_cuda():
        yield


@pytest.mark.parametrize(("room", "reads"), [(1 << 30, 3), (0, 9), (64 * 48 * 3, 7)], ids=["all", "none", "one"])
def test_photos_are_uploaded_once_while_there_is_room(
    cuda: None, scene: Scene, monkeypatch: pytest.MonkeyPatch, room: int, reads: int
) -> None:
    monkeypatch.setattr(fit_views, "PHOTO_BYTES", room)
    read: list[int] = []

    def image(index: int) -> np.ndarray:
        read.append(index)
        return scene.image(index)

    ours, truth = FitViews(replace(scene, reader=image), "cuda"), FitViews(scene, "cpu")
    for half in (True, False):
        read.clear()
        for index in (0, 3, 5) * 3:
            for found, expected in zip(ours[index, half], truth[index, half], strict=True):
                assert found.device.type == "cuda"
                assert torch.equal(found.cpu(), expected)
        # A photo of half the size is a quarter as large: there is room for all three.
        assert len(read) == (3 if half and room else reads)


def test_on_the_cpu_photos_come_from_the_scene(scene: Scene) -> None:
    read: list[int] = []
    views = FitViews(replace(scene, reader=lambda index: read.append(index) or scene.image(index)), "cpu")
    for _ in range(2):
        photo, _, _ = views[1, False]
        np.testing.assert_array_equal(photo.numpy() * 255, scene.image(1))
    assert read == [1, 1]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_means_of_the_last_fifty_steps(cuda: None, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    losses, errors = generator.random(73).astype(np.float32), generator.random(73).astype(np.float32)
    recent, said = RecentFit(device), []
    truth = torch.zeros(1, 1, 3).to(device)
    assert all(math.isnan(each) for each in recent.means)
    for loss, error in zip(losses, errors, strict=True):
        recent.add(torch.tensor(loss).to(device), truth + float(error) ** 0.5, truth)
        said.append(recent.means)
    recent.read()

    def expected(steps: int) -> tuple[float, float]:
        part = slice(max(0, steps - 50), steps)
        return float(losses[part].mean()), float(np.mean(-10 * np.log10(errors[part])))

    assert recent.means == pytest.approx(expected(73), rel=1e-5)
    seen = range(1, 74) if device == "cpu" else [1 + 10 * (step // 10) for step in range(73)]
    for means, steps in zip(said, seen, strict=True):
        assert means == pytest.approx(expected(steps), rel=1e-5)
