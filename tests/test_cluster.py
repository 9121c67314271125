"""`--cluster`: on two workers, one of which is killed, results are those of one process; and lists of scenes."""

import contextlib
import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import inspection
import psutil
import pytest
from inspection import ColourDistance, backbone, save, texture

from app.cluster import Cluster
from app.cluster_list import Failure, read_jobs, status
from dictas.images import BLOCK, Loaded, batches, block_size
from dictas.journal import NAME as JOURNAL
from dictas.predict import PredictOptions, predict
from encoders.errors import InputError

TESTS = Path(__file__).parent
STORE_BYTES = 100 * 2**20
PHOTOS = 3 * BLOCK + 10


def run_small_stage(*arguments):
    """`run_stage` as a worker of the tests runs it."""
    import driver

    from app import cluster_train

    driver.install()
    return cluster_train.run_stage(*arguments)


def die(*_):
    """A stage that no worker survives."""
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def cluster():
    """Two workers on this machine; commands with ``--cluster auto`` find them."""
    ray = pytest.importorskip("ray", reason='Ray is not installed (pip install "dictsplat[ray]")')
    before = set(psutil.Process().children(recursive=True))
    environment = pytest.MonkeyPatch()
    environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
    environment.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep))
    ray.init(
        num_cpus=2,
        num_gpus=0,
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()
    environment.undo()
    _, left = psutil.wait_procs(set(psutil.Process().children(recursive=True)) - before, timeout=20)
    assert not left


@pytest.fixture
def killed():
    """Kills one process that Ray calls ``name``, as soon as ``ready()``; gives a list that its pid is put into."""
    end, threads = threading.Event(), []

    def start(name, ready):
        pids = []

        def watch():
            while not end.is_set() and not pids:
                if ready():
                    for process in psutil.Process().children(recursive=True):
                        with contextlib.suppress(psutil.Error):
                            if not pids and name in " ".join(process.cmdline()):
                                process.kill()
                                pids.append(process.pid)
                time.sleep(0.02)

        threads.append(threading.Thread(target=watch))
        threads[0].start()
        return pids

    yield start
    end.set()
    for thread in threads:
        thread.join()


def comparable(path):
    """A file's content without what differs from run to run: seconds, memory, the order of a header's keys."""
    raw = path.read_bytes()
    if path.name == "metrics.json":
        return {key: value for key, value in json.loads(raw).items() if key not in ("seconds", "peak_rss_mb")}
    if path.suffix == ".safetensors":
        end = 8 + int.from_bytes(raw[:8], "little")
        return json.loads(raw[8:end]), raw[end:]
    return raw


def content(folder, *kinds):
    paths = [path for kind in kinds for path in [folder / kind, *(folder / kind).rglob("*")] if path.is_file()]
    return {str(path.relative_to(folder)): comparable(path) for path in paths}


# --- photos ------------------------------------------------------------------------------------

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


# --- scenes ------------------------------------------------------------------------------------

TRAINED = ("gaussians.ply", "language.safetensors", "features", "cameras.json", "metrics.json")


def scene_list(folder, *lines):
    (folder / "list.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder / "list.txt"


def train_command(file, out, *options):
    return (
        "train",
        "--scenes",
        file,
        "--out",
        out,
        "--preset",
        "fast",
        "--encoder",
        "colour",
        "--dictionary",
        "kmeans",
        "--device",
        "cpu",
        *options,
    )


@pytest.mark.slow
def test_a_stage_of_a_killed_worker_is_continued_by_another(
    cluster, dictsplat, tiny_scene, tiny_run, tmp_path, killed, monkeypatch
):
    monkeypatch.setattr("app.cluster_train.run_stage", run_small_stage)
    file = scene_list(tmp_path, f"{tiny_scene}\ta", "missing", f"{tiny_scene}\tb")
    pids = killed("run_small_stage", lambda: any(tmp_path.glob("out/*/checkpoints/rgb/*")))
    code, out, err = dictsplat(*train_command(file, tmp_path / "out", "--cluster", "auto"))
    assert pids
    assert "2 of 3 scenes are trained" in out
    assert err == f"missing (rgb): There is no scene at {tmp_path / 'missing'}; check the path.\n"
    assert code == 2
    for name in "ab":
        assert content(tmp_path / "out" / name, *TRAINED) == content(tiny_run, *TRAINED)
        assert (tmp_path / "out" / name / "report.html").is_file()
    records = [tmp_path / "out" / name / "run.json" for name in "ab"]
    before = [path.stat().st_mtime_ns for path in records]
    assert dictsplat(*train_command(file, tmp_path / "out", "--cluster", "auto"))[0] == 2
    assert [path.stat().st_mtime_ns for path in records] == before


def test_a_stage_whose_workers_all_die_is_told(cluster, dictsplat, tiny_scene, tmp_path, monkeypatch):
    monkeypatch.setattr("app.cluster_train.run_stage", die)
    monkeypatch.setattr("app.cluster_train.RETRIES", 1)
    file = scene_list(tmp_path, tiny_scene)
    code, _, err = dictsplat(*train_command(file, tmp_path / "out", "--cluster", "auto"))
    assert err == "tiny (rgb): The worker died 2 times; give the same command again to continue.\n"
    assert code == 1


def test_a_list_is_trained_here_without_ray(dictsplat, tiny_scene, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    shutil.copytree(tiny_run, tmp_path / "out" / "done")
    (tmp_path / "out" / "broken").write_text("a file, not a folder")
    lines = (f"{tiny_scene}\tdone", "# nothing", "", f"{tiny_scene}\tbroken", f"{tiny_scene}\tnew")
    file, recorded = scene_list(tmp_path, *lines), (tmp_path / "out/done/run.json").read_bytes()
    code, out, err = dictsplat(*train_command(file, tmp_path / "out"))
    assert (code, err.count("\n")) == (2, 1), err
    assert err.startswith("broken (training): ")
    assert "2 of 3 scenes are trained" in out
    assert (tmp_path / "out/done/run.json").read_bytes() == recorded
    assert content(tmp_path / "out" / "new", *TRAINED) == content(tiny_run, *TRAINED)


def test_scores_of_replaced_results_do_not_count_as_done(tiny_scene, tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "out" / "tiny")
    options = {"preset": "fast", "encoder": "colour", "dictionary": "kmeans"}
    file = scene_list(tmp_path, tiny_scene)
    (job,) = read_jobs(file, tmp_path / "out", options)
    assert job.is_done()
    (other,) = read_jobs(file, tmp_path / "out", options | {"atoms": 8})
    assert not other.is_done()
    later = job.folder.joinpath("metrics.json").stat().st_mtime_ns + 1
    os.utime(job.folder / "language.safetensors", ns=(later, later))
    assert not job.is_done()


def test_a_fault_counts_more_than_bad_input():
    fault, bad = Failure("a", "rgb", "", False), Failure("b", "rgb", "", True)
    assert [status(found) for found in ([], [bad], [bad, fault])] == [0, 2, 1]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "There is no scene in .*list.txt"),
        (["a/room", "b/room"], "Lines 1 and 2 of .* have the same name 'room'"),
        (["a\t../b"], r"Line 1 of .* has the name '\.\./b'"),
        (["/"], "Line 1 of .* has the name ''"),
    ],
)
def test_lists_that_cannot_be_used(refused, tmp_path, lines, says):
    assert re.search(says, refused(*train_command(scene_list(tmp_path, *lines), tmp_path / "out")))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["photos", "--scenes", "list.txt"], "both given"),
        (["--scenes", "list.txt", "--resume"], "give the same command again"),
        (["--scenes", "list.txt", "--gaussians", "a.ply"], "--gaussians belongs to one scene"),
        (["--scenes", "nowhere.txt"], "nowhere.txt cannot be read"),
        (["photos", "--cluster", "local"], "give that as --scenes"),
    ],
)
def test_options_that_do_not_go_together(refused, tmp_path, options, says):
    assert says in refused("train", "--out", tmp_path / "out", *options)


def test_clusters_that_cannot_be_used(refused, tmp_path, monkeypatch):
    file = scene_list(tmp_path, "scene")
    assert "--cluster is 'moon'" in refused(*train_command(file, tmp_path / "out", "--cluster", "moon"))
    monkeypatch.setitem(sys.modules, "ray", None)
    assert 'pip install "dictsplat[ray]"' in refused(*train_command(file, tmp_path / "out", "--cluster", "local"))


def test_workers_share_a_cluster():
    cpu, gpu = Cluster(cpus=64, gpus=0, node_cpus=16), Cluster(cpus=64, gpus=8, node_cpus=64)
    assert (cpu.device("auto"), gpu.device("auto"), gpu.device("cpu")) == ("cpu", "cuda", "cpu")
    assert (cpu.share("cpu", 4), cpu.most(0, 4)) == ((0, 4), 16)
    assert cpu.share("cpu", 64) == (0, 16)
    assert (gpu.share("cuda", 64), gpu.most(1, 8)) == ((1, 8), 8)
    with pytest.raises(InputError, match="has no GPU"):
        cpu.device("cuda")
    with pytest.raises(InputError, match="Ray picks a free GPU"):
        gpu.device("cuda:1")
