"""The study's figures, drawn by matplotlib: one colour a norm, dashed at other batch sizes."""

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import MaxNLocator, PercentFormatter

from normlab.norms.names import NORMS
from normlab.report.results import (
    Result,
    best,
    differences,
    find,
    standard_error,
)

#: Okabe and Ito's colours, told apart also by colour-blind eyes; one a norm, in their order
PALETTE = ("#000000", "#0072B2", "#E69F00", "#CC79A7", "#009E73", "#D55E00", "#8C8C8C", "#56B4E9")
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "axes.titlesize": 10.5,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "normlab",  # without it, ids in an SVG file are random
}
#: curves of one figure: name, what the legend calls it, line style
BOTH_ERRORS = (("train_error", "training", ":"), ("val_error", "validation", "-"))
LINEAR_UP_TO = 20  #: largest feature that is drawn to a linear scale


def colour(norm: str) -> str:
    names = list(NORMS)
    return PALETTE[names.index(norm) % len(PALETTE)] if norm in names else PALETTE[-1]


def draw_all(folder: Path, results: list[Result], dpi: int, extension: str) -> None:
    """Draw every figure into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    # A date would make the bytes of each drawing differ.
    dateless = {"png": None, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[extension]
    with plt.style.context(["default", STYLE]):  # not that of the user's matplotlibrc
        for name, draw in FIGURES.items():
            figure = draw(results)
            for axis in figure.axes:
                if axis.get_ylabel() == "error":
                    axis.set_ylim(bottom=0)  # only now: it stops the axis from growing
            figure.savefig(folder / f"{name}.{extension}", dpi=dpi, metadata=dateless)
            plt.close(figure)


def error_curves(results: list[Result]) -> Figure:
    """All runs together: training error left, validation error right."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), sharey=True)
    for axis, name, title in zip(
        axes, ("train_error", "val_error"), ("Training (augmented)", "Validation"), strict=True
    ):
        for result in results:
            _line(axis, result, name, label=result.label)
        _error_axis(axis, title)
    axes[1].label_outer()
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside right center",
        title="run: norm, batch size",
        alignment="left",
    )
    return figure


def runs(results: list[Result]) -> Figure:
    """Each run by itself: training and validation error, its best epoch marked."""
    figure, axes = _multiples(results)
    for axis, result in zip(axes, results, strict=False):
        for name, kind, style in BOTH_ERRORS:
            _line(axis, result, name, label=kind, linestyle=style)
        if not result.seeds:
            epoch = result.metrics["epoch"]
            error = result.log[epoch - 1]["val_error"]
            axis.plot(epoch, error, "o", color=colour(result.norm), label="best epoch")
        _error_axis(axis, result.label)
        axis.label_outer()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def sanity(results: list[Result]) -> Figure:
    """Our batch normalization beside PyTorch's: curves, and their difference."""
    ours = find(results, "bn")
    theirs = find(results, "torch_bn")
    if ours is None or theirs is None:
        return _note("Compares runs bn and torch_bn at one batch size: not among the runs.")
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2))
    for result in (theirs, ours):
        for name, kind, style in BOTH_ERRORS:
            _line(left, result, name, label=f"{NORMS[result.norm]}, {kind}", linestyle=style)
    _error_axis(left, f"Error at batch size {ours.batch_size}")
    left.legend()
    for name, kind, style in BOTH_ERRORS:
        gaps = differences(theirs, ours, name)
        label = f"{kind}, at most {100 * max(map(abs, gaps)):.2f} points"
        right.plot(range(1, len(gaps) + 1), gaps, style, color=colour("bn"), label=label)
    right.axhline(0, color="black", linewidth=0.8)
    _error_axis(right, "BN from scratch minus PyTorch's")
    right.set_ylabel("difference of errors")
    right.legend()
    return figure


