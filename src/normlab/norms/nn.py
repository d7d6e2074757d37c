"""No normalization: the bias that a convolution has without a norm."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from normlab.norms.base import NormLayer, check, wide


class NoNorm2d(NormLayer):
    """`x + bias` for `x` `[N, C, H, W]`: a learned bias per channel, which starts at 0.

    It is the convolution's bias, kept here so that the compiler fuses it and its gradient with the
    ReLU; oneDNN's own takes up to 8 % of a step (AVX2).
    """

    normalizes: ClassVar = False

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x: Tensor) -> Tensor:
        check(x, self.num_channels)
        # Expanded, its gradient is summed over a sample first; see `base.affine`.
        return (wide(x) + self.bias.expand(len(x), -1)[:, :, None, None]).to(x.dtype)


Norm = NoNorm2d
