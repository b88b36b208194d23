"""Where observations come from: a file, a folder, a URI, a table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from penguins import csv_reader, files, paths
from penguins.csv_reader import HEADER, MISSING_WORDS
from penguins.delimited import COLUMNS_SHOWN, columns_named
from penguins.errors import DataError, listed
from penguins.files import told
from penguins.spec import PENGUINS, Spec

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

__all__ = [
    "HEADER",
    "MISSING_WORDS",
    "columns_named",
    "is_path",
    "is_small",
    "located",
    "read",
    "require_columns",
    "require_table_name",
    "told",
]

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
    elif (found := files.find(spark, source, paths.to_read(source))).kind == ".csv":
        return csv_reader.read(spark, found, source, paths.to_read(source), spec, required)
    else:
        df = _read_parquet(spark, source, found)
    require_columns(df, required, source)
    return df


def located(source: str | Path) -> str:
    """Where to read from: what is there under a relative path or a `file:` URI gets the URI of its absolute path.

    Spark on a cluster would look for a relative path in its own file system, and a run that logs one can't be repeated.
    """
    text = str(source)
    path = paths.local(text) if text and not text.startswith("/") else None
    return text if path is None or not paths.exists(path) else paths.uri(path.resolve())


def is_small(source: str | Path) -> bool:
    """Whether `source` is a file on this machine that Spark reads in a moment."""
    path = paths.local(source)
    return path is not None and paths.is_file(path) and path.stat().st_size < SMALL


def require_columns(df: DataFrame, columns: tuple[str, ...], what: str) -> None:
    """Raise DataError that names every one of `columns` that `df`, described by `what`, doesn't have."""
    if missing := [name for name in columns if name not in df.columns]:
        raise DataError(f"{what} lacks {columns_named(missing)}; it has {listed(df.columns, COLUMNS_SHOWN)}.")


def is_path(source: str) -> bool:
    """Whether a source or target is a file, folder or URI by its looks; anything else is the name of a table."""
    return bool(re.search(r"[/\\:]|\.(csv|parquet)(\.\w+)?$", source, re.IGNORECASE))


def require_table_name(name: str) -> None:
    """Raise DataError when `name` can't be that of a table."""
    if not re.fullmatch(r"[\w`-]+(\.[\w`-]+){0,2}", name):
        raise DataError(
            f"{name!r} is neither a file nor a table: give a .csv or .parquet path, or [catalog.][schema.]table."
        )


def _read_parquet(spark: SparkSession, source: str, found: files.Files) -> DataFrame:
    """Parquet as Spark reads it, but for times in nanoseconds, over which Spark refuses the whole file.

    They come as times in microseconds, the finest that Spark has; where only Spark can see the file, as whole numbers.
    The session reads such columns from then on.
    """
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException
    from pyspark.sql import functions as F

    def read() -> DataFrame:
        return spark.read.options(**paths.options(found.here)).parquet(paths.to_read(source))

    try:
        return read()
    except (Py4JJavaError, PySparkException) as error:
        if "NANOS" not in str(error):
            return told(read, source)
    try:
        spark.conf.set("spark.sql.legacy.parquet.nanosAsLong", "true")
    except PySparkException as error:  # serverless Databricks has it not
        raise DataError(
            f"{source} has times in nanoseconds, which this Spark can't read: write it with microseconds, "
            'in pandas by to_parquet(..., coerce_timestamps="us").'
        ) from error
    df = told(read, source)
    times = {name: F.expr(text) for name, text in _nanoseconds(found).items() if name in df.columns}
    return df.withColumns(times)


def _nanoseconds(found: files.Files) -> dict[str, str]:
    """What makes times of the columns that hold nanoseconds since 1970, as SQL by name; none for files elsewhere."""
    import pyarrow.parquet
    from pyarrow import types

    texts = {}
    for field in pyarrow.parquet.read_schema(found.here[0]) if found.here else ():
        if types.is_timestamp(field.type) and field.type.unit == "ns":
            name = field.name.replace("`", "``")
            since = f"make_dt_interval(0, 0, 0, cast(`{name}` div 1000 as decimal(20, 0)) * 0.000001BD)"
            # A time without a zone must not depend on the session's.
            naive = f"timestamp_ntz'1970-01-01 00:00:00' + {since}"
            texts[field.name] = naive if field.type.tz is None else f"timestamp_micros(`{name}` div 1000)"
    return texts


def _read_table(spark: SparkSession, name: str) -> DataFrame:
    require_table_name(name)
    return told(lambda: spark.read.table(name), name)
