"""The distribution of many values, stored as a quantile function of fixed size."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import safetensors
from safetensors.numpy import save

from normlab.utils import files
from normlab.utils.errors import NormlabError

if TYPE_CHECKING:
    from torch import Tensor

LEVELS = np.arange(2001) / 2000  #: of the quantiles that are kept: 0, 0.0005, ... 1


def quantile_function(values: "Tensor") -> "Tensor":
    """The quantiles of `values`, float32 of any shape, at LEVELS: float32 `[2001]`.

    Computed where `values` are. Between two of the sorted values a quantile is interpolated, to
    the byte as by `np.quantile`. An infinite or undefined value, as of a training that diverged,
    makes all of them undefined (nan).
    """
    import torch  # slow, and this alone needs it

    ordered = values.flatten().sort().values.double()
    place = torch.from_numpy(LEVELS).to(values.device) * (len(ordered) - 1)
    below = place.floor()
    index = below.long()
    low, high = ordered[index], ordered[(index + 1).clamp(max=len(ordered) - 1)]
    part, step = place - below, high - low
    quantiles = torch.where(part < 0.5, low + step * part, high - step * (1 - part))
    return torch.where(values.isfinite().all(), quantiles, torch.nan).float()


def quantiles(function: np.ndarray, wanted: Sequence[float]) -> list[float]:
    """The quantiles `wanted`, from 0 to 1: exact at LEVELS, linear between them."""
    return np.interp(wanted, LEVELS, function.astype(np.float64)).tolist()


def write(path: Path | str, functions: Sequence[np.ndarray]) -> None:
    """Write a quantile function `[2001]` per epoch."""
    files.write_bytes(path, save({"quantiles": np.ascontiguousarray(functions, np.float32)}))


def read(path: Path | str) -> np.ndarray:
    """Read what `write` wrote.

    Raises `NormlabError` for a file that is missing, damaged, or holds something else.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            functions = file.get_tensor("quantiles")
    except FileNotFoundError:
        raise NormlabError(f"{path}: no such file; `dvc pull` or `dvc repro` gets it") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise NormlabError(f"{path}: is damaged ({error}); `dvc checkout --force`") from None
    if functions.ndim != 2 or functions.shape[1] != len(LEVELS):
        raise NormlabError(
            f"{path}: is {list(functions.shape)}, not [epochs, {len(LEVELS)}]; "
            "`dvc checkout --force`"
        )
    return functions
