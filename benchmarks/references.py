"""PyTorch's own layers, which ours are compared with."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 4  #: of the layer for gn


class BatchInstance(nn.Module):
    """Batch-instance normalization out of PyTorch's two functions, in training mode."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.ones(channels))
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        gate, weight, bias = (p[:, None, None] for p in (self.gate, self.weight, self.bias))
        wide = x.float()
        batch = F.batch_norm(wide, None, None, training=True)
        mixed = gate * batch + (1 - gate) * F.instance_norm(wide)
        return (mixed * weight + bias).to(x.dtype)


#: by the name of ours, of so many channels
LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "bn": nn.BatchNorm2d,
    "in": lambda channels: nn.InstanceNorm2d(channels, affine=True),
    "bin": BatchInstance,
    "ln": lambda channels: nn.GroupNorm(1, channels),
    "gn": lambda channels: nn.GroupNorm(GROUPS, channels),
}
TORCH_LAYERS = {name: layer for name, layer in LAYERS.items() if name != "bin"}  #: single layers
