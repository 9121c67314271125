"""Scenes: photos with cameras, however they come, as undistorted pinhole views."""

from splat.scene.cameras import Camera, load_cameras, save_cameras, stack
from splat.scene.scene import Scene, load_scene

__all__ = ["Camera", "Scene", "load_cameras", "load_scene", "save_cameras", "stack"]
