"""Trials of the study's recipe: validation accuracy after a training with a change.

`python -m benchmarks.recipe` trains what benchmarks/recipe.csv lacks of the norms, changes, batch
size and epochs asked for, on the images in data/ (`dvc repro split`), and adds a row for each. A
trial has 3 epochs of warm-up and no early stopping; what else is not an option or a change is as in
params.yaml, which the rows do not record. The test images are never read.
"""

import math
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.turns import Names
from normlab.compute.runtime import make_runtime
from normlab.config import params, paths
from normlab.data import images, split
from normlab.norms.names import NORMS
from normlab.training.loop import Trainer, flops, is_finite, make_job
from normlab.utils import files
from normlab.utils.errors import NormlabError, run_command

PATH = Path("benchmarks/recipe.csv")
KEY = ("norm", "batch_size", "epochs", "precision", "seed", "change")
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


def averaged(trainer: Trainer) -> AveragedModel:
    """An exponential average of the weights and running statistics, which every step updates."""
    fraction = trainer.steps.batch_size / AVERAGE_IMAGES  # of a step's values in the average
    average = AveragedModel(
        trainer.model, multi_avg_fn=get_ema_multi_avg_fn(1 - fraction), use_buffers=True
    )
    step = trainer.steps.next
    trainer.steps.next = lambda: (step(), average.update_parameters(trainer.model))  # type: ignore
    return average


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


def trial(key: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of one training; that of the recipe itself gives its average's, too."""
    values, adjust = CHANGES[key["change"]]
    epochs, precision = key["epochs"], key["precision"]
    config = params.load()
    update = {"epochs": epochs, "patience": epochs, "warmup_epochs": 3.0, "precision": precision}
    train = config.train.model_copy(update={**update, **values})
    data = images.read(paths.TRAIN_IMAGES)
    parts = split.read(paths.SPLIT, len(data))
    config = config.model_copy(update={"train": train})
    job = make_job("trial", key["norm"], key["batch_size"], key["seed"], config, data, parts)
    torch.compiler.reset()  # it would stop compiling after a few trials
    runtime = make_runtime(precision, "auto", flops(job, len(parts.train)))
    trainer = Trainer(job, data[parts.train], data[parts.val], runtime)
    if adjust:
        adjust(trainer)
    average = averaged(trainer) if key["change"] == "the recipe" else None
    for epoch in range(1, epochs + 1):
        log = trainer.train_epoch(epoch).row
        if not is_finite(log):  # diverged
            return [{**key, "val_accuracy": math.nan, "train_error": math.nan}]
        accuracy = round(1 - log["val_error"], 4)
        print(f"{key['norm']}, {key['change']}: epoch {epoch}/{epochs}  {accuracy:.2%}", flush=True)
    row = {**key, "val_accuracy": accuracy, "train_error": log["train_error"]}
    if not average:
        return [row]
    trainer.model.load_state_dict(average.module.state_dict())
    accuracy = round(1 - float(trainer.evaluate()[1]), 4)
    return [row, row | {"change": "average of the weights", "val_accuracy": accuracy}]


def main(
    norms: Names = "bn,gn,nn",
    changes: Annotated[str, typer.Option(help="comma-separated; by default all")] = "",
    batch_size: Annotated[int, typer.Option(min=1)] = 128,
    epochs: Annotated[int, typer.Option(min=11)] = 20,
    precision: Literal["float32", "bfloat16"] = "bfloat16",
    seed: Annotated[int, typer.Option(help="of weights and batches; the split stays")] = 1,
) -> None:
    chosen = changes.split(",") if changes else [*CHANGES]
    for option, names, allowed in (
        ("norms", norms.split(","), NORMS),
        ("changes", chosen, CHANGES),
    ):
        if unknown := [name for name in names if name not in allowed]:
            raise NormlabError(f"--{option}: {unknown[0]}: must be one of {', '.join(allowed)}")
    for change, norm in product(chosen, norms.split(",")):
        key = dict(zip(KEY, (norm, batch_size, epochs, precision, seed, change), strict=True))
        done = [{name: row[name] for name in KEY} for row in read()]
        if {name: str(value) for name, value in key.items()} not in done:
            rows = trial(key)
            files.write_csv(PATH, read() + rows)  # others may have written meanwhile


def read() -> list[dict[str, Any]]:
    return [*files.read_csv(PATH)] if PATH.exists() else []


if __name__ == "__main__":
    run_command(main)
