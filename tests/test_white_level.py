"""Photos of a 12-bit camera, in files of 16 bits, are judged as the same photos of 8 bits are."""

from dataclasses import replace

import numpy as np
import pytest
from inspection import ColourDistance, backbone, save

from dictas.datasets import read_dataset
from dictas.evaluate import EvaluateOptions, evaluate
from dictas.predict import PredictOptions, predict

OPTIONS = PredictOptions(workers=0, batch=4, threshold=0.3)


@pytest.fixture(params=["8 bits", "12 bits"])
def parts(request, tmp_path):
    """A plain folder of grey parts, one with a bright spot, one too dark to tell how bright its camera sees."""

    def write(name, pixels):
        save(tmp_path / "parts" / name, pixels if request.param == "8 bits" else pixels.astype(np.uint16) * 16)

    rng = np.random.default_rng(0)
    for number in range(2):
        write(f"support/{number}.png", rng.integers(110, 140, (64, 64), np.uint8))
    good = rng.integers(110, 140, (64, 64), np.uint8)
    spot = good.copy()
    spot[16:32, 24:40] = 230
    write("query/good/0.png", good)
    write("query/spot/0.png", spot)
    write("query/dark/0.png", good // 3)
    write("masks/spot/0.png", np.where(spot == 230, 255, 0).astype(np.uint8))
    return tmp_path / "parts"


@pytest.mark.parametrize("workers", [0, 1])
def test_predict(parts, tmp_path, workers):
    options = replace(OPTIONS, workers=workers)
    rows = predict(backbone(), ColourDistance(), parts / "support", parts / "query", tmp_path / "out", options).rows
    scores = {row.path.split("/")[0]: row.score for row in rows}
    assert scores["good"] == pytest.approx(0.0, abs=0.03)
    assert scores["spot"] == pytest.approx(0.393, abs=0.01)
    assert scores["dark"] == pytest.approx(0.33, abs=0.04)


def test_eval(parts, tmp_path):
    options = EvaluateOptions(shots=2, baselines=())
    metrics = evaluate(read_dataset(parts), backbone(), ColourDistance(), tmp_path / "out", options)
    (only,) = metrics["per_class"].values()
    assert only["f1_threshold"] > 0.15
