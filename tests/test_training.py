"""Training: it learns, repeats bit by bit, resumes, stops, and never sees the test images."""

import hashlib
import math
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, Training, Workspace

from normlab.compute.inference import normalize
from normlab.compute.runtime import Runtime
from normlab.config import params
from normlab.config.paths import TRAIN_IMAGES, run_files
from normlab.data import distribution
from normlab.data.images import Images
from normlab.data.images import write as write_images
from normlab.evaluation import features, scores
from normlab.nets import checkpoint
from normlab.nets.checkpoint import Spec
from normlab.training import loop
from normlab.training.augmentation import crop, draw, pad
from normlab.training.loop import Job, Trainer, best_epoch, is_finished
from normlab.training.loss import cross_entropy
from normlab.training.optim import base_lr, make_optimizer, schedule
from normlab.training.resume import Scratch, fingerprint
from normlab.utils import files
from normlab.utils.errors import NormlabError

CPU = Runtime(torch.device("cpu"))
Make = Callable[[int], Images]


def job(norm: str = "bn", batch_size: int = 16, **changes: object) -> Job:
    train = params.load(ROOT / "params.yaml").train.model_copy(
        update={"epochs": 3, "warmup_epochs": 0, "lr": 0.05, "compile": False, **changes}
    )
    spec = Spec("run", norm, batch_size, 1, 4, ("cat", "dog", "emu"), (0.5,) * 3, (0.25,) * 3)
    return Job(spec, train, 1)


def easy(count: int) -> Images:
    """Images whose brightness tells their class."""
    labels = np.arange(count) % 3
    noise = np.random.default_rng(0).integers(0, 40, (count, 32, 32, 3))
    return Images((noise + 90 * labels[:, None, None, None]).astype(np.uint8), labels, tuple("abc"))


