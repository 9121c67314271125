"""`anomaly predict --cluster`: on two workers, some of which are killed, results are those of one process."""

import json
import os
import shutil
import signal
import sys
import types
from itertools import pairwise

import inspection
import pytest
from clusters import content
from inspection import Blocks, ColourDistance, backbone, save, texture

from dictas.detector import Backbone
from dictas.images import BLOCK, Loaded, batches, block_size
from dictas.journal import NAME as JOURNAL
from dictas.predict import PredictOptions, predict
from encoders.errors import InputError

PHOTOS = 3 * BLOCK + 10
JUDGED = ("results.csv", "maps", "masks", "overlays", "thumbnails")


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A support and a query folder: photos of two sizes, some with a red spot, one that cannot be read."""
    monkeypatch.setitem(sys.modules, "dictas.checkpoint", None)
    inspection.install()
    for number in range(3):
        save(tmp_path / "support" / f"{number}.png", texture(number))
    for number in range(PHOTOS):
        spot = (10, 20) if number % 20 == 5 else None
        save(tmp_path / "query" / f"{number}.png", texture(100 + number, 64, 96 if 30 < number < 50 else 64, spot))
    (tmp_path / "query" / "70.png").write_bytes(b"no picture")
    return tmp_path


def command(photos, out, *options):
    where = ("--support", photos / "support", "--query", photos / "query", "--out", photos / out)
    return ("anomaly", "predict", *where, "--threshold", 0.1, "--batch", 4, "--workers", 1, *options)


def groups(out):
    return [json.loads(line)["rows"] for line in (out / JOURNAL).read_text().splitlines()[2:]]


@pytest.mark.slow
def test_photos_of_a_killed_worker_are_judged_by_another(cluster, dictsplat, photos, killed):
    pids = killed("MapWorker", lambda: any((photos / "many").glob("maps/*.png")))
    code, out, err = dictsplat(*command(photos, "many", "--cluster", "auto"))
    assert pids
    assert code == 1, err
    assert err.count("\n") == 1, err
    assert f"of {PHOTOS - 1} photos are anomalous" in out
    assert dictsplat(*command(photos, "one"))[0] == 1
    assert content(photos / "many", *JUDGED) == content(photos / "one", *JUDGED)
    assert groups(photos / "many") == groups(photos / "one")


def test_the_journal_is_continued_by_whoever_comes(cluster, dictsplat, photos, monkeypatch):
    """A stop after some groups of a block, then workers, whose blocks begin in the middle of one, as over ray://."""
    monkeypatch.setattr("ray.util.client.ray.is_connected", lambda: True)
    assert dictsplat(*command(photos, "one"))[0] == 1
    shutil.copytree(photos / "one", photos / "many")
    lines = (photos / "many" / JOURNAL).read_bytes().splitlines(keepends=True)
    (photos / "many" / JOURNAL).write_bytes(b"".join(lines[:20]) + lines[20][:30])
    for path in ("results.csv", "maps/100.png"):
        (photos / "many" / path).unlink()
    assert dictsplat(*command(photos, "many", "--cluster", "auto"))[0] == 1
    assert content(photos / "many", *JUDGED) == content(photos / "one", *JUDGED)
    assert groups(photos / "many") == groups(photos / "one")


def test_what_a_worker_cannot_do_is_told_in_a_sentence(cluster, photos, monkeypatch):
    from app.cluster_predict import judging

    def other_weights(device):
        return backbone(), ColourDistance(gain=0.5 if device == "cpu" else 1.0)

    options = PredictOptions(workers=0, threshold=0.1)
    folders = (photos / "support", photos / "query", photos / "many")
    with (
        judging("auto", "cpu", other_weights) as judge_all,
        pytest.raises(InputError, match=r"^A worker has other weights .* --checkpoint\.$"),
    ):
        predict(backbone(), ColourDistance(), *folders, options, judge_with=judge_all)


