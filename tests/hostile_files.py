"""Files that a bad disk or a bad person made: valid ones, changed in every way, must be read or refused in a sentence.

    python tests/hostile_files.py --cases 200 [--seed 1] [FAMILY ...]

Every family of formats is a process of its own, whose memory is capped. It prints a line of JSON per family, and ends
with status 1 if a process died, met another exception than `InputError`, or ran out of memory, also where a reader said
so in a sentence: the cap stands for what a file of that size may take.
"""

import argparse
import copy
import faulthandler
import json
import os
import resource
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hostile_seeds import FAMILIES, Family
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from app.exits import is_out_of_memory
from encoders.errors import InputError

MIB = 2**20
LONGEST_SECONDS = 10
"""What reading a file of some kilobytes may take; a process that takes longer ends with a traceback."""

_WORDS = (
    *(struct.pack("<I", value) for value in (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x10000000)),
    *(struct.pack("<Q", value) for value in (0, 1 << 31, 1 << 40, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)),
    *(struct.pack("<f", value) for value in (float("nan"), float("inf"), -1.0, 3e38)),
    *(struct.pack("<d", value) for value in (float("nan"), float("-inf"), -1.0, 1e308)),
    b"\0", b"\xff", b"\n", b" ", b"[" * 3000, b'{"a":' * 3000, b"9" * 30, b"9" * 5000, b"-1", b"nan", b"1e999",
    b"../" * 9,
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2**31, 2**63, 10**30, -(10**30), 0.5, 1e-300, 1e308, float("nan"), float("inf"), "", "a",
    "nan", "../../etc/passwd", "\0", "\ud800", "x" * 5000, [], {}, [[]], [None], [1e308] * 4, [[0, 0, 0, 0]] * 4,
    {"": []},
)  # fmt: skip

Edit = tuple[str, int, int]
_EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "write", "write", "insert", "cut", "remove", "repeat", "number"]),
        st.integers(0, 2**24),
        st.integers(0, 2**16),
    ),
    min_size=1,
    max_size=4,
)


def edited(content: bytes, edits: Sequence[Edit]) -> bytes:
    """Bytes changed in some places, half of them near the start, where headers are."""
    for kind, where, what in edits:
        at = where // 2 % max(1, min(len(content), 300) if where % 2 else len(content))
        word = _WORDS[what % len(_WORDS)]
        if kind == "flip" and content:
            content = content[:at] + bytes([content[at] ^ 1 << what % 8]) + content[at + 1 :]
        elif kind == "write":
            content = content[:at] + word + content[at + len(word) :]
        elif kind == "insert":
            content = content[:at] + word + content[at:]
        elif kind == "cut":
            content = content[:at]
        elif kind == "remove":
            content = content[:at] + content[at + 1 + what % 64 :]
        elif kind == "repeat":
            content = content[: at + 1 + what % 64] + content[at:]
        elif kind == "number":
            digits = at
            while digits < len(content) and not content[digits : digits + 1].isdigit():
                digits += 1
            end = digits
            while content[end : end + 1].isdigit():
                end += 1
            content = content[:digits] + str(_VALUES[what % 9]).encode() + content[end:]
    return content


def edited_json(content: bytes, edits: Sequence[Edit]) -> bytes:
    """JSON with some of its values replaced, removed or doubled; every eighth time as bytes instead."""
    if edits[0][2] % 8 == 0:
        return edited(content, edits)
    value = json.loads(content)
    for kind, where, what in edits:
        parent: Any = None
        key: Any = None
        node = value
        while isinstance(node, (dict, list)) and node and (parent is None or where % 5):
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            parent, key = node, keys[where % len(keys)]
            node, where = node[key], where // 3
        odd = copy.deepcopy(_VALUES[what % len(_VALUES)])
        if parent is None:
            return json.dumps(odd).encode()
        if kind == "remove":
            del parent[key]
        elif kind == "repeat" and isinstance(parent, list):
            parent.insert(key, node)
        else:
            parent[key] = odd
    return json.dumps(value).encode()


@dataclass
class Outcome:
    """What became of a family's cases."""

    family: str
    cases: int = 0
    accepted: int = 0
    seconds: float = 0.0
    peak_mib: float = 0.0
    """Resident, above what the process held before the first case."""


def run_family(family: Family, cases: int, number: int, folder: Path) -> Outcome:
    """Read ``cases`` changed files; whatever they raise but `InputError` is raised."""
    outcome = Outcome(family.name)
    seeds = family.make(folder)
    originals = [one.path.read_bytes() for one in seeds]
    for one, content in zip(seeds, originals, strict=True):
        one.read(one.path)  # as it is, it must pass
        one.path.write_bytes(content)  # some are written to
    changed = [which for which, one in enumerate(seeds) if not one.only_whole]

    @seed(number)
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
        phases=[Phase.generate],  # what fails is small already, and to look for less may take longer than is allowed
    )
    @given(which=st.sampled_from(changed), edits=_EDITS)
    def read_changed(which: int, edits: list[Edit]) -> None:
        one, content = seeds[which], originals[which]
        one.path.write_bytes((edited_json if one.is_json else edited)(content, edits))
        outcome.cases += 1
        faulthandler.dump_traceback_later(LONGEST_SECONDS, exit=True)
        try:
            one.read(one.path)
            outcome.accepted += 1
        except InputError as error:
            said = str(error)
            if ran_out(error):
                raise AssertionError(f"it asks for more than {family.memory_mib} MiB: {said!r}") from error
            if not said.strip() or (family.private and str(folder) in said):
                raise AssertionError(f"no sentence for a visitor: {said!r}") from error
        finally:
            faulthandler.cancel_dump_traceback_later()
            one.path.write_bytes(content)

    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    read_changed()
    outcome.seconds = round(time.monotonic() - start, 1)
    outcome.peak_mib = round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, 1)
    return outcome


def ran_out(error: BaseException | None) -> bool:
    """Whether memory did not suffice, at the bottom of what an exception came from."""
    while error is not None:
        if is_out_of_memory(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _cap_memory(mib: int) -> None:
    """This process may have so much more address space than it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + mib * MIB
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def in_a_process(family: Family, cases: int, number: int) -> bool:
    """Run a family in a forked process, which prints its outcome; False if anything went wrong."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        status = 1
        try:
            _cap_memory(family.memory_mib)
            with tempfile.TemporaryDirectory() as folder:
                print(json.dumps(vars(run_family(family, cases, number, Path(folder)))), flush=True)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    if os.WIFSIGNALED(ended):
        print(f"{family.name}: the process died of signal {os.WTERMSIG(ended)}", file=sys.stderr, flush=True)
    return ended == 0


def main() -> int:
    """Run the families named in the arguments; all if none is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", help="all by default")
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    wanted = [one for one in FAMILIES if not arguments.families or one.name in arguments.families]
    went_well = [in_a_process(family, arguments.cases, arguments.seed) for family in wanted]
    return int(not all(went_well))


if __name__ == "__main__":
    sys.exit(main())
