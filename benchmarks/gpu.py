"""Training speed on a GPU: every norm, a naive loop, and the convolutions alone.

The columns; each row is written as soon as it is measured:

- images_per_s: a training's steps, its images on the GPU.
- vs_naive_loop: against eager PyTorch with its defaults (so TF32), with nn.BatchNorm2d, its
  batches ready on the GPU.
- fraction_of_convolutions: against the network's convolutions alone, forward and backward, as one
  CUDA graph, in the precision's memory format.
- epoch_s, outside: of the first norm, seconds of an epoch of CIFAR-10's size, and the fraction of
  it outside steps and validation.

See turns.py for how it is measured. Without a GPU it runs on the CPU, which shows that it works.
"""

import os
import statistics
import tempfile
from typing import Annotated

import typer

from benchmarks import loops, turns
from normlab.compute.runtime import describe, make_runtime
from normlab.config.paths import SCRATCH
from normlab.training.loop import train_to_end
from normlab.training.resume import Scratch
from normlab.utils.errors import run_command

SETTINGS = "128:float32,128:tf32,128:bfloat16,8:float32,8:bfloat16"
MEASURE_S = 0.3  #: how long the steps of one measurement take, about


def epoch(norm: str, batch_size: int, precision: str, compiled: bool, images: int) -> turns.Loop:
    """Yields the seconds of an epoch, and of the validation in it."""
    runtime = make_runtime(precision, compiled, 0)
    data, val = loops.random_images(images), loops.random_images(images // 4)
    trainer = loops.make_trainer(norm, batch_size, runtime, data, val=val, epochs=3)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[SCRATCH] = folder
        with Scratch("benchmark", "key") as scratch:
            trained = train_to_end(trainer, scratch)
    whole = statistics.median(trained.environment[0]["seconds"][1:])
    yield whole, turns.seconds(trainer.evaluate)


def main(
    norms: turns.Names = "torch_bn,bn,in,bin,ln,gn,nn",
    settings: Annotated[str, typer.Option(help="batch size:precision, comma-separated")] = SETTINGS,
    compiled: turns.Compiled = True,
    images: Annotated[int, typer.Option(help="of an epoch", min=8)] = 40_000,
    rounds: turns.Rounds = 3,
    out: turns.Out = None,
) -> None:
    print(describe(make_runtime("float32", False, 0)), flush=True)
    table = turns.Table(out)
    names = norms.split(",")
    for setting in settings.split(","):
        size, _, precision = setting.partition(":")
        batch_size = int(size)
        groups = {
            name: turns.start(loops.training, name, batch_size, precision, compiled)
            for name in names
        }
        groups["loop"] = turns.start(loops.naive_loop, batch_size)
        groups["limit"] = turns.start(loops.convolutions_alone, batch_size, precision)
        # All at once: most of the time goes into compiling.
        turns.work([process for group in groups.values() for process in group], 3)
        a_step = turns.seconds(turns.work, groups[names[0]], 8) / 8
        count = max(4, min(2000, int(MEASURE_S / a_step)))
        found = turns.rates(groups, batch_size, count, rounds)
        groups["epoch"] = turns.start(epoch, names[0], batch_size, precision, compiled, images)
        [(epoch_s, validation_s)] = turns.work(groups["epoch"], 1)
        for name in names:
            rate = statistics.median(found[name])
            first = name == names[0]
            table.add(
                batch_size=batch_size,
                precision=precision,
                norm=name,
                images_per_s=round(rate),
                vs_naive_loop=turns.ratio(found[name], found["loop"]),
                fraction_of_convolutions=turns.ratio(found[name], found["limit"]),
                epoch_s=epoch_s if first else "",
                outside=round(1 - (images / rate + validation_s) / epoch_s, 3) if first else "",
            )
        turns.end(groups)


if __name__ == "__main__":
    run_command(main)
