"""Several processes that share one batch (torch.distributed); with one process, no-ops.

Kept apart from training because the norms need sums over the whole batch as well.
"""

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if world_size() > 1 else 0


class _AllReduce(torch.autograd.Function):
    """Sum over all processes; so is its gradient, as every process's loss depends on the sum."""

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        values = values.clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient


def all_sum(values: Tensor) -> Tensor:
    """`values` summed over all processes, differentiable."""
    return _AllReduce.apply(values) if world_size() > 1 else values


def shard(count: int) -> slice:
    """This process's part of `count` items: contiguous, sizes that differ by one at most."""
    size, place = world_size(), rank()
    return slice(count * place // size, count * (place + 1) // size)
