"""Where is it? python examples/ask_a_scene.py out/demo "coffee cup" """

import sys
from pathlib import Path

import encoders
from splat.query import query_view, select_gaussians
from splat.trained import Trained

run, phrase = sys.argv[1:]
trained = Trained.load(Path(run))
encoder = encoders.create(trained.field.encoder)
for camera in trained.held_out():
    (found,) = query_view(trained.gaussians, trained.field, camera, [phrase], encoder)
    print(f"{camera.name}: {found.confidence:.2f} sure, at {found.point}, {found.mask.sum()} pixels")
chosen = select_gaussians(trained.gaussians, trained.field, phrase, encoder)
print(f"{int(chosen.sum())} of {len(chosen)} Gaussians")
