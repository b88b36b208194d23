"""Pictures of a model, a search and drift; each function returns a matplotlib figure that belongs to the caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from penguins.drift import Drift
    from penguins.evaluate import Confusion


def confusion_matrix(confusion: Confusion) -> Figure:
    """The confusion matrix: true classes down, predicted classes across, row counts in the cells."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.imshow(confusion.counts, cmap="Blues")
    places = range(len(confusion.classes))
    axes.set_xticks(places, confusion.classes)
    axes.set_yticks(places, confusion.classes)
    darkest = confusion.counts.max()
    for (row, column), count in np.ndenumerate(confusion.counts):
        ink = "white" if count > darkest / 2 else "black"
        axes.text(column, row, f"{count:,}", ha="center", va="center", color=ink)
    axes.set(title=f"{confusion.rows:,} test rows", xlabel="predicted", ylabel="true")
    return figure


def coefficients(matrix: npt.NDArray[np.float64], features: Sequence[str], classes: Sequence[str]) -> Figure:
    """How much each feature speaks for each class: one group of bars per feature, one colour per class.

    `matrix` has one row per class (a single row, for the second class, where there are two) and one column per feature.
    A number is scaled to 0..1, so its bar is the change in log-odds over its range; a category's is that of one step of
    its number.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + 1.3 * len(features), 4), layout="constrained")
    axes = figure.subplots()
    shown = list(classes) if len(matrix) == len(classes) else [classes[-1]]
    width = 0.8 / len(shown)
    for place, (name, row) in enumerate(zip(shown, matrix, strict=True)):
        axes.bar(np.arange(len(features)) + place * width, row, width, label=name)
    axes.set_xticks(np.arange(len(features)) + width * (len(shown) - 1) / 2, features)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(title="Coefficients of the logistic regression", ylabel="log-odds over a number's range, or per category")
    axes.legend()
    return figure


def search_history(values: Mapping[int, float], objective: str) -> Figure:
    """How a search went: the objective of each trial by its number, and the smallest one so far as a line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    numbers = sorted(values)
    losses = [values[number] for number in numbers]
    axes.scatter(numbers, losses, s=20, label="trial")
    axes.step(numbers, np.minimum.accumulate(losses), where="post", color="black", label="best so far")
    axes.set(title=f"{len(values)} trials", xlabel="trial", ylabel=objective, yscale="log")
    axes.legend()
    return figure


def search_slices(params: Mapping[str, Sequence[float]], values: Sequence[float], objective: str) -> Figure:
    """The objective over each parameter, one panel per parameter; later trials are darker, a ring marks the best.

    Each sequence in `params` has one value per trial, as `values` has. A parameter that is positive throughout has
    a logarithmic axis, since it may span powers of ten.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(params), 4), layout="constrained")
    panels = figure.subplots(1, len(params), sharey=True, squeeze=False)[0]
    best = int(np.argmin(values))
    for axes, (name, column) in zip(panels, params.items(), strict=True):
        axes.scatter(column, values, c=range(len(values)), cmap="Blues", edgecolors="grey", linewidths=0.5)
        axes.scatter(column[best], values[best], s=120, facecolors="none", edgecolors="black")
        axes.set(xlabel=name, yscale="log", xscale="log" if min(column) > 0 else "linear")
    panels[0].set_ylabel(objective)
    return figure


def drift(columns: Sequence[Drift], verdicts: Sequence[str]) -> Figure:
    """The distributions of the reference and of the current rows side by side: a small picture for each column.

    A bar is a bin's share of the values; the title has the PSI and the verdict, in red where it is `drift`.
    """
    from matplotlib.figure import Figure

    across = min(3, len(columns))
    down = -(-len(columns) // across)
    figure = Figure(figsize=(4.6 * across, 3.4 * down), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False).flat
    for axes in grid[len(columns) :]:
        axes.set_axis_off()
    for axes, column, verdict in zip(grid, columns, verdicts, strict=False):
        _side_by_side(axes, column)
        measured = "no PSI" if column.psi is None else f"PSI {column.psi:.2f}"
        axes.set_title(f"{column.column}: {measured}, {verdict}", color="firebrick" if verdict == "drift" else "black")
    grid[0].set_ylabel("share of values")
    grid[0].legend()
    return figure


def _side_by_side(axes: Axes, column: Drift) -> None:
    places = np.arange(len(column.bins.labels))
    for shift, name, counts, colour in (
        (-0.2, "reference", column.reference, "silver"),
        (0.2, "current", column.current, "steelblue"),
    ):
        shares = np.array(counts.bins) / max(counts.values, 1)
        axes.bar(places + shift, shares, 0.4, label=f"{name} ({counts.values:,})", color=colour)
    axes.set_xticks(places, column.bins.labels, rotation=45, ha="right", fontsize=8)
