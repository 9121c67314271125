"""The run folder: what it refuses, who may write to it, and what survives."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from encoders.errors import InputError
from splat import stage as stage_module
from splat.run import SCHEMA_VERSION, Run, file_digest, read_record
from splat.stage import RunningStage


def begun(folder: Path) -> Run:
    with Run.locked(folder) as run:
        run.begin({"scene": "/photos", "scale": 1.0}, "fingerprint")
        return run


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    run.mark("rgb", "done", {"preset": "fast", "scale": 0.25}, 12.5, {"loss": 0.1})
    again = Run.open(tmp_path / "run")
    assert again.is_done("rgb", {"scale": 0.25, "preset": "fast"})
    assert not again.is_done("rgb", {"scale": 0.5, "preset": "fast"})
    assert not again.is_done("features", {})
    stage = again.stage("rgb")
    assert stage is not None
    assert (stage.seconds, stage.stats) == (12.5, {"loss": 0.1})
    content = json.loads((tmp_path / "run" / "run.json").read_text())
    assert content["schema_version"] == SCHEMA_VERSION
    assert content["dataset"] == "fingerprint"
    assert content["config"]["scene"] == "/photos"


def test_an_unfinished_stage_is_not_done(tmp_path: Path) -> None:
    run = begun(tmp_path)
    run.mark("rgb", "running", {}, 3.0)
    assert not Run.open(tmp_path).is_done("rgb", {})
    with pytest.raises(InputError, match=r"rgb stage of .* is not finished; finish it with: .*--resume"):
        Run.open(tmp_path).require("rgb")
    with pytest.raises(InputError, match=r"language stage of .* was not run"):
        Run.open(tmp_path).require("language")


def test_a_finished_stage_whose_file_is_gone_is_named(tmp_path: Path) -> None:
    run = begun(tmp_path)
    run.mark("rgb", "done", {}, 1.0)
    with pytest.raises(InputError, match=r"gaussians\.ply is missing although"):
        Run.open(tmp_path).require("rgb")
    (tmp_path / "gaussians.ply").write_text("x")
    with pytest.raises(InputError, match=r"cameras\.json is missing"):
        Run.open(tmp_path).require("rgb")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is damaged"),
        ('{"schema_version": 1, "dicts', "is damaged"),
        ("[1, 2]", "was not written by dictsplat"),
        ('{"schema_version": "x"}', "was not written by dictsplat"),
        ('{"schema_version": 1}', r"is damaged \(dictsplat_version: Field required\)"),
        (f'{{"schema_version": {SCHEMA_VERSION + 1}, "unheard": 1}}', "newer dictsplat .* upgrade"),
    ],
)
def test_a_record_that_cannot_be_read_is_refused_and_kept(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(content)
    for read in (lambda: read_record(path), lambda: Run.open(tmp_path), lambda: begun(tmp_path)):
        with pytest.raises(InputError, match=says) as caught:
            read()
        assert str(path) in str(caught.value)
    assert path.read_text() == content


def test_folders_that_are_no_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no run folder .*missing"):
        Run.open(tmp_path / "missing")
    with pytest.raises(InputError, match="is not a run folder"):
        Run.open(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file, not a folder"), Run.locked(tmp_path / "file"):
        pass


def test_codes_belong_to_the_gaussians_they_were_fitted_to(tmp_path: Path) -> None:
    run = begun(tmp_path)
    run.gaussians_path.write_bytes(b"new")
    new = file_digest(run.gaussians_path)
    run.check_language()  # nothing is known
    run.mark("rgb", "done", {}, 1.0, {"digest": "old"})
    run.mark("language", "done", {"gaussians": "old"}, 1.0)
    run.check_language()
    run.mark("language", "done", {"gaussians": new}, 1.0)
    run.check_language()  # the file was replaced, and the codes are the new file's
    run.mark("rgb", "done", {}, 1.0, {"digest": new})
    run.mark("language", "done", {"gaussians": "old"}, 1.0)
    with pytest.raises(InputError, match=r"other Gaussians than .*; run the language stage again with"):
        run.check_language()


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    hold = (
        "import sys, pathlib; from splat.run import Run\n"
        "with Run.locked(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(InputError, match="Another dictsplat process is writing to"),
            Run.locked(tmp_path),
        ):
            pass
        holder.kill()
        holder.wait()
        # The kernel gives the lock back even though nobody cleaned up.
        with Run.locked(tmp_path) as run:
            assert run.folder == tmp_path


def test_the_lock_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Run.locked(tmp_path):
        raise ZeroDivisionError
    with Run.locked(tmp_path):
        pass


def test_stage_time_adds_up_over_interruptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(stage_module.time, "monotonic", lambda: float(next(clock)))
    run = begun(tmp_path)

    def interrupt(_done: int, _total: int, _message: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), RunningStage(run, "rgb", {"a": 1}, interrupt) as step:
        step.report(1, 10, "")
    interrupted = Run.open(tmp_path).stage("rgb")
    assert interrupted is not None
    assert interrupted.status == "running"
    assert interrupted.seconds >= 20.0
    with RunningStage(run, "rgb", {"a": 1}, lambda *_: None):
        pass
    finished = Run.open(tmp_path).stage("rgb")
    assert finished is not None
    assert finished.status == "done"
    assert finished.seconds == interrupted.seconds + 20.0
    # Other inputs are another piece of work: its time starts at nothing.
    with RunningStage(run, "rgb", {"a": 2}, lambda *_: None):
        pass
    other = Run.open(tmp_path).stage("rgb")
    assert other is not None
    assert other.seconds == 20.0


def test_peak_memory_never_shrinks(tmp_path: Path) -> None:
    run = begun(tmp_path)
    assert run.record is not None
    assert run.record.peak_rss_mb > 10
    run.record.peak_rss_mb = 1e6
    run.save()
    with Run.locked(tmp_path) as again:
        again.begin({}, "fingerprint")
    reread = Run.open(tmp_path).record
    assert reread is not None
    assert reread.peak_rss_mb == 1e6


def test_digest_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert file_digest(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
