"""What happens on the Scene tab: visits change, answers and files come back. Nothing here knows the layout."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch

from app.frames import Painter
from app.layers import COLORS
from app.scenes import Scenes, Shown
from app.selection import EVERYTHING, WAYS, Selection, select
from app.visits import MODES, OVER, Look, Stand, Visit, Visits, at_camera
from encoders.base import LEVELS
from encoders.errors import InputError
from splat.phrases import DEFAULT_NEGATIVES, text_scores
from splat.pivot import looked_at
from splat.prepared import prepare
from splat.samples import Description, Sample, rank, sample
from splat.vocabulary import VOCABULARY

MOST = len(COLORS)
"""Things that are looked for at a time."""
LONGEST = 200
"""Letters of a phrase."""
WORDS = 1000
"""Phrases of a vocabulary."""
VOCABULARIES = 4
"""Whose scores are kept, for each scene."""


class SceneEvents:
    """The events of one server's Scene tab; each call names its visit by token."""

    def __init__(self, scenes: Scenes, visits: Visits, painter: Painter) -> None:
        self.scenes, self.visits, self.painter = scenes, visits, painter
        # Weakly: a scene that nobody looks at any more need not stay in memory for its scores.
        self._scores: WeakKeyDictionary[Shown, dict[tuple[tuple[str, ...], ...], torch.Tensor]] = WeakKeyDictionary()

    def visit(self, token: Any) -> Visit:
        """The visit with this token.

        Raises:
            InputError: it is over.
        """
        visit = self.visits.get(token)
        if visit is None:
            raise InputError(OVER)
        return visit

    def enter(self, token: Any, position: int) -> Visit:
        """Go to another scene."""
        visit = self.visit(token)
        visit.enter(position, self.scenes.get(position))
        return visit

    def is_in(self, token: Any, position: int) -> bool:
        """Whether the visitor is in this scene already, as it is now."""
        visit = self.visit(token)
        return visit.begun and visit.stand.position == position and visit.stand.scene is self.scenes.get(position)

    def jump(self, token: Any, name: str) -> Visit:
        """Go to one of the scene's own cameras."""
        visit = self.visit(token)
        scene = visit.stand.scene
        camera = scene.trained.camera(name)
        pivot = looked_at(scene.trained.gaussians, camera)
        visit.change_in(scene, lambda now: at_camera(now, camera, pivot))
        return visit

    def came_from(self, token: Any, name: str) -> bool:
        """Whether this is the camera that the visitor went to last, or began with."""
        return self.visit(token).stand.home.name == name

    def look(self, token: Any, mode: str, opacity: float, level: str, threshold: float, marks: bool) -> Visit:
        """Draw differently."""
        visit = self.visit(token)
        look = checked_look(mode, opacity, level, threshold, marks)
        visit.change(lambda stand: replace(stand, look=look))
        return visit

    def ask(self, token: Any, names: Sequence[str], negatives: str) -> Visit:
        """Look for phrases, and for samples by their names; the answers come with the next frame."""
        visit = self.visit(token)
        stand = visit.stand
        names = checked_phrases(names)
        against = rivals(negatives)
        if not names:
            visit.change(lambda now: replace(now, prepared=None, levels=None, samples=()))
            return visit
        known = {one.name: one for one in stand.samples}
        trained = stand.scene.trained
        wanted = [known.get(name, name) for name in names]
        encoder = self.scenes.encoder(stand.position)
        prepared = prepare(trained.gaussians, trained.field, wanted, encoder, against)
        samples = tuple(one for one in wanted if isinstance(one, Sample))

        def how(now: Stand) -> Stand:
            mode = "mask" if now.look.mode in ("picture", "depth", "features") else now.look.mode
            look = replace(now.look, mode=mode)
            # What was picked meanwhile is looked for next.
            later = tuple(one for one in now.samples if one.name not in known)
            return replace(now, prepared=prepared, against=against, levels=None, samples=(*samples, *later), look=look)

        visit.change_in(stand.scene, how)
        return visit

    def is_asked(self, token: Any, names: Sequence[str], negatives: str) -> bool:
        """Whether exactly this is looked for already."""
        visit = self.visit(token)
        names = checked_phrases(names)
        if not visit.begun or (stand := visit.stand).prepared is None:
            return not names
        return (stand.prepared.names, stand.against) == (tuple(names), rivals(negatives))

    def pick(self, token: Any, x: float, y: float, vocabulary: str, negatives: str) -> list[Description]:
        """What is at a place of the picture, given as shares of its size; nothing if it is no longer that scene's."""
        visit = self.visit(token)
        stand = visit.stand
        if not (0 <= x < 1 and 0 <= y < 1):
            raise InputError("That place is outside of the picture.")
        gaussians, field = self.painter.changed(stand.scene, stand.selection), stand.scene.trained.field
        camera = stand.camera
        found = sample(gaussians, field, camera, int(x * camera.width), int(y * camera.height), "")
        words = checked_vocabulary(vocabulary)
        scores = self._vocabulary_scores(stand, words, rivals(negatives))
        best = rank(found, field, scores, words, 5)

        def how(now: Stand) -> Stand:
            taken = {one.name for one in now.samples}
            name = next(name for n in range(1, 99) if (name := f"like this {best[0].phrase} {n}") not in taken)
            return replace(now, picked=replace(found, name=name))

        return best if visit.change_in(stand.scene, how) else []

    def more(self, token: Any, names: Sequence[str]) -> list[str]:
        """The things to look for with one more: what was picked."""

        def how(now: Stand) -> Stand:
            if now.picked is None:
                raise InputError("Click into the picture first; then more of what is there can be found.")
            if now.picked.name in names:
                return now
            wanted.append(now.picked.name)
            return replace(now, samples=(*now.samples, now.picked))

        wanted = list(names)
        self.visit(token).change(how)
        return checked_phrases(wanted)

    def select(self, token: Any, negatives: str) -> Selection:
        """Select the Gaussians of everything that is looked for."""
        visit = self.visit(token)
        stand = visit.stand
        if stand.prepared is None:
            raise InputError("Look for something first; its Gaussians can then be selected.")
        samples = {one.name: one for one in stand.samples}
        wanted = {name: samples.get(name) for name in stand.prepared.names}
        levels: dict[str, int] = {}
        if stand.look.level is not None:
            levels = dict.fromkeys(wanted, stand.look.level)
        elif stand.levels is not None:
            found = dict(zip(stand.prepared.names, stand.levels, strict=True))
            levels = {name: found[name] for name in samples if name in found}
        encoder = self.scenes.encoder(stand.position)
        selection = select(stand.scene, wanted, levels, encoder, rivals(negatives), stand.look.threshold)
        visit.change_in(stand.scene, lambda now: replace(now, selection=selection))
        return selection

    def show(self, token: Any, way: str, color: str) -> Visit:
        """Show the selection in another way."""
        if way not in WAYS:
            raise InputError(f"A selection can be shown as {', '.join(WAYS)}.")
        shade = rgb(color)

        def how(now: Stand) -> Stand:
            if now.selection is None and way != EVERYTHING:
                raise InputError("Nothing is selected; look for something and press Select in 3D first.")
            return replace(now, selection=now.selection and replace(now.selection, way=way, color=shade))

        visit = self.visit(token)
        visit.change(how)
        return visit

    def remember(self, token: Any) -> int:
        """Add the camera to the views of a video; returns how many there are."""
        visit = self.visit(token)
        stand = visit.change(lambda now: replace(now, path=(*now.path, now.camera)[-24:]))
        return len(stand.path)

    def forget(self, token: Any) -> None:
        """Begin with a new list of views."""
        self.visit(token).change(lambda now: replace(now, path=()))

    def _vocabulary_scores(self, stand: Stand, words: tuple[str, ...], negatives: tuple[str, ...]) -> torch.Tensor:
        """Scores of a vocabulary; encoding hundreds of phrases takes longer than all the rest of a click."""
        kept = self._scores.setdefault(stand.scene, {})
        scores = kept.get((words, negatives))
        if scores is None:
            trained, encoder = stand.scene.trained, self.scenes.encoder(stand.position)
            scores = text_scores(trained.gaussians, trained.field, words, encoder, negatives)
            if len(kept) >= VOCABULARIES:
                kept.clear()
            kept[words, negatives] = scores
        return scores


