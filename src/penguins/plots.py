"""Pictures of a model, a search and drift; each function returns a matplotlib figure that belongs to the caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

MOST_FEATURES = 20
"""How many features the picture of the coefficients shows; more can't be read."""

MOST_COLUMNS = 24
"""How many columns the picture of drift shows: eight rows of three."""

MOST_BINS = 30
"""How many bins of a column it shows."""

LONGEST_NAME = 30
"""Characters of a name that a picture shows."""

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
    axes.set_xticks(places, names(confusion.classes))
    axes.set_yticks(places, names(confusion.classes))
    darkest = confusion.counts.max()
    for (row, column), count in np.ndenumerate(confusion.counts):
        ink = "white" if count > darkest / 2 else "black"
        axes.text(column, row, f"{count:,}", ha="center", va="center", color=ink)
    axes.set(title=f"{confusion.rows:,} test rows", xlabel="predicted", ylabel="true")
    return figure


def coefficients(matrix: npt.NDArray[np.float64], features: Sequence[str], classes: Sequence[str]) -> Figure:
    """How much each feature speaks for each class: one group of bars per feature, one colour per class.

    `matrix` has one row per class (a single row, for the second class, where there are two) and one column per feature.
    Of many features it shows the 20 whose largest coefficient is largest, in the table's order.
    A number is scaled to 0..1, so its bar is the change in log-odds over its range; a category's is that of one step of
    its number.
    """
    from matplotlib.figure import Figure

    largest = np.sort(np.argsort(-np.abs(matrix).max(axis=0), kind="stable")[:MOST_FEATURES])
    shown = list(classes) if len(matrix) == len(classes) else [classes[-1]]
    figure = Figure(figsize=(1.5 + 1.3 * len(largest), 4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(shown)
    for place, (name, row) in enumerate(zip(names(shown), matrix[:, largest], strict=True)):
        axes.bar(np.arange(len(largest)) + place * width, row, width, label=name)
    axes.set_xticks(np.arange(len(largest)) + width * (len(shown) - 1) / 2, names([features[i] for i in largest]))
    if len(largest) > 8:
        axes.tick_params("x", rotation=45)
    axes.axhline(0, color="black", linewidth=0.8)
    title = "Coefficients of the logistic regression"
    if len(largest) < len(features):
        title += f": the {len(largest)} largest of {len(features)}"
    axes.set(title=title, ylabel="log-odds over a number's range, or per category")
    axes.legend(ncols=-(-len(shown) // 10), loc="upper right")
    return figure


def names(texts: Sequence[str]) -> list[str]:
    """Names as a picture shows them: cut when they are long, in one line, and a dollar is a dollar.

    matplotlib takes what stands between two dollars for a formula, and fails when it is none.
    """
    cut = (text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…" for text in texts)
    return ["".join(sign if sign.isprintable() else " " for sign in text).replace("$", r"\$") for text in cut]


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
    axes.legend(loc="upper right")
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

    A bar is a bin's share of the values; the title has the PSI and the verdict, in red where it is `drift`. Of many
    columns it shows the 24 with the largest PSI, in the table's order, and of many bins the 29 with most values and the
    others as one.
    """
    from matplotlib.figure import Figure

    shown = list(zip(columns, verdicts, strict=True))
    if len(shown) > MOST_COLUMNS:
        least = sorted((one.psi or 0.0 for one in columns), reverse=True)[MOST_COLUMNS - 1]
        shown = [pair for pair in shown if (pair[0].psi or 0.0) >= least][:MOST_COLUMNS]
    across = min(3, len(shown))
    down = -(-len(shown) // across)
    figure = Figure(figsize=(4.6 * across, 3.4 * down), layout="constrained")
    if len(shown) < len(columns):
        figure.suptitle(f"The {len(shown)} columns of {len(columns)} with the largest PSI")
    grid = figure.subplots(down, across, squeeze=False).flat
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    for axes, (column, verdict) in zip(grid, shown, strict=False):
        _side_by_side(axes, column)
        measured = "no PSI" if column.psi is None else f"PSI {column.psi:.2f}"
        [name] = names([column.column])
        axes.set_title(f"{name}: {measured}, {verdict}", color="firebrick" if verdict == "drift" else "black")
    grid[0].set_ylabel("share of values")
    grid[0].legend(loc="upper right")
    return figure


def _side_by_side(axes: Axes, column: Drift) -> None:
    labels = list(column.bins.labels)
    both = np.array([column.reference.bins, column.current.bins])
    if len(labels) > MOST_BINS:
        most = np.sort(np.argsort(-both.sum(axis=0), kind="stable")[: MOST_BINS - 1])
        others = (both.sum(axis=1) - both[:, most].sum(axis=1))[:, None]
        labels = [*(labels[i] for i in most), f"{len(labels) - len(most)} others"]
        both = np.hstack([both[:, most], others])
    places = np.arange(len(labels))
    for shift, name, counts, colour in (
        (-0.2, "reference", both[0], "silver"),
        (0.2, "current", both[1], "steelblue"),
    ):
        values = counts.sum()
        axes.bar(places + shift, counts / max(values, 1), 0.4, label=f"{name} ({values:,})", color=colour)
    axes.set_xticks(places, names(labels), rotation=45, ha="right", fontsize=8)
