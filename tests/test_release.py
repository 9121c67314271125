"""What people are given: the sdist, the wheel and their metadata, the documentation's pages, the licences."""

import email
import importlib
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import pytest
import yaml
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("app", "dictas", "encoders", "splat")
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
sys.path.insert(0, str(REPOSITORY / "release"))


def backend(call, folder):
    """Call scikit-build-core in `folder`, as pip does; it prints a name last."""
    code = f"import scikit_build_core.build as backend; print(backend.{call})"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The sdist, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    name = backend(f"build_sdist({str(folder)!r})", REPOSITORY)
    with tarfile.open(folder / name) as archive:
        archive.extractall(folder, filter="data")
    return folder / name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(sdist):
    """A wheel of the sdist without its native code, which is compiled in `test_installed_wheel` only."""
    return zipfile.ZipFile(
        sdist.parent / backend(f"build_wheel({str(sdist.parent)!r}, {{'wheel.cmake': 'false'}})", sdist)
    )


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_sdist_has_every_file_of_the_repository(sdist):
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    kept = {name for name in listed.stdout.split("\0") if name and (REPOSITORY / name).is_file()}
    assert kept - files(sdist) == {".ci/run"}


def test_the_sdist_has_nothing_that_was_built_or_borrowed(sdist):
    folders = {part for name in files(sdist) for part in PurePosixPath(name).parts[:-1]}
    assert not folders & {
        ".venv",
        ".git",
        "build",
        "dist",
        "out",
        "shared",
        "__pycache__",
        ".hypothesis",
        ".ruff_cache",
    }
    assert not [name for name in files(sdist) if name.endswith((".so", ".pyc", ".o", "sbom.json"))]


def test_the_wheel_has_all_of_the_packages_and_nothing_else(sdist, wheel):
    installed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert installed == {name for name in files(sdist) if name.split("/")[0] in PACKAGES}
    assert {f"{package}/py.typed" for package in PACKAGES} <= installed
    assert {"app/viewport.js", "dictas/weights/embedded.safetensors", "splat/_native.pyi"} <= installed


def test_the_wheel_has_the_licence_and_the_command(wheel):
    described = {name.partition(".dist-info/")[2]: name for name in wheel.namelist()}
    assert wheel.read(described["licenses/LICENSE"]) == (REPOSITORY / "LICENSE").read_bytes()
    assert "dictsplat=app.cli:main" in wheel.read(described["entry_points.txt"]).decode().replace(" ", "")


def test_metadata(sdist, wheel):
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    said = email.message_from_bytes(wheel.read(name))
    assert said.items() == email.message_from_bytes((sdist / "PKG-INFO").read_bytes()).items()
    assert (said["Name"], said["License-Expression"], said["License-File"]) == ("dictsplat", "Apache-2.0", "LICENSE")
    assert "Typing :: Typed" in said.get_all("Classifier")
    assert not [kind for kind in said.get_all("Classifier") if kind.startswith("License ::")]  # PEP 639: not both
    assert "gaussian splatting" in said["Keywords"]
    assert all(url.partition(", ")[2].startswith("https://") for url in said.get_all("Project-URL"))
    assert said["Description-Content-Type"] == "text/markdown"
    assert said.get_payload().lstrip().startswith("# dictsplat")

    needed = {Requirement(text).name for text in said.get_all("Requires-Dist") if "extra ==" not in text}
    assert {"torch", "gradio", "gsplat"} <= needed
    assert not needed & {"pytest", "mypy", "mkdocs", "scikit-build-core", "cyclonedx-bom"}


def nav_pages(entries):
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        else:
            for below in entry.values():
                yield from nav_pages([below] if isinstance(below, str) else below)


def test_the_documentation_has_every_page_once():
    named = list(nav_pages(yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())["nav"]))
    assert sorted(named) == sorted(name for name in files(REPOSITORY / "docs") if name.endswith(".md"))


def written():
    outside = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data_scripts/README.md")]
    return [*outside, *sorted((REPOSITORY / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", written(), ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    local = [link for link in links if not re.match(r"[a-z]+:", link)]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_the_reference_names_modules_that_there_are():
    for page in (REPOSITORY / "docs" / "api").glob("*.md"):
        for module in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE):
            path = REPOSITORY / module.replace(".", "/")
            assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), module


def test_the_list_of_licences_has_every_package_that_is_asked_for():
    listed = {name.lower() for name in re.findall(r"^\| (\S+) \|", (REPOSITORY / "docs/licences.md").read_text(), re.M)}
    extras = dict(PROJECT["optional-dependencies"])
    asked = [*PROJECT["dependencies"], *extras.pop("formats"), *extras.pop("ray")]
    assert set(extras) == {"dev", "docs", "release"}  # what a new one asks for has to be listed too
    for name in (Requirement(text).name.lower() for text in asked):
        assert {name, name.replace("-", "_"), name.replace("_", "-")} & listed, f"{name} is missing; run: make sbom"


def test_licences_that_bind_are_called_by_name():
    licences = importlib.import_module("licences")
    said = {
        "gnu": "GNU General Public License v3 or later (GPLv3+)",
        "affero": "AGPL-3.0-only",
        "lesser": "GNU Lesser General Public License v2 (LGPLv2)",
        "research": "CC-BY-NC-4.0",
        "closed": "LicenseRef-NVIDIA-Proprietary",
        "free": "MIT AND Apache-2.0 WITH LLVM-exception",
        "silent": licences.NOT_SAID,
    }
    lines = dict(line.removeprefix("- ").rsplit(": ", 1) for line in licences.notes(said).splitlines())
    assert lines["**GPL or AGPL**"] == "`gnu`, `affero`."
    assert lines["**Not for commercial use**"] == "`research`."
    assert lines["LGPL"] == "`lesser`."
    assert lines["No licence in the package"] == "`silent`."
    assert not [line for line in lines.values() if "`free`" in line]


def test_what_runs_is_told_from_what_only_tests():
    runs = {package.name.lower() for package in importlib.import_module("runtime").runtime()}
    assert {"torch", "starlette", "gsply"} <= runs  # named, needed by what is named, needed by an extra
    assert not runs & {"dictsplat", "pytest", "mypy", "ruff", "pip"}


def test_the_bill_of_materials_keeps_what_runs():
    bill = {
        "metadata": {"component": {"bom-ref": "root"}},
        "components": [{"bom-ref": "a==1", "name": "A_b"}, {"bom-ref": "t==1", "name": "pytest"}],
        "dependencies": [{"ref": "root", "dependsOn": ["a==1", "t==1"]}, {"ref": "a==1"}, {"ref": "t==1"}],
    }
    kept = importlib.import_module("sbom").only(bill, {"a-b"})
    assert kept["components"] == bill["components"][:1]
    assert kept["dependencies"] == [{"ref": "root", "dependsOn": ["a==1"]}, {"ref": "a==1", "dependsOn": []}]
