"""What larger studies cost, computed from rates that were measured.

`python -m benchmarks.cost measure` measures this machine and writes benchmarks/rates.json;
`python -m benchmarks.cost page` computes benchmarks/COST.md from it. What is assumed, not
measured (the GPU), stands in ASSUMED and is marked so on the page.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import typer
from jinja2 import Environment, StrictUndefined

from benchmarks import throughput
from normlab.base import files
from normlab.base.architecture import WIDTHS, flops_per_image
from normlab.base.errors import run_app
from normlab.compute import runtime
from normlab.data.images import Images
from normlab.nets.resnet import ResNet

RATES = Path(__file__).parent / "rates.json"
PAGE = Path(__file__).parent / "COST.md"
TEMPLATE = Path(__file__).parent / "COST.md.j2"
DEPTHS = (2, 3, 9)  #: that are measured; another is computed from the nearest, by its FLOPs
CIFAR = (50_000, 10_000, 10)  #: training images with validation, test images, classes
IMAGENET32 = (1_281_167, 50_000, 1000)  #: ImageNet at 32x32 (Chrabaszcz et al. 2017)
VAL_SHARE = 0.2
#: all-reduces of a bn: of the batch's count, sum and squares, and backward of the latter two
SUMS = 5
MIB = 2**20

#: No GPU could be measured. The H100's data sheet, and the share of it that such small layers are
#: assumed to reach: they are bound by reading and writing activations, not by arithmetic; and
#: steps of few images by their number of kernels, however small each is.
ASSUMED = {
    "bytes_per_s": 3.35e12,
    "share": 0.4,
    "passes": 10,  # reads and writes of an activation: convolution, norm, sum; forward and backward
    "bytes_per_value": 2,  # bfloat16
    "kernels_per_layer": 15,  # of a whole step: forward, backward, optimizer
    "kernel_s": 3e-6,  # the shortest, replayed in a CUDA graph
}

app = typer.Typer(help=__doc__, no_args_is_help=True)


@dataclass(frozen=True)
class Study:
    """Some runs that are alike but for the norm; of each ninth, two have batch size 8."""

    name: str
    n: int
    data: tuple[int, int, int] = CIFAR
    runs: int = 9
    epochs: int = 100
    side: int = 32

    @property
    def train_images(self) -> int:
        return round(self.data[0] * (1 - VAL_SHARE))

    @property
    def small_batch_runs(self) -> int:
        return self.runs * 2 // 9

    @property
    def forward_flops(self) -> float:
        """Of one image."""
        return flops_per_image(self.n) * (self.side / 32) ** 2

    @property
    def images(self) -> tuple[float, float]:
        """Of one run: images in training steps, and in forward passes alone.

        Forward alone go the validation images after each epoch and once more for the features,
        and everything once in `evaluate`.
        """
        validation = self.data[0] - self.train_images
        return (
            self.train_images * self.epochs,
            2.0 * validation * self.epochs + self.data[0] + self.data[1],
        )

    @property
    def flops(self) -> float:
        steps, forward = self.images
        return self.runs * self.forward_flops * (3 * steps + forward)

    @property
    def parameters(self) -> int:
        return parameters(self.n, self.data[2])

    @property
    def cache_bytes(self) -> tuple[float, float]:
        """In DVC's cache: the images, and the weights after every epoch with the best of them."""
        pixels = 3 * self.side**2
        return (
            (self.data[0] + self.data[1]) * pixels,
            self.runs * 4.0 * self.parameters * (self.epochs + 1),
        )

    @property
    def memory_bytes(self) -> float:
        """Of a training's images while they are prepared: as read, as split, padded for crops."""
        pixels, padded = 3 * self.side**2, 3 * (self.side + 8) ** 2
        return 2 * self.data[0] * pixels + self.train_images * padded


