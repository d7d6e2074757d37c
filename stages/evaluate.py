"""Score one run on training, validation and, for the first and only time, test images."""

from normlab import evaluation, files, images, layout, params, split
from normlab.errors import run_command


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
    result = evaluation.evaluate(made.best, sets, files.read_csv(made.log))
    evaluation.write(run, result)
    print(f"{run}: test accuracy {result['metrics']['test']['accuracy']:.2%}")


if __name__ == "__main__":
    run_command(main)
