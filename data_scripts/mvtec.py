"""MVTec AD: 15 classes of objects and textures, 5,354 photos, 4.9 GB.

python data_scripts/mvtec.py --out data/mvtec
"""

from prepare import Dataset, run

DATASET = Dataset(
    title="MVTec AD",
    page="https://www.mvtec.com/company/research/datasets/mvtec-ad/downloads",
    licence="CC BY-NC-SA 4.0 (not for commercial use)",
    cite="Bergmann et al., The MVTec Anomaly Detection Dataset, IJCV 129 (2021)",
    url="https://www.mydrive.ch/shares/38536/3830184030e49fe74747669442f0f283/download/420938113-1629960298/"
    "mvtec_anomaly_detection.tar.xz",
    checksum="sha256:cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d",
)

if __name__ == "__main__":
    run(DATASET)
