"""Bring the data set: training and test images, each a file of its own."""

from normlab import sources
from normlab.base import layout, params
from normlab.base.errors import run_command
from normlab.data import images


def main() -> None:
    train, test = sources.load(params.load().dataset)
    images.write(layout.TRAIN_IMAGES, train)
    images.write(layout.TEST_IMAGES, test)
    print(f"{len(train):,} training and {len(test):,} test images of {len(train.classes)} classes")


if __name__ == "__main__":
    run_command(main)
