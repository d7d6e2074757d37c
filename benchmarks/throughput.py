"""Training throughput of every norm: against PyTorch's layers, no norm, and a plain loop.

All models take turns, a few steps each, round after round, a norm right beside PyTorch's layer, so
that what else the machine does falls on all alike; rates and ratios are medians over the rounds, a
ratio of those of each round. Each has a process of its own, as a training has: in one, they would
share what `runtime.keep_memory` keeps, and the compiler's cache.
`limit` is the rate at which the machine runs the model's convolutions alone, forward and backward.
See `--help`.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.references import GROUPS, LAYERS
from benchmarks.workers import Steps, Worker
from normlab.compute.runtime import Runtime, describe, make_runtime
from normlab.config import params
from normlab.data.images import Images
from normlab.nets.checkpoint import Spec
from normlab.norms.names import NORMS
from normlab.training.augmentation import draw
from normlab.training.loop import Job, Trainer
from normlab.training.step import Steps as TrainingSteps
from normlab.utils import files
from normlab.utils.errors import run_command

IMAGES = 2048  #: random images to train on; their content does not matter
#: PyTorch has no layer for bin, only two functions
TORCH_LAYERS = {name: layer for name, layer in LAYERS.items() if name != "bin"}
OURS = tuple(name for name in NORMS if name not in ("torch_bn", "nn"))


def random_images(count: int) -> Images:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (count, 32, 32, 3), np.uint8)
    classes = tuple(str(number) for number in range(10))
    return Images(pixels, generator.integers(0, 10, count), classes)


def make_trainer(
    norm: str,
    batch_size: int,
    runtime: Runtime,
    images: Images,
    n: int = 2,
    val: Images | None = None,
    **changes: object,
) -> Trainer:
    """A trainer of `norm`; `torch:gn` is PyTorch's layer in its place.

    `changes` are of params.yaml's `train`.
    """
    torch_layer, _, name = norm.rpartition(":")
    spec = Spec("benchmark", name, batch_size, n, GROUPS, images.classes, (0.5,) * 3, (0.25,) * 3)
    train = params.load().train.model_copy(update={"lr": 0.01, **changes})
    torch.manual_seed(1)
    model = spec.build()
    if torch_layer:
        replace_norms(model, TORCH_LAYERS[name])
    trainer = Trainer(Job(spec, train, 1), images, val or images[np.arange(8)], runtime, model)
    trainer.model.train()
    return trainer


def replace_norms(model: nn.Module, make: Callable[[int], nn.Module]) -> None:
    for name, child in model.named_children():
        if hasattr(child, "num_channels"):
            setattr(model, name, make(int(child.num_channels)))  # type: ignore[arg-type]
        else:
            replace_norms(child, make)


def training(
    norm: str, batch_size: int, precision: str = "float32", compiled: bool = True
) -> Steps:
    """What a training of `norm` does, on random images, but for its smaller last batch."""
    runtime = make_runtime(precision, compiled, 0)
    count = max(1, IMAGES // batch_size) * batch_size
    trainer = make_trainer(norm, batch_size, runtime, random_images(count))
    generator, done = torch.Generator().manual_seed(0), 0

    def steps(count: int) -> None:
        nonlocal done
        for _ in range(count):
            if done % trainer.steps.per_epoch == 0:
                start_epoch(trainer.steps, generator)
            trainer.steps.next()
            done += 1

    return steps


def start_epoch(steps: TrainingSteps, generator: torch.Generator) -> None:
    steps.start_epoch(draw(steps.count, 4, True, generator), [0.01] * steps.per_epoch)


def plain_loop(norm: str, batch_size: int) -> Steps:
    """What a plain script does: DataLoader, torchvision's transforms an image, eager float32."""
    from PIL import Image
    from torchvision import transforms

    from normlab.nets.resnet import ResNet

    images = random_images(IMAGES)
    transform = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.5,) * 3, (0.25,) * 3),
        ]
    )

    class Dataset(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            image = Image.fromarray(images.pixels[index])
            return transform(image), int(images.labels[index])

    model = ResNet(2, 10, "bn")
    replace_norms(model, plain_layer(norm))
    if norm == "nn":
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.bias = nn.Parameter(torch.zeros(module.out_channels))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

    def forever() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            yield from torch.utils.data.DataLoader(
                Dataset(), batch_size, shuffle=True, drop_last=True
            )

    source = forever()

    def steps(count: int) -> None:
        for _ in range(count):
            pixels, labels = next(source)
            optimizer.zero_grad()
            F.cross_entropy(model(pixels), labels).backward()
            optimizer.step()

    return steps


def plain_layer(norm: str) -> Callable[[int], nn.Module]:
    """The norm as its equation is usually typed in, each statistic by itself, eager."""

    class Plain(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1, channels, 1, 1))
            self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))
            self.gate = nn.Parameter(torch.ones(1, channels, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            n, c, h, w = x.shape
            if norm == "gn":
                grouped = standardize(x.view(n, GROUPS, c // GROUPS, h, w), (2, 3, 4))
                y = grouped.view(n, c, h, w)
            elif norm == "bin":
                y = self.gate * standardize(x, (0, 2, 3)) + (1 - self.gate) * standardize(x, (2, 3))
            else:
                y = standardize(x, {"bn": (0, 2, 3), "in": (2, 3), "ln": (1, 2, 3)}[norm])
            return y * self.weight + self.bias

    def standardize(x: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
        mean = x.mean(dims, keepdim=True)
        var = ((x - mean) ** 2).mean(dims, keepdim=True)
        return (x - mean) / torch.sqrt(var + 1e-5)

    if norm == "nn":
        return lambda channels: nn.Identity()
    return nn.BatchNorm2d if norm == "torch_bn" else Plain


def convolutions_alone(batch_size: int, precision: str) -> Steps:
    """The model's convolutions, forward and backward, each on an input of its shape."""
    from normlab.nets.resnet import ResNet

    runtime = make_runtime(precision, False, 0)
    model = runtime.place(ResNet(2, 10, "nn"))
    calls = []
    dtype = torch.bfloat16 if runtime.bfloat16 else torch.float32

    def record(module: nn.Conv2d, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        first = module.in_channels == 3  # its input needs no gradient
        like = runtime.memory_format
        x = torch.randn_like(inputs[0], dtype=dtype).contiguous(memory_format=like)
        y = torch.randn_like(output, dtype=dtype).contiguous(memory_format=like)
        weight = module.weight.detach().to(dtype).contiguous(memory_format=like)
        calls.append((x, y, weight, module.stride, not first))

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(record)
    model(torch.randn(batch_size, 3, 32, 32, device=runtime.device))

    def once() -> None:
        for x, y, weight, stride, needs_input in calls:
            F.conv2d(x, weight, None, stride, 1)
            torch.ops.aten.convolution_backward(
                y, x, weight, None, stride, (1, 1), (1, 1), False, (0, 0), 1,
                (needs_input, True, False),
            )  # fmt: skip

    # Launched one by one, small ones would only wait for the CPU.
    step = runtime.capture(once, tuple)

    def steps(count: int) -> None:
        for _ in range(count):
            step()

    return steps


def measure(workers: dict[str, Worker], batch_size: int, rounds: int) -> dict[str, list[float]]:
    """Images/s of each worker in every round, taking turns.

    Every second round goes backward: of two neighbours neither is always the first.
    """
    count = max(2, 512 // batch_size)
    rates: dict[str, list[float]] = {name: [] for name in workers}
    order = list(workers)
    for _ in range(rounds):
        for name in order:
            begin = time.perf_counter()
            workers[name](count)
            rates[name].append(count * batch_size / (time.perf_counter() - begin))
        order.reverse()
    return rates


def ratio(rates: list[float], others: list[float]) -> float:
    """Median over the rounds of one rate by the other."""
    return round(statistics.median(a / b for a, b in zip(rates, others, strict=True)), 2)


def peak_memory() -> float:
    """Peak MiB of a training with CIFAR-10's images above what torch takes by itself.

    Its compiler is part of that: any optimizer imports it, whether or not it is used.
    """
    code = r"""
import re, torch, torch._dynamo, torch._inductor
from benchmarks import throughput as t
peak = lambda: int(re.search(r"VmHWM:\s*(\d+)", open("/proc/self/status").read())[1]) / 1024
before = peak()
images = t.random_images(50_000)
runtime = t.make_runtime("float32", False, 0)
train, val = t.np.arange(40_000), t.np.arange(40_000, 50_000)
trainer = t.make_trainer("bn", 128, runtime, images[train], val=images[val], epochs=1)
del images
trainer.train_epoch(1)
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main(
    batch_sizes: Annotated[str, typer.Option(help="comma-separated")] = "128,8",
    norms: Annotated[str, typer.Option(help="comma-separated; ours")] = ",".join(OURS),
    precision: Annotated[str, typer.Option(help="float32 or bfloat16")] = "float32",
    compiled: Annotated[bool, typer.Option(help="use torch.compile")] = True,
    rounds: Annotated[int, typer.Option(min=1)] = 9,
    out: Annotated[Path | None, typer.Option(help="CSV file to write")] = None,
) -> None:
    runtime = make_runtime(precision, compiled, 0)
    chosen = norms.split(",")
    console = Console(width=150)
    rows = []
    for batch_size in map(int, batch_sizes.split(",")):
        workers: dict[str, Worker] = {}
        first_seconds = {}
        trained: list[str] = []
        for name in [*chosen, "nn"]:
            trained += [name, f"torch:{name}"] if name in TORCH_LAYERS else [name]
        for name in trained:
            workers[name] = Worker(training, name, batch_size, precision, compiled)
            begin = time.perf_counter()
            workers[name](1)  # compiles
            first_seconds[name] = time.perf_counter() - begin
        for name in [*chosen, "nn"]:
            workers[f"plain:{name}"] = Worker(plain_loop, name, batch_size, first=1)
        workers["limit"] = Worker(convolutions_alone, batch_size, precision, first=1)
        rates = measure(workers, batch_size, rounds)
        for worker in workers.values():
            worker.end()
        for name in [*chosen, "nn"]:
            theirs = rates.get(f"torch:{name}")
            rows.append(
                {
                    "batch_size": batch_size,
                    "norm": name,
                    "images_per_s": round(statistics.median(rates[name])),
                    "vs_torch_layer": ratio(rates[name], theirs) if theirs else "",
                    "relative_step_time": ratio(rates["nn"], rates[name]),
                    "vs_plain_loop": ratio(rates[name], rates[f"plain:{name}"]),
                    "fraction_of_convolutions": ratio(rates[name], rates["limit"]),
                    "first_step_s": round(first_seconds[name], 1),
                }
            )
        limit = statistics.median(rates["limit"])
        console.print(f"batch size {batch_size}: convolutions alone {limit:.0f} images/s")
    table = Table(*rows[0], title=f"{precision}, {json.dumps(describe(runtime))}")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    console.print(table)
    if out:
        files.write_csv(out, rows, tuple(rows[0]))
    if sys.platform == "linux":
        console.print(f"peak memory of a training above torch's own: {peak_memory():.0f} MiB")


if __name__ == "__main__":
    run_command(main)
