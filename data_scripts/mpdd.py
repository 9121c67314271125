"""MPDD: 6 classes of metal parts in changing light and pose.

    python data_scripts/mpdd.py --from-archive MPDD.zip --out data/mpdd

The authors share it in OneDrive, where a person has to press "Download".
"""

from prepare import Dataset, run

DATASET = Dataset(
    title="MPDD",
    page="https://github.com/stepanje/MPDD",
    licence="the terms on its page, which names no licence (anomalib lists CC BY-NC-SA 4.0)",
    cite="Jezek et al., Deep learning-based defect detection of metal parts, ICUMT 2021",
    by_hand="the folder behind its download link, as a zip,",
)

if __name__ == "__main__":
    run(DATASET)
