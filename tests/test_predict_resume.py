"""Judging goes on after a kill or a change, and ends with what an unbroken run writes."""

import errno
import hashlib
import json
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import inspection
import pytest
import torch
from inspection import ColourDistance, save, texture
from judging import QUICK, Stop, content, run, table
from safetensors.torch import load

from dictas.journal import NAME as JOURNAL
from dictas.stream import SETUP_LINES
from dictas.support import NAME as DICTIONARY
from encoders.errors import InputError


def damage(query: Path) -> None:
    (query / "0" / "3 empty.png").write_bytes(b"")
    (query / "0" / "7 torn.png").write_bytes((query / "0" / "4.png").read_bytes()[:900])
    (query / "1" / "gone.jpg").symlink_to("nowhere.jpg")
    (query / "1" / "loop").symlink_to(query)


@pytest.mark.slow
def test_killed_twice_it_ends_with_the_same_bytes(support, query, tmp_path):
    damage(query)
    command = [sys.executable, inspection.__file__]
    options = [
        "--support",
        str(support),
        "--query",
        str(query),
        "--workers",
        "1",
        "--batch",
        "3",
        "--false-alarms",
        "0.05",
    ]
    for out, faults in (("whole", [None]), ("killed", [2, 3, None])):
        for fault in faults:
            kill = [] if fault is None else ["--kill", str(fault)]
            result = subprocess.run(
                [*command, *kill, "predict", *options, "--out", str(tmp_path / out)],
                capture_output=True,
                text=True,
                timeout=120,
            )
            if fault is not None:
                assert result.returncode == -signal.SIGKILL, result.stderr
                assert not (tmp_path / out / "results.csv").exists()
        assert result.returncode == 1, result.stderr
        assert result.stderr == (
            f"3 of 26 photos could not be read; {tmp_path / out / 'results.csv'} says which and why.\n"
        )
        assert (tmp_path / out / "report.html").exists()
        assert not list((tmp_path / out).rglob(".*tmp*"))
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    lines = (tmp_path / "killed" / JOURNAL).read_text().splitlines()
    assert len(lines) == len((tmp_path / "whole" / JOURNAL).read_text().splitlines())
    unreadable = {path: row for path, row in table(tmp_path / "killed").items() if row["status"] == "unreadable"}
    assert set(unreadable) == {"0/3 empty.png", "0/7 torn.png", "1/gone.jpg"}
    assert all(row["score"] == "" and str(query / path) in row["error"] for path, row in unreadable.items())


def stopped_after(reports):
    calls = 0

    def report(*_):
        nonlocal calls
        calls += 1
        if calls == reports:
            raise Stop

    return report


@pytest.mark.parametrize("torn", ["half a line", "no line end", "zeros", "the threshold"])
def test_a_torn_journal_is_continued_before_the_tear(support, query, tmp_path, torn):
    run(support, query, tmp_path / "whole")
    out = tmp_path / "out"
    with pytest.raises(Stop):
        run(support, query, out, report=stopped_after(4))
    lines = (out / JOURNAL).read_bytes().splitlines(keepends=True)
    assert len(lines) == 2 + 3
    if torn == "half a line":
        lines[-1] = lines[-1][:70]
    elif torn == "no line end":
        lines[-1] = lines[-1][:-1]
    elif torn == "zeros":
        lines[-1] = b"\0" * len(lines[-1])
    else:
        lines = [lines[0], lines[1][:-2]]
    (out / JOURNAL).write_bytes(b"".join(lines))
    run(support, query, out)
    assert content(out) == content(tmp_path / "whole")


