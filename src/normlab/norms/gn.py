"""Group normalization."""

from typing import ClassVar

import torch
from torch import Tensor

from normlab.norms.base import EPS, Norm2d, instance_moments, pool


class GroupNorm2d(Norm2d):
    """Group normalization (Wu & He 2018, arXiv:1803.08494, equations 1, 2 and 7).

    `(x - mean) / sqrt(var + eps) * weight + bias` with mean and variance of each sample, over H, W
    and groups of `C / num_groups` neighbouring channels. Equal to `nn.GroupNorm(num_groups, C)`.

    Raises `ValueError` when `num_groups` does not divide `num_channels`.
    """

    takes_groups: ClassVar = True

    def __init__(self, num_channels: int, num_groups: int, eps: float = EPS) -> None:
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(f"{num_groups} groups do not divide {num_channels} channels")
        super().__init__(num_channels, eps)
        self.num_groups = num_groups
        # average[c, d] = G / C where channels c and d are of one group.
        members = num_channels // num_groups
        block = torch.full((members, members), 1 / members)
        self.average: Tensor
        self.register_buffer("average", torch.block_diag(*[block] * num_groups), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        var, mean = instance_moments(self.check(x))
        pooled = self.pool_by_view if x.is_cuda else self.pool_by_product
        return self.normalize(x, *pooled(var, mean))

    def pool_by_product(self, var: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Pool moments `[N, C]` over each channel's group, `[N, C]`.

        For CPUs, where a view as [N, G, C / G] would keep the loops over the image from being
        vectorized (measured by benchmarks.throughput).
        """
        average = self.average.to(mean.dtype)
        with torch.autocast(mean.device.type, enabled=False):  # it would multiply in bfloat16
            pooled = mean @ average
            return (var + (mean - pooled).square()) @ average, pooled

    def pool_by_view(self, var: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """The same for GPUs, where small products of matrices are many slow launches."""
        groups = (self.num_groups, self.num_channels // self.num_groups)
        var, mean = pool(var.unflatten(1, groups), mean.unflatten(1, groups), dim=2)
        return var.expand(-1, *groups).flatten(1), mean.expand(-1, *groups).flatten(1)

    def extra_repr(self) -> str:
        return f"{self.num_channels}, num_groups={self.num_groups}, eps={self.eps}"


Norm = GroupNorm2d
