"""Benchmarks that take minutes, run for a moment: they still fit the program that they measure."""

import importlib
import re
import sys
from pathlib import Path

from inspection import ColourDistance, backbone


def test_false_alarms_are_counted(monkeypatch, capsys):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    benchmark = importlib.import_module("false_alarms")
    monkeypatch.setattr(benchmark, "load_detector", lambda _checkpoint: (backbone(), ColourDistance()))
    monkeypatch.setattr(benchmark, "SIDE", 64)
    monkeypatch.setattr(sys, "argv", ["false_alarms.py", "--classes", "1"])
    benchmark.main()
    printed = capsys.readouterr().out
    rows = re.findall(r"^\| (\d) \| (\d)% \| (\d+\.\d)% \|$", printed, re.MULTILINE)
    assert [row[:2] for row in rows] == [(shots, rate) for shots in "124" for rate in "15"]
    assert all(0 <= float(row[2]) <= 100 for row in rows)
    assert "spread of log scores: median" in printed
    assert "nan" not in printed
