"""What a training runs on: device, precision, compilation; and bit-by-bit reproducibility."""

import ctypes
import gc
import logging
import os
import platform
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from normlab.compute.distributed import local_rank, world_size
from normlab.utils.errors import NormlabError

COMPILER_CACHE = "TORCHINDUCTOR_CACHE_DIR"  #: PyTorch's environment variable
Module = TypeVar("Module", bound=nn.Module)

#: `compile: auto` compiles from this many FLOPs on: about where the time saved exceeds what
#: compiling takes (benchmarks/throughput.py measures both)
COMPILE_FROM_FLOPS = {"cpu": 4e12, "cuda": 5e13}


@dataclass(frozen=True)
class Runtime:
    """The device, and the precision of convolutions: float32, tf32 or bfloat16."""

    device: torch.device
    precision: str = "float32"
    compiles: bool = False

    @property
    def bfloat16(self) -> bool:
        return self.precision == "bfloat16"

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def memory_format(self) -> torch.memory_format:
        """The order in memory in which convolutions are fast.

        For exact float32 cuDNN would convert channels last back and forth: 1.5 times the time.
        """
        exact = self.is_cuda and self.precision == "float32"
        return torch.contiguous_format if exact else torch.channels_last

    def place(self, model: Module) -> Module:
        """Move `model` to the device, its weights in `memory_format`."""
        return model.to(self.device, memory_format=self.memory_format)  # type: ignore[call-overload]

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function` for inputs of one size, compiled if this runtime compiles."""
        if not self.compiles:
            return function
        options: dict[str, Any] | None = None
        if self.memory_format == torch.contiguous_format:
            # The compiler would change convolutions to channels last.
            options = {"layout_optimization": False}
        elif not self.is_cuda and self.bfloat16:
            # 16 channels of bfloat16 are half a vector of AVX-512, loaded and stored by mask. In
            # place, each load seems to overlap the store before it and waits: up to 8 % of a step.
            options = {"inplace_buffers": False}
        torch._dynamo.config.trace_autograd_ops = True  # a `backward()` in it is compiled, too
        # The compiler recommends TF32 for matrix products, whose cost is negligible here; for
        # convolutions `train.precision` decides.
        warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")
        return torch.compile(function, dynamic=False, options=options)

    def capture(
        self, step: Callable[[], Any], state: Callable[[], Iterable[Tensor]]
    ) -> Callable[[], Any]:
        """`step` as one launch of a CUDA graph; on a CPU, `step` itself.

        `step` works on tensors that stay where they are; see `rehearse` for `state`.
        """
        if not self.is_cuda:
            return step
        # AdamW's, of the steps before the capture.
        warnings.filterwarnings("ignore", message=".*constructed with capturable=True")
        gc.collect()  # an earlier graph that is freed during a capture makes it fail
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            # Compiling, choosing algorithms and allocating are not allowed in a capture.
            rehearse(step, state)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):  # which only records
            step()
        return graph.replay


def rehearse(step: Callable[[], Any], state: Callable[[], Iterable[Tensor]]) -> None:
    """Call `step` three times, and undo what it changed: all tensors that `state()` gives.

    Those that are there only after a step, as an optimizer's, become zeros.
    """
    before = {tensor.data_ptr(): tensor.clone() for tensor in state()}
    for _ in range(3):
        step()
        for tensor in state():
            value = before.get(tensor.data_ptr())
            tensor.zero_() if value is None else tensor.copy_(value)


def make_runtime(precision: str, compile_: str | bool, flops: float, devices: int = 1) -> Runtime:
    """The runtime for a computation of `flops` floating-point operations.

    What `auto` decides follows from the arguments and the machine's features, never from a
    timing, so that the same run on the same machine gives the same bytes. Precision tf32 is
    float32 where the hardware has no TF32.

    Raises `NormlabError` when the machine has no bfloat16, or no compiler for `compile_` True.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        device = torch.device("cuda", local_rank())
        torch.cuda.set_device(device)
        make_deterministic()
    else:
        keep_memory()
    if precision == "bfloat16" and not has_bfloat16(device):
        raise NormlabError(
            "train.precision = bfloat16: this processor has no bfloat16 instructions and would "
            "run a hundred times slower; use train.precision = float32"
        )
    if precision == "tf32" and not has_tf32(device):
        precision = "float32"
    if device.type == "cuda":
        # PyTorch's default for convolutions is TF32, which keeps 10 of float32's 23 bits.
        allowed = "tf32" if precision == "tf32" else "ieee"
        torch.backends.cudnn.conv.fp32_precision = allowed  # type: ignore[attr-defined]
    return Runtime(device, precision, _compiles(compile_, flops, device, devices))


def make_deterministic() -> None:
    """Let a GPU use only algorithms that repeat bit by bit.

    On the CPU those that are used here do so anyway, with the same number of threads; asking for
    it would import the whole of torch's compiler, which takes as long as torch itself.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # It would also fill new memory, as a guard against reading it uninitialized, which no code
    # here does; at batch size 8 that costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def has_bfloat16(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def has_tf32(device: torch.device) -> bool:
    """Whether `device` has TF32: GPUs since NVIDIA's Ampere (compute capability 8.0)."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def _compiles(setting: str | bool, flops: float, device: torch.device, devices: int) -> bool:
    wanted = setting is True or (
        setting == "auto" and devices == 1 and flops >= COMPILE_FROM_FLOPS[device.type]
    )
    if not wanted:
        return False
    fault = compiler_fault(device)
    if fault and setting is True:
        raise NormlabError(f"compute.compile = True: {fault}; use compute.compile = auto")
    if fault:
        print(f"warning: {fault}; continuing without torch.compile, slower", file=sys.stderr)
    return not fault


def compiler_fault(device: torch.device) -> str | None:
    """Why torch.compile does not work on this machine; None if it does.

    This tries it, because an installed compiler may still lack its headers, or disk space.
    """
    cache = os.environ.get(COMPILER_CACHE)
    if cache and not _can_write(Path(cache)):
        del os.environ[COMPILER_CACHE]  # importing the compiler, as optimizers do, would fail
        return f"{COMPILER_CACHE} = {cache}: cannot be written to"
    # PyTorch warns on machines with CUDA's tools and no GPU.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    number = time.time_ns() % 1_000_003  # in the code, so that nothing compiled before is found
    try:
        torch.compile(lambda x: x + number, dynamic=False)(torch.zeros(8, device=device))
    except Exception as error:  # torch wraps whatever goes wrong in types of its own
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        telling = [line for line in lines if re.search(r"\berror: |No space|denied", line)]
        reason = (telling or lines or [type(error).__name__])[0]
        return f"torch.compile does not work here ({reason})"
    finally:
        torch._dynamo.reset()
    return None


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def keep_memory() -> None:
    """Have malloc keep what is freed for the next step, instead of giving it back to the system.

    A step frees and asks again for some hundred MiB of activations. By default glibc returns each
    large block at once, and the system then clears every page of the next one: a fifth of a
    step's time, measured. With another C library than glibc, do nothing.
    """
    m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4  # malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(m_mmap_max, 0)
    mallopt(m_trim_threshold, 2**31 - 1)
    mallopt(m_top_pad, 64 * 2**20)


def describe(runtime: Runtime) -> dict[str, Any]:
    """What varies between machines and may change the last bits of a result."""
    record = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "devices": world_size(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": runtime.device.type,
        "precision": runtime.precision,
        "compiled": runtime.compiles,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
    }
    if runtime.is_cuda:
        record["gpu"] = torch.cuda.get_device_name(runtime.device)
    return record


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ", 1)[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
