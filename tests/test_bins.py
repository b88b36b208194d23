"""Counting by bin in Spark: literal rows, and what there is to count in them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from penguins import data
from penguins.bins import Bins, Counts, count, find_bins, observe, total
from penguins.drift import compare
from penguins.errors import DataError
from penguins.spec import Numeric, Spec
from tests.conftest import PENGUINS_CSV

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

SPEC = Spec(categorical=("Colour",), numeric=(Numeric("Size", "mm", 0, 100),), label="Kind", classes=("a", "b"))
ROWS = "Colour string, Size double, Kind int, Day bigint"


def test_a_row_is_never_left_out_and_says_what_is_wrong_with_it(spark: SparkSession) -> None:
    df = spark.createDataFrame(
        [
            ("red", 5.0, 1, 1),
            (None, None, None, 1),
            (" ", math.nan, 7, 2),
            ("blue", math.inf, 0, 2),
            ("blue", 100.5, 0, 2),
        ],
        ROWS,
    )
    observed = observe(df, SPEC, keep=["Day"])
    assert observed.columns == ["Colour:flaw", "Size:flaw", "Kind:flaw", "Colour", "Size", "Kind", "Day"]
    assert [tuple(row) for row in observed.collect()] == [
        (None, None, None, "red", 5.0, 1, 1),
        ("missing", "missing", "missing", None, None, None, 1),
        ("missing", "outside", "outside", None, None, None, 2),
        (None, "outside", None, "blue", None, 0, 2),
        (None, "outside", None, "blue", 100.5, 0, 2),
    ]


def test_text_that_is_no_number_is_told_from_a_gap_in_a_csv_file(spark: SparkSession, tmp_path: Path) -> None:
    file = tmp_path / "sizes.csv"
    file.write_text("Colour,Size\nred,5\nred,\nred,big\n,7\n")
    observed = observe(data.read(spark, file, SPEC, labelled=False), SPEC)
    assert [tuple(row) for row in observed.collect()] == [
        (None, None, "red", 5.0),
        (None, "missing", "red", None),
        (None, "outside", "red", None),
        ("missing", None, None, 7.0),
    ]


def test_deciles_and_categories_become_bins(spark: SparkSession) -> None:
    rows = [("red" if size % 2 else "blue", float(size), 0, 1) for size in range(1, 21)]
    bins = find_bins(observe(spark.createDataFrame(rows, ROWS), SPEC), SPEC)
    assert bins == (
        Bins("Colour", None, ("blue", "red")),
        Bins("Size", (2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 18.0), None),
    )
    assert bins[0].labels == ("blue", "red", "new")
    assert bins[1].labels[:3] == ("≤ 2", "2 to 4", "4 to 6")
    assert bins[1].labels[-1] == "> 18"
    assert len(bins[1].labels) == 10


def test_a_constant_column_has_bins_below_and_above_its_value(spark: SparkSession) -> None:
    reference = spark.createDataFrame([("red", 5.0, 0, 1)] * 30, ROWS)
    [_, size] = find_bins(observe(reference, SPEC), SPEC)
    assert size.labels == ("< 5", "5", "> 5")
    moved = [("red", value, 0, 1) for value in (4.0, 5.0, 5.0, 6.0, 6.0, 6.0)]
    [colours, sizes] = compare(reference, spark.createDataFrame(moved, ROWS), SPEC)
    assert sizes.reference.bins == (0, 30, 0)
    assert sizes.current.bins == (1, 2, 3)
    assert (colours.psi, colours.js) == (0, 0)
    [_, same] = compare(reference, reference, SPEC)
    assert (same.psi, same.js, same.chance(0.001)) == (0, 0, 0)


def test_rows_are_counted_by_bin_and_group(spark: SparkSession) -> None:
    bins = (Bins("Colour", None, ("blue", "red")), Bins("Size", (2.0, 4.0), None))
    rows = [
        ("red", 2.0, 0, 1),
        ("red", 2.5, 0, 1),
        ("blue", None, 0, 2),
        ("green", 101.0, 0, 2),
        ("azure", math.nan, 0, 2),
        (None, 4.0, 0, None),
    ]
    observed = observe(spark.createDataFrame(rows, ROWS), SPEC, keep=["Day"])
    by_day = count(observed, bins, "Day")
    assert by_day == {
        1: (Counts(2, 0, 0, (0, 2, 0)), Counts(2, 0, 0, (1, 1, 0))),
        2: (Counts(3, 0, 0, (1, 0, 2), "azure"), Counts(3, 1, 2, (0, 0, 1))),
        None: (Counts(1, 1, 0, (0, 0, 0)), Counts(1, 0, 0, (0, 1, 0))),
    }
    together = (Counts(6, 1, 0, (1, 2, 2), "azure"), Counts(6, 1, 2, (1, 2, 1)))
    assert total(by_day, bins) == together
    assert count(observed, bins) == {None: together}


def test_nothing_to_count_is_zeros_and_nothing_to_compare_with_an_error(spark: SparkSession) -> None:
    rows = spark.createDataFrame([("red", 1.0, 0, 1), ("blue", 2.0, 1, 1)], ROWS)
    [colour, size] = compare(rows, rows.limit(0), SPEC)
    assert colour.current == Counts(0, 0, 0, (0, 0, 0))
    assert (size.current.rows, size.psi, size.js) == (0, None, None)
    with pytest.raises(DataError) as raised:
        compare(rows.limit(0), rows, SPEC)
    assert str(raised.value) == (
        "The reference is empty: give the rows that the model was trained on, or others to compare to."
    )


def test_a_reference_without_values_has_one_bin_for_all_there_is(spark: SparkSession) -> None:
    reference = spark.createDataFrame([(None, None, 0, 1)] * 2, ROWS)
    [colour, size] = compare(reference, spark.createDataFrame([("red", 1.0, 0, 1), ("red", 9.0, 0, 1)], ROWS), SPEC)
    assert size.bins.labels == ("any",)
    assert (size.current.bins, size.psi) == ((2,), None)
    assert colour.current == Counts(2, 0, 0, (2,), "red")


def test_no_overlap_is_as_far_as_it_gets(spark: SparkSession) -> None:
    reference = spark.createDataFrame([("red", float(size), 0, 1) for size in range(20)], ROWS)
    current = spark.createDataFrame([("blue", float(size), 0, 1) for size in range(50, 70)], ROWS)
    [colour, size] = compare(reference, current, SPEC)
    assert colour.js == 1
    assert colour.current == Counts(20, 0, 0, (0, 20), "blue")
    # All are in the last bin, where the reference has a tenth: m is 0.05 nine times, then 0.55, so that
    # KL(p, m) = 0.9 + 0.1 log2(0.1 / 0.55) = 0.65406, KL(q, m) = -log2(0.55) = 0.86250, and the root of their mean is:
    assert size.current.bins[-1] == 20
    assert size.js == pytest.approx(0.87079, abs=1e-5)


def test_two_halves_of_the_real_birds_are_counted_whole(spark: SparkSession) -> None:
    birds = data.read(spark, PENGUINS_CSV)
    accepted, _ = data.check(birds)
    halves = data.split(accepted, 0.5, seed=3)
    found = compare(*halves)
    assert [column.column for column in found] == [
        *("Island", "CulmenLength", "CulmenDepth", "FlipperLength", "BodyMass")
    ]
    for column in found:
        assert column.reference.values + column.current.values == 342
        assert 0 < (column.psi or 0) < (column.chance(0.001) or 0)


def test_a_missing_column_is_named(spark: SparkSession) -> None:
    rows = spark.createDataFrame([("red", 1.0), ("blue", 2.0)], "Colour string, Size double")
    with pytest.raises(DataError, match=r"^The data lacks the column Size; it has Colour\.$"):
        compare(rows, rows.drop("Size"), SPEC)
