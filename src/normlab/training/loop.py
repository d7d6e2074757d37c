"""The training loop."""

import json
import math
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normlab.compute import distributed
from normlab.compute.inference import Inference
from normlab.compute.runtime import Runtime, describe, make_runtime
from normlab.config.params import Compute, Params, Train
from normlab.data import distribution
from normlab.data.images import Images
from normlab.data.split import Split
from normlab.nets.architecture import flops_per_image
from normlab.nets.checkpoint import Spec
from normlab.nets.resnet import ResNet
from normlab.training.augmentation import draw
from normlab.training.optim import base_lr, make_optimizer, schedule
from normlab.training.resume import Scratch, fingerprint
from normlab.training.step import Steps
from normlab.utils import files, progress
from normlab.utils.errors import NormlabError

LOG_FIELDS = ("epoch", "lr", "train_loss", "val_loss", "train_error", "val_error")
Row = dict[str, Any]  #: one line of the log, keys as in LOG_FIELDS


@dataclass(frozen=True)
class Job:
    """Everything that determines a training, except images and code."""

    spec: Spec
    train: Train
    seed: int


def make_job(
    name: str, norm: str, batch_size: int, seed: int, config: Params, images: Images, parts: Split
) -> Job:
    """The training of `norm` that `config` asks for; `parts` divide `images`."""
    spec = Spec(
        run=name,
        norm=norm,
        batch_size=batch_size,
        n=config.model.n,
        groups=config.norms.groups(norm),
        classes=images.classes,
        mean=tuple(parts.mean),
        std=tuple(parts.std),
    )
    return Job(spec, config.train, seed)


@dataclass(frozen=True)
class Epoch:
    """What an epoch gives."""

    row: Row
    #: of the penultimate features of all validation images, `[2001]` (see `data.distribution`)
    feature_quantiles: np.ndarray
    #: the first step, from 1, whose loss was not finite
    first_bad_step: int | None


@dataclass
class Trained:
    """What a training gives, or has given so far."""

    log: list[Row]  #: a row per epoch
    features: list[np.ndarray]  #: `Epoch.feature_quantiles` per epoch
    weights: dict[str, Tensor]  #: of the best epoch: parameters and buffers, on the CPU
    #: one record per start or resumption: first epoch, machine, seconds per epoch
    environment: list[dict[str, Any]]

    @property
    def best_epoch(self) -> int:
        return best_epoch(self.log)


def flops(job: Job, images: int) -> float:
    """Floating-point operations of training on `images` images per epoch: forward and backward."""
    return 3.0 * flops_per_image(job.spec.n) * images * job.train.epochs


def is_finite(row: Row) -> bool:
    """Whether the losses of a row of the log are numbers: if not, the training has diverged."""
    return math.isfinite(float(row["train_loss"])) and math.isfinite(float(row["val_loss"]))


def best_epoch(log: list[Row]) -> int:
    """The epoch (from 1) of the best validation accuracy, the earliest of several."""
    finite = [row for row in log if is_finite(row)]
    return min(finite or log, key=lambda row: (row["val_error"], row["epoch"]))["epoch"]


def is_finished(log: list[Row], train: Train) -> bool:
    """Whether the epochs are done, or `patience` of them brought no better validation accuracy."""
    if not log:
        return False
    last = log[-1]["epoch"]
    return (
        last >= train.epochs or last - best_epoch(log) >= train.patience or not is_finite(log[-1])
    )


