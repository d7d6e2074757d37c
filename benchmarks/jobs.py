"""What `make study JOBS=2` gains: runs side by side, each with its share of the cores, or in turn.

One process with all cores and JOBS processes with their share of them take turns, a few steps
each, round after round; rates and gains are medians over the rounds. See `--help`.
"""

import statistics
import time
from pathlib import Path
from typing import Annotated

import joblib
import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import throughput
from benchmarks.workers import Steps, Worker
from normlab.utils import files
from normlab.utils.errors import run_command

FIELDS = ("batch_size", "norm", "one_images_per_s", "jobs", "jobs_images_per_s", "gain")


def training(norm: str, batch_size: int, threads: int) -> Steps:
    torch.set_num_threads(threads)
    return throughput.training(norm, batch_size)


def seconds(workers: list[Worker], steps: int) -> float:
    """How long `workers`, all at once, take for so many steps each."""
    begin = time.perf_counter()
    for worker in workers:
        worker.start(steps)
    for worker in workers:
        worker.wait()
    return time.perf_counter() - begin


def measure(norm: str, batch_size: int, jobs: int, rounds: int) -> tuple[list[float], list[float]]:
    """Images/s of one process with all cores, and of `jobs` processes together, every round."""
    cores = joblib.cpu_count()
    workers = [
        Worker(training, norm, batch_size, threads, first=3)  # compiles, one after the other
        for threads in (cores, *[max(1, cores // jobs)] * jobs)
    ]
    steps = max(4, 1024 // batch_size)
    alone, together = [], []
    for _ in range(rounds):
        alone.append(steps * batch_size / seconds(workers[:1], steps))
        together.append(jobs * steps * batch_size / seconds(workers[1:], steps))
    for worker in workers:
        worker.end()
    return alone, together


def main(
    jobs: Annotated[int, typer.Option(min=2)] = 2,
    norms: Annotated[str, typer.Option(help="comma-separated")] = "bn,gn",
    batch_sizes: Annotated[str, typer.Option(help="comma-separated")] = "128,8",
    rounds: Annotated[int, typer.Option(min=1)] = 9,
    out: Annotated[Path | None, typer.Option(help="CSV file to write")] = None,
) -> None:
    rows = []
    for batch_size in map(int, batch_sizes.split(",")):
        for norm in norms.split(","):
            one, several = measure(norm, batch_size, jobs, rounds)
            rates = round(statistics.median(one)), jobs, round(statistics.median(several))
            values = (batch_size, norm, *rates, throughput.ratio(several, one))
            rows.append(dict(zip(FIELDS, values, strict=True)))
    table = Table(*FIELDS)
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)
    if out:
        files.write_csv(out, rows, FIELDS)


if __name__ == "__main__":
    run_command(main)
