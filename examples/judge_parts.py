"""What is wrong with them? python examples/judge_parts.py good/ tonight/ results/"""

import sys
from pathlib import Path

from dictas.checkpoint import load_detector
from dictas.predict import predict

good, judge, out = map(Path, sys.argv[1:])
backbone, detector = load_detector()
prediction = predict(backbone, detector, good, judge, out)
for row in sorted(prediction.rows, key=lambda row: -(row.score or 0.0)):
    verdict = row.error or ("anomalous" if row.anomalous else "good")
    print(f"{row.path}: {verdict}, score {row.score}, highest at ({row.peak_x}, {row.peak_y})")