class Trainer:
    """A model in training, one epoch at a time.

    All randomness of an epoch comes from a generator seeded by (seed, epoch), on the CPU: nothing
    random needs saving to resume, and every device sees the same batches.
    """

    def __init__(
        self, job: Job, train: Images, val: Images, runtime: Runtime, model: ResNet | None = None
    ) -> None:
        self.job, self.runtime = job, runtime
        torch.manual_seed(job.seed)
        self.model = runtime.place(model or job.spec.build())
        if distributed.world_size() > 1:
            self.model = synchronized(self.model)
        self.optimizer = make_optimizer(self.model, job.train)
        device = runtime.device
        mean = torch.tensor(job.spec.mean, device=device)
        std = torch.tensor(job.spec.std, device=device)
        self.steps = Steps(
            self.model, self.optimizer, train, mean, std, job.train, job.spec.batch_size, runtime
        )
        self.factor = schedule(job.train, self.steps.per_epoch)
        self._val_pixels = torch.from_numpy(val.pixels).to(device)
        self._val_labels = torch.from_numpy(val.labels).to(device)
        self._features = Inference(self.model.features, mean, std, runtime)

    def train_epoch(self, epoch: int, bar: progress.EpochProgress | None = None) -> Epoch:
        """Train for `epoch` (from 1) and evaluate on the validation images.

        Training loss and error are of the augmented batches while the weights change;
        `lr` is that of the epoch's last step.
        """
        train, steps = self.job.train, self.steps
        generator = torch.Generator().manual_seed(_mix(self.job.seed, epoch))
        first = (epoch - 1) * steps.per_epoch
        base = base_lr(train, steps.batch_size)
        lrs = [base * self.factor(first + step) for step in range(steps.per_epoch)]
        steps.start_epoch(draw(steps.count, train.crop_padding, train.flip, generator), lrs)
        self.model.train()
        for _ in range(steps.per_epoch):
            steps.next()
            if bar:
                bar.step()
        totals = torch.cat([steps.losses.double(), steps.wrong.double()[None]])
        totals = distributed.all_sum(totals)
        val_loss, val_error, quantiles = self.evaluate()
        # Only here does the CPU wait for the device.
        totals = torch.cat([totals, val_loss[None], val_error[None]]).cpu()
        losses, (wrong, val_loss, val_error) = totals[:-3], totals[-3:]
        row = {
            "epoch": epoch,
            "lr": lrs[-1],
            "train_loss": float((losses * steps.sizes()).sum() / steps.count),
            "val_loss": float(val_loss),
            "train_error": float(wrong) / steps.count,
            "val_error": float(val_error),
        }
        bad = (~losses.isfinite()).nonzero()[:1].flatten().tolist()
        return Epoch(row, quantiles.cpu().numpy(), bad[0] + 1 if bad else None)

    def evaluate(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean loss `[]` and error `[]`, float64, on the validation images, on the device.

        And `feature_quantiles` of an `Epoch`. The loss of weights that are not finite is nan.
        """
        self.model.eval()
        count = len(self._val_labels)
        part = distributed.shard(count)
        features = self._features(self._val_pixels[part])
        labels = self._val_labels[part]
        with torch.no_grad(), self.runtime.autocast():
            logits = self.model.head(features).float()
        loss = F.cross_entropy(logits, labels, reduction="sum").double()
        wrong = (logits.argmax(1) != labels).sum().double()
        loss, error = distributed.all_sum(torch.stack([loss, wrong])) / count
        finite = [value.isfinite().all() for value in self.model.state_dict().values()]
        loss = torch.where(torch.stack(finite).all(), loss, torch.nan)
        everyone = features.new_zeros(count, features.shape[1])
        everyone[part] = features
        return loss, error, distribution.quantile_function(distributed.all_sum(everyone))

    def state(self) -> dict[str, Any]:
        """A copy, on the CPU, of model and optimizer; all else follows from the epoch."""
        optimizer = {
            number: {name: _copy(value) for name, value in values.items()}
            for number, values in self.optimizer.state_dict()["state"].items()
        }
        model = {name: _copy(value) for name, value in self.model.state_dict().items()}
        return {"model": model, "optimizer": optimizer}

    def load_state(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["optimizer"], "param_groups": groups})
        self.steps.forget()


def _copy(value: Any) -> Any:
    return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value


def synchronized(model: ResNet) -> ResNet:
    """`model`, with PyTorch's batch norms replaced by those that see the whole batch.

    Our own norms do so by themselves. Raises `NormlabError` on CPUs, where PyTorch has none.
    """
    torch_norms = any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    if torch_norms and not next(model.parameters()).is_cuda:
        raise NormlabError(
            "compute.devices > 1: torch_bn needs GPUs to synchronize its statistics; use norm bn"
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(model) if torch_norms else model


def _mix(seed: int, epoch: int) -> int:
    """A seed for each (seed, epoch), unrelated between neighbours."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)


def train(
    job: Job,
    images: Images,
    parts: Split,
    compute: Compute,
    inputs: dict[str, Any],
    write: Callable[[Trained], None],
    log: Path | None = None,
) -> None:
    """Train `job` to its end, from where an earlier process was stopped, then `write` the outcome.

    Of several processes that share the training, the first writes. `inputs` are what else
    determines the training (see config/pipeline.py): a stopped training with other inputs
    starts from scratch. `log`, a CSV file, grows by a row per epoch.

    Raises `NormlabError` when the loss is no longer finite, unless `compute.on_divergence` is
    `record`.
    """
    work = flops(job, len(parts.train))
    runtime = make_runtime(job.train.precision, compute.compile, work, compute.devices)
    key = fingerprint([asdict(job.spec), job.seed, runtime.device.type, inputs])
    with distributed.group(runtime.device):
        first = distributed.rank() == 0
        with Scratch(job.spec.run, key) if first else nullcontext() as scratch:
            trainer = Trainer(job, images[parts.train], images[parts.val], runtime)
            trained = train_to_end(trainer, scratch, compute.on_divergence, log)
            if scratch:
                write(trained)
                scratch.remove()


def train_to_end(
    trainer: Trainer, scratch: Scratch | None, on_divergence: str = "stop", log: Path | None = None
) -> Trained:
    """Train to the end of the trainer's job, from where `scratch` stands; see `train`."""
    job, name = trainer.job, trainer.job.spec.run
    trained = Trained([], [], {}, [])
    if state := distributed.from_first(scratch.load() if scratch else None):
        trainer.load_state(state)
        trained = Trained(
            json.loads(state["log"]),
            list(state["features"].numpy()),
            state["best"],
            json.loads(state["environment"]),
        )
        keep_threads(trained.environment[0])
        if scratch:
            print(f"{name}: resumes after epoch {len(trained.log)}", flush=True)
    record = {"from_epoch": len(trained.log) + 1, **describe(trainer.runtime), "seconds": []}
    trained.environment.append(record)
    if scratch and log:
        files.write_csv(log, trained.log, LOG_FIELDS)

    def keep(state: dict[str, Any], row: Row, seconds: float) -> None:
        """Save `state`, then report the epoch, so that a reported epoch is always saved."""
        assert scratch
        scratch.save(state)
        if log:
            files.append_csv(log, row, LOG_FIELDS)
        losses = (row["train_loss"], row["val_loss"])
        accuracy, last = 1 - row["val_error"], job.train.epochs
        bar.epoch(progress.EpochLine(name, row["epoch"], last, accuracy, *losses, seconds))

    shown = (
        progress.epochs(name, len(trained.log) + 1, job.train.epochs, trainer.steps.per_epoch)
        if scratch
        else nullcontext(progress.EpochProgress())  # one bar for all processes
    )
    with (
        shown as bar,
        ThreadPoolExecutor(1) as writer,  # which saves while the next epoch trains
    ):
        saved: Future[None] | None = None
        while not is_finished(trained.log, job.train):
            start = time.monotonic()
            epoch = trainer.train_epoch(len(trained.log) + 1, bar)
            trained.log.append(epoch.row)
            trained.features.append(epoch.feature_quantiles)
            state = trainer.state() if scratch else {"model": {}}
            if trained.best_epoch == epoch.row["epoch"]:
                trained.weights = state["model"]
            record["seconds"].append(round(time.monotonic() - start, 2))
            if saved:
                saved.result()
            if not is_finite(epoch.row) and on_divergence == "stop":
                if scratch and log:
                    files.append_csv(log, epoch.row, LOG_FIELDS)
                raise NormlabError(diverged(name, epoch, log))
            if scratch:
                state |= {
                    "best": trained.weights,
                    "log": json.dumps(trained.log),
                    "environment": json.dumps(trained.environment),
                    "features": torch.from_numpy(np.stack(trained.features)),
                }
                saved = writer.submit(keep, state, epoch.row, record["seconds"][-1])
        if saved:
            saved.result()
    if scratch:
        best = trained.log[trained.best_epoch - 1]
        print(
            f"{name}: best epoch {best['epoch']} of {len(trained.log)}, "
            f"val accuracy {1 - best['val_error']:.2%}",
            flush=True,
        )
    return trained


def keep_threads(began: dict[str, Any]) -> None:
    """Compute with as many threads as the training of the environment `began`.

    Sums of floats depend on it. But not with more than this machine has cores, nor where another
    number of processes shares them.
    """
    same = began["devices"] == distributed.world_size()
    if same and began["threads"] <= (os.cpu_count() or 1):
        torch.set_num_threads(began["threads"])


def diverged(name: str, epoch: Epoch, log: Path | None) -> str:
    row = epoch.row
    what = f"the validation loss is {row['val_loss']} after epoch {row['epoch']}"
    if epoch.first_bad_step:
        step = epoch.first_bad_step
        what = f"the loss is {row['train_loss']} at epoch {row['epoch']}, step {step}"
    where = f"; the log is in {log}" if log else ""
    return (
        f"run {name}: {what}{where}; lower train.lr, "
        "or set compute.on_divergence = record to keep it as a result"
    )