def checked_look(mode: str, opacity: float, level: str, threshold: float, marks: bool) -> Look:
    """A look from what the page's controls say.

    Raises:
        InputError: a value that the controls do not have.
    """
    if mode not in MODES:
        raise InputError(f"There is no mode {mode!r}; choose one of {', '.join(MODES)}.")
    if not 0.0 <= opacity <= 1.0:
        raise InputError("The opacity goes from 0 to 1.")
    return Look(mode, float(opacity), level_number(level), checked_threshold(threshold), bool(marks))


def checked_threshold(threshold: float) -> float:
    """A threshold on the normalised relevancy.

    Raises:
        InputError: not a number from 0 to below 1.
    """
    if not 0.0 <= threshold < 1.0:
        raise InputError("The threshold goes from 0 to below 1.")
    return float(threshold)


def level_number(level: str) -> int | None:
    """A level from its name; None for "auto".

    Raises:
        InputError: there is none.
    """
    if level == "auto":
        return None
    if level not in LEVELS:
        raise InputError(f"There is no level {level!r}; choose auto, {', '.join(LEVELS)}.")
    return LEVELS.index(level)


def checked_phrases(names: Sequence[str]) -> list[str]:
    """Phrases without repetitions and outer spaces.

    Raises:
        InputError: one is too long, or there are too many.
    """
    phrases = list(dict.fromkeys(str(name).strip() for name in names if str(name).strip()))
    if len(phrases) > MOST:
        raise InputError(f"{MOST} things can be looked for at a time; remove one first.")
    if any(len(phrase) > LONGEST for phrase in phrases):
        raise InputError(f"A phrase has more than {LONGEST} letters; shorten it.")
    return phrases


