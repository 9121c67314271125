"""Scenes and features of other programs, read and written in their own formats."""
