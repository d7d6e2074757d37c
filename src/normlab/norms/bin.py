"""Batch-instance normalization."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from normlab.norms.base import EPS, MOMENTUM, RunningNorm2d, affine, instance_moments


class BatchInstanceNorm2d(RunningNorm2d):
    """Batch-instance normalization (Nam & Kim 2018, arXiv:1805.07925, equations 1 to 3).

    `(gate * x_BN + (1 - gate) * x_IN) * weight + bias` with a learned gate per channel, which
    starts at 1 (all BN) and is clamped to [0, 1] after every step of the optimizer (`project`).
    As in the authors' code the gate learns at 10 times the rate, with no weight decay.
    """

    param_options: ClassVar = {"gate": {"lr_scale": 10.0, "weight_decay": 0.0}}

    def __init__(self, num_channels: int, eps: float = EPS, momentum: float = MOMENTUM) -> None:
        super().__init__(num_channels, eps, momentum)
        self.gate = nn.Parameter(torch.ones(num_channels))

    def forward(self, x: Tensor) -> Tensor:
        var, mean = instance_moments(self.check(x))
        if self.training:
            batch_var, batch_mean = self.batch_moments(x, var, mean)
        else:
            batch_var, batch_mean = self.running_moments()
        batch = self.gate * torch.rsqrt(batch_var + self.eps)
        instance = (1 - self.gate) * torch.rsqrt(var + self.eps)
        scale = self.weight * (batch + instance)
        shift = self.bias - self.weight * (batch * batch_mean + instance * mean)
        return affine(x, scale, shift)

    @torch.no_grad()
    def project(self) -> None:
        """Clamp the gate to [0, 1]; called after every step of the optimizer."""
        self.gate.clamp_(0, 1)


Norm = BatchInstanceNorm2d
