"""Scores of a network on sets of images."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from normlab.compute import runtime
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