STUDIES = (
    Study("this study", 2),
    Study("n = 3 (20 layers)", 3),
    Study("n = 9 (56 layers)", 9),
    Study("n = 18 (110 layers)", 18),
    Study("100 seeds, n = 2", 2, runs=900),
    Study("ImageNet at 32x32, n = 9", 9, data=IMAGENET32),
    Study("ImageNet at 224x224, n = 9", 9, data=IMAGENET32, side=224),
)


def parameters(n: int, classes: int) -> int:
    """Trainable values of the network with a norm's weight and bias."""
    return sum(p.numel() for p in ResNet(n, classes, "bn").parameters())


def activations(n: int) -> int:
    """Values that the convolutions of one 32x32 image write, the norms and ReLUs aside."""
    return sum(
        (2 * n + (stage == 0)) * width * (32 >> stage) ** 2 for stage, width in enumerate(WIDTHS)
    )


def cpu_hours(study: Study, rates: dict[str, Any]) -> float:
    """Of the measured machine, all its cores at work on one run after the other."""
    depth = str(min(DEPTHS, key=lambda n: abs(n - study.n)))
    scale = study.forward_flops / flops_per_image(int(depth))
    measured = rates["depth"][depth]
    steps, forward = study.images
    seconds = 0.0
    for batch_size, runs in (
        ("128", study.runs - study.small_batch_runs),
        ("8", study.small_batch_runs),
    ):
        seconds += runs * scale * (steps / measured[batch_size] + forward / measured["forward"])
    return seconds / 3600


def gpu_hours(study: Study, gpus: int) -> tuple[float, str]:
    """Hours until all runs are done on `gpus` assumed GPUs, and what sets them.

    Runs are independent and go to the GPUs one by one, the longest first; no run is divided.
    """
    steps, forward = study.images
    values = activations(study.n) * (study.side / 32) ** 2
    bandwidth = ASSUMED["bytes_per_s"] * ASSUMED["share"]
    image_s = ASSUMED["passes"] * ASSUMED["bytes_per_value"] * values / bandwidth
    least_s = ASSUMED["kernels_per_layer"] * ASSUMED["kernel_s"] * (6 * study.n + 2)

    def run_s(batch_size: int) -> float:
        return steps / batch_size * max(least_s, batch_size * image_s) + forward * image_s / 3

    small = study.small_batch_runs
    times = sorted([run_s(8)] * small + [run_s(128)] * (study.runs - small), reverse=True)
    loads = [0.0] * gpus
    for seconds in times:
        loads[loads.index(min(loads))] += seconds
    longest = math.isclose(max(loads), times[0])
    return max(loads) / 3600, "the longest run" if longest else "the number of GPUs"


def sharing(batch_size: int, devices: int, rates: dict[str, Any]) -> float:
    """How much faster `devices` machines like the measured one train bn at n = 2 than one does.

    A step's arithmetic is divided among them, and is not compiled; its all-reduces are not
    divided: those of each norm, and that of the gradients.
    """
    if devices == 1:
        return 1.0
    alone = batch_size / rates["depth"]["2"][str(batch_size)]
    divided = batch_size / rates["eager"][str(batch_size)] / devices
    small = SUMS * (6 * 2 + 1) * rates["all_reduce_s"]["sums"]
    # A ring: each sends and receives 2 (d-1)/d of the gradients; two processes, once of them.
    gradients = rates["all_reduce_s"]["gradients"] * 2 * (devices - 1) / devices
    return alone / (divided + small * math.log2(devices) + gradients)


@app.command()
def page() -> None:
    """Compute COST.md from rates.json."""
    files.write_text(PAGE, text(json.loads(RATES.read_text())))
    print(f"written: {PAGE.name}")


def text(rates: dict[str, Any]) -> str:
    """The page, from `rates` and ASSUMED."""
    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    environment.filters |= {"size": size, "hours": hours}
    return environment.from_string(TEMPLATE.read_text()).render(
        rates=rates,
        assumed=ASSUMED,
        studies=STUDIES,
        cpu_hours=partial(cpu_hours, rates=rates),
        gpu_hours=gpu_hours,
        sums=SUMS,
        sharing=partial(sharing, rates=rates),
    )


