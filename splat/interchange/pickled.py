"""Files of ``torch.save``, of which nothing is unpickled but tensors, numbers and what contains them."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from encoders.errors import InputError


class _Kind:
    """In place of numpy's dtype: of which only plain floating-point numbers are taken."""

    def __init__(self, code: str, *_: Any) -> None:
        if code not in ("f4", "f8"):
            raise pickle.UnpicklingError(f"numbers of kind {code!r}")
        self.code = code

    def __setstate__(self, _state: Any) -> None:
        pass


def _number(kind: _Kind, content: bytes) -> float:
    return float(np.frombuffer(content, f"<{kind.code}")[0])


def _encode(text: str, encoding: str) -> bytes:
    """In place of ``_codecs.encode``, by which old pickles write bytes."""
    return text.encode("latin-1" if encoding == "latin1" else "ascii")


def load_pickled(path: Path) -> Any:
    """Read what ``torch.save`` wrote, on the CPU; tensors are mapped, so that those nobody looks at are not read.

    A tensor may claim more values than the file holds: compare with its storage before use.

    Raises:
        InputError: the file is missing, damaged, compressed, or holds anything but tensors, numbers and containers.
    """
    # 3DGS keeps the scene's radius as a number of numpy, which torch does not load unless told what stands for it.
    known: list[Any] = [(_Kind, "numpy.dtype"), (_encode, "_codecs.encode")]
    known += [(_number, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    try:
        if any(member.compress_type != zipfile.ZIP_STORED for member in zipfile.ZipFile(path).infolist()):
            # Mapped, compressed bytes would be taken for values.
            raise InputError(f"{path} is a compressed zip, and checkpoints are none; take it as torch.save wrote it.")
        with torch.serialization.safe_globals(known):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"The checkpoint {path} does not exist.") from None
    except MemoryError:
        raise
    except Exception as error:  # what a damaged pickle asks for may fail in any way
        first = str(error).strip().split("\n")[0]
        raise InputError(f"{path} cannot be read as a checkpoint ({first}).") from error
