"""Observations: what they look like, reading them, setting bad rows aside, splitting them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from penguins.errors import DataError, ParameterError, first_sentence

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, Row, SparkSession

T = TypeVar("T")

CORRUPT_RECORD = "_corrupt_record"
"""Spark's own name for the column that keeps the text of a CSV line that doesn't fit the schema."""

REASONS = "reasons"

SMALL = 16 * 2**20
"""Bytes; about half a million birds as CSV."""


@dataclass(frozen=True)
class Numeric:
    """A numeric column: its name, its unit, and the range (inclusive) outside of which a value is a mistake."""

    name: str
    unit: str
    minimum: float
    maximum: float

    def __post_init__(self) -> None:
        if not self.minimum < self.maximum:
            raise ParameterError(f"The range of {self.name} is {self.minimum} to {self.maximum}: it must go upwards.")


@dataclass(frozen=True)
class Spec:
    """What a table of observations looks like; every function here takes one and defaults to PENGUINS.

    `classes` are the names of the label's codes: code 0 is the first name, code 1 the second, and so on.
    Raises ParameterError for fewer than two classes, no numeric column, or a name that stands twice.
    """

    categorical: tuple[str, ...]
    numeric: tuple[Numeric, ...]
    label: str
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise ParameterError(f"The spec has {len(self.classes)} classes: a classifier needs at least two.")
        if not self.numeric:
            raise ParameterError("The spec has no numeric column: it needs at least one.")
        for names in (self.columns, self.classes):
            if len({name.lower() for name in names}) < len(names):
                raise ParameterError(f"Every name in a spec must be its own, but one stands twice in {_listed(names)}.")
        if strange := [name for name in self.columns if re.search(r"[.`]", name)]:
            raise ParameterError(f"Spark reads a dot or backtick as syntax: give {_listed(strange)} another name.")
        if self.name_column == "prediction":
            raise ParameterError(f"The label can't be called {self.label}: an answer's class code has that name.")

    @property
    def features(self) -> tuple[str, ...]:
        """The columns a model is asked with: the categorical ones, then the numeric ones."""
        return (*self.categorical, *(numeric.name for numeric in self.numeric))

    @property
    def columns(self) -> tuple[str, ...]:
        """The feature columns and the label."""
        return (*self.features, self.label)

    @property
    def name_column(self) -> str:
        """Where an answer holds the name of the predicted class: the label in lower case, `species` for PENGUINS."""
        return self.label.lower()


# A value below half of the smallest bird's, or above one and a half times the largest one's, is taken for a mistake.
PENGUINS = Spec(
    categorical=("Island",),
    numeric=(
        Numeric("CulmenLength", "mm", 16, 90),
        Numeric("CulmenDepth", "mm", 6.5, 32.5),
        Numeric("FlipperLength", "mm", 86, 347),
        Numeric("BodyMass", "g", 1350, 9450),
    ),
    label="Species",
    classes=("Adelie", "Gentoo", "Chinstrap"),
)


def read(spark: SparkSession, source: str | Path, spec: Spec = PENGUINS) -> DataFrame:
    """Read observations from a CSV or Parquet file, a folder of either, a URI or Volumes path, or a table by name.

    Returns the columns as the source has them; of a CSV, the spec's columns with declared types (text for
    categories, double for numbers and the label), any other column as text, and `_corrupt_record` with the
    whole line where something didn't fit. Raises DataError when there is nothing to read or a column is missing.
    """
    source = located(source)
    if not _is_path(source):
        df = _read_table(spark, source)
    elif _file_format(spark, source) == "csv":
        return _read_csv(spark, source, spec)
    else:
        df = told(lambda: spark.read.parquet(_literal(source)), source)
    require_columns(df, spec.columns, source)
    return df


def located(source: str | Path) -> str:
    """Where to read from: a relative path to something that is there becomes absolute, all else stays as it is.

    Spark on a cluster would look for a relative path in its own file system, and a run that logs one can't be repeated.
    """
    path = Path(source)
    is_here = str(source) and not path.is_absolute() and path.exists()
    return f"file:{path.resolve()}" if is_here else str(source)


def check(df: DataFrame, spec: Spec = PENGUINS) -> tuple[DataFrame, DataFrame]:
    """Set aside the rows that break a rule of the spec; every row of `df` is in exactly one of the two results.

    Returns the accepted rows, with the spec's columns only (categories as text, numbers as double, the label as
    int), and the quarantined rows, with all columns as they came and `reasons`, an array of sentences (in place of a
    column of that name, as a corrected quarantine file has it).
    Raises DataError when a column has a type that no value of the spec could have.
    """
    from pyspark.sql import functions as F

    _require_types(df, spec)
    is_broken = F.coalesce(*_reasons(df, spec, {})).isNotNull()
    accepted = df.where(~is_broken).select(
        *(F.col(name).cast("string").alias(name) for name in spec.categorical),
        *(_number(df, numeric.name).alias(numeric.name) for numeric in spec.numeric),
        _number(df, spec.label).cast("int").alias(spec.label),
    )
    # Parsing a rejected line again tells text from nothing; it is slow, so only quarantined rows pay for it.
    reasons = F.array_compact(F.array(*_reasons(df, spec, _texts(df))))
    return accepted, df.where(is_broken).withColumn(REASONS, reasons)


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


def split(
    df: DataFrame, test_fraction: float = 0.3, seed: int = 42, spec: Spec = PENGUINS
) -> tuple[DataFrame, DataFrame]:
    """Split accepted rows into training rows and test rows by a hash of each row's values and the seed.

    A row's side depends on nothing but the row: not on its place, the partitions, or the rows around it, so
    growing data never moves a row, and identical rows stay together.
    Raises DataError when a class is missing on either side, with the counts.
    """
    from pyspark.sql import functions as F

    # The upper 53 bits of the hash are a uniform double in [0, 1).
    place = F.shiftrightunsigned(F.xxhash64(*spec.columns, F.lit(seed)), 11) / F.lit(2.0**53)
    is_test = place < test_fraction
    found = df.groupBy(is_test.alias("is_test"), spec.label).count().collect()
    counts = {(row["is_test"], row[spec.label]): row["count"] for row in found}
    by_side = {
        side: {name: counts.get((side == "test", code), 0) for code, name in enumerate(spec.classes)}
        for side in ("training", "test")
    }
    if any(count == 0 for side in by_side.values() for count in side.values()):
        told = " and ".join(f"{_counted(classes)} in {side}" for side, classes in by_side.items())
        raise DataError(f"A test fraction of {test_fraction:g} leaves a class without rows on one side: {told}.")
    return df.where(~is_test), df.where(is_test)


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

    named = (rows.select(F.lit(name).alias("set"), *spec.columns) for name, rows in sets.items())
    # Sums of the two halves of each row's hash: the order of rows doesn't matter, and doubles don't cancel out.
    row_hash = F.xxhash64(*spec.columns)
    found = (
        reduce(lambda above, below: above.unionByName(below), named)
        .groupBy("set", spec.label)
        .agg(
            F.count("*").alias("rows"),
            F.sum(F.shiftright(row_hash, 32)).alias("high"),
            F.sum(row_hash.bitwiseAND(F.lit(0xFFFFFFFF))).alias("low"),
            *(F.collect_set(name).alias(name) for name in spec.categorical),
        )
        .collect()
    )
    return {name: _profile([row for row in found if row["set"] == name], spec) for name in sets}


def profile(df: DataFrame, spec: Spec = PENGUINS) -> Profile:
    """Describe one set of accepted rows, in one Spark job."""
    return profiles({"": df}, spec)[""]


def _profile(groups: list[Row], spec: Spec) -> Profile:
    total = [sum(group[name] for group in groups) for name in ("rows", "high", "low")]
    counts = {group[spec.label]: group["rows"] for group in groups}
    return Profile(
        classes={name: counts.get(code, 0) for code, name in enumerate(spec.classes)},
        categories={name: frozenset(value for group in groups for value in group[name]) for name in spec.categorical},
        digest=hashlib.sha256(repr(total).encode()).hexdigest()[:16],
    )


@contextmanager
def cached(df: DataFrame) -> Iterator[DataFrame]:
    """Keep `df` in Spark's cache within the `with` block, and release it whatever happens there."""
    df.persist()
    try:
        yield df
    finally:
        df.unpersist()


