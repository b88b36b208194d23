"""Pictures: every number that was measured can be seen in them, and nobody has to close them."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.patches import Rectangle

from penguins import plots
from penguins.bins import Bins, Counts
from penguins.drift import Drift
from penguins.evaluate import Confusion

CONFUSION = Confusion(("Adelie", "Gentoo", "Chinstrap"), np.array([[40, 0, 2], [0, 35, 0], [1, 0, 1022]]))


def test_the_confusion_matrix_shows_every_count_and_names_both_axes() -> None:
    [axes] = plots.confusion_matrix(CONFUSION).axes
    assert [text.get_text() for text in axes.texts] == ["40", "0", "2", "0", "35", "0", "1", "0", "1,022"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["Adelie", "Gentoo", "Chinstrap"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Adelie", "Gentoo", "Chinstrap"]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("predicted", "true", "1,100 test rows")


def test_three_classes_have_a_bar_per_feature_and_class() -> None:
    matrix = np.array([[1.0, -2.0], [0.5, 4.0], [-1.5, -2.5]])
    [axes] = plots.coefficients(matrix, ["Island", "BodyMass"], ["Adelie", "Gentoo", "Chinstrap"]).axes
    bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert [bar.get_height() for bar in bars] == [1.0, -2.0, 0.5, 4.0, -1.5, -2.5]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["Adelie", "Gentoo", "Chinstrap"]  # type: ignore[union-attr]  # there is one
    assert [label.get_text() for label in axes.get_xticklabels()] == ["Island", "BodyMass"]


def test_each_feature_name_stands_below_the_middle_of_its_bars() -> None:
    [axes] = plots.coefficients(np.array([[1.0, 2.0], [3.0, 4.0]]), ["a", "b"], ["no", "yes"]).axes
    first, second, third, fourth = (patch for patch in axes.patches if isinstance(patch, Rectangle))
    middles = [(first.get_x() + third.get_x() + 0.4) / 2, (second.get_x() + fourth.get_x() + 0.4) / 2]
    assert list(axes.get_xticks()) == pytest.approx(middles)


def test_two_classes_have_one_bar_per_feature_named_after_the_second_class() -> None:
    [axes] = plots.coefficients(np.array([[1.0, -2.0, 3.0]]), ["a", "b", "c"], ["malignant", "benign"]).axes
    bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert [bar.get_height() for bar in bars] == [1.0, -2.0, 3.0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["benign"]  # type: ignore[union-attr]  # there is one


def test_of_many_features_the_twenty_largest_are_shown_in_the_tables_order_and_can_be_read(tmp_path: Path) -> None:
    matrix = np.zeros((3, 100))
    matrix[1, ::5] = -np.arange(1.0, 21.0)
    features = [f"a column with quite a long name, number {number}" for number in range(100)]
    figure = plots.coefficients(matrix, features, CONFUSION.classes)
    [axes] = figure.axes
    assert axes.get_title() == "Coefficients of the logistic regression: the 20 largest of 100"
    bars = [patch.get_height() for patch in axes.patches if isinstance(patch, Rectangle)]
    assert bars[20:40] == [-float(number) for number in range(1, 21)]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a column with quite a long na…"] * 20
    figure.savefig(tmp_path / "coefficients.png")
    assert figure.get_size_inches().max() * figure.dpi < 3000


DOLLARS = ("a$b_{c$", "$", "costs $5 or $6", r"\$\frac$")


def test_a_dollar_in_a_name_is_a_dollar_and_no_formula(tmp_path: Path) -> None:
    """matplotlib fails only when it draws."""
    counts = np.eye(4, dtype=int)
    plots.confusion_matrix(Confusion(DOLLARS, counts)).savefig(tmp_path / "confusion.png")
    plots.coefficients(counts * 1.0, DOLLARS, DOLLARS).savefig(tmp_path / "coefficients.png")
    values = Counts(4, 0, 0, (1, 1, 1, 1, 0))
    column = Drift(Bins("a$b_{c$", None, DOLLARS), values, values)
    figure = plots.drift([column], ["stable"])
    figure.savefig(tmp_path / "drift.png")
    [axes] = figure.axes
    shown = [text.replace(r"\$", "$") for text in (axes.get_title(), axes.get_xticklabels()[0].get_text())]
    assert shown == ["a$b_{c$: PSI 0.00, stable", "a$b_{c$"]


def test_the_history_of_a_search_shows_each_trial_and_the_best_so_far() -> None:
    [axes] = plots.search_history({4: 0.2, 0: 0.5, 1: 0.9, 3: 0.3}, "loss").axes
    [points] = axes.collections
    assert np.asarray(points.get_offsets()).tolist() == [[0, 0.5], [1, 0.9], [3, 0.3], [4, 0.2]]
    [line] = axes.lines
    assert np.asarray(line.get_ydata()).tolist() == [0.5, 0.5, 0.3, 0.2]
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("4 trials", "trial", "loss")


def test_the_slices_of_a_search_have_a_panel_per_parameter_and_ring_the_best() -> None:
    params = {"regParam": [0.1, 0.001, 1.0], "elasticNetParam": [0.0, 0.5, 1.0]}
    panels = plots.search_slices(params, [0.4, 0.2, 0.3], "loss").axes
    assert [axes.get_xlabel() for axes in panels] == ["regParam", "elasticNetParam"]
    assert [axes.get_xscale() for axes in panels] == ["log", "linear"]
    for axes, expected in zip(panels, ([0.1, 0.001, 1.0], [0.0, 0.5, 1.0]), strict=True):
        points, ring = axes.collections
        assert np.asarray(points.get_offsets()).tolist() == [
            [value, loss] for value, loss in zip(expected, [0.4, 0.2, 0.3], strict=True)
        ]
        assert np.asarray(ring.get_offsets()).tolist() == [[expected[1], 0.2]]
    assert panels[0].get_ylabel() == "loss"


def test_the_figures_can_be_saved_and_none_stays_registered_with_pyplot(tmp_path: Path) -> None:
    plots.confusion_matrix(CONFUSION).savefig(tmp_path / "confusion.png")
    plots.coefficients(np.eye(3), ["a", "b", "c"], CONFUSION.classes).savefig(tmp_path / "coefficients.png")
    signatures = [(tmp_path / name).read_bytes()[:8] for name in ("confusion.png", "coefficients.png")]
    assert signatures == [b"\x89PNG\r\n\x1a\n"] * 2
    assert plt.get_fignums() == []


def test_drift_shows_both_distributions_side_by_side_and_marks_what_drifted() -> None:
    island = Drift(Bins("Island", None, ("Biscoe",)), Counts(4, 0, 0, (4, 0)), Counts(2, 0, 0, (1, 1), "Anvers"))
    mass = Drift(Bins("BodyMass", (3000.0,), None), Counts(4, 0, 0, (1, 3)), Counts(2, 2, 0, (0, 0)))
    left, right = plots.drift([island, mass], ["drift", "no values"]).axes
    bars = [[patch.get_height() for patch in axes.patches if isinstance(patch, Rectangle)] for axes in (left, right)]
    assert bars == [[1, 0, 0.5, 0.5], [0.25, 0.75, 0, 0]]
    assert [label.get_text() for label in left.get_xticklabels()] == ["Biscoe", "new"]
    assert [label.get_text() for label in right.get_xticklabels()] == ["≤ 3000", "> 3000"]
    # Shares 1, 1/8 and 1/2, 1/2: 0.5 ln 2 + 0.375 ln 4
    assert (left.get_title(), left.title.get_color()) == ("Island: PSI 0.87, drift", "firebrick")
    assert (right.get_title(), right.title.get_color()) == ("BodyMass: no PSI, no values", "black")
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["reference (4)", "current (2)"]  # type: ignore[union-attr]  # there is one


def test_of_many_columns_the_most_drifted_are_shown_and_of_many_bins_the_fullest(tmp_path: Path) -> None:
    still, moved = Counts(4, 0, 0, (2, 2)), Counts(4, 0, 0, (4, 0))
    columns = [Drift(Bins(f"c{i}", (1.0,), None), still, moved if i % 3 == 0 else still) for i in range(72)]
    figure = plots.drift(columns, ["stable"] * 72)
    titles = [axes.get_title().partition(":")[0] for axes in figure.axes]
    assert titles == [f"c{i}" for i in range(0, 72, 3)]
    assert figure.get_suptitle() == "The 24 columns of 72 with the largest PSI"
    categories = tuple(f"v{i}" for i in range(100))
    rows = Counts(5050, 0, 0, (*range(1, 101), 0))
    [axes] = plots.drift([Drift(Bins("c", None, categories), rows, rows)], ["stable"]).axes
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == [*(f"v{i}" for i in range(71, 100)), "72 others"]
    bars = [patch.get_height() for patch in axes.patches if isinstance(patch, Rectangle)]
    # 1 + 2 + … + 71 = 2556
    assert bars[28:30] == pytest.approx([100 / 5050, 2556 / 5050])


def test_a_last_row_of_small_pictures_may_be_short() -> None:
    columns = [Drift(Bins(name, (), None), Counts(1, 0, 0, (1,)), Counts(1, 0, 0, (1,))) for name in "abcd"]
    shown = [axes.get_title() for axes in plots.drift(columns, ["stable"] * 4).axes if axes.axison]
    assert shown == [f"{name}: PSI 0.00, stable" for name in "abcd"]
