"""Quantiles of one run's penultimate features on the validation images, for every epoch."""

from normlab.config import params, paths
from normlab.config.pipeline import run_stage
from normlab.data import distribution
from normlab.evaluation import features
from normlab.utils import files


def main(run: str) -> None:
    wanted = params.load().features.quantiles
    made = paths.RunFiles(run)
    rows = features.table(distribution.read(made.features), wanted)
    files.write_csv(made.quantiles, rows)


if __name__ == "__main__":
    run_stage(main)
