"""RESC: retinal OCT with macular edema.

    python data_scripts/resc.py --from-archive Retina_RESC.zip --out data/resc

Shared through Google Drive, where a person has to press "Download". Takes the copies of BMAD (train, valid, test),
of MVFA (no train: its valid/good is used) and of DictAS (DATA_Google.zip).
"""

from prepare import Dataset, run

DATASET = Dataset(
    title="RESC",
    page="https://github.com/DorisBao/BMAD",
    licence="CC BY-NC-SA 4.0 as part of BMAD, and the terms of the original data set",
    cite="Hu et al., Automated segmentation of macular edema in OCT, Medical Image Analysis 55 (2019); "
    "Bao et al., BMAD: Benchmarks for Medical Anomaly Detection, 2023",
    by_hand="Retina_RESC from the Google Drive folder named there",
    classes={"retina_resc": "resc", "retina_resc_ad": "resc", "resc": "resc", "retina": "resc"},
)

if __name__ == "__main__":
    run(DATASET)
