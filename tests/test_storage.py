"""A full disk is one sentence, whoever writes, and what was there stays."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from encoders.errors import InputError
from encoders.files import write_json
from encoders.storage import storage_errors


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_sentence(tmp_path: Path, code: int) -> None:
    with (
        pytest.raises(InputError, match=r"full or over its quota .* same command again") as caught,
        storage_errors(tmp_path),
    ):
        raise OSError(code, "No space left on device", "x")
    assert "\n" not in str(caught.value)


def test_other_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="unrelated"), storage_errors(tmp_path):
        raise RuntimeError("unrelated")
    with pytest.raises(InputError, match="cannot be written"), storage_errors(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied", "x")


WRITERS = {
    "json": "from encoders.files import write_json; write_json(path, ['x' * 100] * 1000)",
    "png": "import numpy as np; from encoders.files import write_png; write_png(path, rng((200, 200)))",
    "safetensors": "import torch; from safetensors.torch import save_file\n"
    "with atomic_path(path) as p: save_file({'x': torch.rand(100000)}, p)",
    "torch": "import torch\nwith atomic_path(path) as p: torch.save(torch.rand(100000), p)",
    "npz": "import numpy as np\nwith atomic_path(path) as p: np.savez(p, x=rng((400, 400)))",
    "ply": "import torch; from splat.gaussians import Gaussians, save_ply\n"
    "z = torch.rand; save_ply(path, Gaussians(z(999, 3), z(999, 4), z(999, 3), z(999), z(999, 16, 3)))",
}


def test_writers_report_a_full_disk_and_keep_the_old_file(tmp_path: Path) -> None:
    """A file-size limit fails writes in the kernel, as a full disk does, whoever writes."""
    for kind in WRITERS:
        (tmp_path / f"result.{kind}").write_text("earlier result")
    program = (
        "import resource, sys, pathlib\n"
        "import numpy as np\n"
        "from encoders.files import atomic_path\n"
        "from encoders.errors import InputError\n"
        "from encoders.storage import storage_errors\n"
        "rng = lambda shape: np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
    )
    for kind, code in WRITERS.items():
        program += f"path = pathlib.Path(sys.argv[1], 'result.{kind}')\n"
        program += "def write():\n    " + code.replace("\n", "\n    ") + "\n"
        program += "try:\n    with storage_errors(path): write()\n"
        program += "except InputError as error: print(error)\n"
    command = [sys.executable, "-c", program, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    sentences = result.stdout.splitlines()
    assert len(sentences) == len(WRITERS)
    for kind, sentence in zip(WRITERS, sentences, strict=True):
        path = tmp_path / f"result.{kind}"
        assert sentence.startswith(f"The disk with {path} is full or over its quota")
        assert path.read_text() == "earlier result"
    assert len(list(tmp_path.iterdir())) == len(WRITERS)


def test_an_interrupted_write_leaves_the_old_json(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}


def test_safetensors_fails_as_expected_on_a_missing_folder(tmp_path: Path) -> None:
    """`storage_errors` reads safetensors' texts; a change of their form shows here first."""
    with pytest.raises(Exception, match="os error"):
        save_file({"x": torch.zeros(1)}, tmp_path / "missing" / "x.safetensors")
