"""Batch normalization."""

from torch import Tensor

from normlab.norms.base import RunningNorm2d, instance_moments


class BatchNorm2d(RunningNorm2d):
    """Batch normalization (Ioffe & Szegedy 2015, arXiv:1502.03167, algorithms 1 and 2).

    `(x - mean) / sqrt(var + eps) * weight + bias`. In training: mean and variance of each channel
    over N, H and W; running averages of both are kept, that of the variance corrected for bias by
    n / (n - 1), n = N * H * W. In evaluation: the running averages. Equal to `nn.BatchNorm2d(C)`,
    with the same names in its state_dict.

    Raises `ValueError` in training on a single value per channel, whose variance is 0.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.normalize(self.check(x), *self.running_moments())
        return self.normalize(x, *self.batch_moments(x, *instance_moments(self.check(x))))


Norm = BatchNorm2d
