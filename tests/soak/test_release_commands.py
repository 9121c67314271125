"""What is run for a release: `make wheel`, `make docs` and `make sbom`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]

pytestmark = [pytest.mark.soak, pytest.mark.slow]


def make(target: str) -> None:
    done = subprocess.run(["make", target], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_runs_on_any_current_linux() -> None:
    for old in (REPOSITORY / "dist").glob("dictsplat-*"):
        old.unlink()
    make("wheel")
    names = sorted(path.name for path in (REPOSITORY / "dist").iterdir())
    assert len(names) == 2
    assert "-manylinux_2_" in names[0]
    assert names[0].endswith("_x86_64.whl")
    assert names[1].endswith(".tar.gz")


def test_the_pages_are_made_without_a_broken_link() -> None:
    make("docs")
    site = REPOSITORY / "build" / "site"
    written = {
        path.relative_to(REPOSITORY / "docs").with_suffix(".html") for path in (REPOSITORY / "docs").rglob("*.md")
    }
    assert written <= {path.relative_to(site) for path in site.rglob("*.html")}
    assert "OnlineDictionary" in (site / "api" / "splat.html").read_text()
    theme = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text().split("\nhooks:")[0])["theme"]["name"]
    assert theme == "material"


def test_the_bill_of_materials_names_what_is_asked_for_and_its_licences() -> None:
    page = REPOSITORY / "docs" / "licences.md"
    before = page.read_text()
    make("sbom")
    assert page.read_text() == before, "docs/licences.md is of another environment; look at it and commit it"
    bill = json.loads((REPOSITORY / "release" / "sbom.json").read_text())
    parts = {part["name"].lower().replace("_", "-"): part for part in bill["components"]}
    assert bill["bomFormat"] == "CycloneDX"
    assert {"torch", "gradio", "gsplat", "pycolmap", "safetensors", "plyfile"} <= set(parts)
    assert not {"pytest", "ruff", "mypy", "mkdocs"} & set(parts)
    asked = subprocess.run([sys.executable, "-m", "pip", "show", "torch"], capture_output=True, text=True, check=True)
    assert f"Version: {parts['torch']['version']}" in asked.stdout
    names = {name: str(part["licenses"]) for name, part in parts.items()}
    assert "GPL" in names["plyfile"]
    assert "BSD" in names["torch"]
    assert "Apache" in names["gsplat"]
