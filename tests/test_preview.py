"""The picture of a fit at work."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from splat.preview import SIDE, write_preview


@pytest.mark.parametrize(("width", "height", "small"), [(160, 120, (160, 120)), (1920, 1080, (SIDE, 270))])
def test_render_and_photo_lie_side_by_side(tmp_path: Path, width: int, height: int, small: tuple[int, int]) -> None:
    ramp = torch.linspace(0.0, 1.0, height)[:, None, None].expand(height, width, 3)
    photo = ramp * torch.tensor([1.0, 0.5, 0.0])
    rendered = (ramp * torch.tensor([0.0, 0.5, 1.5])).requires_grad_()  # above 1, as a fit may be, and in its graph
    write_preview(tmp_path / "new" / "preview.jpg", rendered, photo)
    pair = np.asarray(Image.open(tmp_path / "new" / "preview.jpg"), dtype=float)
    assert pair.shape == (small[1], 2 * small[0], 3)
    rows = (np.arange(small[1]) + 0.5) / small[1]
    left, right = pair[:, : small[0]].mean(axis=1) / 255, pair[:, small[0] :].mean(axis=1) / 255
    np.testing.assert_allclose(left, np.stack([0 * rows, 0.5 * rows, np.minimum(1.5 * rows, 1)], axis=1), atol=0.02)
    np.testing.assert_allclose(right, np.stack([rows, 0.5 * rows, 0 * rows], axis=1), atol=0.02)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["preview.jpg"]
