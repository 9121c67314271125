"""Compiles every CUDA kernel for every architecture and holds what the compiler says to a committed budget.

No GPU is needed. A warning, a byte of spilled registers, or more registers or shared memory per block than
`cuda/gpu/budget.json` allows ends with exit status 1. After a deliberate change: ``python cuda/check.py --update``.
"""

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

GPU = Path(__file__).parent / "gpu"
BUDGET = GPU / "budget.json"
ARCHITECTURES = ("80", "86", "89", "90", "120")
PTX = ("90", "120")
"""What GPUs between and after these compile for themselves."""

_ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\d+)'")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True)
class Usage:
    """What one kernel takes on one architecture: registers per thread, bytes per thread and (static) per block."""

    registers: int
    stack: int
    spills: int
    shared: int


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
            shared = _SHARED.search(line)
            yield *entry, Usage(int(match[1]), *frame, int(shared[1]) if shared else 0)
            entry = None


def _plain(mangled: str) -> str:
    """`codes_kernel<128>` for the mangled name of a kernel."""
    match = re.search(r"gpu(\d+)(\w+)", mangled)
    if match is None:
        return mangled
    name, rest = match[2][: int(match[1])], match[2][int(match[1]) :]
    parameter = re.match(r"ILi(\d+)E", rest)
    return f"{name}<{parameter[1]}>" if parameter else name


def measure(compiler: str) -> dict[str, dict[str, dict[str, int]]]:
    """kernel -> architecture -> usage, of all kernels."""
    table: dict[str, dict[str, dict[str, int]]] = {}
    with ThreadPoolExecutor(2) as pool:
        for report in pool.map(lambda source: compile_report(source, compiler), sorted(GPU.glob("*.cu"))):
            for mangled, architecture, usage in usages(report):
                table.setdefault(_plain(mangled), {})[architecture] = asdict(usage)
    return {kernel: dict(sorted(table[kernel].items(), key=lambda item: int(item[0]))) for kernel in sorted(table)}


def excesses(
    measured: dict[str, dict[str, dict[str, int]]], budget: dict[str, dict[str, dict[str, int]]]
) -> Iterator[str]:
    """A sentence for everything that is over budget, missing from it or spilled."""
    for kernel in sorted(measured.keys() | budget.keys()):
        allowed, taken = budget.get(kernel, {}), measured.get(kernel, {})
        for architecture in sorted(allowed.keys() | taken.keys(), key=int):
            name = f"{kernel} on sm_{architecture}"
            if architecture not in allowed or architecture not in taken:
                yield f"{name} is {'not in the budget' if architecture in taken else 'no longer compiled'}"
                continue
            for what, amount in taken[architecture].items():
                if amount > allowed[architecture][what]:
                    yield f"{name} takes {amount} {what}, the budget allows {allowed[architecture][what]}"
            if taken[architecture]["spills"]:
                yield f"{name} spills {taken[architecture]['spills']} bytes"


def main(arguments: list[str]) -> int:
    """0: within budget or no compiler; 1: over budget; 2: wrong arguments."""
    if arguments not in ([], ["--update"]):
        print("usage: python cuda/check.py [--update]", file=sys.stderr)
        return 2
    compiler = nvcc()
    if compiler is None:
        print("cuda-check: skipped, because there is no nvcc on PATH")
        return 0
    measured = measure(compiler)
    if arguments:
        BUDGET.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    problems = list(excesses(measured, json.loads(BUDGET.read_text(encoding="utf-8"))))
    print(f"{'kernel':24}" + "".join(f"{'sm_' + a:>8}" for a in ARCHITECTURES) + "   registers per thread")
    for kernel, rows in measured.items():
        print(f"{kernel:24}" + "".join(f"{rows[a]['registers']:>8}" for a in ARCHITECTURES if a in rows))
    for problem in problems:
        print(f"cuda-check: {problem}", file=sys.stderr)
    if not problems:
        print(f"cuda-check: {len(measured)} kernels within {BUDGET.name}, no spills, no warnings")
    return int(bool(problems))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except RuntimeError as error:
        sys.exit(str(error))