class Deadly(Blocks):
    """No worker survives a white photo."""

    def __init__(self, deaths):
        self.deaths = deaths

    def patch_tokens(self, images, layers):
        if (images == 255).all(axis=(1, 2, 3)).any():
            with self.deaths.open("a") as file:
                file.write("died\n")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().patch_tokens(images, layers)


@pytest.mark.slow
def test_photos_that_no_worker_survives_are_told(cluster, dictsplat, photos, monkeypatch):
    monkeypatch.setattr("dictas.cluster.ATTEMPTS", 2)
    deaths = photos / "deaths"

    def load_deadly(*_, **__):
        return Backbone(Deadly(deaths), (1,), inspection.SIDE), ColourDistance()

    sys.modules["dictas.checkpoint"].load_detector = load_deadly
    save(photos / "query" / f"{BLOCK + 9}.png", texture(0) * 0 + 255)
    code, _, err = dictsplat(*command(photos, "many", "--cluster", "auto"))
    assert err.startswith(f"Workers died 2 times at the photos {BLOCK}.png to {2 * BLOCK - 1}.png; take out those"), err
    assert (code, err.count("\n")) == (2, 1)
    assert deaths.read_text() == "died\n" * 2
    assert [row["path"] for group in groups(photos / "many") for row in group] == [f"{n}.png" for n in range(BLOCK)]


class Noted:
    """Notes in a file that it was unpickled; then it is what loads a detector."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return noted, (self.file,)


def noted(file):
    with file.open("a") as lines:
        lines.write("unpickled\n")
    return load


def load():
    return backbone(), ColourDistance()


def test_what_blocks_have_in_common_travels_once(cluster, photos):
    from dictas.cluster import Workers

    options = PredictOptions(workers=1, threshold=0.1, batch=4)
    workers = Workers(Noted(photos / "unpickled"), most=1, threads=1)
    folders = (photos / "support", photos / "query", photos / "many")
    predict(backbone(), ColourDistance(), *folders, options, judge_with=workers.judge_all)
    assert PHOTOS > 2 * BLOCK
    assert (photos / "unpickled").read_text() == "unpickled\n"


def test_names_that_are_no_text_reach_the_workers(cluster, dictsplat, photos):
    os.rename(photos / "query" / "7.png", os.fsencode(photos / "query") + b"/\xff7.png")
    assert dictsplat(*command(photos, "many", "--cluster", "auto"))[0] == 1
    assert dictsplat(*command(photos, "one"))[0] == 1
    assert content(photos / "many", *JUDGED) == content(photos / "one", *JUDGED)


def test_workers_that_cannot_start_are_told_in_a_sentence(cluster, refused, photos, monkeypatch):
    from dictas import cluster as workers

    ghost = types.ModuleType("ghost")
    ghost.Worker = type("Worker", (workers._Worker,), {"__module__": "ghost"})
    monkeypatch.setitem(sys.modules, "ghost", ghost)
    monkeypatch.setattr(workers, "_Worker", ghost.Worker)
    err = refused(*command(photos, "many", "--cluster", "auto"))
    assert "cannot be used (ModuleNotFoundError: No module named 'ghost'); see that they have the same dictsplat" in err


def test_a_gpu_is_looked_for_in_the_cluster_only(cluster, refused, photos):
    err = refused(*command(photos, "many", "--cluster", "auto", "--device", "cuda"))
    assert "no machine of the cluster has a GPU" in err


@pytest.mark.parametrize(("size", "start"), [(4, 0), (4, 12), (10, 0), (100, 0), (1, 3)])
def test_no_group_reaches_over_a_block(size, start):
    block = block_size(size)
    image = texture(0)
    loaded = [Loaded(index, None if index == block - 1 else image, image) for index in range(start, 3 * block)]
    whole = [[photo.index for photo in group] for group in batches(loaded, size)]
    ends = [block, 2 * block, 3 * block]
    parts = [[one for one in loaded if first <= one.index < last] for first, last in pairwise([start, *ends])]
    assert [[photo.index for photo in group] for part in parts for group in batches(part, size)] == whole
    assert max(map(len, whole)) == size
