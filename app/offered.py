"""Pictures that visitors fetch: files that are whole whenever they can be seen.

Gradio itself names a picture's file by its content and writes it in place, also over the same one, so that two visitors
who get the same answer at the same time read half a file.
"""

import hashlib
import os
from pathlib import Path
from typing import Literal

import gradio as gr
import numpy as np
from gradio.utils import get_upload_folder
from numpy.typing import NDArray

from app.pictures import encoded
from encoders.files import atomic_path

QUALITY = 92
"""Of a JPEG."""


def offered(picture: NDArray[np.uint8], kind: Literal["png", "jpg"] = "png") -> str:
    """Put a picture uint8 [H, W, 3] where it may be fetched from; returns its path.

    The same picture is written once. Gradio removes it some hours after it was last offered.
    """
    content = encoded(picture, kind, QUALITY)
    path = Path(get_upload_folder()) / hashlib.sha256(content).hexdigest() / f"picture.{kind}"
    try:
        os.utime(path)
    except FileNotFoundError:
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    return str(path)


def shown(picture: NDArray[np.uint8] | None, alt_text: str) -> gr.Image:
    """A picture for a `gr.Image` that is looked at, as JPEG; nothing if there is none."""
    return gr.Image(None if picture is None else offered(picture, "jpg"), alt_text=alt_text)