def require_columns(df: DataFrame, columns: tuple[str, ...], what: str) -> None:
    """Raise DataError that names every one of `columns` that `df`, described by `what`, doesn't have."""
    if missing := [name for name in columns if name not in df.columns]:
        raise DataError(f"{what} lacks {_columns(missing)}; it has {_listed(df.columns)}.")


def is_small(source: str | Path) -> bool:
    """Whether `source` is a file on this machine that Spark reads in a moment."""
    path = Path(located(source).removeprefix("file:"))
    return path.is_file() and path.stat().st_size < SMALL


def _is_path(source: str) -> bool:
    return bool(re.search(r"[/\\:]|\.(csv|parquet)(\.\w+)?$", source))


def _literal(source: str) -> str:
    """A path for Spark, which would take `[`, `{`, `*` and `?` in the name of a file that is there for a pattern."""
    return re.sub(r"([\[\]{}*?\\])", r"\\\1", source) if Path(source.removeprefix("file:")).exists() else source


def _file_format(spark: SparkSession, source: str) -> str:
    """Which of the two formats the file, or every file of the folder, has; Spark lists, so that any URI works."""
    # Of a file on this machine, the name says it all.
    is_here = Path(source.removeprefix("file:")).is_file()
    files = (
        [source]
        if is_here
        else told(lambda: spark.read.format("binaryFile").load(_literal(source)).inputFiles(), source)
    )
    if not files:
        raise DataError(f"{source} holds no files: give a CSV or Parquet file, a folder of them, or a table.")
    plain = (re.sub(r"\.(gz|bz2|zst|snappy|lz4|deflate)$", "", name.lower()) for name in files)
    found = {PurePosixPath(name).suffix for name in plain}
    if found not in ({".csv"}, {".parquet"}):
        kinds = _listed(sorted(suffix or "a file without a suffix" for suffix in found))
        raise DataError(f"{source} can't be read as {kinds}: it must be .csv or .parquet, or a folder of one of them.")
    return found.pop().removeprefix(".")


