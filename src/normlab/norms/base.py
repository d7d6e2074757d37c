"""What the norms share: moments of `[N, C, H, W]`, how they pool, scale and shift.

All statistics follow from the mean and variance over H and W of each sample's channels, `[N, C]`:
pooled over N they are BN's, over C LN's, over groups GN's. So each norm reads the image once for
statistics and once to apply `x * scale + shift`, where scale and shift are at most `[N, C]`;
`torch.compile` turns each of the two into one vectorized loop.

Statistics are computed in float32 (float64 for float64 input), also for bfloat16 input.
"""

from importlib import import_module
from typing import ClassVar

import torch
from torch import Tensor, nn

from normlab.compute.distributed import all_sum

EPS = 1e-5
MOMENTUM = 0.1  #: weight of the newest batch in running statistics


def instance_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Variance (biased) and mean of `x` `[N, C, H, W]` over H and W, each `[N, C]`."""
    return torch.var_mean(wide(x), dim=(2, 3), correction=0)


def pool(var: Tensor, mean: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Pool moments of equally many values over `dim`, which is kept with size 1.

    The law of total variance: the mean of the variances plus the variance of the means.
    """
    pooled = mean.mean(dim, keepdim=True)
    return (var + (mean - pooled).square()).mean(dim, keepdim=True), pooled


def pool_batch(var: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pool moments `[N, C]` over the whole batch, also where several processes hold parts of it.

    Returns variance and mean, `[1, C]`, and the number of samples in the whole batch.
    """
    count = all_sum(mean.new_full((1, 1), mean.shape[0]))
    pooled = all_sum(mean.sum(0, keepdim=True)) / count
    total = all_sum((var + (mean - pooled).square()).sum(0, keepdim=True))
    return total / count, pooled, count


def affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """`x * scale + shift`, in the type of `x` `[N, C, H, W]`; scale and shift are `[N or 1, C]`."""
    # Expanded, their gradients are summed over a sample first and then over the batch: compiled,
    # BN's step is up to 7 % faster than with one sum over both.
    scale, shift = scale.expand(len(x), -1), shift.expand(len(x), -1)
    return (wide(x) * scale[:, :, None, None] + shift[:, :, None, None]).to(x.dtype)


def wide(x: Tensor) -> Tensor:
    """`x` in the type of its statistics: at least float32."""
    return x if x.dtype == torch.float64 else x.float()


def check(x: Tensor, num_channels: int) -> Tensor:
    """Return `x` if it is `[N, num_channels, H, W]`; raise `ValueError` otherwise."""
    if x.dim() != 4 or x.shape[1] != num_channels:
        raise ValueError(f"expected [N, {num_channels}, H, W], got {list(x.shape)}")
    return x


class NormLayer(nn.Module):
    """What the network and the training ask of a norm. Subclasses override the defaults."""

    #: whether the constructor takes a number of groups, after that of channels
    takes_groups: ClassVar[bool] = False
    #: whether it keeps activations from growing; if not, blocks are `nets.resnet.FixupBlock`
    normalizes: ClassVar[bool] = True
    #: options of the optimizer for some parameters, by their names: `lr_scale`, `weight_decay`
    param_options: ClassVar[dict[str, dict[str, float]]] = {}

    def project(self) -> None:
        """Put parameters back to allowed values; called after every step of the optimizer."""


def norm_layers(model: nn.Module) -> list[NormLayer]:
    return [module for module in model.modules() if isinstance(module, NormLayer)]


class Norm2d(NormLayer):
    """Learned scale and shift per channel, `[C]`, that start at 1 and 0."""

    def __init__(self, num_channels: int, eps: float = EPS) -> None:
        super().__init__()
        self.num_channels, self.eps = num_channels, eps
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def check(self, x: Tensor) -> Tensor:
        return check(x, self.num_channels)

    def normalize(self, x: Tensor, var: Tensor, mean: Tensor) -> Tensor:
        """`(x - mean) / sqrt(var + eps) * weight + bias`; var and mean are `[N or 1, C or 1]`."""
        scale = self.weight * torch.rsqrt(var + self.eps)
        return affine(x, scale, self.bias - mean * scale)

    def extra_repr(self) -> str:
        return f"{self.num_channels}, eps={self.eps}"


class RunningNorm2d(Norm2d):
    """A norm with moments of the batch, and running averages of them for evaluation.

    The names in its state_dict are those of `nn.BatchNorm2d`. The running variance is corrected
    for bias by n / (n - 1), n = N * H * W.
    """

    def __init__(self, num_channels: int, eps: float = EPS, momentum: float = MOMENTUM) -> None:
        super().__init__(num_channels, eps)
        self.momentum = momentum
        self.running_mean: Tensor
        self.running_var: Tensor
        self.num_batches_tracked: Tensor
        self.register_buffer("running_mean", torch.zeros(num_channels))
        self.register_buffer("running_var", torch.ones(num_channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def running_moments(self) -> tuple[Tensor, Tensor]:
        """Running variance and mean, each `[1, C]`."""
        return self.running_var[None], self.running_mean[None]

    def batch_moments(self, x: Tensor, var: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Variance and mean of the batch, `[1, C]`, from its samples' `[N, C]`.

        Updates the running averages. Raises `ValueError` for a single value per channel.
        """
        if x.shape[0] * x.shape[2] * x.shape[3] == 1:  # as PyTorch: x - mean would be 0
            raise ValueError(
                "expected more than 1 value per channel when training, "
                f"got input size {list(x.shape)}"
            )
        var, mean, count = pool_batch(var, mean)
        values = count * (x.shape[2] * x.shape[3])
        with torch.no_grad():
            unbiased = var * (values / (values - 1))
            self.running_mean.lerp_(mean[0].to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(unbiased[0].to(self.running_var.dtype), self.momentum)
            self.num_batches_tracked += 1
        return var, mean


def norm_class(name: str) -> type[NormLayer]:
    """The class of the norm called `name` in `normlab.norms.names`."""
    return import_module(f"normlab.norms.{name}").Norm


def make_norm(name: str, num_channels: int, num_groups: int) -> NormLayer:
    """The norm called `name`; `num_groups` is for norms that take groups."""
    cls = norm_class(name)
    return cls(num_channels, num_groups) if cls.takes_groups else cls(num_channels)
