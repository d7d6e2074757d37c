"""Train one run."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from normlab.compute import distributed, runtime
from normlab.config import params, paths
from normlab.config.pipeline import run_stage
from normlab.data import images, split
from normlab.nets.checkpoint import Spec
from normlab.training import loop
from normlab.training.resume import Scratch, fingerprint
from normlab.utils import files


def main(run: str, norm: str, batch_size: int, groups: Annotated[int, typer.Option()] = 1) -> None:
    config = params.load()
    params.check_run(run, norm, batch_size, groups)
    if config.train.devices > 1 and not distributed.is_worker():
        distributed.launch(config.train.devices, ["stages.train", *sys.argv[1:]])
        return
    data = images.read(paths.TRAIN_IMAGES)
    parts = split.read(paths.SPLIT, len(data))
    spec = Spec(
        run=run,
        norm=norm,
        batch_size=batch_size,
        n=config.model.n,
        groups=groups,
        classes=data.classes,
        mean=tuple(parts.mean),
        std=tuple(parts.std),
    )
    job = loop.Job(spec, config.train, config.seed)
    device = runtime.make(
        config.train.precision,
        config.train.compile,
        loop.flops(job, len(parts.train)),
        config.train.devices,
    )
    sources = (paths.TRAIN_IMAGES, paths.SPLIT, Path(__file__))
    digests = {path.name: files.sha256(path) for path in sources}
    key = fingerprint(loop.determinants(job, digests, device))
    with (
        distributed.group(device.device),
        Scratch(run, key) if distributed.rank() == 0 else nullcontext() as scratch,
    ):
        trainer = loop.Trainer(job, data[parts.train], data[parts.val], device)
        del data  # the trainer keeps a padded copy; this one would only take memory
        loop.run(trainer, scratch)
        if scratch:
            scratch.remove()


if __name__ == "__main__":
    run_stage(main)
