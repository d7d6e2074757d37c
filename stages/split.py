"""Draw the validation set out of the training images, and measure what normalizes an image."""

from normlab.config import params, paths
from normlab.config.pipeline import run_stage
from normlab.data import images, split


def main() -> None:
    config = params.load()
    drawn = split.draw(images.read(paths.TRAIN_IMAGES), config.split.val_size, config.seed)
    split.write(paths.SPLIT, drawn)
    print(f"{len(drawn.train):,} images to train on, {len(drawn.val):,} for validation")


if __name__ == "__main__":
    run_stage(main)
