"""One step of a training as a function of tensors, which a GPU replays as one CUDA graph."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from normlab.compute import distributed
from normlab.compute.inference import normalize
from normlab.compute.runtime import Runtime
from normlab.config.params import Train
from normlab.data.images import Images
from normlab.norms.base import norm_layers
from normlab.training.augmentation import Draws, crop, pad
from normlab.training.loss import cross_entropy
from normlab.training.optim import set_lr


class Steps:
    """The steps of a training on `images`: `start_epoch`, then `next` for each step of the epoch.

    A step crops, normalizes, runs forward and backward, lets the optimizer step and the norms
    project. What differs between steps is in tensors on the device, which a step reads and writes
    in place, so that it never waits for the CPU, nor the CPU for it.

    Args:
        mean: per channel `[3]`, of pixels scaled to [0, 1].
        std: likewise, the standard deviation.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        images: Images,
        mean: Tensor,
        std: Tensor,
        train: Train,
        batch_size: int,
        runtime: Runtime,
    ) -> None:
        self.model, self.optimizer, self.runtime = model, optimizer, runtime
        self.count = len(images)
        self.batch_size = min(batch_size, self.count)
        self.per_epoch = math.ceil(self.count / self.batch_size)
        self._norms = norm_layers(model)

        device = runtime.device
        self._padded = pad(torch.from_numpy(images.pixels).to(device), train.crop_padding)
        self._labels = torch.from_numpy(images.labels).to(device)
        self._draws = torch.empty(4, self.count, dtype=torch.int64, device=device)
        # On CPUs float64, as exact as Python's floats.
        precise = torch.float32 if runtime.is_cuda else torch.float64
        self._lrs = torch.empty(self.per_epoch, dtype=precise, device=device)
        self._index = torch.zeros(1, dtype=torch.int64, device=device)  # of the next step
        self._indices = torch.arange(self.per_epoch, device=device)
        #: mean loss of each batch (of several processes, this one's share), float32 `[per_epoch]`
        self.losses = torch.zeros(self.per_epoch, device=device)
        #: images classified wrongly in this epoch (of several processes, this one's), int64 `[]`
        self.wrong = torch.zeros((), dtype=torch.int64, device=device)
        self._done = 0
        self._prepared: dict[int, Callable[[], None]] = {}  # by the size of their batch

        parallel = model
        if distributed.world_size() > 1:
            parallel = DistributedDataParallel(model, forward_sync_buffers=False)

        def forward_backward(pixels: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
            with runtime.autocast():
                logits = parallel(normalize(pixels, mean, std)).float()
            # Processes average their gradients; the batch's is the sum of its parts'.
            loss, gradient = cross_entropy(
                logits.detach(),
                labels,
                train.label_smoothing,
                scale=distributed.world_size() / count,
            )
            logits.backward(gradient)
            return loss / count, logits.detach()

        # Compiled apart, forward and backward would need autograd between them: 5 % of a step at
        # batch size 8. A last, smaller batch is computed without compiling: a second
        # compilation for one step per epoch would not pay.
        self._plain, self._compiled = forward_backward, runtime.compile(forward_backward)

    def start_epoch(self, draws: Draws, lrs: Sequence[float]) -> None:
        """Set what an epoch draws for its images, and the learning rate of each of its steps."""
        self._draws.copy_(torch.stack(draws), non_blocking=True)
        self._lrs.copy_(torch.tensor(lrs, dtype=torch.float64), non_blocking=True)
        for tensor in (self._index, self.losses, self.wrong):
            tensor.zero_()
        self._done = 0

    def next(self) -> None:
        """Train on the next batch of the epoch."""
        size = min(self.batch_size, self.count - self._done)
        if size not in self._prepared:
            self._prepared[size] = self._prepare(size)
        self._prepared[size]()
        self._done += size

    def forget(self) -> None:
        """Prepare steps again: the optimizer's tensors have been replaced."""
        self._prepared.clear()

    def sizes(self) -> Tensor:
        """Images in each batch of an epoch, float32 `[per_epoch]`, on the CPU."""
        sizes = torch.full((self.per_epoch,), float(self.batch_size))
        sizes[-1] = self.count - (self.per_epoch - 1) * self.batch_size
        return sizes

    def step(self, offsets: Tensor, size: int, forward_backward: Callable[..., Any]) -> None:
        """One step on images `offsets` `[B]`, this process's part, of a batch of `size`."""
        place = self._index * self.batch_size + offsets
        draws = Draws(*self._draws.index_select(1, place).unbind())
        labels = self._labels[draws.order]
        pixels = crop(self._padded, draws).contiguous(memory_format=self.runtime.memory_format)
        set_lr(self.optimizer, self._lrs.index_select(0, self._index)[0])
        self.optimizer.zero_grad()
        loss, logits = forward_backward(pixels, labels, size)
        self.optimizer.step()
        for norm in self._norms:
            norm.project()
        self.losses += torch.where(self._indices == self._index, loss, 0)
        self.wrong += (logits.argmax(1) != labels).sum()
        self._index += 1

    def _prepare(self, size: int) -> Callable[[], None]:
        part = distributed.shard(size)
        offsets = torch.arange(part.start, part.stop, device=self.runtime.device)
        whole = size == self.batch_size
        forward_backward = self._compiled if whole else self._plain

        def step() -> None:
            self.step(offsets, size, forward_backward)

        captures = distributed.world_size() == 1 and self._can_capture()
        return self.runtime.capture(step, self._state) if captures else step

    def _can_capture(self) -> bool:
        """Whether a step reads nothing from the CPU, as Adagrad does with its learning rate."""
        return all(isinstance(group["lr"], Tensor) for group in self.optimizer.param_groups)

    def _state(self) -> Iterator[Tensor]:
        """All tensors that a step changes, and that the next one reads."""
        yield from (self._index, self.losses, self.wrong)
        yield from self.model.state_dict().values()
        for values in self.optimizer.state.values():
            yield from (value for value in values.values() if isinstance(value, Tensor))
