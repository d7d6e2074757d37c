"""Where the pipeline's files are: the same names as in dvc.yaml."""

import os
from pathlib import Path

TRAIN_IMAGES = Path("data/images/train.safetensors")
TEST_IMAGES = Path("data/images/test.safetensors")
SPLIT = Path("data/split.json")
REPEATS = Path("data/repeats")
RESULTS = Path("results")
SCRATCH = "NORMLAB_SCRATCH"  #: environment variable: the scratch folder


class RunFiles:
    """The files of one run."""

    def __init__(self, run: str) -> None:
        records = Path("data/runs") / run
        self.weights = Path(f"data/weights/{run}.safetensors")  #: of the best epoch
        self.log = records / "log.csv"
        self.features = records / "features.safetensors"  #: their distribution after every epoch
        self.environment = records / "environment.json"
        self.scores = records / "scores.json"
        self.metrics = records / "metrics.json"  #: three of the scores, for `dvc metrics`
        self.predictions = records / "predictions.csv"
        self.quantiles = records / "quantiles.csv"


def repeat_file(norm: str, batch_size: int, seed: int) -> Path:
    """What the stage `repeat` and its siblings write."""
    return REPEATS / f"{norm}-{batch_size}-{seed}.json"


def scratch_root() -> Path:
    """The scratch folder, the same for a repository and DVC's temporary copies of it."""
    if place := os.environ.get(SCRATCH):
        return Path(place)
    here = Path.cwd()
    for parent in here.parents:  # `dvc exp run --temp` works in .dvc/tmp/exps/... of the repository
        if parent.name == ".dvc" and "exps" in here.parts:
            here = parent.parent
    return here / ".scratch"
