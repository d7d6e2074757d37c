"""Training speed on a GPU: every norm beside a naive loop and the convolutions alone.

`python -m benchmarks.gpu` prints each row of benchmarks/gpu.csv and writes it as soon as it is
measured: a run that is cut off loses nothing. The columns:

- images_per_s: a training's steps, its images on the GPU.
- vs_naive_loop: against eager PyTorch with its defaults (so TF32), with nn.BatchNorm2d, its
  batches ready on the GPU.
- fraction_of_convolutions: against the network's convolutions alone, forward and backward, as one
  CUDA graph, in the precision's memory format.
- epoch_s, outside: of the first norm, seconds of an epoch of CIFAR-10's size, and the fraction of
  it that is neither steps nor validation.

All of a row take turns, round after round; figures are medians over the rounds, ratios those of
each round. Without a GPU it does the same on the CPU, which shows that the script works.
"""

import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer

from benchmarks import throughput
from benchmarks.workers import Steps, Worker, synchronize
from normlab.compute.runtime import describe, make_runtime
from normlab.config.paths import SCRATCH
from normlab.nets.resnet import ResNet
from normlab.norms.names import NORMS
from normlab.training.loop import train_to_end
from normlab.training.resume import Scratch
from normlab.utils import files
from normlab.utils.errors import run_command

FIELDS = ("batch_size", "precision", "norm", "images_per_s", "vs_naive_loop",
          "fraction_of_convolutions", "epoch_s", "outside")  # fmt: skip
SETTINGS = "128:float32,128:tf32,128:bfloat16,8:float32,8:bfloat16"
MEASURE_S = 0.3  #: how long the steps of one measurement take, about


def naive_loop(batch_size: int) -> Steps:
    """What a plain script does once its batches lie on the GPU."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = ResNet(2, 10, "torch_bn").to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    images = torch.randn(batch_size, 3, 32, 32, device=device)
    labels = torch.randint(10, (batch_size,), device=device)

    def steps(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()

    return steps


def epochs(norm: str, batch_size: int, precision: str, compiled: bool, images: int) -> Steps:
    """Whole epochs; returns the seconds of one and the fraction outside steps and validation."""
    runtime = make_runtime(precision, compiled, 0)
    data, val = throughput.random_images(images), throughput.random_images(images // 4)

    def trainer(count: int) -> Any:
        return throughput.make_trainer(norm, batch_size, runtime, data, val=val, epochs=count)

    def seconds(function: Any) -> float:
        synchronize()
        begin = time.perf_counter()
        function()
        synchronize()
        return time.perf_counter() - begin

    def steps(count: int) -> tuple[float, float] | None:
        if not count:
            return None
        alone = trainer(1)
        alone.train_epoch(1)  # compiles and captures
        validation = seconds(alone.evaluate)
        alone.model.train()
        throughput.start_epoch(alone.steps, torch.Generator())
        training = seconds(lambda: [alone.steps.next() for _ in range(alone.steps.per_epoch)])
        with tempfile.TemporaryDirectory() as folder:
            os.environ[SCRATCH] = folder
            with Scratch("benchmark", "key") as scratch:
                trained = train_to_end(trainer(count + 1), scratch)
        epoch = statistics.median(trained.environment[0]["seconds"][1:])
        return epoch, round(1 - (training + validation) / epoch, 3)

    return steps


def main(
    norms: Annotated[str, typer.Option(help="comma-separated")] = ",".join(NORMS),
    settings: Annotated[str, typer.Option(help="batch size:precision, comma-separated")] = SETTINGS,
    compiled: Annotated[bool, typer.Option(help="use torch.compile")] = True,
    images: Annotated[int, typer.Option(help="of an epoch", min=8)] = 40_000,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    out: Annotated[Path, typer.Option(help="the CSV file")] = Path("benchmarks/gpu.csv"),
) -> None:
    begin = time.monotonic()
    print(describe(make_runtime("float32", False, 0)), *FIELDS, sep="\n", flush=True)
    rows: list[dict[str, Any]] = []
    for setting in settings.split(","):
        size, _, precision = setting.partition(":")
        batch_size = int(size)
        calls = [
            (throughput.training, norm, batch_size, precision, compiled)
            for norm in norms.split(",")
        ]
        others = [(naive_loop, batch_size), (throughput.convolutions_alone, batch_size, precision)]
        # All at once: most of the time goes into compiling.
        with ThreadPoolExecutor() as pool:
            workers = list(pool.map(lambda call: Worker(*call, first=3), [*calls, *others]))
        *ours, naive, convolutions = workers
        count = max(4, min(2000, int(8 * MEASURE_S / seconds(ours[0], 8))))

        def rates(worker: Worker, count: int = count, size: int = batch_size) -> float:
            return count * size / seconds(worker, count)

        whole = Worker(epochs, norms.split(",")[0], batch_size, precision, compiled, images)
        epoch: tuple[Any, Any] = whole(2)
        whole.end()
        for norm, worker in zip(norms.split(","), ours, strict=True):
            triples = [[rates(w) for w in (worker, naive, convolutions)] for _ in range(rounds)]
            own, loop, limit = map(list, zip(*triples, strict=True))
            ratios = (throughput.ratio(own, loop), throughput.ratio(own, limit))
            rate = round(statistics.median(own))
            values = (batch_size, precision, norm, rate, *ratios, *epoch)
            epoch = ("", "")
            rows.append(dict(zip(FIELDS, values, strict=True)))
            print(*values, sep="\t", flush=True)
            files.write_csv(out, rows, FIELDS)
        for worker in workers:
            worker.end()
    print(f"{time.monotonic() - begin:.0f} s")


def seconds(worker: Worker, count: int) -> float:
    begin = time.perf_counter()
    worker(count)
    return time.perf_counter() - begin


if __name__ == "__main__":
    run_command(main)