def batch_size(results: list[Result]) -> Figure:
    """Norms that were trained at more than one batch size."""
    groups = [[result for result in results if result.norm == norm] for norm in NORMS]
    groups = [group for group in groups if len({result.batch_size for result in group}) > 1]
    if not groups:
        return _note("Compares one norm at several batch sizes: no norm has two among the runs.")
    figure, axes = plt.subplots(
        1, len(groups), figsize=(max(5.5 * len(groups), 7), 4.2), sharey=True, squeeze=False
    )
    for axis, group in zip(axes[0], groups, strict=True):
        for result in sorted(group, key=lambda result: -result.batch_size):
            width = 1.2 if result.usual else 2.0
            label = f"batch size {result.batch_size}"
            _line(axis, result, "val_error", label=label, linewidth=width)
        _error_axis(axis, f"{NORMS[group[0].norm]}: validation error")
        axis.label_outer()
        axis.legend()
    return figure


def quantiles(results: list[Result]) -> Figure:
    """Quantiles of the penultimate features on the validation images, one scale for all."""
    figure, axes = _multiples(results)
    every = np.concatenate([curve for result in results for curve in result.quantiles.values()])
    largest = np.abs(every[np.isfinite(every)]).max(initial=0)
    logarithmic = largest > LINEAR_UP_TO
    if logarithmic:
        axes[0].set_yscale("symlog", linthresh=1)  # linear around zero, logarithmic above

    def height(value: float) -> float:
        """Where the axis has a value, in a unit of its own."""
        if not logarithmic:
            return value
        return math.copysign(min(abs(value), 1) + math.log10(max(abs(value), 1)), value)

    close = 0.05 * height(largest or 1)
    for axis, result in zip(axes, results, strict=False):
        ends: dict[float, list[str]] = {}  # of lines that end near each other, one label
        shades = np.linspace(1, 0.35, len(result.quantiles))
        for name, shade in zip(reversed(result.quantiles), shades, strict=True):
            values = result.quantiles[name]
            epochs = range(1, len(values) + 1)
            axis.plot(epochs, values, alpha=shade, **_style(result))
            finite = [value for value in values if math.isfinite(value)]
            if finite:
                near = (end for end in ends if abs(height(end) - height(finite[-1])) < close)
                ends.setdefault(next(near, finite[-1]), []).insert(0, name)
        for value, labels in ends.items():
            place = (epochs[-1], value)
            _annotate(axis, ", ".join(labels), place, (4, 0), va="center", fontsize=8)
        _epochs_axis(axis, result.label, "feature")
        axis.label_outer()
    return figure


def accuracy(results: list[Result]) -> Figure:
    """Test accuracy of every run, with its deviation over seeds, or the error of counting."""
    figure, axis = plt.subplots(figsize=(6.6, 0.42 * len(results) + 1.2))
    for place, result in enumerate(results):
        samples = result.samples("test_accuracy")
        value = mean(samples)
        several = len(samples) > 1
        error = stdev(samples) if several else standard_error(value, len(result.predictions))
        ink, fill = colour(result.norm), None if result.usual else "white"
        axis.errorbar(value, place, xerr=error, fmt="o", capsize=3, color=ink, markerfacecolor=fill)
        _annotate(axis, f"{100 * value:.2f}", (value, place), (0, 6), ha="center", fontsize=8.5)
    axis.set_yticks(range(len(results)), [result.label for result in results])
    axis.set_ylim(len(results) - 0.5, -0.7)
    axis.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    repeated = any(result.seeds for result in results)
    bars = "standard deviation over seeds" if repeated else "standard error of counting images"
    axis.set_xlabel(f"test accuracy (bars: {bars})")
    return figure


