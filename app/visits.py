"""Visitors of the Scene tab: where each one's camera is, what is looked for and how it is drawn.

A visit begins when a page is opened and is known by a token that nobody can guess. It lives in memory only, and ends
when the page is closed or left alone.
"""

import itertools
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.scenes import Scenes, Shown
from app.selection import Selection
from encoders.errors import InputError
from splat.pivot import looked_at
from splat.prepared import Prepared
from splat.relevancy import THRESHOLD
from splat.samples import Sample
from splat.scene import Camera
from splat.scene.orbit import orbit, pan, roll, zoom

MODES = ("picture", "relevancy", "mask", "depth", "features", "levels")
"""What the viewport draws."""

OVER = "This page was left alone for too long, or the app was started anew; reload the page."
"""Said to a page whose visit is over."""


@dataclass(frozen=True)
class Look:
    """How the viewport draws.

    Attributes:
        mode: one of `MODES`. opacity: 0..1, of what is drawn over the picture.
        level: of answers and feature colours; None chooses. threshold: on the normalised relevancy, 0..1.
        marks: whether points and boxes are drawn.
    """

    mode: str = "picture"
    opacity: float = 0.75
    level: int | None = None
    threshold: float = THRESHOLD
    marks: bool = True


@dataclass(frozen=True)
class Stand:
    """All that a frame is made of; never changed, only replaced.

    Attributes:
        position: of the scene, ``scene``, among all.
        camera: where the visitor looks from, with the picture's size in the run.
        pivot: what it turns around. float64 [3]
        home, home_pivot: the camera and pivot that reset leads back to.
        prepared: what is looked for. against: the phrases that it must be likelier than.
        samples: those of its names that are samples.
        levels: the level at which each thing was found when the camera last stood still.
        picked: what was clicked at last.
        path: views collected for a video.
    """

    position: int
    scene: Shown
    camera: Camera
    pivot: NDArray[np.float64]
    home: Camera
    home_pivot: NDArray[np.float64]
    look: Look = field(default_factory=Look)
    prepared: Prepared | None = None
    against: tuple[str, ...] = ()
    samples: tuple[Sample, ...] = ()
    levels: tuple[int, ...] | None = None
    selection: Selection | None = None
    picked: Sample | None = None
    path: tuple[Camera, ...] = ()


@dataclass(frozen=True)
class Gesture:
    """What the pointer or the keyboard did since the last frame.

    Attributes:
        turn: drag to the right and down, as shares of the picture's width; its whole width is half a turn.
        pan: likewise. zoom: distances are divided by it. roll: radians, clockwise.
    """

    turn: tuple[float, float] = (0.0, 0.0)
    pan: tuple[float, float] = (0.0, 0.0)
    zoom: float = 1.0
    roll: float = 0.0


class Visit:
    """One open page. All methods may be called from several threads."""

    def __init__(self, stand: Stand | None, owner: str) -> None:
        self.token = secrets.token_urlsafe(24)
        self.owner = owner
        self.touched = time.monotonic()
        self._stand = stand
        self._guard = Lock()
        self.versions = itertools.count()
        self._newest = 0

    @property
    def begun(self) -> bool:
        """Whether there is a scene to look at."""
        return self._stand is not None

    @property
    def stand(self) -> Stand:
        """What the page shows now.

        Raises:
            InputError: no scene was chosen yet.
        """
        if self._stand is None:
            raise InputError("There is no scene yet; make one in the tab New scene.")
        return self._stand

    def change(self, how: Callable[[Stand], Stand]) -> Stand:
        """Replace what the page shows by what ``how``, which is quick, makes of it."""
        with self._guard:
            self._stand = how(self.stand)
            return self._stand

    def change_in(self, scene: Shown, how: Callable[[Stand], Stand]) -> bool:
        """`change`, unless the visitor went on to another scene since this was asked; returns whether it was done."""
        with self._guard:
            if self.stand.scene is not scene:
                return False
            self._stand = how(self.stand)
            return True

    def enter(self, position: int, scene: Shown) -> Stand:
        """Go to another scene, with nothing looked for."""
        stand = first_stand(position, scene)
        with self._guard:
            if self._stand is not None:
                stand = replace(stand, look=replace(self._stand.look, mode="picture"))
            self._stand = stand
        return stand

    def announce(self, sequence: int) -> Callable[[], bool]:
        """Note that a frame was asked for.

        Returns:
            A function that says whether a newer one has been asked for since.
        """
        with self._guard:
            self._newest = max(self._newest, sequence)
        return lambda: self._newest > sequence