def _read_table(spark: SparkSession, name: str) -> DataFrame:
    if not re.fullmatch(r"[\w`-]+(\.[\w`-]+){0,2}", name):
        raise DataError(
            f"{name!r} is neither a file nor a table: give a .csv or .parquet path, or [catalog.][schema.]table."
        )
    return told(lambda: spark.read.table(name), name)


def _read_csv(spark: SparkSession, source: str, spec: Spec) -> DataFrame:
    from pyspark.sql.types import DoubleType, StringType, StructField, StructType

    reader = spark.read.options(
        header=True,
        mode="PERMISSIVE",
        # A quote within quotes is written twice, as RFC 4180 has it and pandas and Excel write it.
        escape='"',
        ignoreLeadingWhiteSpace=True,
        ignoreTrailingWhiteSpace=True,
    )
    header = told(lambda: reader.csv(_literal(source)).columns, source)
    if not header:
        raise DataError(f"{source} is empty: its first line must be a header with {_listed(spec.columns)}.")
    missing = [name for name in spec.columns if name not in header]
    if len(missing) == len(spec.columns):
        raise DataError(
            f"{source} has no header: its first line must name {_listed(spec.columns)}, but reads {','.join(header)!r}."
        )
    if missing:
        raise DataError(f"{source} lacks {_columns(missing)}; its header has {_listed(header)}.")
    numbers = {numeric.name for numeric in spec.numeric} | {spec.label}
    fields = [StructField(name, DoubleType() if name in numbers else StringType()) for name in header]
    # The header travels as metadata, so that `check` can read a rejected line again whatever happens to the columns.
    name = CORRUPT_RECORD
    while name in header:  # as in a quarantine file that was corrected and comes back
        name += "_"
    corrupt = StructField(name, StringType(), metadata={"header": header})
    return (
        reader.schema(StructType([*fields, corrupt]))
        .options(
            columnNameOfCorruptRecord=name,
            # Spark then compares the header of every file in a folder with the first one's, instead of trusting it.
            enforceSchema=False,
            # Spark would otherwise not look at columns that a query doesn't use, and find a line bad in one query only.
            columnPruning=False,
        )
        .csv(_literal(source))
    )


