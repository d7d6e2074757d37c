"""Accuracy and F1 of a trained run, and its predictions on the test images."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from normlab.compute import runtime
from normlab.compute.inference import BATCH_SIZE, over_images
from normlab.config.paths import run_files
from normlab.data.images import Images
from normlab.nets import checkpoint
from normlab.nets.architecture import flops_per_image
from normlab.nets.resnet import ResNet
from normlab.utils import files


def scores(labels: Tensor, predicted: Tensor) -> dict[str, float]:
    """Accuracy, and F1 averaged over predictions (micro) and over classes (macro)."""
    from sklearn.metrics import accuracy_score, f1_score

    true, guess = labels.numpy(), predicted.numpy()
    return {
        "accuracy": float(accuracy_score(true, guess)),
        "f1_micro": float(f1_score(true, guess, average="micro")),
        "f1_macro": float(f1_score(true, guess, average="macro", zero_division=0)),
    }


def evaluate(weights: Path, sets: dict[str, Images], log: list[dict[str, str]]) -> dict[str, Any]:
    """Score the model in `weights` on each of `sets` ("train", "val", "test").

    Returns the metrics, and under "predictions" the rows (actual, predicted) of the test images.
    `log` is the training's, as read from CSV.
    """
    model, spec, epoch = checkpoint.load(weights)
    total = sum(map(len, sets.values()))
    device = runtime.make("float32", "auto", flops_per_image(spec.n) * total)
    classify = Classifier(model, spec, device)
    metrics: dict[str, Any] = {
        "norm": spec.norm,
        "batch_size": spec.batch_size,
        "epoch": epoch,
        "epochs": len(log),
        "images": {name: len(images) for name, images in sets.items()},
        "diverged": any(not math.isfinite(float(row["train_loss"])) for row in log),
    }
    rows: list[dict[str, str]] = []
    for name, images in sets.items():
        predicted = classify(torch.from_numpy(images.pixels)).argmax(1)
        metrics[name] = scores(torch.from_numpy(images.labels), predicted)
        if name == "test":
            rows = [
                {"actual": spec.classes[actual], "predicted": spec.classes[guess]}
                for actual, guess in zip(images.labels.tolist(), predicted.tolist(), strict=True)
            ]
    return {"metrics": metrics, "predictions": rows}


class Classifier:
    """Logits `[N, classes]`, on the CPU, of uint8 pixels `[N, 32, 32, 3]`."""

    def __init__(self, model: ResNet, spec: checkpoint.Spec, device: runtime.Runtime) -> None:
        self.model = runtime.channels_last(model, device)
        self.mean = torch.tensor(spec.mean, device=device.device)
        self.std = torch.tensor(spec.std, device=device.device)
        self.device = device
        self._forward = device.compile(self.model, BATCH_SIZE)

    def __call__(self, pixels: Tensor) -> Tensor:
        return over_images(self._forward, pixels, self.mean, self.std, self.device).cpu()


def write(run: str, result: dict[str, Any]) -> None:
    out = run_files(run)
    files.write_csv(out.predictions, result["predictions"], ("actual", "predicted"))
    files.write_json(out.metrics, result["metrics"])
