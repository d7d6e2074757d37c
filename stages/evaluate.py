"""Score one run on training, validation and, for the first and only time, test images."""

from normlab.base import files, layout, params
from normlab.base.errors import run_command
from normlab.data import images, split
from normlab.evaluation import scores


def main(run: str) -> None:
    params.load()
    data = images.read(layout.TRAIN_IMAGES)
    parts = split.read(layout.SPLIT, len(data))
    sets = {
        "train": data[parts.train],
        "val": data[parts.val],
        "test": images.read(layout.TEST_IMAGES),
    }
    made = layout.run_files(run)
    result = scores.evaluate(made.weights, sets, files.read_csv(made.log))
    scores.write(run, result)
    print(f"{run}: test accuracy {result['metrics']['test']['accuracy']:.2%}")


if __name__ == "__main__":
    run_command(main)