def size(count: float) -> str:
    unit = min(int(math.log(count, 1024)), 4)
    return f"{count / 1024**unit:.3g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[unit]}"


def hours(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


@app.command()
def measure(rounds: int = 5) -> None:
    """Measure this machine, which nothing else should use, and write rates.json."""
    device = runtime.make("float32", True, 0)
    torch._dynamo.config.recompile_limit = 100  # models of several depths share the code of one
    images = throughput.random_images(1024)
    depth: dict[str, dict[str, float]] = {}
    for n in DEPTHS:
        row = _step_rates(n, device, images, rounds)
        trainer = throughput.make_trainer("bn", 128, device, images, n)
        trainer.val_pixels = torch.from_numpy(images.pixels[:1000])
        trainer.val_labels = torch.from_numpy(images.labels[:1000])
        row["forward"] = round(_rate(trainer.evaluate, 1000, rounds), 1)
        depth[str(n)] = row
        print(n, depth[str(n)], flush=True)
    one, two = _processes(1, rounds), _processes(2, rounds)
    rates = {
        "machine": runtime.describe(device),
        "depth": depth,
        "eager": _step_rates(2, runtime.make("float32", False, 0), images, rounds),
        "memory_mib": round(statistics.median(throughput.peak_memory() for _ in range(3))),
        "all_reduce_s": two["all_reduce_s"],
        "shared": {size: round(two[size] / one[size], 2) for size in ("128", "8")},
    }
    files.write_json(RATES, rates)
    print(json.dumps(rates, indent=1))


def _step_rates(n: int, device: runtime.Runtime, images: Images, rounds: int) -> dict[str, float]:
    """Images/s of bn's step at each batch size."""
    rates = {}
    for batch_size in (128, 8):
        trainer = throughput.make_trainer("bn", batch_size, device, images, n)
        step = partial(throughput.steps_of(trainer), 1)
        rates[str(batch_size)] = round(_rate(step, batch_size, rounds), 1)
    return rates


def _rate(step: Callable[[], object], images: int, rounds: int) -> float:
    step()  # compiles
    step()
    times = []
    count = max(1, 128 // images)
    for _ in range(rounds):
        begin = time.perf_counter()
        for _ in range(count):
            step()
        times.append((time.perf_counter() - begin) / count)
    return images / statistics.median(times)


def _processes(count: int, rounds: int) -> dict[str, Any]:
    """Images/s of bn divided among `count` gloo processes with a core each, and all-reduces."""
    code = f"from benchmarks.cost import spawn; spawn({count}, {rounds})"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": "29533"}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def spawn(count: int, rounds: int) -> None:
    mp.spawn(_worker, (count, rounds), nprocs=count)


def _worker(rank: int, count: int, rounds: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=count)
    device = runtime.make("float32", False, 0)
    images = throughput.random_images(1024)
    result: dict[str, Any] = {}
    for batch_size in (128, 8):
        trainer = throughput.make_trainer("bn", batch_size, device, images)
        source = throughput.batches(trainer)
        part = slice(batch_size * rank // count, batch_size * (rank + 1) // count)

        def step(trainer=trainer, source=source, part=part, size=batch_size) -> None:
            pixels, labels = next(source)
            trainer.step(pixels[part], labels[part], size)

        result[str(batch_size)] = _rate(step, batch_size, 4 * rounds)
    if count > 1:
        result["all_reduce_s"] = {}
        for name, values in (("sums", 64), ("gradients", parameters(2, 10))):
            reduce = partial(dist.all_reduce, torch.zeros(values))
            result["all_reduce_s"][name] = 1 / _rate(reduce, 1, 4 * rounds)
    if rank == 0:
        print(json.dumps(result), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    run_app(app)
