"""Layer normalization."""

from torch import Tensor

from normlab.norms.base import Norm2d, instance_moments, pool


class LayerNorm2d(Norm2d):
    """Layer normalization (Ba et al. 2016, arXiv:1607.06450, equation 3) of convolutional layers.

    `(x - mean) / sqrt(var + eps) * weight + bias` with mean and variance of each sample, over C, H
    and W; weight and bias are per channel. Equal to `nn.GroupNorm(1, C)`.
    """

    def forward(self, x: Tensor) -> Tensor:
        return self.normalize(x, *pool(*instance_moments(self.check(x)), dim=1))


Norm = LayerNorm2d
