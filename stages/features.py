"""Quantiles of one run's penultimate features on the validation images, for every epoch."""

from normlab.base import layout, params
from normlab.base.errors import run_command
from normlab.data import images, split
from normlab.evaluation import features


def main(run: str) -> None:
    wanted = params.load().features.quantiles
    data = images.read(layout.TRAIN_IMAGES)
    val = data[split.read(layout.SPLIT, len(data)).val]
    features.write(run, features.quantiles(layout.run_files(run).history, val, wanted))


if __name__ == "__main__":
    run_command(main)
