"""PyTorch's own batch normalization: the reference that `bn` is compared with."""

from torch import nn

from normlab.norms.base import NormLayer


class TorchBatchNorm2d(NormLayer, nn.BatchNorm2d):
    """`nn.BatchNorm2d` as it is."""


Norm = TorchBatchNorm2d
