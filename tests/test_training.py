"""Training: it learns, repeats bit by bit, resumes, stops, and never sees the test images."""

import copy
import hashlib
import math
import os
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, Stage, Workspace, refused

from normlab.compute import runtime
from normlab.compute.inference import normalize
from normlab.compute.runtime import Runtime, rehearse
from normlab.config import params
from normlab.config.params import Compute
from normlab.config.paths import TRAIN_IMAGES, RunFiles
from normlab.data import distribution
from normlab.data.images import Images
from normlab.data.images import write as write_images
from normlab.data.split import Split
from normlab.evaluation import features, scores
from normlab.nets import checkpoint
from normlab.nets.checkpoint import Spec
from normlab.training import loop
from normlab.training.augmentation import Draws, crop, draw, pad
from normlab.training.loop import Job, Trainer, best_epoch, is_finished
from normlab.training.loss import cross_entropy
from normlab.training.optim import base_lr, make_optimizer, schedule
from normlab.training.resume import Scratch
from normlab.utils import files

CPU = Runtime(torch.device("cpu"))
Make = Callable[[int], Images]


def job(norm: str = "bn", batch_size: int = 16, **changes: object) -> Job:
    train = params.load(ROOT / "params.yaml").train.model_copy(
        update={"epochs": 3, "warmup_epochs": 0, "lr": 0.05, **changes}
    )
    spec = Spec("run", norm, batch_size, 1, 4, ("cat", "dog", "emu"), (0.5,) * 3, (0.25,) * 3)
    return Job(spec, train, 1)


