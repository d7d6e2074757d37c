"""Scores of a network on sets of images."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from normlab.compute import runtime
from normlab.compute.runtime import Runtime
from normlab.data.images import Images
from normlab.data.split import Split
from normlab.evaluation import scores
from normlab.nets.checkpoint import Spec

Make = Callable[[int], Images]
SPEC = Spec("run", "bn", 16, 1, 1, ("cat", "dog", "emu"), (0.5,) * 3, (0.25,) * 3)
LOG = [{"train_loss": "1.0", "val_loss": "1.0"}]


def evaluate(images: Images, compile_: str | bool, log: list[dict[str, str]] = LOG) -> Any:
    every = list(range(len(images)))
    parts = Split(every, every, SPEC.mean, SPEC.std)
    return scores.evaluate(SPEC.build().eval(), SPEC, 1, log, images, parts, images, compile_)


def test_scores_are_those_of_the_predictions(images: Make) -> None:
    found, rows = evaluate(images(30), False)
    right = sum(row["actual"] == row["predicted"] for row in rows) / len(rows)
    assert found["test"]["accuracy"] == found["test"]["f1_micro"] == pytest.approx(right)
    assert found["train"] == found["test"]
    assert (found["epoch"], found["epochs"], found["diverged"]) == (1, 1, False)
    assert scores.metrics(found)["test"] == round(100 * right, 2)


def test_each_set_is_scored_by_itself(images: Make) -> None:
    model = SPEC.build().eval()
    predict = scores.classifier(model, SPEC, Runtime(torch.device("cpu")))

    def labelled(wrong: list[int], count: int) -> Images:
        """Images that the model classifies rightly, but for those that are `wrong`."""
        made = images(count)
        labels = predict(torch.from_numpy(made.pixels)).argmax(1).numpy()
        labels[wrong] = (labels[wrong] + 1) % 3
        return Images(made.pixels, labels, made.classes)

    parts = Split([*range(20)], [*range(20, 30)], SPEC.mean, SPEC.std)
    data, test = labelled([0, 1, 2, 20, 21], 30), labelled([5], 40)
    found, _ = scores.evaluate(model, SPEC, 1, LOG, data, parts, test, False)
    assert found["images"] == {"train": 20, "val": 10, "test": 40}
    accuracies = [found[part]["accuracy"] for part in ("train", "val", "test")]
    assert accuracies == pytest.approx([0.85, 0.8, 0.975])
    f1 = round(100 * found["test"]["f1_macro"], 2)
    assert scores.metrics(found) == {"val": 80.0, "test": 97.5, "f1": f1}


@pytest.mark.parametrize("loss", ["train_loss", "val_loss"])
def test_a_loss_that_is_not_finite_is_a_divergence(loss: str, images: Make) -> None:
    found, _ = evaluate(images(6), False, [*LOG, LOG[0] | {loss: "nan"}])
    assert found["diverged"]


@pytest.mark.parametrize("setting", [False, "auto"])
def test_evaluation_compiles_as_it_is_set(
    setting: str | bool, images: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On images and networks that are large enough for `auto`."""
    compiled: list[object] = []
    monkeypatch.setattr(runtime, "COMPILE_FROM_FLOPS", {"cpu": 0, "cuda": 0})
    monkeypatch.setattr(runtime, "compiler_fault", lambda device: None)
    monkeypatch.setattr(torch, "compile", lambda f, **options: compiled.append(f) or f)
    evaluate(images(500), setting)
    assert bool(compiled) == (setting == "auto")
