"""The CUDA path on a real GPU: `pytest -m gpu` where there is one."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import loops
from benchmarks.references import TORCH_LAYERS, PlainNorm
from normlab.compute.inference import BATCH_SIZE, Inference
from normlab.compute.runtime import make_runtime
from normlab.norms.base import make_norm
from normlab.norms.names import NORMS
from normlab.sources import digits
from normlab.training.loop import Trainer, train_to_end
from normlab.training.resume import Scratch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
LAYERS = {**TORCH_LAYERS, "bin": partial(PlainNorm, "bin")}  #: PyTorch has none for bin
#: of a layer's difference from PyTorch's, relative to the largest value; the gradient of BIN's
#: gate is a sum of many differences, so it is the least exact
LIMITS = {"float32": 1e-3, "bfloat16": 2e-2}
PRECISIONS = ("float32", "tf32", "bfloat16")


def trainer(norm: str, precision: str, compiled: bool = True, epochs: int = 3) -> Trainer:
    """A training of some 12 steps an epoch, the last one smaller."""
    images, val = digits.load()
    runtime = make_runtime(precision, compiled, 0)
    return loops.make_trainer(norm, 128, runtime, images, val=val, epochs=epochs)


@pytest.mark.parametrize("precision", LIMITS)
@pytest.mark.parametrize("norm", LAYERS)
def test_a_layer_is_the_reference(norm: str, precision: str) -> None:
    torch.manual_seed(0)
    runtime = make_runtime(precision, False, 0)
    x = torch.randn(32, 16, 32, 32, device=runtime.device, dtype=getattr(torch, precision))
    x = x.contiguous(memory_format=torch.channels_last)
    direction = torch.randn_like(x, dtype=torch.float32)
    values = {"weight": torch.rand(16) + 0.5, "bias": torch.randn(16), "gate": torch.rand(16)}

    def outcome(layer: nn.Module) -> list[torch.Tensor]:
        learned = {name: values[name] for name, _ in layer.named_parameters()}
        layer.load_state_dict({**layer.state_dict(), **learned})
        layer.to(runtime.device)
        leaf = x.clone().requires_grad_()
        with runtime.autocast():
            output = layer(leaf)
        (output.float() * direction).sum().backward()
        return [output, leaf.grad, *(p.grad for _, p in sorted(layer.named_parameters()))]

    theirs = outcome(LAYERS[norm](16, 4))
    for one, other in zip(outcome(make_norm(norm, 16, 4)), theirs, strict=True):
        difference = (one.float() - other.float()).abs().max() / other.float().abs().max()
        assert difference <= LIMITS[precision]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("norm", NORMS)
def test_a_captured_training_repeats_and_follows_one_step_by_step(
    norm: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    for captures in (True, True, False):
        if not captures:
            monkeypatch.setattr("normlab.compute.runtime.Runtime.capture", lambda _, step, __: step)
        made = trainer(norm, precision)
        rows = [made.train_epoch(epoch).row for epoch in (1, 2)]
        runs.append((rows, [value.cpu() for value in made.model.state_dict().values()]))
    (first, tensors), (second, same), (plain, _) = runs
    assert first == second
    assert all(torch.equal(a, b) for a, b in zip(tensors, same, strict=True))
    assert first[0]["train_loss"] == pytest.approx(plain[0]["train_loss"], rel=1e-2)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("norm", ["torch_bn", "gn"])
def test_captured_inference_is_that_of_smaller_batches(norm: str, precision: str) -> None:
    made = trainer(norm, precision)
    device = made.runtime.device
    mean, std = torch.zeros(3, device=device), torch.ones(3, device=device)
    inference = Inference(made.model.features, mean, std, made.runtime)
    pixels = torch.from_numpy(digits.load()[0].pixels)
    assert len(pixels) > 2 * BATCH_SIZE
    for epoch in (1, 2):  # replayed with other weights
        made.train_epoch(epoch)
        made.model.eval()
        plain = torch.cat([inference(part) for part in pixels.split(BATCH_SIZE // 5)])
        difference = (inference(pixels) - plain).abs().max() / plain.abs().max()
        assert difference <= (1e-3 if precision == "float32" else 3e-2)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("norm", NORMS)
def test_compiled_and_plain_training_agree(norm: str, precision: str) -> None:
    losses = [
        trainer(norm, precision, compiled).train_epoch(1).row["train_loss"]
        for compiled in (True, False)
    ]
    exact = precision == "float32"
    assert losses[0] == pytest.approx(losses[1], rel=1e-3 if exact else 0.05)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "adagrad"])
def test_a_killed_training_resumes_to_the_same_bytes(
    optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NORMLAB_SCRATCH", str(tmp_path))
    keep: Callable[..., None] = Scratch.save
    images, val = digits.load()
    runtime = make_runtime("bfloat16", True, 0)
    found = []
    for kills in (False, True):
        for last in (2, 4) if kills else (4,):

            def save(scratch: Scratch, state: dict, last: int = last) -> None:
                keep(scratch, state)
                if len(state["features"]) == last < 4:
                    raise KeyboardInterrupt

            monkeypatch.setattr(Scratch, "save", save)
            made = loops.make_trainer(
                "bin", 128, runtime, images, val=val, epochs=4, optimizer=optimizer
            )
            with Scratch(f"run-{kills}", "key") as scratch:
                try:
                    trained = train_to_end(made, scratch)
                except KeyboardInterrupt:
                    continue
            found.append((trained.log, list(trained.weights.values())))
    (log, tensors), (resumed_log, resumed) = found
    assert log == resumed_log
    assert all(torch.equal(a, b) for a, b in zip(tensors, resumed, strict=True))
