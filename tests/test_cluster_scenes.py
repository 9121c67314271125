"""`train --scenes`: lists of scenes, trained here or on two workers, some of which are killed."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
from clusters import TESTS, content

from app.cluster import Cluster, Node
from app.cluster_list import Failure, Job, read_jobs, status, train_each
from encoders.errors import InputError
from splat.train_config import TrainConfig


def run_small_stage(*arguments):
    """`run_stage` as a worker of the tests runs it."""
    import driver

    from app import cluster_train

    driver.install()
    return cluster_train.run_stage(*arguments)


def die(*_):
    """A stage that no worker survives."""
    os.kill(os.getpid(), signal.SIGKILL)


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
    # A copy may give files any times.
    for number, path in enumerate(sorted(job.folder.glob("*.*"))):
        os.utime(path, (1e9 - number, 1e9 - number))
    assert job.is_done()
    # Trained again with other atoms by a clock that was set back, and killed before it was scored.
    record = json.loads((job.folder / "run.json").read_text())
    record["config"]["atoms"] = record["stages"]["language"]["inputs"]["atoms"] = 8
    (job.folder / "run.json").write_text(json.dumps(record))
    os.utime(job.folder / "language.safetensors", (1e8, 1e8))
    assert not other.is_done()


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_text("{"), lambda path: None])
def test_scores_that_do_not_say_what_they_are_of_do_not_count(tiny_scene, spoiled, spoil):
    config = TrainConfig(tiny_scene, preset="fast", encoder="colour", dictionary="kmeans")
    job = Job("tiny", spoiled, config)
    metrics = json.loads((spoiled / "metrics.json").read_text())
    del metrics["scored"]
    (spoiled / "metrics.json").write_text(json.dumps(metrics))
    spoil(spoiled / "metrics.json")
    assert not job.is_done()


def test_other_gaussians_than_were_scored_do_not_count_as_done(tiny_scene, spoiled):
    config = TrainConfig(tiny_scene, preset="fast", encoder="colour", dictionary="kmeans")
    assert Job("tiny", spoiled, config).is_done()
    with (spoiled / "gaussians.ply").open("ab") as file:
        file.write(b"more")
    assert not Job("tiny", spoiled, config).is_done()


def test_a_failure_is_told_before_the_next_scene_begins(tmp_path, monkeypatch):
    events = []

    def train(folder, *_):
        events.append(f"train {folder.name}")
        if folder.name == "a":
            raise InputError("No.")

    monkeypatch.setattr("app.cluster_list.train", train)
    jobs = read_jobs(scene_list(tmp_path, "a", "b"), tmp_path / "out", {})
    failures = train_each(jobs, lambda failed: events.append(f"told {failed.name}"))
    assert events == ["train a", "told a", "train b"]
    assert failures == [Failure("a", "training", "No.", True)]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--atoms", 1], "--atoms is 1"),
        (["--nonzeros", 99], "--nonzeros is 99"),
        (["--encoder", "moon"], "moon"),
        (["--regions", "moon"], "moon"),
        (["--strategy", "mcmc"], "mcmc"),
        (["--scale", 2], "--scale is 2"),
    ],
)
@pytest.mark.parametrize("where", [[], ["--cluster", "auto"]])
def test_what_would_fail_each_scene_is_told_once_and_first(
    refused, tiny_scene, tmp_path, monkeypatch, options, says, where
):
    if where:
        monkeypatch.setattr("app.cluster.connected", lambda _: contextlib.nullcontext(Cluster((Node(2),))))
    file = scene_list(tmp_path, f"{tiny_scene}\ta", f"{tiny_scene}\tb")
    assert says in refused(*train_command(file, tmp_path / "out", *options, *where))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_stage_for_which_memory_does_not_suffice_is_given_up(tiny_scene, tmp_path):
    """Ray's monitor kills every task, since for it a machine is full at 0 %; by itself Ray would go on for ever."""
    pytest.importorskip("ray", reason='Ray is not installed (pip install "dictsplat[ray]")')
    file = scene_list(tmp_path, tiny_scene)
    environment = os.environ | {"RAY_memory_usage_threshold": "0", "RAY_memory_monitor_refresh_ms": "20"}
    command = train_command(file, tmp_path / "out", "--cluster", "local")
    ended = subprocess.run(
        [sys.executable, TESTS / "driver.py", *map(str, command)],
        env=environment,
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=240,
    )
    sentence = (
        "tiny (rgb): A machine of the cluster ran out of memory, at the last of 4 attempts; use a smaller --scale"
    )
    assert ended.stderr.startswith(sentence), ended.stderr
    assert ended.stderr.count("\n") == 1
    assert "raylet" not in ended.stdout
    assert ended.returncode == 2


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
