"""Compiles every CUDA kernel for every architecture and holds what the compiler says to a committed budget.

No GPU is needed. A warning, a byte of spilled registers, or more registers per thread or shared memory per block than
`cuda/gpu/budget.json` allows ends with exit status 1. After a deliberate change, and `make setup`:
``python cuda/check.py --update``.
"""

import importlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

GPU = Path(__file__).parent / "gpu"
BUDGET = GPU / "budget.json"
ARCHITECTURES = ("75", "80", "86", "89", "90", "120")
PTX = ("90", "120")
"""What GPUs between and after these compile for themselves."""

ATOMS = (64, 128, 256)

Table = dict[str, dict[str, dict[str, int]]]

_ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\d+)'")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")


@dataclass(frozen=True)
class Usage:
    """What one kernel takes on one architecture: registers, and bytes of local memory, per thread."""

    registers: int
    stack: int
    spills: int


def nvcc() -> str | None:
    """Path of the CUDA compiler, or None."""
    return shutil.which("nvcc")


def compile_report(source: Path, compiler: str) -> str:
    """The assembler's report on one file, all architectures, and as PTX for later ones.

    Raises:
        RuntimeError: it does not compile without a warning; the message is the compiler's.
    """
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
    targets += [f"-gencode=arch=compute_{a},code=compute_{a}" for a in PTX]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [compiler, "-std=c++17", "-O3", "-c", str(source), "-o", f"{folder}/out.o", *targets,
             "-I", str(GPU.parent / "include"), "-Werror", "all-warnings", "-Xcompiler=-Wall,-Wextra,-Werror",
             "-Xptxas=-v", "--threads", "2"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{source.name} does not compile cleanly:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def usages(report: str) -> Iterator[tuple[str, str, Usage]]:
    """(kernel, architecture, usage) of every kernel in the assembler's report."""
    entry: tuple[str, str] | None = None
    frame = (0, 0)
    for line in report.splitlines():
        if match := _ENTRY.search(line):
            entry = match[1], match[2]
        elif match := _SPILLS.search(line):
            frame = int(match[1]), int(match[2]) + int(match[3])
        elif entry and (match := _USED.search(line)):
            yield *entry, Usage(int(match[1]), *frame)
            entry = None


def _plain(mangled: str) -> str:
    """`codes_kernel<128>` for the mangled name of a kernel."""
    match = re.search(r"gpu(\d+)(\w+)", mangled)
    if match is None:
        return mangled
    name, rest = match[2][: int(match[1])], match[2][int(match[1]) :]
    parameter = re.match(r"ILi(\d+)E", rest)
    return f"{name}<{parameter[1]}>" if parameter else name


def measure(compiler: str) -> Table:
    """kernel -> architecture -> usage, of all kernels."""
    table: Table = {}
    with ThreadPoolExecutor(2) as pool:
        for report in pool.map(lambda source: compile_report(source, compiler), sorted(GPU.glob("*.cu"))):
            for mangled, architecture, usage in usages(report):
                table.setdefault(_plain(mangled), {})[architecture] = asdict(usage)
    return {kernel: dict(sorted(table[kernel].items(), key=lambda item: int(item[0]))) for kernel in sorted(table)}


def shared_bytes(kernels: Any) -> Table:
    """atoms -> kernel -> {"bytes"}: shared memory per block at four nonzeros, as `splat._cuda` asks for it."""
    return {
        str(atoms): {name: {"bytes": size} for name, (_, size) in sorted(kernels.blocks(4, atoms).items())}
        for atoms in ATOMS
    }


def excesses(measured: Table, budget: Table, column: str = "sm_") -> Iterator[str]:
    """A sentence for everything that is over budget, missing from it or spilled."""
    for row in sorted(measured.keys() | budget.keys()):
        allowed, taken = budget.get(row, {}), measured.get(row, {})
        for key in sorted(allowed.keys() | taken.keys()):
            name = f"{row} on {column}{key}"
            if key not in allowed or key not in taken:
                yield f"{name} is {'not in the budget' if key in taken else 'no longer compiled'}"
                continue
            for what, amount in taken[key].items():
                if amount > allowed[key][what]:
                    yield f"{name} takes {amount} {what}, the budget allows {allowed[key][what]}"
            if taken[key].get("spills"):
                yield f"{name} spills {taken[key]['spills']} bytes"


def main(arguments: list[str]) -> int:
    """0: within budget or no compiler; 1: over budget; 2: wrong arguments."""
    if arguments not in ([], ["--update"]):
        print("usage: python cuda/check.py [--update]", file=sys.stderr)
        return 2
    compiler = nvcc()
    if compiler is None:
        print("cuda-check: skipped, because there is no nvcc on PATH")
        return 0
    try:
        module = importlib.import_module("splat._cuda")
    except ImportError as error:
        print(f"cuda-check: the kernels are not installed ({error}); run: make setup", file=sys.stderr)
        return 1
    measured = {"kernels": measure(compiler), "shared": shared_bytes(module)}
    if arguments:
        BUDGET.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    budget = json.loads(BUDGET.read_text(encoding="utf-8"))
    problems = list(excesses(measured["kernels"], budget["kernels"]))
    problems += (f"with atoms = {text}" for text in excesses(measured["shared"], budget["shared"], ""))
    print(f"{'kernel':24}" + "".join(f"{'sm_' + a:>8}" for a in ARCHITECTURES) + "   registers per thread")
    for kernel, rows in measured["kernels"].items():
        print(f"{kernel:24}" + "".join(f"{rows[a]['registers']:>8}" for a in ARCHITECTURES if a in rows))
    for problem in problems:
        print(f"cuda-check: {problem}", file=sys.stderr)
    if not problems:
        print(f"cuda-check: {len(measured['kernels'])} kernels within {BUDGET.name}, no spills, no warnings")
    return int(bool(problems))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except RuntimeError as error:
        sys.exit(str(error))
