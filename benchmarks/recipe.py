"""Trials of the study's recipe: validation accuracy after a training with a change.

`python -m benchmarks.recipe` trains what benchmarks/recipe.csv lacks of the norms, changes, batch
size and epochs asked for, on the images in data/ (`dvc repro split`), and adds a row for each. What
is not an option or a change is as in params.yaml, which the rows do not record. The test images
are never read.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from normlab.compute.runtime import make_runtime
from normlab.config import params, paths
from normlab.data import images, split
from normlab.norms.names import NORMS
from normlab.training.loop import Trainer, flops, is_finite, make_job
from normlab.utils import files
from normlab.utils.errors import NormlabError, run_command

PATH = Path("benchmarks/recipe.csv")
KEY = ("norm", "batch_size", "epochs", "precision", "seed", "change")
FIELDS = (*KEY, "val_accuracy", "train_error")
AVERAGE_IMAGES = 64_000  #: over how many images the weights are averaged, about


def no_decay(trainer: Trainer) -> None:
    """No weight decay on the norms' scales and shifts."""
    norms = {p for n, p in trainer.model.named_parameters() if "norm" in n}
    groups = trainer.optimizer.param_groups
    for group in list(groups):
        exempt = [p for p in group["params"] if p in norms]
        group["params"] = [p for p in group["params"] if p not in norms]
        groups.append({**group, "params": exempt, "weight_decay": 0.0})


def nesterov(trainer: Trainer) -> None:
    for group in trainer.optimizer.param_groups:
        group["nesterov"] = True


class Average:
    """An exponential average of the weights and running statistics, step by step."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self._next = trainer, trainer.steps.next
        self.share = trainer.steps.batch_size / AVERAGE_IMAGES  #: of a step's values in the average
        self.values = {n: v.clone() for n, v in trainer.model.state_dict().items()}
        trainer.steps.next = self.next  # type: ignore[method-assign]

    def next(self) -> None:
        self._next()
        for name, value in self.trainer.model.state_dict().items():
            if value.is_floating_point():
                self.values[name].lerp_(value, self.share)

    def error(self) -> float:
        """Validation error of the averaged weights, which stay in the trainer."""
        self.trainer.model.load_state_dict(self.values)
        return float(self.trainer.evaluate()[1])


Change = tuple[dict[str, object], Callable[[Trainer], None] | None]
CHANGES: dict[str, Change] = {
    "the recipe": ({}, None),
    "label smoothing 0.1": ({"label_smoothing": 0.1}, None),
    "weight decay 1e-3": ({"weight_decay": 1e-3}, None),
    "weight decay 2.5e-4": ({"weight_decay": 2.5e-4}, None),
    "no decay of scales and shifts": ({}, no_decay),
    "Nesterov": ({}, nesterov),
    "Nesterov and 10 epochs of warm-up": ({"warmup_epochs": 10.0}, nesterov),
}


def trial(
    norm: str, batch_size: int, epochs: int, precision: str, seed: int, change: str
) -> list[dict[str, Any]]:
    """Rows of FIELDS of one training; that of the recipe itself gives its average's, too."""
    row = dict(zip(KEY, (norm, batch_size, epochs, precision, seed, change), strict=True))
    values, adjust = CHANGES[change]
    config = params.load()
    update = {"epochs": epochs, "patience": epochs, "warmup_epochs": 3.0, "precision": precision}
    train = config.train.model_copy(update={**update, **values})
    data = images.read(paths.TRAIN_IMAGES)
    parts = split.read(paths.SPLIT, len(data))
    config = config.model_copy(update={"train": train})
    job = make_job("trial", norm, batch_size, seed, config, data, parts)
    torch.compiler.reset()  # it would stop compiling after a few trials
    runtime = make_runtime(precision, "auto", flops(job, len(parts.train)))
    trainer = Trainer(job, data[parts.train], data[parts.val], runtime)
    if adjust:
        adjust(trainer)
    average = Average(trainer) if change == "the recipe" else None
    for epoch in range(1, epochs + 1):
        log = trainer.train_epoch(epoch).row
        if not is_finite(log):  # diverged
            return [row | {"val_accuracy": math.nan, "train_error": math.nan}]
        print(f"{norm}, {change}: epoch {epoch}/{epochs}  {1 - log['val_error']:.2%}", flush=True)
    row |= {"val_accuracy": round(1 - log["val_error"], 4), "train_error": log["train_error"]}
    if not average:
        return [row]
    averaged = {"change": "average of the weights", "val_accuracy": round(1 - average.error(), 4)}
    return [row, row | averaged]


def main(
    norms: Annotated[str, typer.Option(help="comma-separated")] = "bn,gn,nn",
    changes: Annotated[str, typer.Option(help="comma-separated")] = ",".join(CHANGES),
    batch_size: Annotated[int, typer.Option(min=1)] = 128,
    epochs: Annotated[int, typer.Option(min=11)] = 20,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16")] = "bfloat16",
    seed: Annotated[int, typer.Option(help="of weights and batches; the split stays")] = 1,
) -> None:
    chosen_norms, chosen_changes = norms.split(","), changes.split(",")
    for option, chosen, allowed in (
        ("norms", chosen_norms, NORMS),
        ("changes", chosen_changes, CHANGES),
        ("precision", [precision], ("float32", "bfloat16")),
    ):
        for value in chosen:
            if value not in allowed:
                raise NormlabError(f"--{option}: {value}: must be one of {', '.join(allowed)}")
    for change in chosen_changes:
        for norm in chosen_norms:
            key = (norm, batch_size, epochs, precision, seed, change)
            if all(tuple(row[name] for name in KEY) != tuple(map(str, key)) for row in read()):
                rows = trial(*key)
                files.write_csv(PATH, read() + rows, FIELDS)  # others may have written meanwhile


def read() -> list[dict[str, Any]]:
    return [*files.read_csv(PATH)] if PATH.exists() else []


if __name__ == "__main__":
    run_command(main)
