"""Accuracy and F1 of a trained run, and its predictions on the test images."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from normlab.compute.inference import Inference
from normlab.compute.runtime import Runtime, make_runtime
from normlab.data.images import Images
from normlab.nets.architecture import flops_per_image
from normlab.nets.checkpoint import Spec
from normlab.nets.resnet import ResNet


def scores(labels: Tensor, predicted: Tensor) -> dict[str, float]:
    """Accuracy, and F1 averaged over predictions (micro) and over classes (macro)."""
    from sklearn.metrics import accuracy_score, f1_score

    true, guess = labels.numpy(), predicted.numpy()
    return {
        "accuracy": float(accuracy_score(true, guess)),
        "f1_micro": float(f1_score(true, guess, average="micro")),
        "f1_macro": float(f1_score(true, guess, average="macro", zero_division=0)),
    }


def evaluate(
    model: ResNet,
    spec: Spec,
    epoch: int,
    log: Sequence[Mapping[str, Any]],
    sets: Mapping[str, Images],
    compile_: str | bool,
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Score `model`, as it was after `epoch`, on each of `sets` ("train", "val", "test").

    `log` has a row per epoch of its training. Returns the scores, and rows (actual, predicted) of
    the test images.
    """
    total = sum(map(len, sets.values()))
    runtime = make_runtime("float32", compile_, flops_per_image(spec.n) * total)
    classify = Classifier(model, spec, runtime)
    found: dict[str, Any] = {
        "norm": spec.norm,
        "batch_size": spec.batch_size,
        "epoch": epoch,
        "epochs": len(log),
        "images": {name: len(images) for name, images in sets.items()},
        "diverged": not all(
            math.isfinite(float(row[loss])) for row in log for loss in ("train_loss", "val_loss")
        ),
    }
    rows: list[dict[str, str]] = []
    for name, images in sets.items():
        predicted = classify(torch.from_numpy(images.pixels)).argmax(1)
        found[name] = scores(torch.from_numpy(images.labels), predicted)
        if name == "test":
            rows = [
                {"actual": spec.classes[actual], "predicted": spec.classes[guess]}
                for actual, guess in zip(images.labels.tolist(), predicted.tolist(), strict=True)
            ]
    return found, rows


def metrics(scores: dict[str, Any]) -> dict[str, float]:
    """What `dvc metrics` shows of the scores of `evaluate`, in percent."""
    return {
        "val": round(100 * scores["val"]["accuracy"], 2),
        "test": round(100 * scores["test"]["accuracy"], 2),
        "f1": round(100 * scores["test"]["f1_macro"], 2),
    }


class Classifier:
    """Logits `[N, classes]`, on the CPU, of uint8 pixels `[N, 32, 32, 3]`."""

    def __init__(self, model: ResNet, spec: Spec, runtime: Runtime) -> None:
        mean = torch.tensor(spec.mean, device=runtime.device)
        std = torch.tensor(spec.std, device=runtime.device)
        self._logits = Inference(runtime.place(model), mean, std, runtime)

    def __call__(self, pixels: Tensor) -> Tensor:
        return self._logits(pixels).cpu()
