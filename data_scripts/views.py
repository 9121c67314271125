"""Which photo a label is of: the one of its name, or the one at the place that its number says."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from encoders.errors import InputError
from encoders.files import parse_json

_FRAME = re.compile(r"frame_(\d{1,9})(\.\w+)?", re.IGNORECASE)
_PLACE = re.compile(r"\d{1,9}")


def in_published_order(files: Mapping[str, Path]) -> list[str]:
    """Views (name and photo) in the order in which GAGS and LangSplatV2 number them: by what the photo is called.

    Both sort by the file's name up to its first dot (``scene/dataset_readers.py``).
    """
    return sorted(files, key=lambda view: (files[view].name.split(".")[0], view))


def views_of_labels(labels: Sequence[Path], views: Sequence[str], photos: Collection[str]) -> dict[Path, str]:
    """The view that each label is of.

    Labels are called like their views. Where none is, they are numbered: GAGS calls the labels of the N-th photo
    ``frame_N`` whatever the photo is called, counts from 1, and goes by the number in ``info.name`` of its JSON
    (``evaluate_iou_loc.py``; LangSplatV2's ``eval_mip_nerf360.py`` does the same); 3D-OVS calls the masks of a view by
    its number, from 0 (LangSplatV2's ``eval_3d_ovs.py``).

    Args:
        labels: JSON files, or folders of masks.
        views: names of all views, in their published order.
        photos: names of all photos, those without a camera included.

    Raises:
        InputError: a label fits neither way, or two labels are of one view.
    """
    strangers = [path for path in labels if called(path) not in photos]
    if not strangers:
        return {path: called(path) for path in labels}
    if len(strangers) < len(labels):
        raise InputError(f"{_few(strangers)} has no photo, though others have; it is missing, or has another name.")
    found: dict[Path, str] = {}
    for path in labels:
        place = _place(path)
        if place is None:
            raise InputError(
                f"{_few(strangers)} has no photo: none has that name, and it is not a number (frame_00001 would be of "
                f"the first, {views[0]})."
            )
        if not 0 <= place < len(views):
            raise InputError(f"{_few([path])} is of photo {place + 1}, but there are {len(views)} photos.")
        if views[place] in found.values():
            raise InputError(f"{_few([path])} and another label are of one photo, {views[place]}.")
        found[path] = views[place]
    return found


def called(label: Path) -> str:
    """The view that a label says it is of."""
    return label.name if label.is_dir() else label.stem


def _place(path: Path) -> int | None:
    """Where in the order of photos a label belongs, from 0; None if that is not said."""
    if path.is_dir():
        return int(path.name) if _PLACE.fullmatch(path.name) else None
    frame = _FRAME.fullmatch(_name_within(path) or path.stem)
    return None if frame is None else int(frame[1]) - 1


def _name_within(path: Path) -> str:
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    info = content.get("info") if isinstance(content, dict) else None
    name = info.get("name") if isinstance(info, dict) else None
    return name if isinstance(name, str) else ""


def _few(paths: Sequence[Path]) -> str:
    more = f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""
    return f"The label {paths[0].parent.name}/{paths[0].name}{more}"
