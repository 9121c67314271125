"""Mip-NeRF 360: seven scenes outdoors and indoors, 12 GB; with the query labels of GAGS if you have them.

    python data_scripts/mipnerf360.py --out data/mipnerf360
    python data_scripts/mipnerf360.py --from-archive 360_v2.zip Mip-NeRF360-OVS.zip --out data/mipnerf360

Fetches the photos. No checksum of their archive is published; each file in it has one. The labels are shared by the
authors of GAGS (https://github.com/WHU-USI3DV/GAGS) in Google Drive, where a person has to press "Download". They are
numbered like the photos in sorted order, and get the photos' names.
"""

from prepare import Dataset, run
from scenes import to_scenes

DATASET = Dataset(
    title="Mip-NeRF 360",
    page="https://jonbarron.info/mipnerf360/",
    licence="the terms on its page, which names none for the data",
    cite="Barron et al., Mip-NeRF 360, CVPR 2022; for the labels Peng et al., GAGS, 2024",
    url="https://storage.googleapis.com/gresearch/refraw360/360_v2.zip",
    complete=("bicycle", "bonsai", "counter", "garden", "kitchen", "room", "stump"),
    protocol="mipnerf360",
    # `train --scale` makes the smaller ones.
    skip=("images_2", "images_4", "images_8"),
)

if __name__ == "__main__":
    run(DATASET, to_scenes)
