"""LERF_OVS: four scenes with polygons for open-vocabulary queries, as LangSplat labelled them.

    python data_scripts/lerf_ovs.py --from-archive lerf_ovs.zip --out data/lerf_ovs

The authors share it in Google Drive, where a person has to press "Download".
"""

from prepare import Dataset, run
from scenes import to_scenes

DATASET = Dataset(
    title="LERF_OVS",
    page="https://github.com/minghanqin/LangSplat",
    licence="the terms on its page, which names none for the data",
    cite="Kerr et al., LERF: Language Embedded Radiance Fields, ICCV 2023; Qin et al., LangSplat, CVPR 2024",
    by_hand="lerf_ovs.zip behind the link to the datasets",
    classes={name: name for name in ("figurines", "ramen", "teatime", "waldo_kitchen")},
    skip=("output", "language_features", "language_features_dim3"),
)

if __name__ == "__main__":
    run(DATASET, to_scenes)