def test_only_what_is_missing_is_judged_again(support, query, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(Stop):
        run(support, query, out, report=stopped_after(4))
    done = [row["path"] for line in (out / JOURNAL).read_text().splitlines()[2:] for row in json.loads(line)["rows"]]
    assert len(done) == 12
    before = {path: path.stat().st_ino for path in (out / "maps").rglob("*.png")}
    run(support, query, out)
    after = {path: path.stat().st_ino for path in (out / "maps").rglob("*.png")}
    assert all(after[out / "maps" / path] == before[out / "maps" / path] for path in done)


def test_photos_that_were_changed_or_added_are_judged(support, query, tmp_path):
    out = tmp_path / "out"
    run(support, query, out)
    save(query / "0" / "10.png", texture(110, spot=(30, 30)))
    save(query / "2" / "new.png", texture(200, spot=(30, 30)))
    run(support, query, out)
    rows = table(out)
    assert len(rows) == 24
    assert rows["0/10.png"]["anomalous"] == rows["2/new.png"]["anomalous"] == "1"
    (query / "0" / "2.png").unlink()
    run(support, query, out)
    assert list(table(out)) == [path for path in rows if path != "0/2.png"]


def test_results_of_other_options_are_not_mixed_in(support, query, tmp_path):
    out = tmp_path / "out"
    run(support, query, out)
    for options, word in (({"tile": 48}, "tile"), ({"threshold": 0.2}, "threshold"), ({"rotations": 2}, "rotations")):
        with pytest.raises(InputError, match=f"another {word}; choose another --out"):
            run(support, query, out, replace(QUICK, **options))
    with pytest.raises(InputError, match="another model;"):
        run(support, query, out, detector=ColourDistance(gain=2.0))
    before = content(out)
    run(support, query, out, replace(QUICK, workers=1))
    assert content(out) == before
    save(support / "3.png", texture(3))
    with pytest.raises(InputError, match="another support;"):
        run(support, query, out)
    (query / "1" / "5.png").unlink()
    run(support, query, out, replace(QUICK, overwrite=True))
    assert len(table(out)) == 22
    assert not (out / "maps" / "1" / "5.png").exists()


def test_options_may_change_before_there_are_results(support, query, tmp_path):
    with pytest.raises(Stop):
        run(support, query, tmp_path / "out", report=stopped_after(1))
    run(support, query, tmp_path / "out", replace(QUICK, threshold=0.2))
    assert json.loads((tmp_path / "out" / "results.json").read_text())["threshold"]["image"] == 0.2


def flipped(content, place, bit=0x40):
    return content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]


def test_the_dictionary_is_built_once_and_again_if_it_is_damaged(support, query, tmp_path):
    out = tmp_path / "out"
    run(support, query, out, replace(QUICK, threshold=0.2))
    content = (out / DICTIONARY).read_bytes()
    first = load(content)
    # The last one is a number of the dictionary: only a checksum tells.
    for damaged, built in ((None, 0), (content[:100], 1), (b"", 1), (flipped(content, len(content) - 2), 1)):
        if damaged is not None:
            (out / DICTIONARY).write_bytes(damaged)
        detector = ColourDistance()
        run(support, query, out, replace(QUICK, threshold=0.2), detector)
        assert detector.remembered == built
        again = load((out / DICTIONARY).read_bytes())
        assert again.keys() == first.keys() == {"known"}
        assert torch.equal(again["known"], first["known"])
    assert [path.name for path in out.glob("dictionary*")] == [DICTIONARY]


