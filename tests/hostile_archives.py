"""Small archives as `data_scripts` unpack them, for `hostile_seeds`: zips, and tars with each compression."""

import errno
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from small_archives import unpack

Read = Callable[[Path], object]


def archives(folder: Path) -> list[tuple[Path, Read]]:
    """Archives of three files each, and what unpacks one; nothing may appear outside of its folder."""
    number = 0

    def read(path: Path) -> None:
        nonlocal number
        number += 1
        home = folder / f"unpacked {number}"
        outside = sorted(folder.iterdir())
        try:
            unpack.unpack(path, home / "raw", ("skipped",))
            assert all(one.is_symlink() or one.resolve().is_relative_to(home) for one in (home / "raw").rglob("*"))
        except OSError as error:
            # A header may promise more than any disk has: that is said of the disk.
            if error.errno != errno.ENOSPC:
                raise
        finally:
            assert sorted(one for one in folder.iterdir() if one != home) == outside
            shutil.rmtree(home, ignore_errors=True)

    files = {
        "bed/images/00.png": b"\x89PNG" + bytes(range(256)) * 4,
        "bed/skipped/a.txt": b"a" * 3000,
        "./b": b"b" * 700,
    }
    for name, kind in (("stored.zip", zipfile.ZIP_STORED), ("packed.zip", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(folder / name, "w", kind) as bundle:
            for inside, content in files.items():
                bundle.writestr(inside, content)
    source = folder / "file"
    for kind in ("", "gz", "bz2", "xz"):
        with tarfile.open(folder / f"given.tar{kind}", f"w:{kind}") as tar:
            for inside, content in files.items():
                source.write_bytes(content)
                tar.add(source, inside)
            link = tarfile.TarInfo("bed/link")
            link.type, link.linkname = tarfile.SYMTYPE, "images/00.png"
            tar.addfile(link)
    source.unlink()
    return [(path, read) for path in sorted(folder.iterdir())]
