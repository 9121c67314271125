"""BraTS 2021: slices of brain MRI with tumours.

    python data_scripts/brats.py --from-archive Brain.zip --out data/brats

Shared through Google Drive, where a person has to press "Download". Takes the copies of BMAD (train, valid, test),
of MVFA (no train: its valid/good is used) and of DictAS (DATA_Google.zip).
"""

from prepare import Dataset, run

DATASET = Dataset(
    title="BraTS 2021",
    page="https://github.com/DorisBao/BMAD",
    licence="CC BY-NC-SA 4.0 as part of BMAD, and the terms of the BraTS challenge",
    cite="Baid et al., The RSNA-ASNR-MICCAI BraTS 2021 Benchmark, 2021; "
    "Bao et al., BMAD: Benchmarks for Medical Anomaly Detection, 2023",
    by_hand="Brain from the Google Drive folder named there",
    classes={"brain": "brats", "brain_ad": "brats", "brats": "brats", "brats2021_slice": "brats"},
)

if __name__ == "__main__":
    run(DATASET)