def digest(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder` that must repeat; the record of the machine need not."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "environment.json"
    }


@pytest.mark.parametrize("norm", ["torch_bn", "bn", "in", "bin", "ln", "gn", "nn"])
def test_every_norm_learns(norm: str) -> None:
    labels = np.arange(96) % 3
    noise = np.random.default_rng(0).integers(0, 40, (96, 32, 32, 3))
    pixels = (noise + 90 * labels[:, None, None, None]).astype(np.uint8)
    # Instance normalization cannot see brightness: the classes differ in contrast as well.
    pixels[:, ::2] //= (labels + 1).astype(np.uint8)[:, None, None, None]
    images = Images(pixels, labels, tuple("abc"))
    trainer = Trainer(job(norm, epochs=8, flip=False, crop_padding=0), images, images, CPU)
    losses = [trainer.train_epoch(epoch).row["train_loss"] for epoch in range(1, 9)]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "adagrad"])
def test_optimizers_give_the_gate_its_own_rate_and_no_decay(optimizer: str) -> None:
    made = make_optimizer(job("bin").spec.build(), job(optimizer=optimizer).train)
    assert type(made).__name__.lower() == optimizer
    groups = sorted((g["lr_scale"], g["weight_decay"] > 0) for g in made.param_groups)
    assert groups == [(1.0, True), (10.0, False)]


def test_learning_rate_is_proportional_to_the_batch_size() -> None:
    train = job(lr=0.1).train
    assert base_lr(train, 128) == pytest.approx(0.1)
    assert base_lr(train, 8) == pytest.approx(0.00625)


def test_schedules() -> None:
    cosine = schedule(job(epochs=10, warmup_epochs=2, schedule="cosine").train, 5)
    assert [cosine(step) for step in (0, 9, 10)] == pytest.approx([0.1, 1.0, 1.0])
    assert cosine(30) == pytest.approx(0.5)
    assert 0 < cosine(49) < 0.01
    step = schedule(job(epochs=10, schedule="step", milestones=[0.5, 0.8], gamma=0.1).train, 5)
    assert [step(s) for s in (0, 24, 25, 40)] == pytest.approx([1, 1, 0.1, 0.01])
    assert schedule(job(schedule="constant").train, 5)(14) == 1


def test_each_epoch_goes_on_with_the_schedule(images: Make) -> None:
    task = job(warmup_epochs=1)
    trainer = Trainer(task, images(40), images(8), CPU)
    factor, base = schedule(task.train, 3), base_lr(task.train, 16)
    rows = [trainer.train_epoch(epoch).row for epoch in (1, 2, 3)]
    assert [row["lr"] for row in rows] == [base * factor(last) for last in (2, 5, 8)]


def test_each_seed_starts_and_each_epoch_draws_anew(
    images: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders, weights = [], []

    def record(*arguments: Any) -> Draws:
        draws = draw(*arguments)
        orders.append(tuple(draws.order.tolist()))
        return draws

    monkeypatch.setattr(loop, "draw", record)
    for seed in (1, 2, 1):
        trainer = Trainer(replace(job(), seed=seed), images(40), images(8), CPU)
        weights.append(trainer.model.conv.weight.detach().clone())
        for epoch in (1, 2):
            trainer.train_epoch(epoch)
    assert len({*orders}) == 4
    assert orders[4:] == orders[:2]
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])


def test_crop_is_a_window_of_the_padded_image_and_flip_mirrors_it(images: Make) -> None:
    pixels = torch.from_numpy(images(20).pixels)
    draws = draw(20, 4, True, torch.Generator().manual_seed(3))
    batch = crop(pad(pixels, 4), Draws(*(drawn[5:17] for drawn in draws)))
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert draws.flip.any()
    assert not draws.flip.all()
    padded = torch.nn.functional.pad(pixels, (0, 0, 4, 4, 4, 4))
    for place, image in enumerate(batch, start=5):
        top, left = draws.top[place], draws.left[place]
        window = padded[draws.order[place], top : top + 32, left : left + 32].permute(2, 0, 1)
        assert torch.equal(image, window.flip(2) if draws.flip[place] else window)


def test_normalize_gives_mean_zero_and_deviation_one(images: Make) -> None:
    pixels = torch.from_numpy(images(50).pixels).permute(0, 3, 1, 2)
    scaled = pixels.double() / 255
    mean, std = scaled.mean((0, 2, 3)), scaled.std((0, 2, 3), correction=0)
    expected = (scaled - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(normalize(pixels, mean, std), expected)


def test_all_images_are_seen_once_an_epoch_also_in_a_smaller_last_batch(
    images: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = draw(40, 4, True, torch.Generator().manual_seed(3)).order
    assert sorted(order.tolist()) == [*range(40)]
    trainer, sizes = Trainer(job(batch_size=16), images(40), images(8), CPU), []
    monkeypatch.setattr(trainer.steps, "step", lambda offsets, size, _: sizes.append(size))
    trainer.train_epoch(1)
    assert sizes == [16, 16, 8]


def test_the_logged_loss_is_the_mean_over_images(images: Make) -> None:
    trainer = Trainer(job(batch_size=16), images(40), images(8), CPU)
    row = trainer.train_epoch(1).row
    expected = float((trainer.steps.losses * torch.tensor([16, 16, 8])).sum()) / 40
    assert row["train_loss"] == pytest.approx(expected)


@pytest.mark.parametrize("norm", ["torch_bn", "bn", "bin", "gn", "nn"])
def test_steps_are_those_of_a_plain_loop(norm: str, images: Make) -> None:
    """The step that a GPU captures, here run as it is."""
    task, train = job(norm, lr=0.5), images(40)
    trainer = Trainer(task, train, images(8), CPU)
    steps, plain = trainer.steps, copy.deepcopy(trainer.model)
    gates = [p for name, p in plain.named_parameters() if name.endswith("gate")]
    others = [p for name, p in plain.named_parameters() if not name.endswith("gate")]
    groups = [{"params": others}, {"params": gates, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD([g for g in groups if g["params"]], momentum=task.train.momentum,
                                lr=0.1, weight_decay=task.train.weight_decay)  # fmt: skip
    draws, lrs = draw(40, 4, True, torch.Generator().manual_seed(0)), [0.1, 0.2, 0.3]
    padded, half = pad(torch.from_numpy(train.pixels), 4), torch.full((3,), 0.5)
    steps.start_epoch(draws, lrs)
    trainer.model.train()
    for place, lr in enumerate(lrs):
        batch = Draws(*(drawn[16 * place : 16 * (place + 1)] for drawn in draws))
        for group in optimizer.param_groups:
            group["lr"] = lr * (10 if group["params"][0] in set(gates) else 1)
        optimizer.zero_grad()
        labels = torch.from_numpy(train.labels)[batch.order]
        logits = plain(normalize(crop(padded, batch), half, half / 2))
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        for gate in gates:
            gate.data.clamp_(0, 1)
        wrong = int(steps.wrong)
        steps.next()
        torch.testing.assert_close(steps.losses[place], loss.detach())
        assert int(steps.wrong) - wrong == int((logits.argmax(1) != labels).sum())
        for ours, theirs in zip(
            trainer.model.state_dict().values(), plain.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert steps.losses.shape == (3,)


@pytest.mark.parametrize(
    ("norm", "optimizer"),
    [*((norm, "sgd") for norm in ("torch_bn", "bn", "bin", "gn", "nn")), ("bin", "adamw")],
)
def test_a_rehearsal_leaves_no_trace(norm: str, optimizer: str, images: Make) -> None:
    """As before a capture: a training gives the same bytes after it."""
    states = []
    for rehearses in (False, True):
        trainer = Trainer(job(norm, optimizer=optimizer), images(40), images(8), CPU)
        steps = trainer.steps
        for epoch in (1, 2):
            draws = draw(40, 4, True, torch.Generator().manual_seed(epoch))
            steps.start_epoch(draws, [0.1] * 3)
            trainer.model.train()
            if rehearses:
                rehearse(partial(steps.step, torch.arange(16), 16, steps._plain), steps._state)
            for _ in range(3):
                steps.next()
        states.append([*steps._state(), steps.losses])
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


@pytest.mark.slow
def test_compiled_and_plain_training_agree(images: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault := runtime.compiler_fault(torch.device("cpu")):
        pytest.skip(fault)
    from torch._dynamo.utils import counters  # takes as long to import as torch
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    # PyTorch takes what is in its cache for another ATEN_CPU_CAPABILITY too, and computes NaN.
    own = f"{cache_dir()}-{torch.backends.cpu.get_cpu_capability()}"
    monkeypatch.setenv(runtime.COMPILER_CACHE, own)

    rows = []
    for compiles in (False, True):
        made = Runtime(torch.device("cpu"), compiles=compiles)
        counters.clear()
        rows.append(Trainer(job("gn", lr=0.01), images(40), images(8), made).train_epoch(1).row)
    assert rows[0]["train_loss"] == pytest.approx(rows[1]["train_loss"], rel=1e-4)
    assert rows[0]["val_loss"] == pytest.approx(rows[1]["val_loss"], rel=1e-3)
    # Forward and backward are one graph; where the compiler gives up, it makes two and is silent.
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradient_of_the_loss_is_that_of_autograd(smoothing: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 10, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(10, (8,), generator=generator)
    expected = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    expected.backward()
    loss, gradient = cross_entropy(logits.detach(), labels, smoothing, scale=1 / 8)
    assert loss / 8 == pytest.approx(expected.item())
    torch.testing.assert_close(gradient, logits.grad)
    torch.library.opcheck(cross_entropy, (logits.detach(), labels, smoothing, 1 / 8))


def test_best_epoch_and_patience_read_validation_alone() -> None:
    log = [
        {"epoch": e, "train_loss": 1.0, "val_loss": 1.0, "val_error": v}
        for e, v in enumerate([0.5, 0.3, 0.3, 0.4], start=1)
    ]
    assert best_epoch(log) == 2
    assert is_finished(log, job(epochs=10, patience=2).train)
    assert not is_finished(log, job(epochs=10, patience=3).train)
    assert is_finished(log, job(epochs=4, patience=9).train)
    log.append({"epoch": 5, "train_loss": 1.0, "val_loss": math.nan, "val_error": 0.1})
    assert best_epoch(log) == 2
    assert is_finished(log, job(epochs=10, patience=9).train)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(
    task: Job, images: Images, on_divergence: str = "stop", inputs: dict[str, str] | None = None
) -> None:
    """Train `task` on all images but 12, which are for validation, and write what stages write."""
    out, count = RunFiles("run"), len(images)
    parts = Split([*range(count - 12)], [*range(count - 12, count)], [0.5] * 3, [0.25] * 3)
    compute = Compute(compile=False, devices=1, on_divergence=on_divergence)

    def write(trained: loop.Trained) -> None:
        checkpoint.save(out.weights, trained.weights, task.spec, trained.best_epoch)
        distribution.write(out.features, trained.features)

    loop.train(task, images, parts, compute, inputs or {}, write, out.log)


def interrupt(task: Job, images: Images, **options: Any) -> None:
    """Have `train` end when the state of its first epoch is saved."""
    keep = Scratch.save

    def stop(scratch: Scratch, state: dict[str, Any]) -> None:
        keep(scratch, state)
        raise KeyboardInterrupt

    shutil.rmtree("data", ignore_errors=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scratch, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            train(task, images, **options)


def test_outputs_are_whole_and_the_scratch_is_gone(place: Path, images: Make) -> None:
    train(job(), images(52))
    out = RunFiles("run")
    assert len(out.log.read_text().splitlines()) == 4
    log = _rows(out.log)
    best = best_epoch(log)
    model, _, epoch = checkpoint.load(out.weights)
    assert epoch == best
    everything = images(52)
    trainer = Trainer(job(), everything[range(40)], everything[range(40, 52)], CPU, model)
    _, _, quantiles = trainer.evaluate()
    pixels = torch.from_numpy(everything.pixels[40:]).permute(0, 3, 1, 2)
    labels = torch.from_numpy(everything.labels[40:])
    with torch.no_grad():
        logits = model.eval()(normalize(pixels, torch.full((3,), 0.5), torch.full((3,), 0.25)))
    row = log[best - 1]
    assert row["val_error"] == pytest.approx((logits.argmax(1) != labels).float().mean().item())
    assert row["val_loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)
    functions = distribution.read(out.features)
    assert len(functions) == 3
    np.testing.assert_allclose(functions[best - 1], quantiles, rtol=1e-5)
    assert not list((place / ".scratch").iterdir())


def _rows(log: Path) -> list[loop.Row]:
    rows = files.read_csv(log)
    return [{k: int(v) if k == "epoch" else float(v) for k, v in row.items()} for row in rows]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"lr": 1e20}, r"the loss is (nan|inf) at epoch 1, step \d"),
        # one step an epoch: what it makes of the weights is seen by validation alone
        ({"lr": 1e38, "batch_size": 64}, "the validation loss is nan after epoch 1"),
    ],
)
def test_divergence_stops_with_one_line_or_is_recorded_as_a_result(
    change: dict[str, Any], line: str, place: Path, images: Make
) -> None:
    task, out = job("nn", **change), RunFiles("run")
    told = refused(lambda: train(task, images(52)))
    assert re.match(f"run run: {line}; the log is in", told)
    assert len(out.log.read_text().splitlines()) == 2
    assert not out.weights.exists()
    parts = Split([*range(6)], [*range(6, 12)], [0.5] * 3, [0.25] * 3)
    train(task, images(52), on_divergence="record")
    assert len(out.log.read_text().splitlines()) == 2
    found, _ = scores.evaluate(
        *checkpoint.load(out.weights), _rows(out.log), images(12), parts, images(12), False
    )
    assert found["diverged"]
    assert found["test"]["accuracy"] == pytest.approx(1 / 3)
    assert math.isnan(features.table(distribution.read(out.features), [0.5])[0]["q50"])


def test_a_recorded_divergence_is_not_trained_further(place: Path, images: Make) -> None:
    task, out = job("nn", lr=1e20), RunFiles("run")
    interrupt(task, images(52), on_divergence="record")
    assert not out.weights.exists()
    train(task, images(52), on_divergence="record")
    assert len(out.log.read_text().splitlines()) == 2
    assert out.weights.exists()


def test_the_learning_rate_is_that_of_a_batch_that_all_images_do_not_fill(images: Make) -> None:
    row = Trainer(job(batch_size=65536, lr=0.1), images(40), images(8), CPU).train_epoch(1).row
    assert row["lr"] == pytest.approx(0.1 * 40 / 128)


def test_a_damaged_scratch_is_reported_and_training_starts_over(
    place: Path, images: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(job(), images(52))
    expected = digest(place / "data")
    with monkeypatch.context() as patch:
        patch.setattr(Scratch, "remove", lambda scratch: None)
        train(job(), images(52))
    [state] = (place / ".scratch").glob("*/state")
    state.write_bytes(state.read_bytes()[:-100])
    train(job(), images(52))
    assert "damaged (wrong checksum); restarting from scratch" in capsys.readouterr().err
    assert digest(place / "data") == expected


def test_whatever_changes_a_training_starts_it_from_scratch(
    place: Path, images: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scratch, "remove", lambda scratch: None)

    def resumes(task: Job, **inputs: str) -> bool:
        train(task, images(52), inputs=inputs)
        return "resumes after epoch 3" in capsys.readouterr().out

    assert not resumes(job())
    assert resumes(job())
    for other in (job("gn"), job(batch_size=8), replace(job(), seed=2)):
        assert not resumes(other)
    assert not resumes(job(), code="another")
    monkeypatch.setattr(loop.torch, "__version__", "another")
    assert not resumes(job())


@pytest.mark.parametrize("optimizer", ["adamw", "adagrad"])
def test_every_optimizer_resumes_to_the_same_bytes(
    optimizer: str, place: Path, images: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    task = job("bin", optimizer=optimizer, lr=0.01)
    train(task, images(52))
    expected = digest(place / "data")
    interrupt(task, images(52))
    train(task, images(52))
    assert "resumes after epoch 1" in capsys.readouterr().out
    assert digest(place / "data") == expected


def test_a_training_resumes_with_the_threads_it_began_with(
    place: Path, images: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun by `make study` with one thread, resumed by `dvc repro` with all: the same bytes."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    train(job(), images(52))
    expected = digest(place / "data")
    interrupt(job(), images(52))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        train(job(), images(52))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(threads)
    assert digest(place / "data") == expected


@pytest.fixture
def tiny(workspace: Workspace, images: Make) -> Workspace:
    """A repository with few images, with which a training takes a moment."""
    workspace.set(split__val_size=40)
    write_images(workspace.path / TRAIN_IMAGES, images(120))
    workspace.run("python", "-m", "stages.split")
    return workspace


KILLS = 24
RUN = ("train", "bn", "bn", "16")


@pytest.mark.slow
def test_killed_at_many_moments_the_outputs_are_those_of_an_uninterrupted_run(
    tiny: Workspace,
) -> None:
    """A real training, killed at random moments by every signal that ends one, then finished."""
    tiny.set(train__epochs=8)
    Stage(tiny, *RUN).wait()  # what it is forked from starts, and imports
    begin = time.monotonic()
    Stage(tiny, *RUN).wait()
    duration = time.monotonic() - begin
    expected = digest(tiny.path / "data")
    assert len(expected) > 4

    chance, killed, resumed = random.Random(1), 0, 0
    while killed < KILLS or (resumed < KILLS // 4 and killed < 4 * KILLS):  # under other load
        for folder in ("weights", "runs"):  # as DVC does before it runs a stage
            shutil.rmtree(tiny.path / "data" / folder, ignore_errors=True)
        training = Stage(tiny, *RUN)
        try:
            code = training.process.wait(chance.uniform(0.05, 0.7) * duration)
        except TimeoutError:
            training.process.send(chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
            code = training.process.wait()
        resumed += "resumes after epoch" in training.printed[0]
        if code == 0:
            assert digest(tiny.path / "data") == expected
        else:
            killed += 1
    assert resumed >= KILLS // 4
    Stage(tiny, *RUN).wait()
    assert digest(tiny.path / "data") == expected
    assert not list((tiny.path / ".scratch").iterdir())


@pytest.mark.slow
def test_training_gives_the_same_bytes_with_the_test_images_absent(with_data: Workspace) -> None:
    Stage(with_data, *RUN).wait()
    data = with_data.path / "data"
    expected = {folder: digest(data / folder) for folder in ("runs", "weights")}
    assert [len(made) for made in expected.values()] == [2, 1]
    for folder in expected:
        shutil.rmtree(data / folder)
    (data / "images/test.safetensors").unlink()
    Stage(with_data, *RUN).wait()
    assert {folder: digest(data / folder) for folder in expected} == expected


@pytest.mark.slow
@pytest.mark.parametrize("kib", [1, 400])
def test_a_full_disk_gives_one_line_and_no_half_written_file(kib: int, tiny: Workspace) -> None:
    """Too full for anything, and for what a training goes on from."""
    Stage(tiny, "train", "main", *RUN[2:]).wait()
    before = digest(tiny.path / "data")
    command = f"ulimit -f {kib}; exec {sys.executable} -m stages.{' '.join(RUN)}"
    [line] = tiny.run("bash", "-c", command, check=False).stderr.splitlines()
    assert line.startswith("error: ")
    assert line.endswith("; raise the limit on file sizes (`ulimit -f`), or use another disk")
    after = digest(tiny.path / "data")
    after.pop("runs/bn/log.csv")  # of the epochs before
    assert after == before
    assert not list(tiny.path.rglob("*.tmp"))
    Stage(tiny, *RUN).wait()  # space is made: it resumes
    for file in ("weights/{}.safetensors", "runs/{}/log.csv"):
        one, two = (tiny.path / "data" / file.format(run) for run in ("main", "bn"))
        assert one.stat().st_size == pytest.approx(two.stat().st_size, rel=0.01)


@pytest.mark.slow
def test_outputs_that_cannot_be_written_give_one_line_and_the_next_start_trains_nothing_again(
    tiny: Workspace,
) -> None:
    """`data/weights` is a file, so that nothing can be put there: for root, too."""
    blocked = tiny.path / "data/weights"
    blocked.write_text("in the way")
    [line] = Stage(tiny, *RUN).wait(fails=True).splitlines()
    assert line.startswith("error: data/weights")
    assert line.endswith("; it exists already; move it away")
    assert blocked.read_text() == "in the way"
    blocked.unlink()
    again = Stage(tiny, *RUN).wait()
    assert again.startswith("bn: resumes after epoch 2\nbn: best epoch ")
