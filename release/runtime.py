"""What is installed with dictsplat: everything it needs to run, and everything these need."""

import tomllib
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
EXTRAS = ("formats", "ray")
"""What people can add who use dictsplat; the other extras are for those who work on it."""


def runtime() -> list[Distribution]:
    """Distributions of this environment that dictsplat needs, with all that its users can add to it, by name.

    What tests, documentation and releases need is left out, though it may be installed here.
    """
    project: dict[str, Any] = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    found: dict[str, Distribution] = {}
    seen = set()
    added = [need for extra in EXTRAS for need in project["optional-dependencies"][extra]]
    waiting = _needs([*project["dependencies"], *added], frozenset())
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            found[name] = distribution(name)
        except PackageNotFoundError as error:
            raise SystemExit(f"{name} is not installed here; run: make setup") from error
        waiting += _needs(found[name].requires or [], extras)
    return [found[name] for name in sorted(found)]


def _needs(requirements: list[str], extras: frozenset[str]) -> list[tuple[str, frozenset[str]]]:
    return [
        (str(canonicalize_name(need.name)), frozenset(need.extras))
        for need in map(Requirement, requirements)
        if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras))
    ]
