"""Counting rows by bin: what Spark does for the statistics of drift.

Reading takes one pass over the reference for the bins and one over each set for the counts; no row is collected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import add
from typing import TYPE_CHECKING, Any

from penguins import data
from penguins.errors import DataError
from penguins.spec import PENGUINS, Spec

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, Row

DECILES = tuple(place / 10 for place in range(1, 10))
MISSING = "missing"
OUTSIDE = "outside"
NEW = "new"
"""The last bin of a categorical column: values that the reference doesn't have."""


@dataclass(frozen=True)
class Bins:
    """Into which bins a column's values fall, as the reference has them.

    Of numbers, bin i holds those above `edges[i - 1]` up to and including `edges[i]`, with both ends open. Of
    categories, there is a bin for each of `values` and a last one for all others. One of the two is None.
    """

    column: str
    edges: tuple[float, ...] | None
    values: tuple[str, ...] | None

    @property
    def labels(self) -> tuple[str, ...]:
        """What to write below each bin."""
        if self.values is not None:
            return (*self.values, NEW)
        edges = self.edges or ()
        if not edges:
            return ("any",)
        inner = [_between(low, high) for low, high in pairwise(edges)]
        has_floor = len(edges) > 1 and math.nextafter(edges[0], math.inf) == edges[1]
        first = f"< {edges[1]:.4g}" if has_floor else f"≤ {edges[0]:.4g}"
        return (first, *inner, f"> {edges[-1]:.4g}")


@dataclass(frozen=True)
class Counts:
    """How many rows of a set have what in one column: `bins` in the order of the bins' labels.

    `outside` counts values that are no finite number or out of the spec's range; a finite one stands in a bin as
    well. `example` is one of the new categories, if there are any.
    """

    rows: int
    missing: int
    outside: int
    bins: tuple[int, ...]
    example: str | None = None

    @property
    def values(self) -> int:
        """The number of rows with a value that has a bin."""
        return sum(self.bins)

    def __add__(self, other: Counts) -> Counts:
        """The counts of both sets of rows together."""
        return Counts(
            self.rows + other.rows,
            self.missing + other.missing,
            self.outside + other.outside,
            tuple(map(add, self.bins, other.bins)),
            min(filter(None, (self.example, other.example)), default=None),
        )


def observe(df: DataFrame, spec: Spec = PENGUINS, keep: Sequence[str] = ()) -> DataFrame:
    """What the statistics need of each row; bad values become null, and no row is left out.

    Returns the spec's features (categories as text, finite numbers as double), for each a column like
    `BodyMass:flaw` (`missing`, `outside` or null), the label as int where there is one (null where it is no class
    code) with a flaw of its own, and the columns `keep` as they are.
    """
    from pyspark.sql import functions as F

    flaws = data.flaws(df, spec)
    columns: list[Column] = []
    for name in flaws:
        gone = flaws[name].isin(f"{name} is missing", f"{name} is empty")
        columns.append(F.when(gone, MISSING).when(flaws[name].isNotNull(), OUTSIDE).alias(flaw_of(name)))
    for name in spec.categorical:
        columns.append(F.when(flaws[name].isNull(), F.col(name).cast("string")).alias(name))
    for numeric in spec.numeric:
        number = F.col(numeric.name).try_cast("double")
        is_finite = ~F.isnan(number) & (F.abs(number) < float("inf"))
        columns.append(F.when(is_finite, number).alias(numeric.name))
    if spec.label in flaws:
        code = F.col(spec.label).try_cast("double").cast("int")
        columns.append(F.when(flaws[spec.label].isNull(), code).alias(spec.label))
    return df.select(*columns, *keep)


