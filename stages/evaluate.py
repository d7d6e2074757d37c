"""Score one run on training, validation and test images."""

from normlab.config import params, paths
from normlab.config.pipeline import run_stage
from normlab.data import images, split
from normlab.evaluation import scores
from normlab.nets import checkpoint
from normlab.utils import files


def main(run: str) -> None:
    config = params.load()
    data = images.read(paths.TRAIN_IMAGES)
    parts = split.read(paths.SPLIT, len(data))
    test = images.read(paths.TEST_IMAGES)
    out = paths.RunFiles(run)
    model, spec, epoch = checkpoint.load(out.weights)
    log = files.read_csv(out.log)
    found, rows = scores.evaluate(
        model, spec, epoch, log, data, parts, test, config.compute.compile
    )
    files.write_csv(out.predictions, rows, ("actual", "predicted"))
    files.write_json(out.scores, found)
    files.write_json(out.metrics, scores.metrics(found))
    print(f"{run}: test accuracy {found['test']['accuracy']:.2%}")


if __name__ == "__main__":
    run_stage(main)
