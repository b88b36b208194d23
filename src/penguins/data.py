"""Observations: setting bad rows aside, splitting the rest, describing them.

`read` and the spec of a table have modules of their own, and are at hand here as well.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

from penguins import atomic
from penguins.delimited import GAPS, columns_named
from penguins.errors import DataError, listed
from penguins.source import HEADER, MISSING_WORDS, is_small, located, read, require_columns, told
from penguins.spec import PENGUINS, Numeric, Spec

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, Row

__all__ = [
    "PENGUINS",
    "Numeric",
    "Profile",
    "Spec",
    "cached",
    "check",
    "count_reasons",
    "digest",
    "flaws",
    "is_small",
    "located",
    "profile",
    "profiles",
    "read",
    "require_columns",
    "split",
    "told",
    "unscorable",
    "write_reasons",
]

REASONS = "reasons"

NO_CACHE = "NOT_SUPPORTED_WITH_SERVERLESS"
"""How serverless Databricks refuses to cache."""

FOLD = "_fold"

NOT_FINITE = ("nan", "-nan")
"""Numbers as text that are none, and no gap where the text isn't a CSV's."""


def check(df: DataFrame, spec: Spec = PENGUINS) -> tuple[DataFrame, DataFrame]:
    """Set aside the rows that break a rule of the spec; every row of `df` is in exactly one of the two results.

    Returns the accepted rows, with the spec's columns only (categories as text, numbers as double, the label as
    int), and the quarantined rows, with all columns as they came and `reasons`, an array of sentences (in place of a
    column of that name, as a corrected quarantine file has it).
    Raises DataError when a column has a type that no value of the spec could have.
    """
    from pyspark.sql import functions as F

    _require_types(df, spec.columns, spec)
    is_broken = _is_broken(df, _reasons(df, spec, {}))
    accepted = df.where(~is_broken).select(
        *(F.col(name).cast("string").alias(name) for name in spec.categorical),
        *(_number(df, numeric.name).alias(numeric.name) for numeric in spec.numeric),
        _number(df, spec.label).cast("int").alias(spec.label),
    )
    # Parsing a rejected line again tells text from nothing; it is slow, so only quarantined rows pay for it.
    return accepted, df.where(is_broken).withColumn(REASONS, _explained(_reasons(df, spec, _texts(df))))


def unscorable(df: DataFrame, spec: Spec, known: Mapping[str, Sequence[str]]) -> Column:
    """Why a model can't score a row: an array of sentences, or null where it can.

    `known` holds the values of each categorical column that the model was fitted on. No label is needed, and a value
    outside of its range is no reason: the model has an answer to it.
    Raises DataError when a feature is missing or has a type that no value of the spec could have.
    """
    from pyspark.sql import functions as F

    _require_types(df, spec.features, spec)

    def reasons(texts: dict[str, Column]) -> list[Column]:
        categories = (
            _category_reason(df, name).when(
                ~F.col(name).cast("string").isin(*labels), f"{name} is unknown to the model"
            )
            for name, labels in known.items()
        )
        return [*categories, *(_number_reason(df, numeric.name, texts) for numeric in spec.numeric)]

    return F.when(_is_broken(df, reasons({})), _explained(reasons(_texts(df))))


def flaws(df: DataFrame, spec: Spec = PENGUINS) -> dict[str, Column]:
    """By column of the spec, the sentence that says what is wrong with its value, null where nothing is.

    The label is left out where `df` has none.
    Raises DataError when a column has a type that no value of the spec could have.
    """
    names = spec.columns if spec.label in df.columns else spec.features
    _require_types(df, names, spec)
    return dict(zip(names, _reasons(df, spec, _texts(df)), strict=False))


def count_reasons(quarantined: DataFrame) -> tuple[int, dict[str, int]]:
    """How many rows were quarantined, and how many for each reason, the most frequent first; one Spark job.

    A row with two reasons counts once in the first figure and under both reasons.
    """
    counts: dict[str, int] = {}
    rows = 0
    for reasons, count in quarantined.groupBy(REASONS).count().collect():
        rows += count
        for reason in reasons:
            counts[reason] = counts.get(reason, 0) + count
    return rows, dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def write_reasons(quarantined: DataFrame, target: Path) -> None:
    """Write quarantined rows to a CSV file, row by row, reasons joined by `; `, and put only a whole file in place.

    Raises DataError when there is something at `target` already, or nothing can be written there.
    """
    if os.path.lexists(target):
        raise DataError(f"{target} exists already: give another path for the quarantined rows, or remove it first.")
    try:
        with atomic.beside(target) as folder:
            whole = folder / "quarantined.csv"
            with whole.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(quarantined.columns)
                for row in quarantined.toLocalIterator():
                    writer.writerow(
                        ["; ".join(value) if name == REASONS else value for name, value in row.asDict().items()]
                    )
            atomic.put(whole, target)
    except OSError as error:
        raise DataError(f"{target} can't be written: {error.strerror or error}.") from error


def split(
    df: DataFrame, test_fraction: float = 0.3, seed: int = 42, spec: Spec = PENGUINS
) -> tuple[DataFrame, DataFrame]:
    """Split accepted rows into training rows and test rows by a hash of each row's values and the seed.

    A row's side depends on nothing but the row: not on its place, the partitions, or the rows around it, so
    growing data never moves a row, and identical rows stay together.
    Raises DataError when a class is missing on either side, with the counts.
    """
    is_test = _place(spec, seed) < test_fraction
    found = df.groupBy(is_test.alias("_is_test"), spec.label).count().collect()
    counts = {(row["_is_test"], row[spec.label]): row["count"] for row in found}
    by_side = {
        side: {name: counts.get((side == "test", code), 0) for code, name in enumerate(spec.classes)}
        for side in ("training", "test")
    }
    if any(count == 0 for side in by_side.values() for count in side.values()):
        told = " and ".join(f"{_counted(classes)} in {side}" for side, classes in by_side.items())
        raise DataError(f"A test fraction of {test_fraction:g} leaves a class without rows on one side: {told}.")
    return df.where(~is_test), df.where(is_test)


def with_folds(training: DataFrame, folds: int, measured: int, seed: int = 42, spec: Spec = PENGUINS) -> DataFrame:
    """The training rows with a column `_fold` from 0 to `folds` - 1, of which the first `measured` are validated on.

    As with `split`, a hash of the row's values decides; another one than `split` takes for the same `seed`.
    Raises DataError when a class would be missing in such a fold, or in all the others, with the counts.
    """
    from pyspark.sql import functions as F

    # The last bit makes it another seed, and one of 64 bits again.
    folded = training.withColumn(FOLD, F.floor(_place(spec, seed ^ 1) * folds).cast("int"))
    found = folded.groupBy(FOLD, spec.label).count().collect()
    for fold in range(measured):
        sides = {name: dict.fromkeys(spec.classes, 0) for name in ("to fit", "to validate")}
        for row in found:
            side = "to validate" if row[FOLD] == fold else "to fit"
            sides[side][spec.classes[row[spec.label]]] += row["count"]
        if any(count == 0 for side in sides.values() for count in side.values()):
            told = " and ".join(f"{_counted(classes)} {name}" for name, classes in sides.items())
            raise DataError(
                f"Fold {fold + 1} of {folds} leaves a class without rows on one side: {told}; give more rows, fewer "
                "folds, or another seed."
            )
    return folded


@dataclass(frozen=True)
class Profile:
    """What a set of accepted rows holds: rows per class name, the values of each categorical column, and a digest.

    The digest stands for all the rows' values, in whatever order the rows come.
    """

    classes: dict[str, int]
    categories: dict[str, frozenset[str]]
    digest: str

    @property
    def rows(self) -> int:
        """The number of rows."""
        return sum(self.classes.values())


def profiles(sets: Mapping[str, DataFrame], spec: Spec = PENGUINS) -> dict[str, Profile]:
    """Describe several sets of accepted rows by name, in one Spark job."""
    from pyspark.sql import functions as F

    named = (rows.select(F.lit(name).alias("_set"), *spec.columns) for name, rows in sets.items())
    found = (
        reduce(lambda above, below: above.unionByName(below), named)
        .groupBy("_set", spec.label)
        .agg(*_hash_sums(spec.columns), *(F.collect_set(name).alias(name) for name in spec.categorical))
        .collect()
    )
    return {name: _profile([row for row in found if row["_set"] == name], spec) for name in sets}


def profile(df: DataFrame, spec: Spec = PENGUINS) -> Profile:
    """Describe one set of accepted rows, in one Spark job."""
    return profiles({"": df}, spec)[""]


def digest(df: DataFrame, columns: tuple[str, ...]) -> str:
    """What stands for all the values that rows have in `columns`, in whatever order the rows come; one Spark job."""
    return _digest([df.agg(*_hash_sums(columns)).collect()[0].asDict()])


def _hash_sums(columns: tuple[str, ...]) -> tuple[Column, ...]:
    from pyspark.sql import functions as F

    # Sums of the two halves of each row's hash: the order of rows doesn't matter, and doubles don't cancel out.
    row_hash = F.xxhash64(*columns)
    return (
        F.count("*").alias("_rows"),
        F.sum(F.shiftright(row_hash, 32)).alias("_high"),
        F.sum(row_hash.bitwiseAND(F.lit(0xFFFFFFFF))).alias("_low"),
    )


def _digest(groups: list[dict[str, int | None]]) -> str:
    total = [sum(group[name] or 0 for group in groups) for name in ("_rows", "_high", "_low")]
    return hashlib.sha256(repr(total).encode()).hexdigest()[:16]


def _profile(groups: list[Row], spec: Spec) -> Profile:
    counts = {group[spec.label]: group["_rows"] for group in groups}
    return Profile(
        classes={name: counts.get(code, 0) for code, name in enumerate(spec.classes)},
        categories={name: frozenset(value for group in groups for value in group[name]) for name in spec.categorical},
        digest=_digest([group.asDict() for group in groups]),
    )


@contextmanager
def cached(df: DataFrame) -> Iterator[DataFrame]:
    """Keep `df` in Spark's cache within the `with` block, and release it whatever happens there.

    Serverless Databricks has no such cache; there everything is read anew where it is used.
    """
    is_kept = _persist(df)
    try:
        yield df
    finally:
        if is_kept:
            df.unpersist()


def _persist(df: DataFrame) -> bool:
    from pyspark.errors import PySparkException

    try:
        df.persist()
    except PySparkException as error:
        if NO_CACHE not in f"{error.getCondition()} {error}":
            raise
        return False
    return True


def _place(spec: Spec, seed: int) -> Column:
    """Where the row's hash puts it: a uniform double in [0, 1), from the upper 53 bits."""
    from pyspark.sql import functions as F

    return F.shiftrightunsigned(F.xxhash64(*spec.columns, F.lit(seed)), 11) / F.lit(2.0**53)


