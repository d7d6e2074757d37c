"""The training loop."""

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from normlab.compute import distributed, runtime
from normlab.compute.inference import BATCH_SIZE, normalize, over_images
from normlab.compute.runtime import Runtime
from normlab.config.params import Train
from normlab.config.paths import run_files
from normlab.data import distribution
from normlab.data.images import Images
from normlab.nets import checkpoint
from normlab.nets.architecture import flops_per_image
from normlab.nets.checkpoint import Spec
from normlab.nets.resnet import ResNet, constrained
from normlab.norms.base import norm_class
from normlab.training.augmentation import Draws, crop, draw, pad
from normlab.training.loss import cross_entropy
from normlab.training.optim import base_lr, make_optimizer, schedule, set_lr
from normlab.training.resume import Scratch
from normlab.utils import files, progress
from normlab.utils.errors import NormlabError

LOG_FIELDS = ("epoch", "lr", "train_loss", "val_loss", "train_error", "val_error")
Row = dict[str, Any]  #: one line of the log, keys as in LOG_FIELDS


@dataclass(frozen=True)
class Job:
    """Everything that determines a training."""

    spec: Spec
    train: Train
    seed: int


def flops(job: Job, images: int) -> float:
    """Floating-point operations of training on `images` images an epoch: forward and backward."""
    return 3.0 * flops_per_image(job.spec.n) * images * job.train.epochs


def best_epoch(log: list[Row]) -> int:
    """The epoch (from 1) of the best validation accuracy, the earliest of several."""
    finite = [row for row in log if math.isfinite(row["train_loss"])]
    return min(finite or log, key=lambda row: (row["val_error"], row["epoch"]))["epoch"]


def is_finished(log: list[Row], train: Train) -> bool:
    """Whether the epochs are done, or `patience` of them brought no better validation accuracy."""
    if not log:
        return False
    last = log[-1]["epoch"]
    return (
        last >= train.epochs
        or last - best_epoch(log) >= train.patience
        or not math.isfinite(log[-1]["train_loss"])
    )


