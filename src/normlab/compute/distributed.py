"""Several processes that share one batch (torch.distributed); with one process, no-ops.

Kept apart from training because the norms need sums over the whole batch as well.
"""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from normlab.utils.errors import NormlabError

T = TypeVar("T")
ANOTHER_DIED = 75  #: exit code of a process whose peers died


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


def is_worker() -> bool:
    """Whether torchrun started this process; clusters set LOCAL_RANK and others without it."""
    return dist.is_available() and dist.is_torchelastic_launched()


def local_rank() -> int:
    """This process's number on this machine, which is that of its GPU."""
    return int(os.environ["LOCAL_RANK"]) if is_worker() else 0


@contextmanager
def group(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started; without torchrun, do nothing."""
    if not is_worker():
        yield
        return
    logging.getLogger("torch").setLevel(logging.ERROR)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
        dist.destroy_process_group()
    except RuntimeError as error:
        if "gloo" not in str(error) and "NCCL" not in str(error):
            raise
        os._exit(ANOTHER_DIED)  # the group is gone and cannot be left cleanly


def from_first(value: T) -> T:
    """`value` of the first process, in every process."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def launch(devices: int, command: list[str]) -> None:
    """Run the module and arguments `command` under torchrun, in `devices` processes.

    They are divided among the nodes that torchrun's own variables name (PET_NNODES,
    PET_NODE_RANK, PET_MASTER_ADDR, PET_MASTER_PORT).

    Raises `NormlabError` when a process dies; the others are stopped then.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    given = os.environ.get("PET_NNODES", "1")
    if not given.isdecimal() or not (nodes := int(given)):
        raise NormlabError(f"PET_NNODES = {given}: must be a number of machines, from 1")
    if devices % nodes:
        raise NormlabError(
            f"compute.devices = {devices}: must be a multiple of PET_NNODES = {nodes}"
        )
    local = devices // nodes
    if torch.cuda.is_available() and local > torch.cuda.device_count():
        raise NormlabError(
            f"compute.devices = {devices}: this machine has {torch.cuda.device_count()} GPUs"
        )
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // local)))
    logging.getLogger("torch").setLevel(logging.CRITICAL)  # its reports of failures are pages long
    # On one machine by its own address: its name may not resolve, as in some containers.
    alone = ["--standalone", "--local-addr=127.0.0.1"] if nodes == 1 else []
    try:
        run(parse_args([*alone, f"--nproc-per-node={local}", "-m", *command]))
    except ChildFailedError as error:
        told = [f for f in error.failures.values() if "timestamp" in f.error_file_data]
        if told:  # see normlab.utils.errors.fail
            raise NormlabError(told[0].message) from None
        # The others leave with ANOTHER_DIED, or torchrun ends them with SIGTERM.
        followed = (ANOTHER_DIED, -signal.SIGTERM)
        worker, failure = min(error.failures.items(), key=lambda f: f[1].exitcode in followed)
        if any(other.exitcode == 1 for other in error.failures.values()):
            sys.exit(1)  # a bug; its traceback stands above
        raise NormlabError(
            f"process {worker} of {devices} ended with {failure.signal_name()} "
            f"(exit code {failure.exitcode}); the others were stopped; `dvc repro` resumes after "
            "the last finished epoch"
        ) from None