def digest(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder` that must repeat; the record of the machine need not."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "environment.json"
    }


@pytest.mark.parametrize("norm", ["torch_bn", "bn", "in", "bin", "ln", "gn", "nn"])
def test_every_norm_learns(norm: str) -> None:
    # Instance normalization cannot see brightness: there the classes differ in contrast as well.
    images = easy(96)
    pixels = images.pixels.copy()
    pixels[:, ::2] //= (images.labels + 1).astype(np.uint8)[:, None, None, None]
    images = Images(pixels, images.labels, images.classes)
    trainer = Trainer(job(norm, epochs=8, flip=False, crop_padding=0), images, images, CPU)
    losses = [trainer.epoch(epoch)["train_loss"] for epoch in range(1, 9)]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "adagrad"])
def test_optimizers_give_the_gate_its_own_rate_and_no_decay(optimizer: str) -> None:
    made = make_optimizer(job("bin").spec.build(), job(optimizer=optimizer).train)
    assert sorted((g["lr_scale"], g["weight_decay"] > 0) for g in made.param_groups) == [
        (1.0, True),
        (10.0, False),
    ]


def test_gate_stays_between_zero_and_one(images: Make) -> None:
    trainer = Trainer(job("bin", lr=5.0), images(48), images(12), CPU)
    trainer.epoch(1)
    gates = torch.cat([p.flatten() for n, p in trainer.model.named_parameters() if "gate" in n])
    assert ((gates >= 0) & (gates <= 1)).all()
    assert (gates < 1).any()


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


def test_crop_is_a_window_of_the_padded_image_and_flip_mirrors_it(images: Make) -> None:
    pixels = torch.from_numpy(images(20).pixels)
    draws = draw(20, 4, True, torch.Generator().manual_seed(3))
    batch = crop(pad(pixels, 4), draws, slice(5, 17))
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
    torch.testing.assert_close(
        normalize(pixels, mean, std), (scaled - mean[:, None, None]) / std[:, None, None]
    )


def test_all_images_are_seen_once_an_epoch_also_in_a_smaller_last_batch(images: Make) -> None:
    assert sorted(draw(40, 4, True, torch.Generator().manual_seed(3)).order.tolist()) == [
        *range(40)
    ]
    trainer = Trainer(job(batch_size=16), images(40), images(8), CPU)
    sizes: list[int] = []
    step = trainer.step
    trainer.step = lambda pixels, labels, size: (
        sizes.append(len(pixels)) or step(pixels, labels, size)
    )  # type: ignore[method-assign]
    trainer.epoch(1)
    assert sizes == [16, 16, 8]


def test_compiled_and_plain_training_agree(images: Make) -> None:
    from torch._dynamo.utils import counters  # takes as long to import as torch

    rows = []
    for compiles in (False, True):
        runtime = Runtime(torch.device("cpu"), compiles=compiles)
        counters.clear()
        rows.append(Trainer(job("gn", lr=0.01), images(40), images(8), runtime).epoch(1))
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
        {"epoch": e, "train_loss": 1.0, "val_error": v}
        for e, v in enumerate([0.5, 0.3, 0.3, 0.4], start=1)
    ]
    assert best_epoch(log) == 2
    assert is_finished(log, job(epochs=10, patience=2).train)
    assert not is_finished(log, job(epochs=10, patience=3).train)
    assert is_finished(log, job(epochs=4, patience=9).train)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(task: Job, train: Images, val: Images) -> None:
    with Scratch("run", fingerprint({"job": repr(task)})) as scratch:
        loop.run(Trainer(task, train, val, CPU), scratch)
        scratch.remove()


def test_outputs_are_whole_and_the_scratch_is_gone(place: Path, images: Make) -> None:
    train(job(), images(40), images(12))
    out = run_files("run")
    assert len(out.log.read_text().splitlines()) == 4
    log = _rows(out.log)
    best = best_epoch(log)
    model, _, epoch = checkpoint.load(out.weights)
    assert epoch == best
    trainer = Trainer(job(), images(40), images(12), CPU, model)
    assert trainer.evaluate()[1] == pytest.approx(log[best - 1]["val_error"])
    functions = distribution.read(out.features)
    assert len(functions) == 3
    np.testing.assert_allclose(functions[best - 1], trainer.feature_quantiles, rtol=1e-5)
    assert not (place / ".scratch").exists()


def _rows(log: Path) -> list[loop.Row]:
    rows = files.read_csv(log)
    return [{k: int(v) if k == "epoch" else float(v) for k, v in row.items()} for row in rows]


def test_divergence_stops_with_one_line_and_keeps_the_log(place: Path, images: Make) -> None:
    with pytest.raises(NormlabError, match=r"loss is (nan|inf) at epoch 1, step \d") as error:
        train(job("nn", lr=1e20), images(40), images(12))
    assert "\n" not in str(error.value)
    assert len(run_files("run").log.read_text().splitlines()) == 2
    assert not run_files("run").weights.exists()


def test_divergence_can_be_recorded_as_a_result(place: Path, images: Make) -> None:
    train(job("nn", lr=1e20, on_divergence="record"), images(40), images(12))
    out = run_files("run")
    sets = {name: images(12) for name in ("train", "val", "test")}
    metrics = scores.evaluate(out.weights, sets, _rows(out.log))["metrics"]
    assert metrics["diverged"]
    assert metrics["test"]["accuracy"] == pytest.approx(1 / 3)
    assert math.isnan(features.table(distribution.read(out.features), [0.5])[0]["q50"])


def test_a_damaged_scratch_is_reported_and_training_starts_over(
    place: Path, images: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    train(job(), images(40), images(12))
    expected = digest(place / "data")
    key = fingerprint({"job": repr(job())})
    with Scratch("run", key) as scratch:
        trainer = Trainer(job(), images(40), images(12), CPU)
        trainer.epoch(1)
        scratch.save(trainer.state())
        state = scratch.path / "state"
        state.write_bytes(state.read_bytes()[:-100])
    train(job(), images(40), images(12))
    assert "damaged (wrong checksum); starting over" in capsys.readouterr().err
    assert digest(place / "data") == expected


def test_whatever_changes_a_training_starts_it_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(task: Job, data: str = "images", **device: object) -> str:
        runtime = Runtime(torch.device("cpu"), **device)  # type: ignore[arg-type]
        return fingerprint(loop.determinants(task, {"train": data}, runtime))

    same = key(job())
    assert key(job(devices=2)) == same  # the processes may change their number
    assert key(job(compile="auto")) == same  # what it leads to counts
    others = [
        key(job("gn")),
        key(job(batch_size=8)),
        key(job(lr=0.01)),
        key(job(precision="bfloat16")),
        key(job(), compiles=True),
        key(replace(job(), seed=2)),
        key(job(), "other images"),
    ]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 17)
    others.append(key(job()))
    assert len({same, *others}) == 1 + len(others)


KILLS = 24
RUN = ("bn", "bn", "16")


@pytest.mark.slow
def test_killed_at_many_moments_the_outputs_are_those_of_an_uninterrupted_run(
    workspace: Workspace, images: Make
) -> None:
    """A real training, killed at random moments by every signal that ends one, then finished."""
    workspace.set(train__epochs=8, split__val_size=40)
    write_images(workspace.path / TRAIN_IMAGES, images(120))
    workspace.run("python", "-m", "stages.split")
    Training(workspace, *RUN).wait()  # the fork server starts, and imports
    begin = time.monotonic()
    Training(workspace, *RUN).wait()
    duration = time.monotonic() - begin
    expected = digest(workspace.path / "data")
    assert len(expected) > 4

    chance, killed, resumed = random.Random(1), 0, 0
    while killed < KILLS:
        for folder in ("weights", "runs"):  # as DVC does before it runs a stage
            shutil.rmtree(workspace.path / "data" / folder, ignore_errors=True)
        training = Training(workspace, *RUN)
        training.process.join(chance.uniform(0.05, 0.7) * duration)
        if training.process.is_alive():
            assert training.process.pid
            kind = chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
            os.kill(training.process.pid, kind)
            training.process.join()
        resumed += "going on after epoch" in training.printed[0]
        if training.process.exitcode == 0:
            assert digest(workspace.path / "data") == expected
        else:
            killed += 1
    assert resumed >= KILLS // 4
    Training(workspace, *RUN).wait()
    assert digest(workspace.path / "data") == expected
    assert not (workspace.path / ".scratch").exists()


@pytest.mark.slow
def test_training_gives_the_same_bytes_with_the_test_images_absent(with_data: Workspace) -> None:
    Training(with_data, *RUN).wait()
    runs = with_data.path / "data/runs"
    expected = digest(runs)
    assert len(expected) == 2
    shutil.rmtree(runs)
    (with_data.path / "data/images/test.safetensors").unlink()
    Training(with_data, *RUN).wait()
    assert digest(runs) == expected


@pytest.mark.slow
@pytest.mark.parametrize("largest_file", [1_000, 400_000])
def test_a_full_disk_gives_one_line_and_no_half_written_file(
    largest_file: int, with_data: Workspace
) -> None:
    """Too full for anything, and for what a training goes on from."""
    Training(with_data, "main", *RUN[1:]).wait()
    before = digest(with_data.path / "data")
    [line] = Training(with_data, *RUN, largest_file=largest_file).wait(fails=True).splitlines()
    assert line.startswith("error: ")
    assert line.endswith("; raise the limit of a file's size (`ulimit -f`), or use another disk")
    assert digest(with_data.path / "data") == before
    assert not list(with_data.path.rglob("*.tmp"))
    Training(with_data, *RUN).wait()  # space is made: it goes on
    for file in ("weights/{}.safetensors", "runs/{}/log.csv"):
        one, two = (with_data.path / "data" / file.format(run) for run in ("main", "bn"))
        assert one.stat().st_size == pytest.approx(two.stat().st_size, rel=0.01)


@pytest.mark.slow
def test_outputs_that_cannot_be_written_give_one_line_and_the_next_start_trains_nothing_again(
    with_data: Workspace,
) -> None:
    """`data/runs/bn` is a file, so that nothing can be put there: for root, too."""
    blocked = with_data.path / "data/runs/bn"
    blocked.parent.mkdir()
    blocked.write_text("in the way")
    [line] = Training(with_data, *RUN).wait(fails=True).splitlines()
    assert line.startswith("error: data/runs/bn")
    assert line.endswith("; something stands there already; move it away")
    assert blocked.read_text() == "in the way"
    blocked.unlink()
    again = Training(with_data, *RUN).wait()
    assert again.startswith("bn: going on after epoch 2\nbn: best epoch ")
