"""Pictures for visitors: the same answer to many at the same time is whole for each of them."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.offered import offered, shown

PICTURE = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return tmp_path


def test_nobody_reads_half_a_picture(uploads: Path) -> None:
    def ask(_: int) -> bool:
        with Image.open(offered(PICTURE)) as image:
            return np.array_equal(np.asarray(image), PICTURE)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(200)))
    assert len([path for path in uploads.rglob("*") if path.is_file()]) == 1


def test_what_is_offered_again_is_kept_for_longer() -> None:
    path = Path(offered(PICTURE))
    os.utime(path, (0, 0))
    assert offered(PICTURE) == str(path)
    assert path.stat().st_mtime > 1e9
    assert offered(PICTURE[:-1]) != str(path)


def test_a_picture_that_is_looked_at_is_a_jpeg() -> None:
    smooth = np.tile(np.linspace(0, 255, 400).astype(np.uint8)[None, :, None], (300, 1, 3))
    image = shown(smooth, "a ramp")
    assert image.alt_text == "a ramp"
    with Image.open(image.value["path"] if isinstance(image.value, dict) else image.value) as found:
        assert found.format == "JPEG"
        assert np.abs(np.asarray(found).astype(int) - smooth).max() < 8
    assert shown(None, "").value is None
