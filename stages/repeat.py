"""Train a norm at a batch size with a seed, and score it: one repetition."""

import sys

from normlab.compute import distributed
from normlab.config import params, paths, pipeline
from normlab.config.pipeline import run_stage
from normlab.data import images, split
from normlab.evaluation import scores
from normlab.training import loop
from normlab.utils import files


def main(norm: str, batch_size: int, seed: int) -> None:
    config = params.load()
    out = paths.repeat_file(norm, batch_size, seed)
    params.check_run(out.stem, norm, batch_size)
    if config.compute.devices > 1 and not distributed.is_worker():
        distributed.launch(config.compute.devices, ["stages.repeat", *sys.argv[1:]])
        return
    data = images.read(paths.TRAIN_IMAGES)
    parts = split.read(paths.SPLIT, len(data))
    job = loop.make_job(out.stem, norm, batch_size, seed, config, data, parts)
    # The stage `train` depends on what determines a training; this one also on how it is scored.
    inputs = pipeline.inputs("train", {"norm": norm}, data=True)

    def write(trained: loop.Trained) -> None:
        model = job.spec.build()
        model.load_state_dict(trained.weights)
        test = images.read(paths.TEST_IMAGES)
        found, _ = scores.evaluate(
            model.eval(), job.spec, trained.best_epoch, trained.log, data, parts, test,
            config.compute.compile,
        )  # fmt: skip
        log = {field: [row[field] for row in trained.log] for field in loop.LOG_FIELDS}
        environment = trained.environment
        files.write_json(out, {**found, "seed": seed, "log": log, "environment": environment})

    loop.train(job, data, parts, config.compute, inputs, write)


if __name__ == "__main__":
    run_stage(main)
