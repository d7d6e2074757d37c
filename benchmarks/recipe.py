"""Trials of the study's recipe: validation accuracy after a short training, one change at a time.

`python -m benchmarks.recipe` trains what benchmarks/recipe.csv lacks, on the images in data/ (`dvc
repro split`), and adds a row for each. At the study's own length and precision, the rows of the
recipe itself come from the study, which is not trained again. The test images are never read.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from normlab.base import files, layout, params
from normlab.base.errors import NormlabError, run_command
from normlab.base.registry import NORMS
from normlab.compute import runtime
from normlab.data import images, split
from normlab.nets.checkpoint import Spec
from normlab.training.loop import Job, Trainer, flops

PATH = Path("benchmarks/recipe.csv")
CURVES = Path("results/curves.csv")  #: of the study, epoch by epoch
FIELDS = ("norm", "change", "epochs", "precision", "val_accuracy", "train_error")
AVERAGE_DECAY = 0.998  #: a step, of the average of the weights: some 500 steps of 128 images


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
        self.trainer, self._step = trainer, trainer.step
        self.values = {n: v.clone() for n, v in trainer.model.state_dict().items()}
        trainer.step = self.step  # type: ignore[assignment, method-assign]

    def step(self, *arguments: Any) -> Any:
        result = self._step(*arguments)
        for name, value in self.trainer.model.state_dict().items():
            if value.is_floating_point():
                self.values[name].lerp_(value, 1 - AVERAGE_DECAY)
        return result

    def error(self) -> float:
        """Validation error of the averaged weights, which stay in the trainer."""
        self.trainer.model.load_state_dict(self.values)
        return self.trainer.evaluate()[1]


Change = tuple[dict[str, object], Callable[[Trainer], None] | None]
CHANGES: dict[str, Change] = {
    "the recipe": ({}, None),
    "label smoothing 0.1": ({"label_smoothing": 0.1}, None),
    "weight decay 1e-3": ({"weight_decay": 1e-3}, None),
    "no decay of scales and shifts": ({}, no_decay),
    "Nesterov": ({}, nesterov),
}


def trial(norm: str, change: str, epochs: int, precision: str) -> list[dict[str, Any]]:
    """Rows of FIELDS of one training; that of the recipe itself gives its average's, too."""
    values, adjust = CHANGES[change]
    config = params.load()
    base: dict[str, Any]
    base = {"norm": norm, "change": change, "epochs": epochs, "precision": precision}
    if (change, epochs, precision) == ("the recipe", config.train.epochs, config.train.precision):
        run = "main" if norm == config.norm else norm
        last = [row for row in files.read_csv(CURVES) if row["run"] == run][-1]
        return [{**base, "val_accuracy": last["val_accuracy"], "train_error": last["train_error"]}]
    update = {"epochs": epochs, "patience": epochs, "warmup_epochs": 3.0, "precision": precision}
    train = config.train.model_copy(update={**update, **values})
    data = images.read(layout.TRAIN_IMAGES)
    parts = split.read(layout.SPLIT, len(data))
    spec = Spec(
        "trial", norm, config.comparison.batch_size, config.model.n, config.model.groups,
        data.classes, tuple(parts.mean), tuple(parts.std),
    )  # fmt: skip
    job = Job(spec, train, config.seed)
    device = runtime.make(precision, "auto", flops(job, len(parts.train)))
    trainer = Trainer(job, data[parts.train], data[parts.val], device)
    if adjust:
        adjust(trainer)
    average = Average(trainer)
    for epoch in range(1, epochs + 1):
        row = trainer.epoch(epoch)
        if trainer.first_bad_step:  # the loss is not finite: diverged
            return [{**base, "val_accuracy": math.nan, "train_error": math.nan}]
        print(f"{norm}, {change}: epoch {epoch}/{epochs}  {1 - row['val_error']:.2%}", flush=True)
    base["train_error"] = row["train_error"]
    rows = [{**base, "val_accuracy": round(1 - row["val_error"], 4)}]
    if change == "the recipe":
        accuracy = round(1 - average.error(), 4)
        rows.append({**base, "change": "average of the weights", "val_accuracy": accuracy})
    return rows


def main(
    norms: Annotated[str, typer.Option(help="comma-separated")] = "bn,gn,nn",
    changes: Annotated[str, typer.Option(help="comma-separated")] = ",".join(CHANGES),
    epochs: Annotated[int, typer.Option(min=4)] = 20,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16")] = "bfloat16",
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
    rows: list[dict[str, Any]] = [*files.read_csv(PATH)] if PATH.exists() else []
    done = {(row["norm"], row["change"], int(row["epochs"]), row["precision"]) for row in rows}
    for change in chosen_changes:
        for norm in chosen_norms:
            if (norm, change, epochs, precision) not in done:
                rows += trial(norm, change, epochs, precision)
                files.write_csv(PATH, rows, FIELDS)


if __name__ == "__main__":
    run_command(main)
