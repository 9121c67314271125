"""DTD: 5,640 photos of textures, to paste as synthetic defects when training DictAS.

python data_scripts/dtd.py --out data/dtd
"""

from pathlib import Path

from prepare import Dataset, run

from encoders.errors import InputError

DATASET = Dataset(
    title="DTD",
    page="https://www.robots.ox.ac.uk/~vgg/data/dtd/",
    licence="its own terms (for research purposes)",
    cite="Cimpoi et al., Describing Textures in the Wild, CVPR 2014",
    url="https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
    checksum="md5:fff73e5086ae6bdbea199a49dfb8a4c1",
)


def keep_images(raw: Path, out: Path, _: Dataset) -> str:
    """Move images/TEXTURE/*.jpg; labels and splits are not needed."""
    images = next((path for path in sorted(raw.rglob("images")) if path.is_dir()), None)
    count = 0 if images is None else sum(1 for _ in images.glob("*/*.jpg"))
    if images is None or not count:
        raise InputError("there are no textures images/NAME/*.jpg in it.")
    images.rename(out / "images")
    return f"{count} textures"


if __name__ == "__main__":
    run(DATASET, keep_images)
