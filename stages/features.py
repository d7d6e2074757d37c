"""Quantiles of one run's penultimate features on the validation images, for every epoch."""

from normlab.base import files, layout, params
from normlab.base.errors import run_command
from normlab.data import distribution
from normlab.evaluation import features


def main(run: str) -> None:
    wanted = params.load().features.quantiles
    made = layout.run_files(run)
    rows = features.table(distribution.read(made.features), wanted)
    files.write_csv(made.quantiles, rows, tuple(rows[0]))


if __name__ == "__main__":
    run_command(main)
