"""Where observations come from: a file, a folder, a URI, a table."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from penguins.errors import DataError, first_sentence
from penguins.spec import PENGUINS, Spec

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

T = TypeVar("T")

CORRUPT_RECORD = "_corrupt_record"
"""Spark's own name for the column that keeps the text of a CSV line that doesn't fit the schema."""

HEADER = "header"
"""The key in that column's metadata under which the file's column names travel."""

SMALL = 16 * 2**20
"""Bytes; about half a million birds as CSV."""


def read(spark: SparkSession, source: str | Path, spec: Spec = PENGUINS, *, labelled: bool = True) -> DataFrame:
    """Read observations from a CSV or Parquet file, a folder of either, a URI or Volumes path, or a table by name.

    Returns the columns as the source has them; of a CSV, the spec's columns with declared types (text for
    categories, double for numbers and the label), any other column as text, and `_corrupt_record` with the
    whole line where something didn't fit. Unless the rows are `labelled`, the label is a column like any other: it
    need not be there, and may hold any text.
    Raises DataError when there is nothing to read or a column is missing.
    """
    source = located(source)
    required = spec.columns if labelled else spec.features
    if not is_path(source):
        df = _read_table(spark, source)
    elif _file_format(spark, source) == "csv":
        return _read_csv(spark, source, spec, required)
    else:
        df = told(lambda: spark.read.parquet(_literal(source)), source)
    require_columns(df, required, source)
    return df


def located(source: str | Path) -> str:
    """Where to read from: a relative path to something that is there becomes absolute, all else stays as it is.

    Spark on a cluster would look for a relative path in its own file system, and a run that logs one can't be repeated.
    """
    path = Path(source)
    is_here = str(source) and not path.is_absolute() and path.exists()
    return f"file:{path.resolve()}" if is_here else str(source)


def is_small(source: str | Path) -> bool:
    """Whether `source` is a file on this machine that Spark reads in a moment."""
    path = Path(located(source).removeprefix("file:"))
    return path.is_file() and path.stat().st_size < SMALL


def require_columns(df: DataFrame, columns: tuple[str, ...], what: str) -> None:
    """Raise DataError that names every one of `columns` that `df`, described by `what`, doesn't have."""
    if missing := [name for name in columns if name not in df.columns]:
        raise DataError(f"{what} lacks {columns_named(missing)}; it has {', '.join(df.columns)}.")


def is_path(source: str) -> bool:
    """Whether a source or target is a file, folder or URI by its looks; anything else is the name of a table."""
    return bool(re.search(r"[/\\:]|\.(csv|parquet)(\.\w+)?$", source, re.IGNORECASE))


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
        kinds = ", ".join(sorted(suffix or "a file without a suffix" for suffix in found))
        raise DataError(f"{source} can't be read as {kinds}: it must be .csv or .parquet, or a folder of one of them.")
    return found.pop().removeprefix(".")


def require_table_name(name: str) -> None:
    """Raise DataError when `name` can't be that of a table."""
    if not re.fullmatch(r"[\w`-]+(\.[\w`-]+){0,2}", name):
        raise DataError(
            f"{name!r} is neither a file nor a table: give a .csv or .parquet path, or [catalog.][schema.]table."
        )


def _read_table(spark: SparkSession, name: str) -> DataFrame:
    require_table_name(name)
    return told(lambda: spark.read.table(name), name)


def _read_csv(spark: SparkSession, source: str, spec: Spec, required: tuple[str, ...]) -> DataFrame:
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
        raise DataError(f"{source} is empty: its first line must be a header with {', '.join(required)}.")
    missing = [name for name in required if name not in header]
    # Spark puts its place behind a name that stands twice.
    if twice := [name for name in missing if sum(of == f"{name}{n}" for n, of in enumerate(header)) > 1]:
        raise DataError(f"{source} has {columns_named(twice)} more than once: name each column once.")
    if len(missing) == len(required) and any(re.fullmatch(r"[-+]?\d+(\.\d*)?", name) for name in header):
        raise DataError(
            f"{source} has no header: its first line must name {', '.join(required)}, but reads {','.join(header)!r}."
        )
    if missing:
        raise DataError(f"{source} lacks {columns_named(missing)}; its header has {', '.join(header)}.")
    numbers = {name for name in required if name not in spec.categorical}
    fields = [StructField(name, DoubleType() if name in numbers else StringType()) for name in header]
    # The header travels as metadata, so that `check` can read a rejected line again whatever happens to the columns.
    name = CORRUPT_RECORD
    while name in header:  # as in a quarantine file that was corrected and comes back
        name += "_"
    corrupt = StructField(name, StringType(), metadata={HEADER: header})
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


def told(attempt: Callable[[], T], source: str, failure: str = "can't be read") -> T:
    """Run `attempt`, and turn Spark's account of a failure into one sentence about `source`."""
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    try:
        return attempt()
    except Py4JJavaError as error:
        raise DataError(f"{source} {failure}: {first_sentence(error)}") from error
    except PySparkException as error:
        condition = error.getCondition() or ""
        if condition == "PATH_NOT_FOUND":
            raise DataError(
                f"{source} doesn't exist: give a .csv or .parquet file, a folder of them, or a table."
            ) from error
        if condition == "TABLE_OR_VIEW_NOT_FOUND":
            raise DataError(f"The table {source} doesn't exist, and no file of that name does either.") from error
        raise DataError(f"{source} {failure}: {first_sentence(error)}") from error


def columns_named(names: list[str]) -> str:
    """`the column A`, or `the columns A, B`."""
    return f"the column{'s' if len(names) > 1 else ''} {', '.join(names)}"
