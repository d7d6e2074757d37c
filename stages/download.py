"""Bring the data set: training and test images, each a file of its own."""

from normlab import sources
from normlab.config import params, paths
from normlab.config.pipeline import run_stage
from normlab.data import images


def main() -> None:
    train, test = sources.load(params.load().dataset)
    images.write(paths.TRAIN_IMAGES, train)
    images.write(paths.TEST_IMAGES, test)
    print(f"{len(train):,} training and {len(test):,} test images of {len(train.classes)} classes")


if __name__ == "__main__":
    run_stage(main)