def test_a_dictionary_that_cannot_be_read_for_now_is_left_alone(support, query, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run(support, query, out)
    before, real = (out / DICTIONARY).read_bytes(), Path.read_bytes

    def read_bytes(self):
        if self == out / DICTIONARY:
            raise OSError(errno.EMFILE, "Too many open files", str(self))
        return real(self)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", read_bytes)
        with pytest.raises(InputError, match=r"dictionary\.safetensors cannot be read \(Too many open files\)"):
            run(support, query, out)
    assert (out / DICTIONARY).read_bytes() == before


DAMAGES = {
    "a key of a batch": lambda line: line.replace(b'"rows"', b'"sows"'),
    "a key of the time": lambda line: line.replace(b'"seconds"', b'"ceconds"'),
    "a key of a row": lambda line: line.replace(b'"score"', b'"rcore"', 1),
    "a digit of a score": lambda line: re.sub(rb'("score": 0\.\d*)(\d)', _other_digit, line, count=1),
    "a mark of a photo": lambda line: line.replace(b'"anomalous": false', b'"anomalous": true', 1),
    "a digit of a checksum": lambda line: flipped(line, len(line) - 4, 1),
    "lost": lambda _: b"",
    "doubled": lambda line: line * 2,
}
"""What a disk may do to a line of the journal."""


def _other_digit(found):
    return found[1] + bytes([found[2][0] ^ 1])


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("place", [3, 5])
def test_a_damaged_line_of_the_journal_is_the_tear(support, query, tmp_path, damage, place):
    run(support, query, tmp_path / "whole")
    out = tmp_path / "out"
    with pytest.raises(Stop):
        run(support, query, out, report=stopped_after(5))
    lines = (out / JOURNAL).read_bytes().splitlines(keepends=True)
    assert len(lines) == 2 + 4
    changed = DAMAGES[damage](lines[place])
    assert changed != lines[place]
    (out / JOURNAL).write_bytes(b"".join([*lines[:place], changed, *lines[place + 1 :]]))
    told = []
    run(support, query, out, report=lambda done, _total, message: told.append((done, message)))
    assert content(out) == content(tmp_path / "whole")
    assert _checked((out / JOURNAL).read_bytes()) == _checked((tmp_path / "whole" / JOURNAL).read_bytes())
    if damage == "lost" and place == 5:
        return  # without its last line a journal is whole
    kept = 4 * (place - SETUP_LINES + (damage == "doubled"))
    assert told[0] == (kept, "the journal is damaged, going on before the damage")


def _checked(journal):
    """Lines of a journal without times, each with its checksum tried."""
    before, lines = "", []
    for line in journal.splitlines():
        body, checksum = re.fullmatch(rb'(.*), "checksum": "([0-9a-f]{32})"\}', line).groups()
        chained = b"dictsplat journal 2\n" + before.encode() + b"\n" + body
        assert hashlib.blake2b(chained, digest_size=16).hexdigest() == checksum.decode()
        before = checksum.decode()
        lines.append(re.sub(rb'"seconds": [\d.e-]+', b"", body))
    return lines


def test_a_damaged_threshold_is_found_again(support, query, tmp_path):
    run(support, query, tmp_path / "whole")
    out = tmp_path / "out"
    with pytest.raises(Stop):
        run(support, query, out, report=stopped_after(4))
    journal = (out / JOURNAL).read_bytes()
    (out / JOURNAL).write_bytes(journal.replace(b'{"threshold"', b'{"dhreshold"'))
    run(support, query, out)
    assert content(out) == content(tmp_path / "whole")


@pytest.mark.parametrize("earlier", [True, False])
def test_a_journal_without_a_first_line_is_refused_and_kept(support, query, tmp_path, earlier):
    """Of an earlier version, whose lines had no checksums, or damaged."""
    out = tmp_path / "out"
    run(support, query, out)
    journal = (out / JOURNAL).read_bytes()
    if earlier:
        journal = re.sub(rb', "checksum": "[0-9a-f]{32}"', b"", journal)
        assert all("checksum" not in json.loads(line) for line in journal.splitlines())
    else:
        journal = flipped(journal, 30)
    (out / JOURNAL).write_bytes(journal)
    before = content(out, ".")
    with pytest.raises(
        InputError, match=r"journal\.jsonl was written by another version of dictsplat, or is damaged in"
    ):
        run(support, query, out)
    assert content(out, ".") == before
    run(support, query, out, replace(QUICK, overwrite=True))
    assert content(out) == {name: before[name] for name in content(out)}
    assert len(_checked((out / JOURNAL).read_bytes())) == len(journal.splitlines())
