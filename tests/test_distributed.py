"""Two gloo processes against one: the same batch gives the same result, whoever holds its parts."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import torch.multiprocessing as mp
from conftest import ROOT, Workspace, free_port
from torch import nn

from normlab.compute import distributed
from normlab.compute.runtime import Runtime
from normlab.config import params
from normlab.data.images import Images
from normlab.nets.checkpoint import Spec
from normlab.nets.resnet import ResNet
from normlab.norms.base import make_norm
from normlab.training.loop import Job, Trainer, train_to_end
from normlab.utils import progress
from normlab.utils.errors import NormlabError
from normlab.utils.files import read_csv

pytestmark = pytest.mark.xdist_group("distributed")  # its processes start once
BATCH, CHANNELS = 7, 4  # does not divide evenly between two


def layer_outcome(name: str) -> dict[str, torch.Tensor]:
    """This process's part of the output and input gradient; the sums of the other gradients."""
    torch.manual_seed(0)
    norm, part = make_norm(name, CHANNELS, 2).double(), distributed.shard(BATCH)
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, 0.2, 0.8)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(BATCH, CHANNELS, 3, 5, dtype=torch.float64, generator=generator)
    weight = torch.randn(x.shape, dtype=torch.float64, generator=generator)
    x = x[part].requires_grad_()
    y = norm(x)
    (y * weight[part]).sum().backward()
    assert x.grad is not None
    sums = {f"grad {n}": distributed.all_sum(p.grad) for n, p in norm.named_parameters()}
    return {"y": y.detach(), "x": x.grad, **sums, **dict(norm.named_buffers())}


