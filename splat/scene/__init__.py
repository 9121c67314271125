"""Scenes: photos with cameras, however they come, as undistorted pinhole views."""

import signal
from contextlib import suppress

from splat.scene.cameras import Camera, load_cameras, save_cameras, stack
from splat.scene.scene import Scene, load_scene

__all__ = ["Camera", "Scene", "load_cameras", "load_scene", "save_cameras", "stack"]


# pycolmap, once imported, writes a stack trace when the process is told to end: what Python does then stands again.
with suppress(ValueError, TypeError):  # in another thread signals cannot be set, or somebody else's code has set it
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
