"""The study's figures, drawn by matplotlib: one colour per run, dashed at other batch sizes.

With several seeds, lines and points are means; bands and bars are one standard deviation.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from normlab.norms.names import NORMS
from normlab.report import charts
from normlab.report.results import Result, Study, differences, find, last_third, leading

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
PERCENT = FuncFormatter(lambda value, _: f"{100 * value:.6g} %")
POINTS = FuncFormatter(lambda value, _: f"{100 * value:.6g}")
#: curves of one figure: name, what the legend calls it, line style
BOTH_ERRORS = (("train_error", "training", ":"), ("val_error", "validation", "-"))
LINEAR_UP_TO = 20  #: largest feature that is drawn to a linear scale
#: from this many epochs on, the last third is drawn by itself: all at one scale, it is a flat line
LONG = 9


def draw_all(folder: Path, study: Study, dpi: int, extension: str = "png") -> None:
    """Draw every figure into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    # A date would make the bytes of each drawing differ.
    dateless = {"png": None, "svg": {"Date": None}}[extension]
    with plt.style.context(["default", STYLE]):  # not that of the user's matplotlibrc
        for name, draw in FIGURES.items():
            figure = draw(study)
            for axis in figure.axes:
                if axis.get_ylabel() == "error":
                    axis.set_ylim(bottom=0)  # only now: it stops the axis from growing
            figure.savefig(folder / f"{name}.{extension}", dpi=dpi, metadata=dateless)
            plt.close(figure)


def error_curves(study: Study) -> Figure:
    """All runs: training error left, validation error right; below, the last third by itself."""
    epochs = max(len(run.curve("val_error")[0]) for run in study.runs)
    starts = [1, last_third(epochs)] if epochs >= LONG else [1]
    size = (12, 0.8 + 3.7 * len(starts))
    figure, grid = plt.subplots(len(starts), 2, figsize=size, squeeze=False)
    kinds = (("train_error", "Training (augmented)"), ("val_error", "Validation"))
    for axes, start in zip(grid, starts, strict=True):
        for axis, (name, title) in zip(axes, kinds, strict=True):
            for run, color in _colored(study.runs):
                _line(axis, run, color, name, start, label=run.label)
            ylabel = "error" if start == 1 else f"error, epochs {start} to {epochs}"
            _error_axis(axis, title if start == 1 else "", ylabel)
    lines = grid[0][0].get_legend_handles_labels()
    title = "run: norm, batch size"
    figure.legend(*lines, loc="outside right center", title=title, alignment="left")
    return figure


def runs(study: Study) -> Figure:
    """Each run by itself: training and validation error, its best epoch marked."""
    figure, axes = _multiples(study.runs)
    for axis, (run, color) in zip(axes, _colored(study.runs), strict=True):
        for name, kind, style in BOTH_ERRORS:
            _line(axis, run, color, name, label=kind, linestyle=style)
        for training in run.trainings:
            error = training.log["val_error"][training.epoch - 1]
            axis.plot(training.epoch, error, ".", color=color, label="best epoch")
        _error_axis(axis, run.label)
        axis.label_outer()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles[:3], labels[:3], loc="outside lower center", ncols=3)
    return figure


def sanity(study: Study) -> Figure:
    """Our batch normalization compared with PyTorch's: curves, and their difference."""
    ours, theirs = find(study.runs, "bn"), find(study.runs, "torch_bn")
    if ours is None or theirs is None:
        return _note("Not available: requires runs with bn and torch_bn at one batch size.")
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2))
    colors = {run.run: color for run, color in _colored(study.runs)}
    for run in (theirs, ours):
        for name, kind, style in BOTH_ERRORS:
            label = f"{NORMS[run.norm]}, {kind}"
            _line(left, run, colors[run.run], name, label=label, linestyle=style)
    _error_axis(left, f"Error at batch size {ours.batch_size}")
    left.legend()
    for name, kind, style in BOTH_ERRORS:
        gaps, error = differences(theirs, ours, name)
        label = f"{kind}, at most {100 * abs(gaps).max():.2f} points"
        _band(right, gaps, error, 1, color=colors[ours.run], linestyle=style, label=label)
    right.axhline(0, color="black", linewidth=0.8)
    _epochs_axis(right, "BN from scratch minus PyTorch's", "difference of errors, points")
    right.yaxis.set_major_formatter(POINTS)
    right.legend()
    return figure


def batch_size(study: Study) -> Figure:
    """Test accuracy against batch size of the norms that were trained at several."""
    groups = study.by_batch_size()
    if not groups:
        return _note("Not available: requires runs with one norm at several batch sizes.")
    figure, axis = plt.subplots(figsize=(7, 4.2))
    axis.set_xscale("log", base=2)
    colors = {run.norm: color for run, color in reversed(_colored(study.runs))}
    for norm, settings in groups.items():
        sizes = [setting.batch_size for setting in settings]
        values = [setting.score("test_accuracy") for setting in settings]
        errors = [setting.deviation("test_accuracy") or 0 for setting in settings]
        axis.errorbar(
            sizes, values, errors, fmt="o-", capsize=3, color=colors.get(norm), label=NORMS[norm]
        )
    every = {setting.batch_size for settings in groups.values() for setting in settings}
    axis.set_xticks(sorted(every), sorted(map(str, every), key=int))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.invert_xaxis()  # as in the figure of Wu & He
    axis.yaxis.set_major_formatter(PERCENT)
    axis.set(xlabel="batch size", ylabel="test accuracy")
    axis.legend()
    return figure


