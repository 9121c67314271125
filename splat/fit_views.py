"""What a fit of colours is given at a step, and how well it is doing, without making a GPU wait for the host."""

from collections import deque

import cv2
import numpy as np
import torch
from torch import Tensor

from splat.scene.cameras import stack
from splat.scene.scene import Scene

PHOTO_BYTES = 2 << 30
"""Photos are kept on a GPU up to this size, 8 bits per channel, and uploaded again at every use beyond it."""

READ_EVERY = 10
"""Steps between two looks at the loss on a GPU: each waits until the GPU has done everything before."""

RECENT = 50
"""Steps that a reported mean is over."""


class FitViews:
    """Training photos and cameras at full and half size, on a device."""

    def __init__(self, scene: Scene, device: str) -> None:
        self._scene = scene
        self._device = device
        self._halves = False
        self._kept: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self._room = 0

    def __getitem__(self, key: tuple[int, bool]) -> tuple[Tensor, Tensor, Tensor]:
        """(photo [H, W, 3] in 0..1, viewmat [1, 4, 4], K [1, 3, 3]) of view ``key[0]``, halved if ``key[1]``."""
        index, half = key
        if half != self._halves or not self._kept:  # a fit asks for halves first, and then never again
            self._kept.clear()
            self._halves, self._room = half, PHOTO_BYTES if torch.device(self._device).type == "cuda" else 0
        view = self._kept.get(index) or self._loaded(index, half)
        if index not in self._kept and view[0].nbytes <= self._room:
            self._kept[index] = view
            self._room -= view[0].nbytes
        photo, *camera = view
        return photo.float() / 255.0, camera[0], camera[1]

    def _loaded(self, index: int, half: bool) -> tuple[Tensor, Tensor, Tensor]:
        camera = self._scene.cameras[index]
        if half:
            camera = camera.resized(max(1, camera.width // 2), max(1, camera.height // 2))
        photo = np.array(self._scene.image(index))
        if half:
            photo = np.asarray(cv2.resize(photo, (camera.width, camera.height), interpolation=cv2.INTER_AREA), np.uint8)
        viewmat, intrinsics = (each.to(self._device) for each in stack([camera]))
        return torch.from_numpy(photo).to(self._device), viewmat, intrinsics


class RecentFit:
    """Loss and PSNR of the last steps."""

    def __init__(self, device: str) -> None:
        self._every = READ_EVERY if torch.device(device).type == "cuda" else 1
        self._unread: list[Tensor] = []
        self._read: deque[tuple[float, float]] = deque(maxlen=RECENT)

    def add(self, loss: Tensor, image: Tensor, truth: Tensor) -> None:
        """Note a step's loss and the image [H, W, 3] that it rendered; on a GPU to be read some steps later."""
        with torch.no_grad():
            error = (image.clamp(0.0, 1.0) - truth).square().mean()
            self._unread.append(torch.stack([loss, error]))
        if len(self._unread) >= self._every or not self._read:
            self.read()

    def read(self) -> None:
        """Wait for everything noted so far."""
        if self._unread:
            pairs = torch.stack(self._unread).cpu()
            psnr = -10.0 * pairs[:, 1].double().clamp_min(1e-10).log10()
            self._read.extend(zip(pairs[:, 0].tolist(), psnr.tolist(), strict=True))
            self._unread.clear()

    @property
    def means(self) -> tuple[float, float]:
        """Mean loss and PSNR (dB) of the last `RECENT` steps that were read; NaN before the first."""
        if not self._read:
            return float("nan"), float("nan")
        loss, psnr = np.mean(self._read, axis=0)
        return float(loss), float(psnr)
