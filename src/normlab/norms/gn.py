"""Group normalization."""

from typing import ClassVar

import torch
from torch import Tensor

from normlab.norms.base import EPS, Norm2d, instance_moments


class GroupNorm2d(Norm2d):
    """Group normalization (Wu & He 2018, arXiv:1803.08494, equations 1, 2 and 7).

    Mean and variance of each sample over H, W and `C / num_groups` neighbouring channels. Equal
    to `nn.GroupNorm(num_groups, C)`.

    Raises `ValueError` when `num_groups` does not divide `num_channels`.
    """

    takes_groups: ClassVar = True

    def __init__(self, num_channels: int, num_groups: int, eps: float = EPS) -> None:
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(f"{num_groups} groups do not divide {num_channels} channels")
        super().__init__(num_channels, eps)
        self.num_groups = num_groups
        # average[c, d] = G / C where channels c and d are of one group. Pooling by this product
        # keeps the shape [N, C]; a view as [N, G, C / G] would keep the loops over the image from
        # being vectorized (measured in benchmarks/).
        members = num_channels // num_groups
        block = torch.full((members, members), 1 / members)
        self.average: Tensor
        self.register_buffer("average", torch.block_diag(*[block] * num_groups), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        var, mean = instance_moments(self.check(x))
        average = self.average.to(mean.dtype)
        with torch.autocast(x.device.type, enabled=False):  # it would multiply in bfloat16
            pooled = mean @ average
            var = (var + (mean - pooled).square()) @ average
        return self.normalize(x, var, pooled)

    def extra_repr(self) -> str:
        return f"{self.num_channels}, num_groups={self.num_groups}, eps={self.eps}"


Norm = GroupNorm2d
