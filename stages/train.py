"""Train one run."""

from typing import Annotated

import typer

from normlab import files, images, layout, params, runtime, split, training
from normlab.checkpoint import Spec
from normlab.errors import run_command
from normlab.scratch import Scratch, fingerprint


def main(run: str, norm: str, batch_size: int, groups: Annotated[int, typer.Option()] = 1) -> None:
    config = params.load()
    params.check_run(run, norm, batch_size, groups)
    data, parts = images.read(layout.TRAIN_IMAGES), split.read(layout.SPLIT)
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
    job = training.Job(spec, config.train, config.seed)
    device = runtime.make(
        config.train.precision, config.train.compile, training.flops(job, len(parts.train))
    )
    digests = {str(path): files.sha256(path) for path in (layout.TRAIN_IMAGES, layout.SPLIT)}
    with Scratch(run, fingerprint(training.determinants(job, digests, device))) as scratch:
        training.run(job, data[parts.train], data[parts.val], device, scratch)
        scratch.remove()


if __name__ == "__main__":
    run_command(main)
