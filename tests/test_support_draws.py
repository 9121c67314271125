"""Which good images are taken as support: drawn the same everywhere, or as published."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
from dataset_folders import MVTEC, sentence, tree

from dictas.datasets import InspectionClass, draw_support, read_dataset
from encoders.errors import InputError


def _item(folder, count=20, name="bottle"):
    return InspectionClass(name, tuple(folder / f"{index:03}.png" for index in range(count)), ())


def test_draws_are_the_same_everywhere():
    # Numbers from the first run: they may change only together with a note that results changed.
    assert [path.stem for path in draw_support(_item(Path("/one")), 4, 0)] == ["010", "016", "018", "009"]
    assert [path.stem for path in draw_support(_item(Path("/one")), 4, 1)] == ["009", "013", "003", "010"]


def test_draws_depend_on_class_and_seed_alone(tmp_path):
    item = _item(tmp_path)
    shuffled = list(item.normal)
    random.Random(0).shuffle(shuffled)
    other = InspectionClass("bottle", tuple(shuffled), ())
    draws = {}
    for seed in range(5):
        four = draw_support(item, 4, seed)
        assert len(set(four)) == 4
        assert draw_support(other, 4, seed) == four
        assert draw_support(item, 2, seed) == four[:2]
        assert [path.name for path in draw_support(_item(Path("/elsewhere")), 4, seed)] == [p.name for p in four]
        draws[four] = seed
    assert len(draws) == 5
    assert draw_support(_item(tmp_path, name="cable"), 4, 0) not in draws
    counts = np.zeros(20)
    for seed in range(400):
        for path in draw_support(item, 4, seed):
            counts[int(path.stem)] += 1
    # Each image is drawn Binomial(400, 1/5) times: 80, standard deviation 8.
    assert np.abs(counts - 80).max() < 40


def test_draws_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match=r'"bottle" has 20 normal images in .*, but 21 were asked for') as error:
        draw_support(_item(tmp_path), 21, 0)
    sentence(error)
    with pytest.raises(InputError, match="at least 1"):
        draw_support(_item(tmp_path), 0, 0)
    assert sorted(draw_support(_item(tmp_path), 20, 3)) == sorted(_item(tmp_path).normal)


@pytest.mark.parametrize("place", ["fewshot/2-shot.txt", "fix_few_path/fix_2-shot.txt", "fix_2-shot.txt"])
def test_published_lists_of_support_images_come_first(tmp_path, place):
    for name in ("fryum", "pipe_fryum"):
        tree(tmp_path / name, MVTEC)
        tree(tmp_path / name, "train/good/002.png train/good/003.png")
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    # Another suffix, as in published lists that were made after conversion; and a class whose name holds another's.
    path.write_text(
        "visa/fryum/train/good/003.bmp\n\nvisa/pipe_fryum/train/good/000.bmp\r\nvisa/fryum/train/good/001.bmp"
    )
    path.with_name(path.name.replace("2-shot", "1-shot")).write_text("fryum/train/good/002.png\n")
    with pytest.raises(InputError, match=r'2-shot\.txt lists 1 images of class "pipe_fryum", its name says 2'):
        read_dataset(tmp_path)
    with path.open("a") as file:
        file.write("\nvisa/pipe_fryum/train/good/002.bmp\n")
    fryum, pipe = read_dataset(tmp_path)
    assert [file.stem for file in draw_support(fryum, 2, 0)] == ["003", "001"]
    assert [file.stem for file in draw_support(fryum, 1, 0)] == ["002"]
    assert [file.stem for file in draw_support(pipe, 2, 0)] == ["000", "002"]
    free = InspectionClass(fryum.name, fryum.normal, ())
    assert draw_support(fryum, 2, 1) == draw_support(free, 2, 1)  # further seeds are drawn
    assert draw_support(fryum, 3, 0) == draw_support(free, 3, 0)  # and so is what has no list
    assert read_dataset(tmp_path / "fryum") == [fryum]
    with path.open("a") as file:
        file.write("visa/fryum/train/good/999.bmp\n")
    with pytest.raises(InputError, match=r"2-shot\.txt lists .*999\.bmp, which is not among the images in") as error:
        read_dataset(tmp_path)
    sentence(error)


def test_many_images_are_listed_quickly_and_in_order(tmp_path):
    tree(tmp_path, "train/good/0.png test/good/0.png")
    for index in random.Random(1).sample(range(1, 1500), 1499):
        os.link(tmp_path / "test/good/0.png", tmp_path / f"test/good/{index}.png")
    (item,) = read_dataset(tmp_path)
    assert [int(sample.path.stem) for sample in item.test] == list(range(1500))
