"""The CUDA path on a real GPU: whether it is right, and how fast it is.

`python -m benchmarks.gpu` prints every row and writes it to benchmarks/gpu-*.csv as soon as it is
measured: a run that is cut off loses nothing. On an H100, with `--rounds 3`, the checks and batch
size 128 took 8 minutes.

- gpu-checks.csv: our norms against PyTorch's; trainings compiled against not compiled, and against
  themselves; a training that was killed and went on against one that was not.
- gpu-speed.csv: images/s of every norm, as a share of what the convolutions alone reach, and how
  much of a step is the network, augmentation and the optimizer. Each of the three is timed alone.
- gpu-jobs.csv: what several trainings reach side by side on the one card.

Without a GPU it does the same on the CPU, which shows that the script works.
"""

import multiprocessing as mp
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn

from benchmarks import jobs, throughput
from benchmarks.workers import Steps, Worker
from normlab.compute import runtime
from normlab.config.paths import run_files
from normlab.norms.base import make_norm
from normlab.norms.names import NORMS
from normlab.sources import digits
from normlab.training import loop
from normlab.training.resume import Scratch
from normlab.utils import files
from normlab.utils.errors import run_command

CHECKS = ("check", "norm", "precision", "difference", "limit", "passed")
SPEED = ("batch_size", "norm", "images_per_s", "share_of_limit", "network", "augmentation",
         "optimizer")  # fmt: skip
#: of a layer's difference from PyTorch's, relative to the largest value; the gradient of BIN's
#: gate is a sum of many differences, so it is the least exact
LAYER_LIMITS = {"float32": 1e-3, "bfloat16": 2e-2}
MEASURE_S = 0.3  #: how long the steps of one measurement take, about


class Table:
    """Rows that are printed and written to a CSV file one by one."""

    def __init__(self, path: Path, fields: tuple[str, ...]) -> None:
        self.path, self.fields = path, fields
        self.rows: list[dict[str, Any]] = []
        print("\t".join(fields), flush=True)

    def add(self, *values: Any) -> None:
        self.rows.append(dict(zip(self.fields, values, strict=True)))
        print("\t".join(map(str, values)), flush=True)
        files.write_csv(self.path, self.rows, self.fields)


class Mixture(nn.Module):
    """Batch-instance normalization of PyTorch's two layers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.ones(channels))
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        gate, weight, bias = (p[:, None, None] for p in (self.gate, self.weight, self.bias))
        wide = x.float()
        batch = F.batch_norm(wide, None, None, training=True)
        mixed = gate * batch + (1 - gate) * F.instance_norm(wide)
        return (mixed * weight + bias).to(x.dtype)


REFERENCES: dict[str, Callable[[int], nn.Module]] = {**throughput.TORCH_LAYERS, "bin": Mixture}


def layer_difference(norm: str, precision: str, device: torch.device) -> float:
    """The largest difference from PyTorch's layer, of the output and of each gradient.

    Relative to the largest value of PyTorch's.
    """
    torch.manual_seed(0)
    dtype = getattr(torch, precision)
    x = torch.randn(32, 16, 32, 32).contiguous(memory_format=torch.channels_last)
    direction = torch.randn_like(x).to(device)
    values = {"weight": torch.rand(16) + 0.5, "bias": torch.randn(16), "gate": torch.rand(16)}
    results = []
    for layer in (make_norm(norm, 16, throughput.GROUPS), REFERENCES[norm](16)):
        layer.load_state_dict({**layer.state_dict(), **known(values, layer)})
        layer.to(device)
        leaf = x.to(device, dtype).requires_grad_()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            output = layer(leaf)
        (output.float() * direction).sum().backward()
        gradients = [p.grad for _, p in sorted(layer.named_parameters())]
        results.append([output.detach().float(), leaf.grad, *gradients])
    differences = [
        float((ours.float() - theirs.float()).abs().max() / theirs.float().abs().max())
        for ours, theirs in zip(*results, strict=True)
    ]
    return max(differences)


def known(values: dict[str, Tensor], layer: nn.Module) -> dict[str, Tensor]:
    names = {name for name, _ in layer.named_parameters()}
    return {name: value for name, value in values.items() if name in names}


def digits_trainer(norm: str, precision: str, compiled: bool, epochs: int) -> loop.Trainer:
    """A training that learns something: `norm` on scikit-learn's digits, some 12 steps an epoch."""
    train, val = digits.load()
    device = runtime.make(precision, compiled, 0)
    return throughput.make_trainer(norm, 128, device, train, val=val, epochs=epochs)


