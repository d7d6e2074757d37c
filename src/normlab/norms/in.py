"""Instance normalization."""

from torch import Tensor

from normlab.norms.base import Norm2d, instance_moments


class InstanceNorm2d(Norm2d):
    """Instance normalization (Ulyanov et al. 2016, arXiv:1607.08022, equation 4).

    `(x - mean) / sqrt(var + eps) * weight + bias` with mean and variance of each channel of each
    sample, over H and W. No running statistics: evaluation is as training. Equal to
    `nn.InstanceNorm2d(C, affine=True)`.
    """

    def forward(self, x: Tensor) -> Tensor:
        return self.normalize(x, *instance_moments(self.check(x)))


Norm = InstanceNorm2d