class Visits:
    """Open pages by token: few enough for memory, and not for longer than they are used.

    Args:
        most: pages at a time; one more takes the place of the one that was left alone for longest.
        seconds: after which a page that was left alone is forgotten.
        over: told the token of each visit that is over, so that what was made for it can go.
    """

    def __init__(
        self,
        scenes: Scenes,
        most: int = 256,
        seconds: float = 2 * 3600,
        over: Callable[[str], None] = lambda token: None,
    ) -> None:
        self._scenes, self._most, self._seconds, self._over = scenes, most, seconds, over
        self._visits: OrderedDict[str, Visit] = OrderedDict()
        self._guard = Lock()

    def __len__(self) -> int:
        return len(self._visits)

    def begin(self, owner: str) -> Visit:
        """A page was opened; it shows the first scene, if there is one."""
        stand = first_stand(0, self._scenes.get(0)) if len(self._scenes) else None
        visit = Visit(stand, owner)
        with self._guard:
            self._visits[visit.token] = visit
            old = [token for token, one in self._visits.items() if visit.touched - one.touched > self._seconds]
            while len(self._visits) - len(old) > self._most:
                old.append(next(token for token in self._visits if token not in old))
            for token in old:
                del self._visits[token]
        for token in old:
            self._over(token)
        return visit

    def get(self, token: Any) -> Visit | None:
        """The visit with this token, if there is one."""
        with self._guard:
            visit = self._visits.get(token) if isinstance(token, str) else None
            if visit is not None:
                visit.touched = time.monotonic()
                self._visits.move_to_end(visit.token)
            return visit

    def end(self, owner: str) -> None:
        """A page was closed."""
        with self._guard:
            gone = [token for token, visit in self._visits.items() if visit.owner == owner]
            for token in gone:
                del self._visits[token]
        for token in gone:
            self._over(token)


def first_stand(position: int, scene: Shown) -> Stand:
    """Where a visitor begins: at the first held-out view, or the first of all."""
    held_out = set(scene.trained.test_names)
    camera = min(scene.trained.cameras, key=lambda one: (one.name not in held_out, one.name))
    pivot = looked_at(scene.trained.gaussians, camera)
    return Stand(position, scene, camera, pivot, camera, pivot)


def at_camera(stand: Stand, camera: Camera, pivot: NDArray[np.float64]) -> Stand:
    """Stand at a camera, turn around ``pivot``, and come back here when reset."""
    return replace(stand, camera=camera, pivot=pivot, home=camera, home_pivot=pivot)


def at_home(stand: Stand) -> Stand:
    """The stand as it was when its camera was last set."""
    return replace(stand, camera=stand.home, pivot=stand.home_pivot)


def moved(stand: Stand, gesture: Gesture) -> Stand:
    """The stand after a gesture: first roll and zoom, then pan, then turn."""
    camera, pivot = stand.camera, stand.pivot
    if gesture.roll:
        camera = roll(camera, gesture.roll)
    if gesture.zoom != 1.0:
        nearest = 0.02 * float(np.linalg.norm(stand.home.center - pivot))
        camera = zoom(camera, pivot, gesture.zoom, nearest)
    if gesture.pan != (0.0, 0.0):
        camera, pivot = pan(camera, pivot, gesture.pan[0] * camera.width, gesture.pan[1] * camera.width)
    if gesture.turn != (0.0, 0.0):
        # The scene follows the pointer: dragging to the right walks to the left.
        camera = orbit(camera, pivot, stand.scene.up, -np.pi * gesture.turn[0], np.pi * gesture.turn[1])
    return replace(stand, camera=replace(camera, name="free"), pivot=pivot)
