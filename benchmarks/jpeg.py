"""What the JPEG edition of CIFAR-10 costs, as far as it can be measured without the original.

Each image is compressed once more as the edition's were (quality 75, chroma at half resolution),
on a grid of blocks shifted by half a block: on its own grid JPEG would find its own values again
and lose next to nothing. The second loss is then about as large as the first. Two questions:

- the committed runs, trained on the edition, on validation images compressed once more;
- trainings on such images, beside trainings on the edition's, each validated on its like.

The test images are not read. See `--help`.
"""

import math
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import torch
import typer
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from normlab import checkpoint, files, images, layout, params, pipeline, predict, runtime, split
from normlab.checkpoint import Spec
from normlab.errors import run_command
from normlab.evaluation import Classifier
from normlab.findings import estimate
from normlab.images import Images
from normlab.resnet import ResNet
from normlab.training import Job, Trainer

QUALITY = 75
SHIFT = 4  #: half of JPEG's blocks of luma, a quarter of those of chroma
FIELDS = ("norm", "batch_size", "trained_on", "epoch", "once", "twice", "difference",
          "standard_error")  # fmt: skip


def compress(pixels: np.ndarray) -> np.ndarray:
    """uint8 `[32, 32, 3]` after JPEG on a shifted grid; the edge is mirrored to a whole block."""
    padded = np.pad(pixels, ((SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), "reflect")
    file = BytesIO()
    Image.fromarray(padded).save(file, "JPEG", quality=QUALITY)
    with Image.open(file) as image:
        return np.asarray(image)[SHIFT:-SHIFT, SHIFT:-SHIFT]


def again(data: Images) -> Images:
    pixels = [compress(image) for image in track(data.pixels, "compressing", transient=True)]
    return replace(data, pixels=np.stack(pixels))


def psnr(one: np.ndarray, two: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, the median over images `[N, 32, 32, 3]`."""
    error = ((one.astype(np.float64) - two) ** 2).mean((1, 2, 3))
    return float(np.median(10 * np.log10(255**2 / np.maximum(error, 1e-9))))


def row(spec: Spec, trained_on: str, epoch: int, one: np.ndarray, two: np.ndarray) -> dict:
    """Of `one` and `two` `[N]`, 1 for each image that is classified rightly, else 0."""
    difference = estimate(two - one)
    values = (spec.norm, spec.batch_size, trained_on, epoch, one.mean(), two.mean(),
              difference.value, difference.error)  # fmt: skip
    return {
        name: round(float(value), 4) if isinstance(value, float) else value
        for name, value in zip(FIELDS, values, strict=True)
    }


def right(classify: Classifier, data: Images) -> np.ndarray:
    """Which images are classified rightly, `[N]`."""
    return (classify(torch.from_numpy(data.pixels)).argmax(1).numpy() == data.labels).astype(int)


def trained(spec: Spec, train: Images, val: Images, config: params.Params) -> np.ndarray:
    """Which validation images a new training gets right after its last epoch."""
    device = runtime.make(config.train.precision, "auto", math.inf)
    trainer = Trainer(Job(spec, config.train, config.seed), train, val, device)
    for epoch in track(range(1, config.train.epochs + 1), spec.norm, transient=True):
        trainer.epoch(epoch)
    trainer.model.eval()
    return right(Classifier(cast(ResNet, trainer.model), spec, device), val)


def main(
    norms: Annotated[str, typer.Option(help="to train, comma-separated; or nothing")] = "bn,gn",
    epochs: Annotated[int, typer.Option(min=4, help="of these trainings")] = 10,
    precision: Annotated[str, typer.Option(help="of these trainings")] = "float32",
    out: Annotated[Path | None, typer.Option(help="CSV file to write")] = None,
) -> None:
    config = params.load()
    once = images.read(layout.TRAIN_IMAGES)
    parts = split.read(layout.SPLIT, len(once))
    twice = again(once)
    console = Console()
    console.print(f"compressed once more: {psnr(once.pixels, twice.pixels):.1f} dB")
    rows = []
    for run in pipeline.runs():
        model, spec, epoch = checkpoint.load(predict.weights(run))
        classify = Classifier(model, spec, runtime.make("float32", False, 0))
        found = [right(classify, data[parts.val]) for data in (once, twice)]
        rows.append(row(spec, "once", epoch, *found))
    changes = {"epochs": epochs, "warmup_epochs": 3, "precision": precision}
    config = config.model_copy(update={"train": config.train.model_copy(update=changes)})
    for norm in filter(None, norms.split(",")):
        spec = Spec(
            norm, norm, config.batch_size, config.model.n, config.model.groups, once.classes,
            tuple(parts.mean), tuple(parts.std),
        )  # fmt: skip
        found = [trained(spec, d[parts.train], d[parts.val], config) for d in (once, twice)]
        rows.append(row(spec, "its like", epochs, *found))
    table = Table(*FIELDS)
    for values in rows:
        table.add_row(*map(str, values.values()))
    console.print(table)
    if out:
        files.write_csv(out, rows, FIELDS)


if __name__ == "__main__":
    run_command(main)
