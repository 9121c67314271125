"""3D-OVS: ten scenes of things on a bed, a bench, a table, with a mask for every class.

    python data_scripts/ovs3d.py --from-archive bed.zip bench.zip lawn.zip room.zip sofa.zip --out data/3d_ovs

The authors share it in Google Drive, where a person has to press "Download". Cameras are those of COLMAP (`sparse`), as
in the copy that LangSplat's authors share.
"""

from prepare import Dataset, run
from scenes import to_scenes

DATASET = Dataset(
    title="3D-OVS",
    page="https://github.com/Kunhao-Liu/3D-OVS",
    licence="the terms on its page, which names none for the data",
    cite="Liu et al., Weakly Supervised 3D Open-vocabulary Segmentation, NeurIPS 2023",
    by_hand="the scenes behind the link to the dataset, as zips,",
    skip=("output", "language_features", "language_features_dim3"),
)

if __name__ == "__main__":
    run(DATASET, to_scenes)
