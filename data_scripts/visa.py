"""VisA: 12 classes, 10,821 photos, split into training and test by the published table split_csv/1cls.csv.

    python data_scripts/visa.py --out data/visa

Masks keep VisA's numbers of labels (1, 2, ...), so they look black in a viewer.
"""

from prepare import Dataset, run

DATASET = Dataset(
    title="VisA",
    page="https://github.com/amazon-science/spot-diff",
    licence="CC BY 4.0",
    cite="Zou et al., SPot-the-Difference Self-Supervised Pre-training for Anomaly Detection, ECCV 2022",
    url="https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar",
    checksum="sha256:2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362",
)

if __name__ == "__main__":
    run(DATASET)
