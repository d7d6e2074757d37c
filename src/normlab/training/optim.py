"""Optimizers and learning-rate schedules."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from normlab.config.params import Train
from normlab.norms.base import norm_layers


def base_lr(train: Train, batch_size: int) -> float:
    """The learning rate, scaled linearly with the batch size (Goyal et al. 2017)."""
    return train.lr * batch_size / train.lr_batch_size


def make_optimizer(model: nn.Module, train: Train) -> torch.optim.Optimizer:
    """The optimizer of `train.optimizer`, with what norms ask for some of their parameters.

    Every group holds its own `lr_scale`, which `set_lr` multiplies by.
    """
    special: dict[nn.Parameter, dict[str, float]] = {}
    for norm in norm_layers(model):
        for name, options in norm.param_options.items():
            special[getattr(norm, name)] = options
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        options = {
            "lr_scale": 1.0,
            "weight_decay": train.weight_decay,
            **special.get(parameter, {}),
        }
        groups.setdefault((options["lr_scale"], options["weight_decay"]), []).append(parameter)
    on_gpu = next(model.parameters()).is_cuda
    adagrad = train.optimizer == "adagrad"
    # A step that is captured as a graph reads its learning rate from the GPU; Adagrad's cannot.
    device = "cuda" if on_gpu and not adagrad else None
    arguments = [
        {
            "params": parameters,
            "lr": torch.tensor(train.lr, device=device) if device else train.lr,
            "lr_scale": lr_scale,
            "weight_decay": weight_decay,
        }
        for (lr_scale, weight_decay), parameters in groups.items()
    ]
    if adagrad:
        # Not fused, it updates all tensors of a GPU in a few launches.
        return torch.optim.Adagrad(arguments, fused=None if on_gpu else True)
    if train.optimizer == "adamw":
        return torch.optim.AdamW(arguments, fused=True, capturable=on_gpu)
    return torch.optim.SGD(arguments, momentum=train.momentum, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: Tensor) -> None:
    """Set the learning rate of all groups to `lr` `[]`, each scaled by its `lr_scale`."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].copy_(lr * group["lr_scale"])
        else:
            group["lr"] = float(lr) * group["lr_scale"]


def schedule(train: Train, steps_per_epoch: int) -> Callable[[int], float]:
    """The factor of the learning rate at each step, counted from 0 over the whole training.

    It rises linearly over `warmup_epochs`, then follows `train.schedule`: `cosine` falls to 0 at
    the end, `step` is multiplied by `gamma` at each of `milestones`, `constant` stays.
    """
    total = train.epochs * steps_per_epoch
    warmup = round(train.warmup_epochs * steps_per_epoch)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if train.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
        if train.schedule == "step":
            return train.gamma ** sum(step >= milestone * total for milestone in train.milestones)
        return 1.0

    return factor
