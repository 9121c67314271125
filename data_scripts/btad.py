"""BTAD: 3 industrial products (01, 02, 03), 2,540 photos.

    python data_scripts/btad.py --out data/btad

Folders ok become good; masks stay .png or .bmp.
"""

from prepare import Dataset, run

DATASET = Dataset(
    title="BTAD",
    page="https://github.com/pankajmishra000/VT-ADL",
    licence="CC BY-SA, as its README.txt says",
    cite="Mishra et al., VT-ADL: A Vision Transformer Network for Image Anomaly Detection and Localization, ISIE 2021",
    url="https://avires.dimi.uniud.it/papers/btad/btad.zip",
    checksum="sha256:461c9387e515bfed41ecaae07c50cf6b10def647b36c9e31d239ab2736b10d2a",
)

if __name__ == "__main__":
    run(DATASET)
