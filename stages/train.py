"""Train one run."""

import sys

from normlab.compute import distributed
from normlab.config import params, paths, pipeline
from normlab.config.pipeline import run_stage
from normlab.data import distribution, images, split
from normlab.nets import checkpoint
from normlab.training import loop
from normlab.utils import files


def main(run: str, norm: str, batch_size: int) -> None:
    config = params.load()
    params.check_run(run, norm, batch_size)
    if config.compute.devices > 1 and not distributed.is_worker():
        distributed.launch(config.compute.devices, ["stages.train", *sys.argv[1:]])
        return
    data = images.read(paths.TRAIN_IMAGES)
    parts = split.read(paths.SPLIT, len(data))
    job = loop.make_job(run, norm, batch_size, config.seed, config, data, parts)
    inputs = pipeline.inputs("train", {"norm": norm}, data=True)
    out = paths.RunFiles(run)

    def write(trained: loop.Trained) -> None:
        checkpoint.save(out.weights, trained.weights, job.spec, trained.best_epoch)
        distribution.write(out.features, trained.features)
        files.write_json(out.environment, trained.environment)

    loop.train(job, data, parts, config.compute, inputs, write, out.log)


if __name__ == "__main__":
    run_stage(main)