def compare_compiled(norm: str, precision: str, compiled: bool, epochs: int) -> Steps:
    """Steps that train three times; they return the rows of CHECKS."""

    def steps(count: int) -> list[tuple[Any, ...]]:
        logs, weights = [], []
        for compile_ in (False, compiled, compiled):
            trainer = digits_trainer(norm, precision, compile_, epochs)
            logs.append([trainer.epoch(number) for number in range(1, epochs + 1)])
            weights.append([value.cpu() for value in trainer.model.state_dict().values()])
        first, last = logs[0][0]["train_loss"], logs[0][-1]["val_error"]
        off = sum(not torch.equal(a, b) for a, b in zip(*weights[1:], strict=True))
        return [
            ("compiled: loss of epoch 1", norm, precision,
             abs(logs[1][0]["train_loss"] / first - 1), 1e-3 if precision == "float32" else 0.05),
            ("compiled: last validation error", norm, precision,
             abs(logs[1][-1]["val_error"] - last), 0.05),
            ("trained twice: tensors that differ", norm, precision, off, 0),
        ]  # fmt: skip

    return steps


def train_in(folder: Path, norm: str, compiled: bool, epochs: int, dies_after: int) -> None:
    """A training in `folder`, which kills itself after so many epochs (0: never)."""

    class Dying(Scratch):
        def save(self, state: dict[str, Any]) -> None:
            super().save(state)
            if len(state["features"]) == dies_after:
                os.kill(os.getpid(), signal.SIGKILL)

    params_file = Path("params.yaml").read_bytes()
    os.chdir(folder)
    Path("params.yaml").write_bytes(params_file)
    with Dying("benchmark", "key") as scratch:
        loop.run(digits_trainer(norm, "float32", compiled, epochs), scratch)


