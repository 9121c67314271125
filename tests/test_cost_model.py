"""The cost model's tables against arithmetic by hand, and which runs it takes seconds from."""

import importlib
import json
import re
import shutil
from pathlib import Path

import pytest

from encoders.errors import InputError


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    return importlib.import_module("cost_tables")


@pytest.fixture
def model(tables):
    return importlib.import_module("cost_model")


def rows(text):
    """Cells of the table's rows, by the number of cores."""
    lines = [[cell.strip() for cell in line.strip("| ").split("|")] for line in re.findall(r"^\| \d.*", text, re.M)]
    return {line[0]: line[1:] for line in lines}


def test_photos_are_counted(tables):
    cost = tables.PhotoCost(
        read=0.01,
        judge=0.08,
        write=0.03,
        whole=0.12,
        block=0.005,
        journal=0.001,
        memory=1500,
        photo=500_000,
        files=2_000_000,
    )
    text = tables.photo_lines(cost)
    found = rows(text)
    # 2 cores / 0.125 s = 16 photos/s; 100,000 of them take 6,250 s; ten million 7.23 days.
    assert found["2"] == ["16", "8", "32", "104.2 min", "7.2 d", "72.3 d"]
    # 8,192 photos/s, but one journal notes 1,000/s and ten of them 10,000/s: 100 s, 20.3 min, 3.4 h.
    assert found["1,024"] == ["8,192", "4,096", "16,384", "100 s", "20.3 min", "3.4 h"]
    # 32,768 photos/s; ten journals 10,000/s: 1,000 s. A hundred are enough.
    assert found["4,096"][3:] == ["100 s", "16.7 min", "50.9 min"]
    # 100 million times 0.125 s; a GPU 20 times as fast takes 4 ms, a core 40 ms to read and write.
    assert "Core-hours for 100,000,000: 3,472." in text
    assert "notes at most 1,000 photos/s" in text
    assert "Estimate for a GPU: 250 photos/s, if 10 cores" in text
    assert "111 GPU-hours" in text


def test_scenes_are_counted(tables):
    text = tables.scene_lines({"rgb": 100.0, "features": 50.0, "language": 30.0}, threads=4)
    found = rows(text)
    assert text.startswith("A scene, 4 threads: rgb 100 s, features 50 s, language 30 s; 180 s.")
    # Two cores are no worker of four threads.
    assert list(found) == ["64", "1,024", "4,096"]
    # 16 workers, 20 scenes an hour each; 100 scenes are 7 rounds, 1,000 63, 10,000 625.
    assert found["64"] == ["320", "21.0 min", "3.1 h", "31.2 h"]
    assert found["4,096"] == ["20,480", "3.0 min", "3.0 min", "30.0 min"]
    assert "Core-hours for 10,000: 2,000." in text
    # 10 + 5 + 10 s on a GPU.
    assert "Estimate for a GPU: 25 s a scene, 69 GPU-hours" in text


def test_seconds_of_stages_are_those_recorded(model, tiny_run):
    record = json.loads((tiny_run / "run.json").read_text())["stages"]
    assert model.recorded_stages(tiny_run) == {
        name: record[name]["seconds"] for name in ("rgb", "features", "language")
    }


@pytest.mark.parametrize(
    ("stage", "inputs"),
    [("rgb", {"digest": "of a file"}), ("features", {"regions": "langsplat"}), ("language", {"imported": "a file"})],
)
def test_stages_brought_from_elsewhere_have_no_seconds(model, spoiled, stage, inputs):
    record = json.loads((spoiled / "run.json").read_text())
    record["stages"][stage]["inputs"] |= inputs
    (spoiled / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=f"The {stage} stage of .* was brought from elsewhere"):
        model.recorded_stages(spoiled)


def test_unfinished_stages_have_no_seconds(model, spoiled):
    shutil.rmtree(spoiled / "features")
    record = json.loads((spoiled / "run.json").read_text())
    record["stages"]["language"]["status"] = "running"
    (spoiled / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"The language stage of .* is not finished"):
        model.recorded_stages(spoiled)


def test_threads_of_the_run_must_be_said(model, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["cost_model.py"])
    with pytest.raises(SystemExit):
        model.main()
    assert "--threads" in capsys.readouterr().err


@pytest.mark.slow
def test_what_is_measured_is_of_its_kind(model, monkeypatch, tmp_path):
    """A moment of the measurements with Ray and with a journal."""
    pytest.importorskip("ray", reason='Ray is not installed (pip install "dictsplat[ray]")')
    monkeypatch.setattr(model, "ROWS", 16)
    monkeypatch.setattr(model, "LISTS", (2, 3))
    seconds, memory = model.measure_journal(tmp_path)
    assert 0 < seconds < 1
    assert memory > 0
    assert sorted(path.name for path in (tmp_path / "noted" / "maps" / "line").iterdir())[0] == "0000000.png"
    assert all(0 < each < 60 for each in model.measure_blocks(tmp_path))
