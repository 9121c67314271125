"""A CycloneDX bill of materials of what runs: python release/sbom.py release/sbom.json

cyclonedx-py lists the whole environment; what is only there for tests and releases is taken out again. Where it finds
no licence, that of `licences.py` is put in.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from licences import licence
from packaging.utils import canonicalize_name
from runtime import PYPROJECT, runtime


def only(bill: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The bill with the components of these names, and what is said of how they depend on each other."""
    components = [part for part in bill["components"] if str(canonicalize_name(part["name"])) in names]
    kept = {part["bom-ref"] for part in components} | {bill["metadata"]["component"]["bom-ref"]}
    dependencies = [
        {**entry, "dependsOn": [ref for ref in entry.get("dependsOn", []) if ref in kept]}
        for entry in bill["dependencies"]
        if entry["ref"] in kept
    ]
    return {**bill, "components": components, "dependencies": dependencies}


def main(out: Path) -> None:
    """Write the bill to `out`."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-format", "JSON", "--output-reproducible"]
    done = subprocess.run([*command, "--pyproject", str(PYPROJECT), sys.executable], check=True, capture_output=True)
    bill = only(json.loads(done.stdout), {str(canonicalize_name(package.name)) for package in runtime()})
    said = {str(canonicalize_name(package.name)): licence(package) for package in runtime()}
    for part in bill["components"]:
        part.setdefault("licenses", [{"license": {"name": said[str(canonicalize_name(part["name"]))]}}])
    out.write_text(json.dumps(bill, indent=2) + "\n", encoding="utf-8")
    print(f"{out}: {len(bill['components'])} components")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