def _require_types(df: DataFrame, columns: tuple[str, ...], spec: Spec) -> None:
    from pyspark.sql.types import AtomicType, BinaryType, BooleanType, NumericType, StringType

    require_columns(df, columns, "The data")
    # Spark doesn't tell `Island` from `island`, and would not know which one is meant.
    names = [name.lower() for name in df.columns]
    if twice := [name for name in columns if names.count(name.lower()) > 1]:
        raise DataError(f"The data has {columns_named(twice)} more than once, apart from upper and lower case.")
    number = (NumericType, StringType, BooleanType)
    wrong = [
        f"{name} is {df.schema[name].dataType.simpleString()}"
        for name in columns
        if not isinstance(df.schema[name].dataType, AtomicType if name in spec.categorical else number)
        or isinstance(df.schema[name].dataType, BinaryType)
    ]
    if wrong:
        raise DataError(f"A category must be text and a number must be a number or text, but {listed(wrong)}.")


def _number(df: DataFrame, name: str) -> Column:
    """The column as a double; null where its text is no number."""
    from pyspark.sql import functions as F

    return F.col(name).try_cast("double")


def _texts(df: DataFrame) -> dict[str, Column]:
    """What stood in each column of a CSV line that Spark couldn't fit into the schema."""
    from pyspark.sql import functions as F

    corrupt = _corrupt_record(df)
    if corrupt is None:
        return {}
    header = df.schema[corrupt].metadata[HEADER]
    # Numbered fields, because a header may hold any text and from_csv takes its schema as DDL.
    schema = ", ".join(f"c{place} string" for place in range(len(header)))
    written = F.from_csv(F.col(corrupt), schema, {"escape": '"'})
    return {name: written[f"c{place}"] for place, name in enumerate(header)}