def quantiles(study: Study) -> Figure:
    """Quantiles of the penultimate features on the validation images, one scale for all."""
    figure, axes = _multiples(study.runs)
    every = np.concatenate([curve for run in study.runs for curve in run.quantiles.values()])
    if np.abs(every[np.isfinite(every)]).max(initial=0) > LINEAR_UP_TO:
        axes[0].set_yscale("symlog", linthresh=1)  # linear around zero, logarithmic above
    for axis, (run, color) in zip(axes, _colored(study.runs), strict=True):
        alphas = np.linspace(1, 0.35, len(run.quantiles))
        for alpha, (name, values) in zip(alphas, reversed(run.quantiles.items()), strict=True):
            style = _style(run, len(values), color)
            axis.plot(range(1, len(values) + 1), values, alpha=alpha, label=name, **style)
        _epochs_axis(axis, run.label, "feature")
        axis.label_outer()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def accuracy(study: Study) -> Figure:
    """Test accuracy of every run."""
    figure, axis = plt.subplots(figsize=(6.6, 0.42 * len(study.runs) + 1.2))
    for place, (run, color) in enumerate(_colored(study.runs)):
        value, error = run.score("test_accuracy"), run.deviation("test_accuracy")
        fill = "auto" if run.reference else "white"
        axis.errorbar(value, place, xerr=error, fmt="o", capsize=3, color=color, mfc=fill)
        axis.annotate(
            run.percent("test_accuracy"), (value, place), xytext=(0, 6), ha="center", size=8.5,
            textcoords="offset points", annotation_clip=False,
        )  # fmt: skip
    axis.set_yticks(range(len(study.runs)), [run.label for run in study.runs])
    axis.set_ylim(len(study.runs) - 0.5, -0.7)
    axis.margins(x=0.12)  # for the numbers
    axis.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axis.xaxis.set_major_formatter(PERCENT)
    axis.set_xlabel("test accuracy")
    return figure


def confusion(study: Study) -> Figure:
    """Which classes the run with the best validation accuracy takes for which, on test images."""
    result = leading(study.runs)[0]
    classes = sorted({row["actual"] for row in result.predictions})
    pairs = Counter((row["actual"], row["predicted"]) for row in result.predictions)
    counts = np.array([[pairs[actual, predicted] for predicted in classes] for actual in classes])
    fraction = counts / counts.sum(1, keepdims=True).clip(1)
    size = min(max(4.5, 0.55 * len(classes) + 1.5), 12.0)
    figure, axis = plt.subplots(figsize=(size + 0.7, size))
    image = axis.imshow(fraction, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= 20:
        for (row, column), count in np.ndenumerate(counts):
            color = "white" if fraction[row, column] > 0.5 else "black"
            axis.text(column, row, count, ha="center", va="center", fontsize=8, color=color)
    shown = range(0, len(classes), math.ceil(len(classes) / 100))  # more would overlap
    names = [legible(classes[index]) for index in shown]
    points = max(5.0, min(10.0, 450 / len(shown)))
    axis.set_xticks(shown, names, rotation=45, ha="right", rotation_mode="anchor", fontsize=points)
    axis.set_yticks(shown, names, fontsize=points)
    axis.set(xlabel="predicted", ylabel="actual", title=f"Test images, {result.label}")
    axis.grid(False)
    figure.colorbar(image, format=PERCENT, shrink=0.8, label="fraction of the actual class")
    return figure


FIGURES: dict[str, Callable[[Study], Figure]] = {
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


def _colored(runs: Sequence[Result]) -> list[tuple[Result, str]]:
    """Runs with their colours, which are those of the charts."""
    return list(zip(runs, cycle(charts.palette()), strict=False))


def _line(axis: Axes, run: Result, color: str, name: str, start: int = 1, **style: object) -> None:
    """A curve of `run` from epoch `start` on; with several seeds, the mean with a band."""
    values, deviations = run.curve(name)
    _band(axis, values, deviations, start, **{**_style(run, len(values), color), **style})


def _band(
    axis: Axes, values: np.ndarray, around: np.ndarray | None, start: int, **style: Any
) -> None:
    """A line of `values` from epoch `start` on, in a band that reaches `around` them."""
    epochs = np.arange(start, len(values) + 1)
    axis.plot(epochs, values[start - 1 :], **style)
    if around is not None:
        low, high = (values - around)[start - 1 :], (values + around)[start - 1 :]
        axis.fill_between(epochs, low, high, color=style["color"], alpha=0.15, linewidth=0)


def _style(run: Result, epochs: int, color: str) -> dict[str, Any]:
    """How a line of `run` is drawn; few epochs get a marker each."""
    line, marker = "-" if run.reference else "--", "." if epochs < LONG else ""
    return {"color": color, "linestyle": line, "marker": marker}


def _error_axis(axis: Axes, title: str, ylabel: str = "error") -> None:
    _epochs_axis(axis, title, ylabel)
    axis.yaxis.set_major_formatter(PERCENT)


def _epochs_axis(axis: Axes, title: str, ylabel: str) -> None:
    axis.set(title=title, xlabel="epoch", ylabel=ylabel)
    axis.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))


def _multiples(results: Sequence[Result]) -> tuple[Figure, list[Axes]]:
    """A figure with an axis per result, three in a row, all of one scale."""
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