def rivals(negatives: str) -> tuple[str, ...]:
    """Negatives separated by commas; the usual ones if there are none.

    Raises:
        InputError: they are too many or too long.
    """
    parts = tuple(dict.fromkeys(part.strip() for part in negatives.split(",") if part.strip()))
    if len(parts) > 32 or any(len(part) > LONGEST for part in parts):
        raise InputError(f"At most 32 negatives of at most {LONGEST} letters can be used.")
    return parts or DEFAULT_NEGATIVES


def checked_vocabulary(text: str) -> tuple[str, ...]:
    """Phrases separated by commas or lines; `VOCABULARY` if there are none.

    Raises:
        InputError: they are too many or too long.
    """
    words = tuple(dict.fromkeys(word.strip() for word in re.split(r"[,\n]", text) if word.strip()))
    if len(words) > WORDS or any(len(word) > LONGEST for word in words):
        raise InputError(f"A vocabulary has at most {WORDS} phrases of at most {LONGEST} letters.")
    return words or VOCABULARY


def rgb(color: str) -> tuple[float, float, float]:
    """A colour of the page's picker, "#rrggbb" or "rgb(a)(r, g, b, ...)", as RGB 0..1.

    Raises:
        InputError: it is none.
    """
    if match := re.fullmatch(r"#([0-9a-fA-F]{6})", color.strip()):
        values = list(bytes.fromhex(match[1]))
    else:
        values = [round(float(part)) for part in re.findall(r"\d+(?:\.\d+)?", color)[:3]]
        if not color.strip().startswith("rgb") or len(values) != 3 or max(values) > 255:
            raise InputError("That is no colour; choose one with the picker.")
    return values[0] / 255, values[1] / 255, values[2] / 255
