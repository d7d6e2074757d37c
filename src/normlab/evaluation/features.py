"""How the penultimate features spread on the validation images, epoch by epoch."""

from collections.abc import Sequence

import numpy as np

from normlab.data import distribution


def name(quantile: float) -> str:
    """The column of a quantile: 0.01 is `q1`, 0.999 is `q99.9`, in percent."""
    return f"q{quantile * 100:.10g}"


def table(functions: np.ndarray, wanted: Sequence[float]) -> list[dict[str, int | float]]:
    """The `wanted` quantiles of the features after every epoch.

    `functions` `[epochs, 2001]` is what a training keeps of all 64 features of all validation
    images (`normlab.data.distribution`). Returns one row per epoch: `epoch`, from 1, and one
    column per quantile (`name`).
    """
    columns = [name(quantile) for quantile in wanted]
    return [
        {"epoch": epoch, **dict(zip(columns, distribution.quantiles(row, wanted), strict=True))}
        for epoch, row in enumerate(functions, start=1)
    ]