def confusion(results: list[Result]) -> Figure:
    """Which classes the run with the best validation accuracy takes for which, on test images."""
    result = best(results)
    classes = sorted({row["actual"] for row in result.predictions})
    pairs = Counter((row["actual"], row["predicted"]) for row in result.predictions)
    counts = np.array([[pairs[actual, predicted] for predicted in classes] for actual in classes])
    share = counts / counts.sum(1, keepdims=True).clip(1)
    size = min(max(4.5, 0.55 * len(classes) + 1.5), 12.0)
    figure, axis = plt.subplots(figsize=(size + 0.7, size))
    image = axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= 20:
        for (row, column), count in np.ndenumerate(counts):
            ink = "white" if share[row, column] > 0.5 else "black"
            axis.text(column, row, count, ha="center", va="center", fontsize=8, color=ink)
    shown = range(0, len(classes), math.ceil(len(classes) / 100))  # more would overlap
    names = [legible(classes[index]) for index in shown]
    points = max(5.0, min(10.0, 450 / len(shown)))
    axis.set_xticks(shown, names, rotation=45, ha="right", rotation_mode="anchor", fontsize=points)
    axis.set_yticks(shown, names, fontsize=points)
    axis.set(xlabel="predicted", ylabel="actual", title=f"Test images, {result.label}")
    axis.grid(False)
    percent = PercentFormatter(1)
    figure.colorbar(image, format=percent, shrink=0.8, label="share of the actual class")
    return figure


FIGURES: dict[str, Callable[[list[Result]], Figure]] = {
    draw.__name__: draw
    for draw in (error_curves, accuracy, sanity, batch_size, quantiles, confusion, runs)
}


def legible(text: str) -> str:
    """`text` as matplotlib can draw it, at most 24 characters of it.

    Characters that the font lacks become their numbers, `U+1F9EA`.
    """
    font = get_font(findfont(FontProperties()))
    shown = text if len(text) <= 24 else f"{text[:23]}\N{HORIZONTAL ELLIPSIS}"
    drawn = (c if font.get_char_index(ord(c)) else f"U+{ord(c):04X}" for c in shown)
    return "".join(drawn).replace("$", r"\$")  # which would begin a formula


def _line(axis: Axes, result: Result, name: str, **style: object) -> None:
    """A curve of `result`; of several seeds their mean, in a band of one standard deviation."""
    values, deviations = result.curve(name)
    epochs = range(1, len(values) + 1)
    axis.plot(epochs, values, **{**_style(result), **style})
    if deviations:
        low, high = np.array(values) - deviations, np.array(values) + deviations
        axis.fill_between(epochs, low, high, color=colour(result.norm), alpha=0.15, linewidth=0)


def _style(result: Result) -> dict[str, Any]:
    """How a line of `result` is drawn; of few epochs each one is marked."""
    return {
        "color": colour(result.norm),
        "linestyle": "-" if result.usual else "--",
        "marker": "." if len(result.log) < 10 else "",
    }


def _annotate(
    axis: Axes, text: str, place: tuple[float, float], by: tuple[int, int], **style: Any
) -> None:
    """Write `text`, moved `by` so many points, at a `place` of `axis`."""
    axis.annotate(
        text, place, xytext=by, textcoords="offset points", annotation_clip=False, **style
    )


def _error_axis(axis: Axes, title: str) -> None:
    _epochs_axis(axis, title, "error")
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))


def _epochs_axis(axis: Axes, title: str, ylabel: str) -> None:
    axis.set(title=title, xlabel="epoch", ylabel=ylabel)
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _multiples(results: list[Result]) -> tuple[Figure, list[Axes]]:
    """A figure with an axis a result, three a row, all of one scale."""
    rows = math.ceil(len(results) / 3)
    figure, grid = plt.subplots(
        rows, 3, figsize=(11, 2.7 * rows + 0.3), sharex=True, sharey=True, squeeze=False
    )
    axes = list(grid.flat)
    for spare in axes[len(results) :]:
        spare.remove()
    return figure, axes[: len(results)]


def _note(text: str) -> Figure:
    """A figure that says why there is nothing to draw."""
    figure = plt.figure(figsize=(7, 1.5))
    figure.text(0.5, 0.5, text, ha="center", va="center", wrap=True)
    return figure