def steps_outcome(name: str) -> dict[str, torch.Tensor]:
    """Weights of a network after three steps on batches of 7, 7 and 5 images."""
    torch.manual_seed(0)
    model = ResNet(1, 3, name, 2).double()
    parallel: nn.Module = model
    if distributed.world_size() > 1:
        parallel = nn.parallel.DistributedDataParallel(model, forward_sync_buffers=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    generator = torch.Generator().manual_seed(2)
    for size in (7, 7, 5):
        x = torch.randn(size, 3, 32, 32, dtype=torch.float64, generator=generator)
        labels = torch.arange(size) % 3
        part = distributed.shard(size)
        loss = nn.functional.cross_entropy(parallel(x[part]), labels[part], reduction="sum") / size
        optimizer.zero_grad()
        (loss * distributed.world_size()).backward()
        optimizer.step()
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def trainer_outcome() -> dict[str, torch.Tensor]:
    """What an epoch logs, at a rate that changes nothing; a process may have no image to validate.

    With the quantiles of the features.
    """
    found = {}
    config = params.load(ROOT / "params.yaml").train
    train = config.model_copy(update={"epochs": 1, "warmup_epochs": 0, "lr": 1e-9})
    spec = Spec("run", "bn", BATCH, 1, 1, ("cat", "dog", "emu"), (0.5,) * 3, (0.25,) * 3)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    images = Images(pixels, np.arange(20) % 3, spec.classes)
    for count in (9, 1):
        val = images[range(count)]
        epoch = Trainer(Job(spec, train, 1), images, val, Runtime(torch.device("cpu"))).train_epoch(
            1
        )
        row = {f"{name} {count}": torch.tensor(value) for name, value in epoch.row.items()}
        found |= {**row, f"quantiles {count}": torch.from_numpy(epoch.feature_quantiles)}
    return found


def worker(rank: int, port: int, folder: str) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2",
        LOCAL_RANK=str(rank), TORCHELASTIC_RUN_ID="test",
    )  # fmt: skip
    torch.set_num_threads(1)
    with distributed.group(torch.device("cpu")):
        found = {name: (layer_outcome(name), steps_outcome(name)) for name in ("bn", "bin", "gn")}
        found["log"] = trainer_outcome()
        torch.save(found, Path(folder) / f"{rank}.pt")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(worker, (free_port(), str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", ["bn", "bin", "gn"])
def test_a_norm_over_two_processes_equals_one(name: str, parts: list[dict]) -> None:
    for key, expected in layer_outcome(name).items():
        found = [part[name][0][key] for part in parts]
        for value in [torch.cat(found)] if key in ("y", "x") else found:
            torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("name", ["bn", "bin", "gn"])
def test_steps_on_two_processes_equal_those_on_one(name: str, parts: list[dict]) -> None:
    whole = steps_outcome(name)
    for part in parts:
        torch.testing.assert_close(part[name][1], whole, rtol=1e-7, atol=1e-9)


def test_the_log_of_two_processes_is_that_of_one(parts: list[dict]) -> None:
    whole = trainer_outcome()
    for part in parts:
        torch.testing.assert_close(part["log"], whole, rtol=1e-4, atol=1e-5)


ONE = ("python", "-m", "stages.train", "bn", "bn", "127")


@pytest.mark.slow
def test_train_on_two_devices_follows_train_on_one(with_data: Workspace) -> None:
    """Also: one clear line for a norm that cannot see the whole batch."""
    logs = []
    for devices in (2, 1):
        with_data.set(compute__devices=devices, train__lr=0.02)
        assert "best epoch" in with_data.run(*ONE).stdout
        logs.append(read_csv(with_data.path / "data/runs/bn/log.csv"))
    assert_alike(*logs)
    with_data.set(compute__devices=2)
    refused = with_data.run(*ONE[:3], "main", "torch_bn", "8", check=False)
    assert refused.returncode == 1
    [error] = [line for line in refused.stderr.splitlines() if line.startswith("error:")]
    assert "torch_bn needs GPUs" in error
    assert "Traceback" not in refused.stderr


def assert_alike(one: list[dict[str, str]], other: list[dict[str, str]]) -> None:
    """Two logs of one training, on other numbers of processes."""
    assert [row["epoch"] for row in one] == [row["epoch"] for row in other]
    losses = [[float(row["train_loss"]) for row in log] for log in (one, other)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


@pytest.mark.slow
def test_a_killed_process_ends_all_with_one_line_and_another_number_goes_on(
    with_data: Workspace, tmp_path: Path
) -> None:
    """One of two processes is killed in the middle; one alone then finishes the training."""
    with_data.set(train__epochs=4, train__lr=0.02)
    with_data.run(*ONE)
    log = with_data.path / "data/runs/bn/log.csv"
    alone = read_csv(log)
    log.unlink()

    with_data.set(compute__devices=2)
    environment = {**with_data.environment, "OMP_NUM_THREADS": "1"}
    printed = tmp_path / "output"
    with printed.open("w") as output:
        training = subprocess.Popen(
            [sys.executable, *ONE[1:]], cwd=with_data.path, env=environment, stdout=output,
            stderr=output,
        )  # fmt: skip
    while "epoch 1/4" not in printed.read_text():
        assert training.poll() is None, printed.read_text()
        time.sleep(0.02)
    workers = sorted(child.pid for child in psutil.Process(training.pid).children())
    os.kill(workers[1], signal.SIGKILL)
    assert training.wait(60) == 1
    lines = printed.read_text().splitlines()
    assert [line for line in lines if not line.startswith("bn: epoch")] == [
        "error: process 1 of 2 ended with SIGKILL (exit code -9); the others were stopped; "
        "`dvc repro` resumes after the last finished epoch"
    ]

    with_data.set(compute__devices=1)
    assert "bn: resumes after epoch " in with_data.run(*ONE).stdout
    assert_alike(alone, read_csv(log))
    kinds = json.loads((with_data.path / "data/runs/bn/environment.json").read_text())
    assert [kind["devices"] for kind in kinds] == [2, 1]


@pytest.mark.slow
def test_a_cluster_s_variables_do_not_make_a_process_a_worker(with_data: Workspace) -> None:
    with_data.environment |= {"LOCAL_RANK": "0", "WORLD_SIZE": "4"}
    assert "best epoch" in with_data.run(*ONE).stdout


@pytest.mark.parametrize("given", ["1:2", "two", "0", "-1", ""])
def test_a_wrong_number_of_machines_is_one_line(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PET_NNODES", given)
    with pytest.raises(NormlabError, match=f"PET_NNODES = {given}: must be a number of machines"):
        distributed.launch(2, ["stages.train"])


@pytest.mark.slow
def test_batches_of_fewer_images_than_processes_train(with_data: Workspace) -> None:
    """One image for validation, and one in the last batch."""
    with_data.set(compute__devices=2, split__val_size=1, train__epochs=1, train__warmup_epochs=0)
    with_data.run("python", "-m", "stages.split")
    count = len(json.loads((with_data.path / "data/split.json").read_text())["train"])
    done = with_data.run("python", "-m", "stages.train", "bn", "bn", str((count - 1) // 2))
    assert done.stdout.count("best epoch 1 of 1") == 1
    [row] = read_csv(with_data.path / "data/runs/bn/log.csv")
    assert float(row["val_error"]) in (0, 1)


@pytest.mark.slow
def test_processes_on_one_machine_need_no_name_of_it(with_data: Workspace) -> None:
    """In a network of its own, loopback alone, with a host name that nothing resolves."""
    isolated = ["unshare", "--net", "--uts", "sh", "-c"]
    prepare = "ip link set lo up && hostname nohost"
    if subprocess.run([*isolated, prepare], capture_output=True).returncode:
        pytest.skip("this user may make no network of its own")
    with_data.set(compute__devices=2, train__epochs=1, train__warmup_epochs=0)
    command = f"{prepare} && exec timeout 120 {sys.executable} {' '.join(ONE[1:])}"
    assert "best epoch" in with_data.run(*isolated, command).stdout


def test_only_the_first_process_shows_progress(
    images: Callable[[int], Images], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(progress, "is_terminal", lambda stream: True)
    config = params.load(ROOT / "params.yaml")
    train = config.train.model_copy(update={"epochs": 1, "warmup_epochs": 0})
    spec = Spec("run", "bn", 16, 1, 1, ("cat", "dog", "emu"), (0.5,) * 3, (0.25,) * 3)
    trainer = Trainer(Job(spec, train, 1), images(20), images(8), Runtime(torch.device("cpu")))
    train_to_end(trainer, scratch=None)
    assert capsys.readouterr().out == ""
