"""No normalization: a scale for all channels, and the bias that a convolution has without norm."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from normlab.norms.base import affine


class NoNorm2d(nn.Module):
    """`x * weight + bias` for `x` `[N, C, H, W]`, both learned: one scale, and a bias a channel.

    They start at 1 and 0. The scale is the scalar multiplier of Fixup (Zhang et al. 2019,
    arXiv:1901.09321, rule 3). The bias is the convolution's, kept here because the compiler fuses
    it, and the sum that is its gradient, with the ReLU behind it; oneDNN's own takes up to 8 % of
    a step (AVX2).
    """

    #: without it, `ResNet.reset_parameters` keeps the blocks' sum from growing
    normalizes: ClassVar[bool] = False

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x: Tensor) -> Tensor:
        return affine(x, self.weight[None], self.bias[None])


Norm = NoNorm2d
