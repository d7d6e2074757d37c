"""Where the pipeline's files lie: the same names as in dvc.yaml."""

import os
from pathlib import Path
from typing import NamedTuple

CHECKED = Path("data/params.ok")
TRAIN_IMAGES = Path("data/images/train.safetensors")
TEST_IMAGES = Path("data/images/test.safetensors")
SPLIT = Path("data/split.json")
RESULTS = Path("results")
SCRATCH = "NORMLAB_SCRATCH"  #: environment variable: the scratch folder


class RunFiles(NamedTuple):
    """The files of one run."""

    weights: Path  #: of the best epoch
    log: Path
    features: Path  #: distribution of the penultimate features after every epoch
    environment: Path
    metrics: Path
    predictions: Path
    quantiles: Path


def run_files(run: str) -> RunFiles:
    records = Path("data/runs") / run
    return RunFiles(
        Path(f"data/weights/{run}.safetensors"),
        records / "log.csv",
        records / "features.safetensors",
        records / "environment.json",
        records / "metrics.json",
        records / "predictions.csv",
        records / "quantiles.csv",
    )


def scratch_root() -> Path:
    """The scratch folder, the same for a repository and DVC's temporary copies of it."""
    if place := os.environ.get(SCRATCH):
        return Path(place)
    here = Path.cwd()
    for parent in here.parents:  # `dvc exp run --temp` works in .dvc/tmp/exps/... of the repository
        if parent.name == ".dvc" and "exps" in here.parts:
            here = parent.parent
    return here / ".scratch"