def told(attempt: Callable[[], T], source: str) -> T:
    """Run `attempt`, and turn Spark's account of a failure into one sentence about `source`."""
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    try:
        return attempt()
    except Py4JJavaError as error:
        cause = error.java_exception
        while cause.getCause() is not None:
            cause = cause.getCause()
        raise DataError(f"{source} can't be read: {cause.getMessage()}") from error
    except PySparkException as error:
        condition = error.getCondition() or ""
        if condition == "PATH_NOT_FOUND":
            raise DataError(
                f"{source} doesn't exist: give a .csv or .parquet file, a folder of them, or a table."
            ) from error
        if condition == "TABLE_OR_VIEW_NOT_FOUND":
            raise DataError(f"The table {source} doesn't exist, and no file of that name does either.") from error
        raise DataError(f"{source} can't be read: {first_sentence(error)}") from error


def _require_types(df: DataFrame, spec: Spec) -> None:
    from pyspark.sql.types import AtomicType, BinaryType, BooleanType, NumericType, StringType

    require_columns(df, spec.columns, "The data")
    # Spark doesn't tell `Island` from `island`, and would not know which one is meant.
    names = [name.lower() for name in df.columns]
    if twice := [name for name in spec.columns if names.count(name.lower()) > 1]:
        raise DataError(f"The data has {_columns(twice)} more than once, apart from upper and lower case.")
    number = (NumericType, StringType, BooleanType)
    wrong = [
        f"{name} is {df.schema[name].dataType.simpleString()}"
        for name in spec.columns
        if not isinstance(df.schema[name].dataType, AtomicType if name in spec.categorical else number)
        or isinstance(df.schema[name].dataType, BinaryType)
    ]
    if wrong:
        raise DataError(f"A category must be text and a number must be a number or text, but {', '.join(wrong)}.")


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
    header = df.schema[corrupt].metadata["header"]
    # Numbered fields, because a header may hold any text and from_csv takes its schema as DDL.
    schema = ", ".join(f"c{place} string" for place in range(len(header)))
    written = F.from_csv(F.col(corrupt), schema, {"escape": '"'})
    return {name: written[f"c{place}"] for place, name in enumerate(header)}


def _corrupt_record(df: DataFrame) -> str | None:
    """The column in which `read` kept lines that didn't fit; None where the rows come from elsewhere."""
    return next((field.name for field in df.schema if "header" in field.metadata), None)


def _reasons(df: DataFrame, spec: Spec, texts: dict[str, Column]) -> list[Column]:
    """One text column per rule set, null where the row keeps it; `texts` holds what was written before parsing."""
    from pyspark.sql import functions as F

    nothing = F.lit(None).cast("string")

    def missing(name: str) -> Column:
        given = F.coalesce(F.col(name).cast("string"), texts.get(name, nothing))
        return given.isNull() | (F.trim(given) == "")

    def not_finite(value: Column) -> Column:
        return F.isnan(value) | (F.abs(value) == float("inf"))

    reasons = []
    for name in spec.categorical:
        empty = F.trim(F.col(name).cast("string")) == ""
        reasons.append(F.when(F.col(name).isNull(), f"{name} is missing").when(empty, f"{name} is empty"))
    for numeric in spec.numeric:
        name, value = numeric.name, _number(df, numeric.name)
        allowed = f"{numeric.minimum:g} to {numeric.maximum:g} {numeric.unit}".rstrip()
        reasons.append(
            F.when(missing(name), f"{name} is missing")
            .when(value.isNull(), f"{name} is not a number")
            .when(not_finite(value), f"{name} is not finite")
            .when(~value.between(numeric.minimum, numeric.maximum), f"{name} is outside {allowed}")
        )
    code = _number(df, spec.label)
    known = code.isin([float(place) for place in range(len(spec.classes))])
    reasons.append(
        F.when(missing(spec.label), f"{spec.label} is missing").when(
            ~F.coalesce(known, F.lit(False)), f"{spec.label} is not a class code (0 to {len(spec.classes) - 1})"
        )
    )
    if (corrupt := _corrupt_record(df)) is not None:
        # Only said where nothing else explains why the line didn't fit, as with one field too many.
        unexplained = F.coalesce(*reasons).isNull() & F.col(corrupt).isNotNull()
        reasons.append(F.when(unexplained, "the line does not fit the header"))
    return reasons


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _columns(names: list[str]) -> str:
    return f"the column{'s' if len(names) > 1 else ''} {_listed(names)}"


def _counted(classes: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in classes.items())