class Trainer:
    """A model in training, one epoch at a time.

    All chance of an epoch comes from a generator seeded by (seed, epoch), on the CPU: nothing
    random needs saving to resume, and every device sees the same batches.
    """

    def __init__(
        self, job: Job, train: Images, val: Images, run: Runtime, model: ResNet | None = None
    ) -> None:
        self.job, self.runtime = job, run
        torch.manual_seed(job.seed)
        self.model = runtime.channels_last(model or job.spec.build(), run)
        if distributed.world_size() > 1:
            self.model = synchronized(self.model)
        self.constrained = constrained(self.model)
        self.optimizer = make_optimizer(self.model, job.train)

        self.mean = torch.tensor(job.spec.mean, device=run.device)
        self.std = torch.tensor(job.spec.std, device=run.device)
        self.padded = pad(torch.from_numpy(train.pixels).to(run.device), job.train.crop_padding)
        self.labels = torch.from_numpy(train.labels).to(run.device)
        self.val_pixels = torch.from_numpy(val.pixels).to(run.device)
        self.val_labels = torch.from_numpy(val.labels).to(run.device)

        self.batch_size = min(job.spec.batch_size, len(train))
        self.steps = math.ceil(len(train) / self.batch_size)
        self.factor = schedule(job.train, self.steps)
        parallel: nn.Module = self.model
        if distributed.world_size() > 1:
            parallel = DistributedDataParallel(self.model, forward_sync_buffers=False)
        #: of the newest epoch: the first step whose loss was not finite
        self.first_bad_step: int | None = None
        #: of the newest epoch: the penultimate features of all validation images, `[2001]`, see
        #: `normlab.data.distribution`
        self.feature_quantiles = np.empty(0, np.float32)

        def forward_backward(pixels: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
            with run.autocast():
                logits = parallel(normalize(pixels, self.mean, self.std)).float()
            # Processes average their gradients; the batch's is the sum of its parts'.
            loss, gradient = cross_entropy(
                logits.detach(),
                labels,
                job.train.label_smoothing,
                scale=distributed.world_size() / count,
            )
            logits.backward(gradient)
            return loss / count, logits.detach()

        # Compiled apart, forward and backward would need autograd between them: a twentieth of a
        # step on 8 images.
        self._forward_backward = run.compile(forward_backward, self.batch_size)
        self._features = run.compile(self.model.features, BATCH_SIZE)

    def epoch(self, epoch: int, bar: progress.EpochProgress | None = None) -> Row:
        """Train for `epoch` (from 1) and evaluate on the validation images; returns the log's row.

        Training loss and error are of the augmented batches while the weights change;
        `lr` is that of the epoch's last step.
        """
        generator = torch.Generator().manual_seed(_mix(self.job.seed, epoch))
        count = len(self.labels)
        draws = draw(count, self.job.train.crop_padding, self.job.train.flip, generator)
        draws = Draws(*(self.runtime.to_device(t) for t in vars(draws).values()))
        labels = self.labels[draws.order]

        self.model.train()
        losses = torch.zeros(self.steps, device=self.runtime.device)
        wrong = torch.zeros((), dtype=torch.int64, device=self.runtime.device)
        lr = 0.0
        for step in range(self.steps):
            begin = step * self.batch_size
            size = min(self.batch_size, count - begin)
            part = distributed.shard(size)
            batch = slice(begin + part.start, begin + part.stop)
            lr = base_lr(self.job.train, self.job.spec.batch_size) * self.factor(
                (epoch - 1) * self.steps + step
            )
            set_lr(self.optimizer, lr)
            loss, logits = self.step(crop(self.padded, draws, batch), labels[batch], size)
            losses[step] += loss
            wrong += (logits.argmax(1) != labels[batch]).sum()
            if bar:
                bar.step()
        # Only here does the CPU wait for the device.
        totals = distributed.all_sum(torch.cat([losses.double(), wrong.double()[None]]))
        sizes = torch.full((self.steps,), float(self.batch_size))
        sizes[-1] = count - (self.steps - 1) * self.batch_size
        losses = totals[:-1].cpu()
        self.first_bad_step = next(
            (i for i, value in enumerate(losses.tolist(), 1) if not math.isfinite(value)), None
        )
        val_loss, val_error = self.evaluate()
        return {
            "epoch": epoch,
            "lr": lr,
            "train_loss": float((losses * sizes).sum() / count),
            "val_loss": val_loss,
            "train_error": float(totals[-1]) / count,
            "val_error": val_error,
        }

    def step(self, pixels: Tensor, labels: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
        """One step of the optimizer on uint8 `pixels` `[N, 3, 32, 32]`, this process's part.

        Returns the part's share of the mean loss over all `batch_size` images, and its logits.
        """
        self.optimizer.zero_grad()
        loss, logits = self._forward_backward(pixels, labels, batch_size)
        self.optimizer.step()
        for norm in self.constrained:
            norm.project()  # type: ignore[operator]
        return loss, logits

    def evaluate(self) -> tuple[float, float]:
        """Mean loss and error on the validation images; renews `feature_quantiles`."""
        self.model.eval()
        count = len(self.val_labels)
        part = distributed.shard(count)
        pixels, labels = self.val_pixels[part], self.val_labels[part]
        features = over_images(self._features, pixels, self.mean, self.std, self.runtime)
        with torch.no_grad(), self.runtime.autocast():
            logits = self.model.head(features).float()
        loss = F.cross_entropy(logits, labels, reduction="sum").double()
        wrong = (logits.argmax(1) != labels).sum().double()
        total = distributed.all_sum(torch.stack([loss, wrong])) / count
        everyone = features.new_zeros(count, features.shape[1])
        everyone[part] = features
        everyone = distributed.all_sum(everyone)
        self.feature_quantiles = distribution.quantile_function(everyone.cpu().numpy())
        return float(total[0]), float(total[1])

    def state(self) -> dict[str, Any]:
        """Model and optimizer; the schedule and all chance follow from the epoch."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


def synchronized(model: ResNet) -> ResNet:
    """`model`, with PyTorch's batch norms replaced by those that see the whole batch.

    Our own norms do so by themselves. Raises `NormlabError` on CPUs, where PyTorch has none.
    """
    torch_norms = any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    if torch_norms and not next(model.parameters()).is_cuda:
        raise NormlabError(
            "train.devices > 1: torch_bn cannot see the whole batch on CPUs; use norm bn"
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(model) if torch_norms else model


def _mix(seed: int, epoch: int) -> int:
    """A seed for each (seed, epoch), unrelated between neighbours."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)


def run(trainer: Trainer, scratch: Scratch | None) -> None:
    """Train to the end of the trainer's job, from where `scratch` stands, and write its outputs.

    Of several processes that share the training the first has `scratch`, and writes.

    Raises `NormlabError` when the loss is no longer finite, unless `on_divergence` is `record`.
    """
    job, device = trainer.job, trainer.runtime
    name, out = job.spec.run, run_files(job.spec.run)
    log: list[Row] = []
    environment: list[dict[str, Any]] = []
    features: list[np.ndarray] = []  # a quantile function an epoch
    best: dict[str, Tensor] = {}  # the weights of the best epoch
    if state := distributed.from_first(scratch.load() if scratch else None):
        trainer.load_state(state)
        log, environment = json.loads(state["log"]), json.loads(state["environment"])
        features, best = list(state["features"].numpy()), state["best"]
        if scratch:
            print(f"{name}: going on after epoch {len(log)}", flush=True)
    environment.append({"from_epoch": len(log) + 1, **runtime.describe(device), "seconds": []})

    epochs = job.train.epochs
    with progress.epochs(name, len(log) + 1, epochs, trainer.steps) as bar:
        while not is_finished(log, job.train):
            start = time.monotonic()
            row = trainer.epoch(len(log) + 1, bar)
            log.append(row)
            features.append(trainer.feature_quantiles)
            if best_epoch(log) == row["epoch"]:
                best = {name: value.clone() for name, value in trainer.model.state_dict().items()}
            environment[-1]["seconds"].append(round(time.monotonic() - start, 2))
            if trainer.first_bad_step and job.train.on_divergence == "stop":
                if scratch:
                    write_log(out.log, log)
                raise NormlabError(
                    f"run {name}: the loss is {row['train_loss']} at epoch {row['epoch']}, step "
                    f"{trainer.first_bad_step}; the log is in {out.log}; lower train.lr, "
                    "or keep it as a result by train.on_divergence = record"
                )
            if not scratch:
                continue
            scratch.save(
                {
                    **trainer.state(),
                    "best": best,
                    "log": json.dumps(log),
                    "environment": json.dumps(environment),
                    "features": torch.from_numpy(np.stack(features)),
                }
            )
            bar.epoch(epoch_line(name, row, epochs, environment[-1]["seconds"][-1]))
    if not scratch:
        return
    checkpoint.save(out.weights, best, job.spec, best_epoch(log))
    write_log(out.log, log)
    distribution.write(out.features, np.stack(features))
    files.write_json(out.environment, environment)
    print(
        f"{name}: best epoch {best_epoch(log)} of {len(log)}, "
        f"val accuracy {1 - log[best_epoch(log) - 1]['val_error']:.2%}",
        flush=True,
    )


def epoch_line(name: str, row: Row, epochs: int, seconds: float) -> progress.EpochLine:
    return progress.EpochLine(
        name,
        row["epoch"],
        epochs,
        val_accuracy=1 - row["val_error"],
        train_loss=row["train_loss"],
        val_loss=row["val_loss"],
        seconds=seconds,
    )


def write_log(path: Path, log: list[Row]) -> None:
    files.write_csv(path, log, LOG_FIELDS)


def determinants(job: Job, data: dict[str, str], device: Runtime) -> dict[str, Any]:
    """What determines the bytes of a training, for `resume.fingerprint`.

    `data` are the digests of the files it is made from.
    """
    norm_class(job.spec.norm)  # loads its module, whose code counts
    # A training may go on with another number of devices; `compiled` says what `compile` led to.
    train = job.train.model_dump(exclude={"devices", "compile"})
    return {
        "spec": asdict(job.spec),
        "train": train,
        "seed": job.seed,
        "data": data,
        "device": device.device.type,
        "compiled": device.compiles,
        "threads": torch.get_num_threads(),
    }
