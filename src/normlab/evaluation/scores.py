"""Accuracy and F1 of a trained run, and its predictions on the test images."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from normlab.compute.inference import Inference
from normlab.compute.runtime import Runtime, make_runtime
from normlab.data.images import Images
from normlab.data.split import Split
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
    images: Images,
    parts: Split,
    test: Images,
    compile_: str | bool,
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Score `model`, as it was after `epoch`, on both `parts` of `images`, and on `test` images.

    `log` has a row per epoch of its training. Returns the scores, and rows (actual, predicted) of
    the test images.
    """
    sets = {"train": images[parts.train], "val": images[parts.val], "test": test}
    total = sum(map(len, sets.values()))
    runtime = make_runtime("float32", compile_, flops_per_image(spec.n) * total)
    logits = classifier(model, spec, runtime)
    found: dict[str, Any] = {
        "norm": spec.norm,
        "batch_size": spec.batch_size,
        "epoch": epoch,
        "epochs": len(log),
        "images": {name: len(part) for name, part in sets.items()},
        "diverged": not all(
            math.isfinite(float(row[loss])) for row in log for loss in ("train_loss", "val_loss")
        ),
    }
    predicted = {
        name: logits(torch.from_numpy(part.pixels)).argmax(1).cpu() for name, part in sets.items()
    }
    for name, part in sets.items():
        found[name] = scores(torch.from_numpy(part.labels), predicted[name])
    rows = [
        {"actual": spec.classes[actual], "predicted": spec.classes[guess]}
        for actual, guess in zip(test.labels.tolist(), predicted["test"].tolist(), strict=True)
    ]
    return found, rows


def metrics(scores: dict[str, Any]) -> dict[str, float]:
    """What `dvc metrics` shows of the scores of `evaluate`, in percent."""
    return {
        "val": round(100 * scores["val"]["accuracy"], 2),
        "test": round(100 * scores["test"]["accuracy"], 2),
        "f1": round(100 * scores["test"]["f1_macro"], 2),
    }


def classifier(model: ResNet, spec: Spec, runtime: Runtime) -> Inference:
    """Gives logits `[N, classes]` of uint8 pixels `[N, 32, 32, 3]`."""
    mean = torch.tensor(spec.mean, device=runtime.device)
    std = torch.tensor(spec.std, device=runtime.device)
    return Inference(runtime.place(model), mean, std, runtime)
