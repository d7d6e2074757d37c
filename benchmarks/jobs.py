"""What `make study JOBS=2` gains: runs side by side, each with its share of the cores, or in turn.

One process with all cores and JOBS processes with their share of them take turns (see turns.py).
"""

import statistics
from typing import Annotated

import joblib
import torch
import typer

from benchmarks import loops, turns
from normlab.utils.errors import run_command


def training(norm: str, batch_size: int, threads: int) -> turns.Loop:
    torch.set_num_threads(threads)
    return loops.training(norm, batch_size)


def main(
    jobs: Annotated[int, typer.Option(min=2)] = 2,
    norms: turns.Names = "bn,gn",
    batch_sizes: turns.Names = "128,8",
    rounds: turns.Rounds = 9,
    out: turns.Out = None,
) -> None:
    table = turns.Table(out)
    cores = joblib.cpu_count()
    for batch_size in map(int, batch_sizes.split(",")):
        for norm in norms.split(","):
            share = max(1, cores // jobs)
            groups = {
                "one": turns.start(training, norm, batch_size, cores),
                "jobs": turns.start(training, norm, batch_size, share, processes=jobs),
            }
            found = turns.rates(groups, batch_size, max(4, 1024 // batch_size), rounds)
            turns.end(groups)
            table.add(
                batch_size=batch_size,
                norm=norm,
                one_images_per_s=round(statistics.median(found["one"])),
                jobs=jobs,
                jobs_images_per_s=round(statistics.median(found["jobs"])),
                gain=turns.ratio(found["jobs"], found["one"]),
            )


if __name__ == "__main__":
    run_command(main)