def _missing_words(df: DataFrame) -> list[str]:
    """The words that stand for a missing value in a CSV; none where the rows come from elsewhere, with nulls."""
    corrupt = _corrupt_record(df)
    return [] if corrupt is None else list(df.schema[corrupt].metadata[MISSING_WORDS])


def _corrupt_record(df: DataFrame) -> str | None:
    """The column in which `read` kept lines that didn't fit; None where the rows come from elsewhere."""
    return next((field.name for field in df.schema if HEADER in field.metadata), None)


def _is_broken(df: DataFrame, reasons: list[Column]) -> Column:
    """Whether a row was rejected when it was read, or has one of the reasons."""
    from pyspark.sql import functions as F

    corrupt = _corrupt_record(df)
    rejected = [] if corrupt is None else [F.col(corrupt)]
    return F.coalesce(*rejected, *reasons).isNotNull()


def _explained(reasons: list[Column]) -> Column:
    """The reasons that a broken row has, as an array."""
    from pyspark.sql import functions as F

    found = F.array_compact(F.array(*reasons))
    # Said where nothing else explains why a line was rejected, as with one field too many.
    return F.when(F.size(found) == 0, F.array(F.lit("the line does not fit the header"))).otherwise(found)


def _reasons(df: DataFrame, spec: Spec, texts: dict[str, Column]) -> list[Column]:
    """One text column per column of the spec, null where its value keeps the rules; none for a label that isn't there.

    `texts` holds what was written before parsing.
    """
    from pyspark.sql import functions as F

    reasons = [_category_reason(df, name) for name in spec.categorical]
    for numeric in spec.numeric:
        allowed = f"{numeric.minimum:g} to {numeric.maximum:g} {numeric.unit}".rstrip()
        is_inside = _number(df, numeric.name).between(numeric.minimum, numeric.maximum)
        reasons.append(_number_reason(df, numeric.name, texts).when(~is_inside, f"{numeric.name} is outside {allowed}"))
    if spec.label not in df.columns:
        return reasons
    code = _number(df, spec.label)
    known = code.isin([float(place) for place in range(len(spec.classes))])
    reasons.append(
        F.when(_missing(df, spec.label, texts), f"{spec.label} is missing").when(
            ~F.coalesce(known, F.lit(False)), f"{spec.label} is not a class code (0 to {len(spec.classes) - 1})"
        )
    )
    return reasons


