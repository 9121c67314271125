"""report.html: complete, self-contained, bounded, and safe with any text."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from app.report import AGREED, MISSED, WRONG, Pictures, ReportConfig, write_report
from splat.evaluate import QueryScore, ViewScore
from splat.scene.cameras import Camera

WIDTH, HEIGHT = 240, 180


class Answer:
    def __init__(self, mask, level=2):
        self.mask = mask
        self.relevancy = mask.astype(np.float32) * 0.5 + np.linspace(0, 0.4, WIDTH, dtype=np.float32)
        self.level = level
        self.point = (60, 50)


def camera(name):
    return Camera(name, WIDTH, HEIGHT, np.diag([200.0, 200.0, 1.0]), np.eye(4))


def grey(_camera):
    return np.full((HEIGHT, WIDTH, 3), 0.5, np.float32)


def block(x0, y0, x1, y1):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def query_score(query, view, iou):
    truth, mask = block(40, 40, 120, 120), block(80, 40, 160, 120)
    boxes = np.array([[40.0, 40, 119, 119]])
    return QueryScore(camera(view), query, Answer(mask), truth, boxes, iou, iou > 0.5)


def view_score(name, offset=10):
    truth = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    rendered = truth.copy()
    rendered[:, : WIDTH // 2] += np.uint8(offset)
    return ViewScore(camera(name), rendered, truth, 31.25, 0.9)


METRICS = {
    "psnr": 29.876,
    "ssim": 0.91,
    "gaussians": 123456,
    "miou": 0.8125,
    "localization_accuracy": 6 / 7,
    "per_query": [
        {"query": "cat <b>&", "iou": 0.75, "hit": True, "hit_rate": 0.75, "level": 2, "views": 12},
        {"query": "rocket", "iou": 0.25, "hit": False, "level": 0},
    ],
    "seconds": {"rgb": 125.0, "features": 12.34, "language": 3.0, "query": 0.0123},
    "peak_rss_mb": 2345.6,
}


class Page(HTMLParser):
    """Tags that stay open, sources of pictures, text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.sources, self.text, self.links = [], [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "img":
            self.sources.append(attributes["src"])
            assert attributes["alt"]
        self.links += [attributes[key] for key in ("href", "src") if key in attributes]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


def picture(source):
    head, data = source.split(",", 1)
    assert head == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


@pytest.fixture
def page(tmp_path):
    pictures = Pictures(grey)
    pictures.add_view(view_score("test_000"))
    for view, iou in (("test_000", 0.6), ("test_001", 0.9), ("test_002", 0.2)):
        pictures.add_query(query_score("cat <b>&", view, iou))
    path = write_report(tmp_path, METRICS, pictures, title="demo <scene>", details={"encoder": "embedded"})
    assert path == tmp_path / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_is_well_formed_and_needs_nothing_else(page):
    assert page.open == []
    assert all(link.startswith("data:") for link in page.links)


def test_numbers_are_shown_for_people(page):
    text = re.sub(r"\s+", " ", page.text)
    numbers = ("29.88 dB", "0.910", "123,456", "0.812", "86%", "2 min 5 s", "12.3 s", "12 ms", "2,346 MB")
    for expected in (*numbers, "encoder embedded"):
        assert expected in text
    assert "yes, 9 of 12 views" in text
    assert "no, 0%" in text


def test_names_are_shown_as_text_not_markup(page):
    assert "cat <b>&" in page.text
    assert "demo <scene>" in page.text


def test_best_and_worst_answers_are_kept(page):
    assert "worst view test_002 · IoU 0.200 · not located · level whole" in page.text
    assert "best view test_001 · IoU 0.900 · located" in page.text
    assert len(page.sources) == 2 * 3 + 3


def test_mask_picture_tells_found_wrong_and_missed_apart(page):
    mask = picture(page.sources[2]).astype(int)
    base = 0.35 * 0.6 * 128
    for (x, y), colour in {(100, 100): AGREED, (140, 80): WRONG, (60, 100): MISSED}.items():
        np.testing.assert_allclose(mask[y, x], base + 0.65 * np.array(colour), atol=14)
    np.testing.assert_allclose(mask[170, 10], 0.6 * 128, atol=8)


def test_relevancy_picture_runs_from_blue_to_red(page):
    heat = picture(page.sources[1]).astype(int)
    assert heat[150, 20, 2] > heat[150, 20, 0] + 20
    assert heat[80, 155, 0] > heat[80, 155, 2] + 60


def test_error_picture_shows_the_amplified_difference(page):
    rendered, photo, error = (picture(source).astype(int) for source in page.sources[-3:])
    assert abs(rendered[90, 30] - 110).max() < 4
    assert abs(photo[90, 30] - 100).max() < 4
    assert error[90, 30].sum() > error[90, 200].sum() + 30


def test_size_is_bounded(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.uniform(size=(HEIGHT, WIDTH, 3)).astype(np.float32)
    pictures = Pictures(lambda _camera: noise, ReportConfig(max_views=2, max_queries=2, side=100))
    for index in range(5):
        pictures.add_view(view_score(f"view_{index}"))
        pictures.add_query(query_score(f"query {index}", "view_0", 0.5))
    assert (len(pictures.views), len(pictures.queries)) == (2, 2)
    path = write_report(tmp_path, {}, pictures)
    page = Page(path.read_text(encoding="utf-8"))
    assert max(max(picture(source).shape) for source in page.sources) <= 100
    assert path.stat().st_size < 200_000


def test_a_run_without_labels_or_held_out_views_has_a_page(tmp_path):
    path = write_report(tmp_path, {"gaussians": 5, "seconds": {"rgb": None}}, Pictures(grey))
    page = Page(path.read_text(encoding="utf-8"))
    assert "Queries" not in page.text
    assert "Held-out" not in page.text
    assert page.sources == []
    assert tmp_path.name in page.text
