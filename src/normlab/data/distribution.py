"""How many values are distributed, kept as a quantile function: small, whatever their number."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import save

from normlab.utils import files
from normlab.utils.errors import NormlabError

LEVELS = np.arange(2001) / 2000  #: of the quantiles that are kept: 0, 0.0005, ... 1


def quantile_function(values: np.ndarray) -> np.ndarray:
    """The quantiles of `values`, of any shape, at LEVELS: float32 `[2001]`.

    Between two of the sorted values a quantile is interpolated, as by `np.quantile`. An infinite
    or undefined value, as of a training that diverged, makes all of them undefined (nan).
    """
    if not np.isfinite(values).all():
        return np.full(len(LEVELS), np.nan, np.float32)
    return np.quantile(values.ravel().astype(np.float64), LEVELS).astype(np.float32)


def quantiles(function: np.ndarray, wanted: Sequence[float]) -> list[float]:
    """The quantiles `wanted`, from 0 to 1: exact at LEVELS, linear between them."""
    return np.interp(wanted, LEVELS, function.astype(np.float64)).tolist()


def write(path: Path | str, functions: np.ndarray) -> None:
    """Write a quantile function an epoch, `[epochs, 2001]`."""
    files.write_bytes(path, save({"quantiles": np.ascontiguousarray(functions, np.float32)}))


def read(path: Path | str) -> np.ndarray:
    """Read what `write` wrote.

    Raises `NormlabError` for a file that is missing, damaged, or holds something else.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            functions = file.get_tensor("quantiles")
    except FileNotFoundError:
        raise NormlabError(f"{path}: no such file; `dvc pull` or `dvc repro` brings it") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise NormlabError(f"{path}: is damaged ({error}); `dvc checkout --force`") from None
    if functions.ndim != 2 or functions.shape[1] != len(LEVELS):
        raise NormlabError(
            f"{path}: is {list(functions.shape)}, not [epochs, {len(LEVELS)}]; "
            "`dvc checkout --force`"
        )
    return functions