def _category_reason(df: DataFrame, name: str) -> Column:
    from pyspark.sql import functions as F

    # The words of a CSV are no gaps elsewhere: where there are nulls, NA may be Namibia.
    is_gap = F.col(name).isNull()
    if words := _missing_words(df):
        is_gap = is_gap | F.col(name).isin(words)
    empty = F.trim(F.col(name).cast("string")) == ""
    return F.when(is_gap, f"{name} is missing").when(empty, f"{name} is empty")


def _number_reason(df: DataFrame, name: str, texts: dict[str, Column]) -> Column:
    from pyspark.sql import functions as F

    value = _number(df, name)
    not_finite = F.isnan(value) | (F.abs(value) == float("inf"))
    return (
        F.when(_missing(df, name, texts), f"{name} is missing")
        .when(value.isNull(), f"{name} is not a number")
        .when(not_finite, f"{name} is not finite")
    )


def _missing(df: DataFrame, name: str, texts: dict[str, Column]) -> Column:
    from pyspark.sql import functions as F
    from pyspark.sql.types import StringType

    words = _missing_words(df)
    gap = F.col(name).isNull()
    if name in texts:
        gap = gap & (texts[name].isNull() | _is_gap(texts[name], words))
    # Only text can be blank; turning every number into text to look would be the dearest part of the check.
    if isinstance(df.schema[name].dataType, StringType):
        return gap | _is_gap(F.col(name), words or [word for word in GAPS if word.lower() not in NOT_FINITE])
    # What a CSV calls NaN has become a number that is none.
    return gap | F.isnan(name) if "NaN" in words else gap


def _is_gap(text: Column, words: Sequence[str]) -> Column:
    from pyspark.sql import functions as F

    return (F.trim(text) == "") | F.trim(text).isin(list(words))


def _counted(classes: dict[str, int]) -> str:
    return listed((f"{count} {name}" for name, count in classes.items()), 10)