def find_bins(reference: DataFrame, spec: Spec = PENGUINS) -> tuple[Bins, ...]:
    """The bins of observed reference rows (`observe`), in one Spark job: deciles of numbers, each value of categories.

    Deciles that fall together become one. Where the smallest value is a decile itself, as in a constant column,
    there is a bin below it as well, so that a fall is seen like a rise.
    Raises DataError when there are no rows.
    """
    from pyspark.sql import functions as F

    aggregates = [F.count("*").alias("rows")]
    for place, name in enumerate(spec.categorical):
        aggregates.append(F.array_sort(F.collect_set(name)).alias(f"values{place}"))
    for place, numeric in enumerate(spec.numeric):
        aggregates.append(F.percentile_approx(numeric.name, list(DECILES)).alias(f"deciles{place}"))
        aggregates.append(F.min(numeric.name).alias(f"least{place}"))
    [found] = reference.agg(*aggregates).collect()
    if found["rows"] == 0:
        raise DataError("The reference is empty: give the rows that the model was trained on, or others to compare to.")
    categorical = [Bins(name, None, tuple(found[f"values{place}"])) for place, name in enumerate(spec.categorical)]
    numeric_bins = [
        Bins(numeric.name, _edges(found[f"deciles{place}"], found[f"least{place}"]), None)
        for place, numeric in enumerate(spec.numeric)
    ]
    return (*categorical, *numeric_bins)


def count(df: DataFrame, bins: Sequence[Bins], by: str | None = None) -> dict[Any, tuple[Counts, ...]]:
    """Count observed rows (`observe`) by bin, for each value of the column `by`, in one Spark job.

    Returns the counts in the order of `bins`, by the value of `by`; under None those where it is null, and all
    where there is no such column. No rows give an empty dict.
    """
    from pyspark.sql import functions as F

    cells = F.array(
        *(
            F.struct(
                F.lit(number).alias("column"),
                _place(column).alias("place"),
                F.col(flaw_of(column.column)).alias("flaw"),
                (F.lit(None).cast("string") if column.values is None else F.col(column.column)).alias("value"),
            )
            for number, column in enumerate(bins)
        )
    )
    group = F.lit(None).cast("string") if by is None else F.col(by)
    rows = (
        df.select(group.alias("by"), F.explode(cells).alias("cell"))
        .groupBy("by", "cell.column", "cell.place", "cell.flaw")
        .agg(F.count("*").alias("rows"), F.min("cell.value").alias("example"))
        .collect()
    )
    groups: dict[Any, list[list[Row]]] = {}
    for row in rows:
        groups.setdefault(row["by"], [[] for _ in bins])[row["column"]].append(row)
    return {key: tuple(map(_counts, columns, bins)) for key, columns in groups.items()}


def total(counts: Mapping[Any, tuple[Counts, ...]], bins: Sequence[Bins]) -> tuple[Counts, ...]:
    """The counts of all groups together; of no group, zeros."""
    nothing = tuple(Counts(0, 0, 0, (0,) * len(column.labels)) for column in bins)
    return reduce(lambda one, other: tuple(map(add, one, other)), counts.values(), nothing)


def _between(low: float, high: float) -> str:
    return f"{high:.4g}" if math.nextafter(low, math.inf) == high else f"{low:.4g} to {high:.4g}"


def flaw_of(name: str) -> str:
    """The column of observed rows that says what is wrong with the value in the column `name`."""
    return f"{name}:flaw"


def _edges(deciles: Sequence[float] | None, least: float | None) -> tuple[float, ...]:
    if deciles is None or least is None:
        return ()
    edges = sorted(set(deciles))
    return (math.nextafter(least, -math.inf), *edges) if edges[0] == least else tuple(edges)


def _place(bins: Bins) -> Column:
    """The number of the bin that a row's value falls into, null where there is no value."""
    from pyspark.sql import functions as F

    value = F.col(bins.column)
    if bins.values is not None:
        known = F.array(*map(F.lit, bins.values)).cast("array<string>")
        place = F.array_position(known, value)
        return F.when(place == 0, len(bins.values)).otherwise(place.cast("int") - 1)
    above = (F.when(value > edge, 1).otherwise(0) for edge in bins.edges or ())
    return F.when(value.isNotNull(), reduce(add, above, F.lit(0)))


def _counts(rows: Sequence[Row], bins: Bins) -> Counts:
    """The counts of one column from its groups of rows."""
    places = [0] * len(bins.labels)
    for row in rows:
        if row["place"] is not None:
            places[row["place"]] += row["rows"]
    return Counts(
        rows=sum(row["rows"] for row in rows),
        missing=sum(row["rows"] for row in rows if row["flaw"] == MISSING),
        outside=sum(row["rows"] for row in rows if row["flaw"] == OUTSIDE),
        bins=tuple(places),
        example=next(
            (row["example"] for row in rows if bins.values is not None and row["place"] == len(bins.values)), None
        ),
    )
