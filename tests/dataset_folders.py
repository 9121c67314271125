"""Data sets built small: files named in a text, and what a refusal says."""

from PIL import Image


def picture(path, size=(6, 4), mode="RGB", value=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode != "RGB" else (value,) * 3).save(path)
    return path


def tree(root, text):
    for line in text.split():
        picture(root / line, mode="L" if "ground" in line or "/gt/" in line or "label" in line else "RGB")


def sentence(error):
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert len(text) < 700
    return text


MVTEC = """train/good/000.png train/good/001.png test/good/000.png test/cut/000.png test/cut/001.PNG test/dent/000.png
    ground_truth/cut/000_mask.png ground_truth/cut/001_mask.png ground_truth/dent/000_mask.png"""
