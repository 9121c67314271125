"""Inspection classes made of numbers: materials and parts of which any number of photos can be taken.

`draw_class` invents a class; its `ProceduralClass.sample` photographs another specimen of it.
"""

from dictas.procedural.classes import FAMILIES, ProceduralClass, draw_class

__all__ = ["FAMILIES", "ProceduralClass", "draw_class"]
