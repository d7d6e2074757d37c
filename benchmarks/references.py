"""Layers that ours are compared with: PyTorch's own, and equations as they are usually typed in."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class PlainNorm(nn.Module):
    """The equation of `norm` in training mode, each statistic by itself."""

    def __init__(self, norm: str, channels: int, groups: int) -> None:
        super().__init__()
        self.norm, self.groups = norm, groups
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.gate = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.norm == "nn":
            return x
        wide = x.float()
        gate, weight, bias = (p[:, None, None] for p in (self.gate, self.weight, self.bias))
        if self.norm == "gn":
            y = standardize(wide.unflatten(1, (self.groups, -1)), 2, 3, 4).flatten(1, 2)
        elif self.norm == "bin":
            y = gate * standardize(wide, 0, 2, 3) + (1 - gate) * standardize(wide, 2, 3)
        else:
            y = standardize(wide, *{"bn": (0, 2, 3), "in": (2, 3), "ln": (1, 2, 3)}[self.norm])
        return (y * weight + bias).to(x.dtype)


def standardize(x: Tensor, *dims: int) -> Tensor:
    mean = x.mean(dims, keepdim=True)
    var = ((x - mean) ** 2).mean(dims, keepdim=True)
    return (x - mean) / torch.sqrt(var + 1e-5)


#: PyTorch's layers by the name of ours; each takes the numbers of channels and of groups
TORCH_LAYERS: dict[str, Callable[[int, int], nn.Module]] = {
    "bn": lambda channels, groups: nn.BatchNorm2d(channels),
    "in": lambda channels, groups: nn.InstanceNorm2d(channels, affine=True),
    "ln": lambda channels, groups: nn.GroupNorm(1, channels),
    "gn": lambda channels, groups: nn.GroupNorm(groups, channels),
}
