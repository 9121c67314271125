"""The programs in examples/, run as they are and held against the command line's answers."""

import json
import re
import runpy
from pathlib import Path

import cv2
import driver
import numpy as np
import pytest
from browser import Site
from safetensors import safe_open
from safetensors.numpy import save_file
from typer.testing import CliRunner

from app.cli import app
from dictas.procedural import ProceduralClass
from splat.codes import LanguageField

EXAMPLES = Path(__file__).parent.parent / "examples"
LONGEST = 30
"""Lines of an example; it is to be taken in at a glance."""


def run(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    monkeypatch.setattr("sys.argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return capsys.readouterr().out.splitlines()


def dictsplat(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_examples_are_short_and_say_how_to_run_them() -> None:
    programs = sorted(EXAMPLES.glob("*.py"))
    assert len(programs) == 4
    for program in programs:
        text = program.read_text()
        assert f"python examples/{program.name}" in text.splitlines()[0]
        assert len(text.splitlines()) <= LONGEST


def test_ask_a_scene(tiny_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    driver.install(monkeypatch.setattr)
    *views, last = run("ask_a_scene.py", monkeypatch, capsys, str(tiny_run), "red")
    assert [line.split(":")[0] for line in views] == ["test_000", "test_001"]
    for line in views:
        (answer,) = json.loads(dictsplat("query", str(tiny_run), "red", "--view", line.split(":")[0], "--json"))[
            "results"
        ]
        numbers = [float(number) for number in re.findall(r"[\d.]+", line.split(":", 1)[1])]
        assert numbers == [round(answer["confidence"], 2), *answer["point"], answer["pixels"]]
    selected = dictsplat("select", str(tiny_run), "red", "--out", str(tiny_run.parent / "red.ply"))
    assert last.split(" of ")[0].replace(",", "") == selected.split(" of ")[0].replace(",", "")


def test_read_language_field(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    field = LanguageField.load(tiny_run / "language.safetensors")
    first, *levels = run("read_language_field.py", monkeypatch, capsys, str(tiny_run / "language.safetensors"))
    assert first == f"{len(field):,} Gaussians, colour, levels subpart, part, whole"
    lengths = field.decode(slice(1)).norm(dim=2)[0]
    assert len(levels) == field.levels == 3
    for level, line in enumerate(levels):
        used = set(field.indices[:, level][field.weights[:, level] != 0].tolist())
        numbers = [float(number) for number in re.findall(r"[\d.]+", line)]
        assert numbers[:3] == [level, len(used), field.atoms.shape[1]]
        assert numbers[3] == pytest.approx(float(lengths[level]), abs=2e-3)


@pytest.mark.parametrize(
    ("about", "sentence"), [({"format": "other"}, "not a language field"), ({"version": "2"}, "a version that")]
)
def test_another_language_field_is_refused(
    about: dict[str, str],
    sentence: str,
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with safe_open(str(tiny_run / "language.safetensors"), framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        save_file(tensors, tmp_path / "other.safetensors", (file.metadata() or {}) | about)
    with pytest.raises(AssertionError, match=sentence):
        run("read_language_field.py", monkeypatch, capsys, str(tmp_path / "other.safetensors"))


def test_judge_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    product, rng = ProceduralClass("blister", 3), np.random.default_rng(5)
    for name in ("good/1.png", "good/2.png", "judge/fine.png", "judge/burnt.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        photo, _ = product.sample(rng, (224, 224))
        if "burnt" in name:
            cv2.circle(photo, (112, 112), 24, (20, 10, 5), -1)
        cv2.imwrite(str(tmp_path / name), photo[..., ::-1])
    folders = [str(tmp_path / name) for name in ("good", "judge", "out")]
    lines = run("judge_parts.py", monkeypatch, capsys, *folders)
    assert [line.split(":")[0] for line in lines] == ["burnt.png", "fine.png"]
    assert "burnt.png: anomalous" in lines[0]
    peak = np.array([int(number) for number in re.findall(r"\((\d+), (\d+)\)", lines[0])[0]])
    assert np.linalg.norm(peak - 112) < 32
    assert (tmp_path / "out" / "results.csv").read_text().count("\n") == 3


def test_ask_the_app(site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = run("ask_the_app.py", monkeypatch, capsys, site.address, "cat")
    told = json.loads(dictsplat("query", str(site.painted / "run"), "cat", "--view", "test_000", "--json"))
    (answer,) = told["results"]
    told_numbers = [round(answer["confidence"], 3), *answer["point"], answer["pixels"]]
    assert [float(number) for number in re.findall(r"[\d.]+", line.split("drawn")[0])] == told_numbers
    assert cv2.imread(line.rsplit(" ", 1)[1]).shape == (answer["height"], answer["width"], 3)
