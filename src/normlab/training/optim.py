"""Optimizers and learning-rate schedules."""

import math
from collections.abc import Callable

import torch
from torch import nn

from normlab.config.params import Train

REFERENCE_BATCH = 128  #: the batch size that params.yaml's `train.lr` is meant for


def base_lr(train: Train, batch_size: int) -> float:
    """The learning rate, scaled in proportion to the batch size (Goyal et al. 2017)."""
    return train.lr * batch_size / REFERENCE_BATCH


def make_optimizer(model: nn.Module, train: Train) -> torch.optim.Optimizer:
    """The optimizer of `train.optimizer`, with what norms ask for some of their parameters.

    Every group holds its own `lr_scale`, which `set_lr` multiplies by.
    """
    special: dict[nn.Parameter, dict[str, float]] = {}
    for module in model.modules():
        for name, options in getattr(module, "param_options", {}).items():
            special[getattr(module, name)] = options
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        options = {
            "lr_scale": 1.0,
            "weight_decay": train.weight_decay,
            **special.get(parameter, {}),
        }
        groups.setdefault((options["lr_scale"], options["weight_decay"]), []).append(parameter)
    arguments = [
        {"params": parameters, "lr_scale": lr_scale, "weight_decay": weight_decay}
        for (lr_scale, weight_decay), parameters in groups.items()
    ]
    if train.optimizer == "adamw":
        return torch.optim.AdamW(arguments, lr=train.lr, fused=True)
    if train.optimizer == "adagrad":
        # Its fused kernel exists on CPU only.
        on_cpu = all(p.device.type == "cpu" for p in model.parameters())
        return torch.optim.Adagrad(arguments, lr=train.lr, fused=on_cpu)
    return torch.optim.SGD(arguments, lr=train.lr, momentum=train.momentum, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


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
