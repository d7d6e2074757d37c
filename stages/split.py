"""Draw the validation set out of the training images, and measure what normalizes an image."""

from normlab.base import layout, params
from normlab.base.errors import run_command
from normlab.data import images, split


def main() -> None:
    config = params.load()
    drawn = split.draw(images.read(layout.TRAIN_IMAGES), config.split.val_size, config.seed)
    split.write(layout.SPLIT, drawn)
    print(f"{len(drawn.train):,} images to train on, {len(drawn.val):,} for validation")


if __name__ == "__main__":
    run_command(main)
