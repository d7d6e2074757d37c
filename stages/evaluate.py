"""Score one run on training, validation and, for the first and only time, test images."""

from normlab.config import params, paths
from normlab.config.pipeline import run_stage
from normlab.data import images, split
from normlab.evaluation import scores
from normlab.utils import files


def main(run: str) -> None:
    params.load()
    data = images.read(paths.TRAIN_IMAGES)
    parts = split.read(paths.SPLIT, len(data))
    sets = {
        "train": data[parts.train],
        "val": data[parts.val],
        "test": images.read(paths.TEST_IMAGES),
    }
    made = paths.run_files(run)
    result = scores.evaluate(made.weights, sets, files.read_csv(made.log))
    scores.write(run, result)
    print(f"{run}: test accuracy {result['metrics']['test']['accuracy']:.2%}")


if __name__ == "__main__":
    run_stage(main)