def resumed_difference(norm: str, compiled: bool, epochs: int) -> int:
    """How many output files a killed training leaves that differ from another's."""
    spawn = mp.get_context("spawn")
    outputs = []
    for kills in ([0], [epochs // 2, 0]):
        with tempfile.TemporaryDirectory() as name:
            for dies_after in kills:
                arguments = (Path(name), norm, compiled, epochs, dies_after)
                process = spawn.Process(target=train_in, args=arguments)
                process.start()
                process.join()
                if process.exitcode != (-signal.SIGKILL if dies_after else 0):
                    return -1
            made = run_files("benchmark")
            paths = (made.weights, made.log, made.features)
            outputs.append([(Path(name) / path).read_bytes() for path in paths])
    return sum(a != b for a, b in zip(*outputs, strict=True))


def parts(norm: str, batch_size: int, precision: str, compiled: bool) -> Steps:
    """Seconds a step of a training, and of its parts, each alone."""
    device = runtime.make(precision, compiled, 0)
    images = throughput.random_images(throughput.IMAGES)
    trainer = throughput.make_trainer(norm, batch_size, device, images)
    source = throughput.batches(trainer)
    pixels, labels = next(source)

    def network() -> None:
        trainer.optimizer.zero_grad()
        trainer._forward_backward(pixels, labels, batch_size)

    def optimizer() -> None:
        trainer.optimizer.step()
        for module in trainer.constrained:
            module.project()  # type: ignore[operator]

    def whole() -> None:
        trainer.step(*next(source), batch_size)

    functions = {"step": whole, "network": network, "optimizer": optimizer,
                 "augmentation": lambda: next(source)}  # fmt: skip

    def steps(count: int) -> dict[str, float]:
        seconds = {}
        for name, function in functions.items():
            synchronize()
            begin = time.perf_counter()
            for _ in range(count):
                function()
            synchronize()
            seconds[name] = (time.perf_counter() - begin) / max(1, count)
        return seconds

    return steps


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def start(calls: list[tuple[Any, ...]], first: int) -> list[Worker]:
    """A worker a call, all started at once: most of the time goes into compiling."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(lambda call: Worker(*call, first=first), calls))


def check(norms: list[str], compiled: bool, epochs: int, table: Table) -> bool:
    """Fill `table`; whether all is right."""
    device = runtime.make("float32", False, 0)
    precisions = ["float32"] + ["bfloat16"] * runtime.has_bfloat16(device.device)
    for precision in precisions:
        for norm in (norm for norm in norms if norm in REFERENCES):
            difference = layer_difference(norm, precision, device.device)
            limit = LAYER_LIMITS[precision]
            table.add("PyTorch's layer", norm, precision, f"{difference:.1e}", limit,
                      difference <= limit)  # fmt: skip
    for precision in precisions:
        calls = [(compare_compiled, norm, precision, compiled, epochs) for norm in norms]
        workers = start(calls, 0)
        for worker in workers:
            worker.start(1)
        for worker in workers:
            for *names, difference, limit in worker.wait():
                table.add(*names, f"{difference:.1e}", limit, difference <= limit)
            worker.end()
    differing = resumed_difference(norms[0], compiled, epochs)
    table.add("killed and resumed: files that differ", norms[0], "float32", differing, 0,
              differing == 0)  # fmt: skip
    return all(row["passed"] for row in table.rows)


def measure(
    norms: list[str], batch_size: int, precision: str, compiled: bool, rounds: int,
    speed: Table, side_by_side: Table,
) -> None:  # fmt: skip
    """Fill the tables for one batch size."""
    [limit] = start([(throughput.convolutions_alone, batch_size, precision)], 3)
    workers = start([(throughput.training, n, batch_size, precision, compiled) for n in norms], 3)
    apart = start([(parts, norm, batch_size, precision, compiled) for norm in norms], 3)
    steps = max(4, min(2000, int(MEASURE_S / (jobs.seconds(workers[:1], 8) / 8))))

    def rate(chosen: list[Worker]) -> float:
        return len(chosen) * steps * batch_size / jobs.seconds(chosen, steps)

    rates = []
    for norm, worker, other in zip(norms, workers, apart, strict=True):
        own, limits = zip(*((rate([worker]), rate([limit])) for _ in range(rounds)), strict=True)
        rates.append(statistics.median(own))
        measured = [other(steps) for _ in range(rounds)]
        shares = [
            round(statistics.median(m[part] / m["step"] for m in measured), 3)
            for part in SPEED[-3:]
        ]
        share = throughput.ratio(list(own), list(limits))
        speed.add(batch_size, norm, round(rates[-1]), share, *shares)
    for count in sorted({2, 3, len(norms)} & set(range(2, len(norms) + 1))):
        together = statistics.median(rate(workers[:count]) for _ in range(rounds))
        one = count / sum(1 / rate for rate in rates[:count])  # the same runs in turn
        side_by_side.add(batch_size, " ".join(norms[:count]), round(one), count, round(together),
                         round(together / one, 2))  # fmt: skip
    for worker in (limit, *workers, *apart):
        worker.end()


def main(
    norms: Annotated[str, typer.Option(help="comma-separated")] = ",".join(NORMS),
    batch_sizes: Annotated[str, typer.Option(help="comma-separated")] = "128,8",
    precision: Annotated[str, typer.Option(help="of what is timed")] = "float32",
    compiled: Annotated[bool, typer.Option(help="use torch.compile")] = True,
    epochs: Annotated[int, typer.Option(help="of 12 steps, for the checks", min=2)] = 25,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    out: Annotated[Path, typer.Option(help="start of the CSV files' names")] = Path(
        "benchmarks/gpu"
    ),
) -> None:
    begin = time.monotonic()
    chosen = norms.split(",")
    print(runtime.describe(runtime.make(precision, False, 0)), flush=True)
    passed = check(chosen, compiled, epochs, Table(Path(f"{out}-checks.csv"), CHECKS))
    speed = Table(Path(f"{out}-speed.csv"), SPEED)
    side_by_side = Table(Path(f"{out}-jobs.csv"), jobs.FIELDS)
    for batch_size in map(int, batch_sizes.split(",")):
        measure(chosen, batch_size, precision, compiled, rounds, speed, side_by_side)
    print(f"{time.monotonic() - begin:.0f} s; {'all right' if passed else 'SOME CHECKS FAILED'}")
    raise typer.Exit(not passed)


if __name__ == "__main__":
    run_command(main)
