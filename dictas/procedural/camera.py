"""How one photo differs from the next: pose, light, exposure, focus, noise."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dictas.procedural.colours import mix, shade, tripled
from dictas.procedural.noise import Field, Painter, Shape, between, blur

Generator = np.random.Generator
WHITE = 1.5
"""Light that is white for certain; a scene's white under usual light is 1."""
STEPS = 4096
"""Levels of light that a photo tells apart."""


@dataclass(frozen=True)
class Camera:
    """How much photos of one class differ; each number is a standard deviation unless said otherwise.

    Attributes:
        grey: the camera sees no colours.
        turn: rotation in radians.
        shift: displacement as a part of the image's side.
        zoom: logarithm of the magnification.
        exposure: brightness of the whole photo in stops.
        gradient: relative brightness, from one side to the other.
        vignette: largest relative loss of light in the corners.
        spots: largest relative brightness of a lamp's glow.
        gamma: logarithm of the tone curve's exponent.
        tint: relative strength of a colour channel.
        blur: largest standard deviation of the blur in pixels.
        noise: largest standard deviation of the sensor's noise, in parts of white.
    """

    grey: bool
    turn: float
    shift: float
    zoom: float
    exposure: float
    gradient: float
    vignette: float
    spots: float
    gamma: float
    tint: float
    blur: float
    noise: float

    @staticmethod
    def draw(look: Generator) -> "Camera":
        """A class's camera: from a fixture under constant light to a hand-held phone."""
        pose, light = between(look, 0.02, 1), between(look, 0.05, 1)
        return Camera(
            grey=look.random() < 0.3,
            turn=0.12 * pose,
            shift=0.03 * pose,
            zoom=0.06 * pose,
            exposure=0.55 * light * look.random(),
            gradient=0.25 * light * look.random(),
            vignette=0.5 * light * look.random(),
            spots=0.5 * light * look.random(),
            gamma=0.25 * light * look.random(),
            tint=0.04 * light * look.random(),
            blur=0.9 * look.random(),
            noise=between(look, 0.002, 0.04),
        )

    def photograph(self, scene: Field, rng: Generator) -> NDArray[np.uint8]:
        """Colours [H, W, 3] in 0..1 -> uint8 [H, W, 3]."""
        shape = scene.shape[:2]
        light, tint = self._light(shape, rng), np.exp(rng.normal(0, self.tint, 3)).astype(np.float32)
        if self.grey:
            photo = np.asarray(cv2.cvtColor(scene, cv2.COLOR_RGB2GRAY), np.float32) * light
        else:
            photo = scene * shade(tint, light)
        photo = self._tone_curve(rng).take(np.maximum(photo * (STEPS / WHITE), 0).astype(np.int32), mode="clip")
        sigma = self.blur * rng.random()
        if sigma > 0.3:
            photo = blur(photo, sigma)
        noise = rng.standard_normal(shape, dtype=np.float32) * np.float32(255 * self.noise * rng.random())
        photo += noise if self.grey else tripled(noise)
        pixels = np.clip(photo + 0.5, 0, 255, out=photo).astype(np.uint8)
        return np.asarray(cv2.merge((pixels, pixels, pixels)), np.uint8) if self.grey else pixels

    def _tone_curve(self, rng: Generator) -> Field:
        """0..255 for each of `STEPS` levels of light up to `WHITE`: a power with highlights that saturate softly."""
        level = np.linspace(0, WHITE, STEPS, dtype=np.float32)
        soft = np.where(level > 0.85, 0.85 + 0.15 * np.tanh((level - 0.85) / 0.15), level)
        return np.asarray(255 * soft ** np.exp(rng.normal(0, self.gamma)), np.float32)

    def _light(self, shape: Shape, rng: Generator) -> Field:
        y = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None]
        x = np.linspace(-1, 1, shape[1], dtype=np.float32)[None]
        slope = rng.normal(0, self.gradient, 2).astype(np.float32)
        light = np.exp(slope[0] * y + slope[1] * x)
        light *= 1 - np.float32(self.vignette * rng.random() / 2) * (y**2 + x**2)
        for _ in range(rng.integers(0, 3)):
            row, column = rng.uniform(-1.2, 1.2, 2).astype(np.float32)
            width = np.float32(rng.uniform(0.3, 1.0))
            glow = np.exp(-((y - row) ** 2) / width**2) * np.exp(-((x - column) ** 2) / width**2)
            light *= 1 + np.float32(self.spots * rng.uniform(-0.4, 1)) * glow
        light *= np.float32(2 ** rng.normal(0, self.exposure))
        return np.asarray(light, np.float32)

    def fill(self, paint: Painter, look: Generator, rng: Generator, shape: Shape, angle: float) -> Field:
        """A surface that fills the frame, its rows turned by ``angle`` and this camera's own jitter."""
        unit = min(shape) / 256
        zoom = float(np.exp(rng.normal(0, self.zoom)))
        turn = angle + rng.normal(0, self.turn)
        if abs(np.sin(2 * turn)) < 0.02:  # nearly along an axis: no need to paint more and resample
            if abs(np.sin(turn)) < 0.5:
                return paint(look, rng, shape, unit * zoom)
            return np.ascontiguousarray(paint(look, rng, shape[::-1], unit * zoom).transpose(1, 0, 2))
        tall = int(abs(shape[0] * np.cos(turn)) + abs(shape[1] * np.sin(turn))) + 3
        wide = int(abs(shape[1] * np.cos(turn)) + abs(shape[0] * np.sin(turn))) + 3
        canvas = paint(look, rng, (tall, wide), unit * zoom)
        matrix = cv2.getRotationMatrix2D((wide / 2, tall / 2), np.degrees(turn), 1.0)
        matrix[0, 2] += (shape[1] - wide) / 2
        matrix[1, 2] += (shape[0] - tall) / 2
        turned = cv2.warpAffine(canvas, matrix, shape[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        return np.asarray(turned, np.float32)

    def place(
        self, part: Field, opaque: Field, ground: Field, rng: Generator, angle: float, scale: float, shadow: float
    ) -> tuple[Field, NDArray[np.bool_]]:
        """Lay a part on a ground.

        Args:
            part: colours [S, S, 3] on a square canvas.
            opaque: what of the canvas is the part, [S, S] in 0..1.
            ground: colours [H, W, 3]; the canvas is as large as its shorter side.
            angle: how the part lies, in radians, before this camera's jitter.
            scale: how much of the frame the canvas fills.
            shadow: how dark the ground beside it is, 0..1.

        Returns:
            the scene [H, W, 3], the part's pixels bool [H, W].
        """
        shape, side = ground.shape[:2], part.shape[0]
        scale *= min(shape) / side * float(np.exp(rng.normal(0, self.zoom)))
        matrix = cv2.getRotationMatrix2D((side / 2, side / 2), np.degrees(angle + rng.normal(0, self.turn)), scale)
        shift = rng.normal(0, self.shift, 2) * min(shape)
        matrix[0, 2] += (shape[1] - side) / 2 + shift[0]
        matrix[1, 2] += (shape[0] - side) / 2 + shift[1]
        edge = cv2.BORDER_REPLICATE
        laid = np.asarray(cv2.warpAffine(part, matrix, shape[::-1], flags=cv2.INTER_LINEAR, borderMode=edge))
        cover = np.asarray(cv2.warpAffine(opaque, matrix, shape[::-1], flags=cv2.INTER_LINEAR), np.float32)
        if shadow:
            offset = np.asarray([[1, 0, 0.012 * min(shape)], [0, 1, 0.015 * min(shape)]])
            dark = cv2.warpAffine(blur(cover, 0.02 * min(shape)), offset, shape[::-1])
            ground = shade(ground, 1 - np.float32(shadow) * np.asarray(dark, np.float32))
        return mix(ground, laid.astype(np.float32), cover), cover > 0.5
