"""Where the pipeline's files lie: the same names as in dvc.yaml."""

from pathlib import Path
from typing import NamedTuple

CHECKED = Path("data/params.ok")
TRAIN_IMAGES = Path("data/images/train.safetensors")
TEST_IMAGES = Path("data/images/test.safetensors")
SPLIT = Path("data/split.json")
RESULTS = Path("results")


class RunFiles(NamedTuple):
    """The files of one run."""

    best: Path  #: weights of the best epoch
    history: Path  #: a folder: the weights after every epoch
    log: Path
    environment: Path
    metrics: Path
    predictions: Path
    quantiles: Path


def run_files(run: str) -> RunFiles:
    weights, records = Path("data/weights") / run, Path("data/runs") / run
    return RunFiles(
        weights / "best.safetensors",
        weights / "history",
        records / "log.csv",
        records / "environment.json",
        records / "metrics.json",
        records / "predictions.csv",
        records / "quantiles.csv",
    )
