"""Small archives of data sets, and the scripts of `data_scripts` run on them in this process."""

import importlib
import io
import sys
import tarfile
import zipfile
from pathlib import Path

from PIL import Image

SCRIPTS = Path(__file__).parents[1] / "data_scripts"
if str(SCRIPTS) not in sys.path:
    sys.path.insert(0, str(SCRIPTS))

fetch, merge, prepare, unpack = map(importlib.import_module, ("fetch", "merge", "prepare", "unpack"))


def script(name):
    """The `Dataset` of a script."""
    return importlib.import_module(name).DATASET


def pixels(name):
    stream = io.BytesIO()
    kind = {"jpg": "JPEG", "tiff": "TIFF"}.get(name.rpartition(".")[2].lower(), name.rpartition(".")[2].upper())
    Image.new("L", (8, 8), len(name)).save(stream, format={"JPG": "JPEG"}.get(kind, kind))
    return stream.getvalue()


def contents(text, root=""):
    files = {}
    for name in text.split():
        files[root + name] = pixels(name) if "." in name and not name.endswith((".csv", ".txt")) else b"text"
    return files


def tar(path, files, mode="w:xz"):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def zipped(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def files_of(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def get(dataset, *arguments, compared=False, **options):
    """The exit status of a script. Archives here are packed anew, which only tests that are ``compared`` leave out."""
    known = {"--checksum", "--any-checksum"} & set(arguments)
    given = [str(argument) for argument in arguments] + ["--any-checksum"] * (not compared and not known)
    return prepare.main(dataset, arguments=given, **options)


def refused(capsys, dataset, *arguments, **options):
    """Status 2 and one sentence, which is returned."""
    assert get(dataset, *arguments, **options) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert said.endswith((".", ".)"))
    return said


MVTEC = """readme.txt bottle/train/good/000.png bottle/test/good/000.png bottle/test/cut/000.png
    bottle/ground_truth/cut/000_mask.png cable/train/good/000.png cable/test/bent/000.png
    cable/ground_truth/bent/000_mask.png"""
