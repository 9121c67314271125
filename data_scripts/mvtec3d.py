"""MVTec 3D-AD without its depth: the colour photos of 10 classes.

    python data_scripts/mvtec3d.py --out data/mvtec3d

Folders rgb and gt become MVTec AD's layout; the point clouds in xyz stay in the archive.
"""

from prepare import Dataset, run

DATASET = Dataset(
    title="MVTec 3D-AD",
    page="https://www.mvtec.com/company/research/datasets/mvtec-3d-ad/downloads",
    licence="CC BY-NC-SA 4.0 (not for commercial use)",
    cite="Bergmann et al., The MVTec 3D-AD Dataset for Unsupervised 3D Anomaly Detection and Localization, VISAPP 2022",
    url="https://www.mydrive.ch/shares/45920/dd1eb345346df066c63b5c95676b961b/download/428824485-1643285832/"
    "mvtec_3d_anomaly_detection.tar.xz",
    checksum="md5:d8bb2800fbf3ac88e798da6ae10dc819",
    skip=("xyz",),
)

if __name__ == "__main__":
    run(DATASET)
