"""Where rows go: a CSV file, a Parquet folder or a table, whole or not at all."""

from __future__ import annotations

import csv
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

from penguins import atomic, paths
from penguins.errors import DataError, StoppedError
from penguins.source import is_path, located, require_table_name, told

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

T = TypeVar("T")

SEPARATOR = "; "
"""What stands between the texts of an array in a CSV file, which has no arrays."""

CSV = {
    # A quote within quotes is written twice, as RFC 4180 has it; a text keeps the spaces at its ends.
    "escape": '"',
    # Where Spark isn't told how lines end, it takes the first line end it meets when it reads, even within quotes.
    "lineSep": "\n",
    "ignoreLeadingWhiteSpace": "false",
    "ignoreTrailingWhiteSpace": "false",
    "timeZone": "UTC",
}

FAILURE = "can't be written"

FAILURE_AGAIN = "can't be read again (on a cluster, write to a table or to a place that all its machines share)"


def require_free(target: str, overwrite: bool) -> None:
    """Raise DataError when a path is no place for rows, or holds something that may not be overwritten."""
    if not is_path(target):
        require_table_name(target)
        return
    if not re.search(r"\.(csv|parquet)/?$", target, re.IGNORECASE):
        raise DataError(f"{target} can't be written: give a path that ends with .csv or .parquet, or a table.")
    path = _local(target)
    if path is not None and os.path.lexists(path) and not overwrite:
        raise _taken(target)


def require_lasting(spark: SparkSession, target: str) -> None:
    """Raise DataError when `target` is a table, and the tables of this Spark end with its process."""
    elsewhere = {"SPARK_REMOTE", "DATABRICKS_RUNTIME_VERSION"} & set(os.environ)
    if not (is_path(target) or elsewhere) and spark.conf.get("spark.sql.catalogImplementation") == "in-memory":
        raise DataError(
            f"The table {target} would be gone when the command ends, as all tables of this Spark: "
            "give a path that ends with .csv or .parquet."
        )


def require_apart(df: DataFrame, source: str | Path, target: str) -> None:
    """Raise DataError when `target` is, holds, or lies in what `df` was read from: `source`."""
    if is_path(target):
        to, origin = _comparable(target), located(source)
        files = [_comparable(file) for file in df.inputFiles()]
        lies_in = is_path(origin) and f"{to}/".startswith(f"{_comparable(origin)}/")
        is_read = lies_in or any(f"{file}/".startswith(f"{to}/") for file in files)
    else:
        is_read = not is_path(str(source)) and _full_name(df, target) == _full_name(df, str(source))
    if is_read:
        raise DataError(f"{target} is where the rows are read from ({source}): give another place for the result.")


def write(df: DataFrame, target: str, check: Callable[[DataFrame], T], *, overwrite: bool = False) -> T:
    """Write `df` beside `target`, let `check` look at what stands there, and put it in place unless that raises.

    A path that ends with `.csv` becomes one file (arrays of text are joined by `; `, times are in UTC), one that ends
    with `.parquet` a folder as Spark writes it, and anything else a table. Returns what `check` returns; of a CSV it
    gets every column as text.
    A file or folder on this machine, or under /Volumes, is renamed into place as `atomic.put` says. A table is filled
    from a finished one of its own, by one `saveAsTable`; if that fails or is stopped, the finished one stays, and the
    error names it. At any other URI nothing can be renamed: Spark writes a folder in place, which is whole when it
    holds `_SUCCESS`, and a `check` that raises leaves it there.
    Raises DataError when there is something at `target` and not `overwrite`, or it can't be written.
    """
    require_free(target, overwrite)
    if not is_path(target):
        return _write_table(df, target, check, overwrite)
    if (path := _local(target)) is not None:
        return _write_beside(df, path, target, check, overwrite)
    _save(df, target, target, "overwrite" if overwrite else "error", header=True)
    return _checked(df, target, target, check)


def _write_beside(df: DataFrame, path: Path, target: str, check: Callable[[DataFrame], T], overwrite: bool) -> T:
    try:
        with atomic.beside(path) as folder:
            whole = folder / "parts"
            _save(df, paths.to_write(whole), target, "error", header=False)
            if _is_csv(target):
                whole = _joined(whole, df.columns)
            # Of the very file that is put in place, so that nothing between Spark and it goes unnoticed.
            answer = _checked(df, paths.to_read(whole), target, check)
            try:
                atomic.put(whole, path, overwrite=overwrite)
            except FileExistsError as error:
                raise _taken(target) from error
    except OSError as error:
        raise DataError(f"{target} {FAILURE}: {error.strerror or error}.") from error
    return answer


def _write_table(df: DataFrame, name: str, check: Callable[[DataFrame], T], overwrite: bool) -> T:
    spark = df.sparkSession
    if not overwrite and told(lambda: spark.catalog.tableExists(name), name, FAILURE):
        raise _taken(name)
    beside = re.sub(r"(`?)$", rf"_beside_{uuid4().hex[:8]}\1", name, count=1)

    def drop() -> None:
        told(lambda: spark.sql(f"DROP TABLE IF EXISTS {beside}"), name, FAILURE)

    try:
        told(lambda: df.write.saveAsTable(beside), name, FAILURE)
        answer = check(spark.table(beside))
    except BaseException:
        drop()
        raise
    # Delta keeps a table's old columns otherwise; where tables are Parquet, the option means nothing.
    writer = spark.table(beside).write.option("overwriteSchema", "true")
    # What fails here may have dropped the old table already, so that the finished one is all there is.
    failure = f"{FAILURE} (all its rows are in the table {beside})"
    try:
        told(lambda: writer.mode("overwrite" if overwrite else "error").saveAsTable(name), name, failure)
    except KeyboardInterrupt as error:
        raise StoppedError(f"{name} {failure}: it was stopped.") from error
    drop()
    return answer


def _save(df: DataFrame, place: str, target: str, mode: str, *, header: bool) -> None:
    """Write a folder of part files in the format that the name of `target` says."""
    if _is_csv(target):
        writer = _flat(df).write.mode(mode).options(**CSV, header=header)
        told(lambda: writer.csv(place), target, FAILURE)
    else:
        told(lambda: df.write.mode(mode).parquet(place), target, FAILURE)


def _checked(df: DataFrame, place: str, target: str, check: Callable[[DataFrame], T]) -> T:
    """What `check` says of the rows at `place`, which were those of `df`: text from a CSV, which has a header."""

    def again() -> T:
        spark = df.sparkSession
        return check(_read_text(spark, place, df.columns) if _is_csv(target) else spark.read.parquet(place))

    return told(again, target, FAILURE_AGAIN)


def _read_text(spark: SparkSession, place: str, columns: list[str]) -> DataFrame:
    from pyspark.sql.types import StringType, StructField, StructType

    # Numbered, because Spark takes a column called `_corrupt_record` for its own, and not for one of the file.
    schema = StructType([StructField(f"c{place}", StringType()) for place in range(len(columns))])
    return spark.read.schema(schema).options(**CSV, header="true", multiLine="true").csv(place).toDF(*columns)


def _is_csv(target: str) -> bool:
    return target.rstrip("/").lower().endswith(".csv")


def _flat(df: DataFrame) -> DataFrame:
    """The columns with every array of text as one text."""
    from pyspark.sql import functions as F
    from pyspark.sql.types import ArrayType, StringType

    lists = [field.name for field in df.schema if field.dataType == ArrayType(StringType(), True)]
    lists += [field.name for field in df.schema if field.dataType == ArrayType(StringType(), False)]
    # A quoted name, because only a spec's columns are known to be free of dots.
    quoted = {name: F.col(f"`{name.replace('`', '``')}`") for name in lists}
    joined = {name: F.when(column.isNotNull(), F.concat_ws(SEPARATOR, column)) for name, column in quoted.items()}
    return df.withColumns(joined) if joined else df


def _joined(parts: Path, header: list[str]) -> Path:
    """One CSV file of the part files, in their order, below a header."""
    whole = parts.with_name("whole.csv")
    with whole.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerow(header)
    with whole.open("ab") as file:
        for part in sorted(parts.glob("part-*.csv")):
            with part.open("rb") as rows:
                shutil.copyfileobj(rows, file, 2**20)
    return whole


def _local(target: str) -> Path | None:
    """The target as an absolute path that this machine can rename; None for a URI that only Spark can reach."""
    path = paths.local(target)
    return None if path is None else path.absolute()


def _comparable(place: str) -> str:
    path = paths.local(place.removeprefix("dbfs:"))
    return place.rstrip("/") if path is None else str(path.resolve())


def _full_name(df: DataFrame, table: str) -> list[str]:
    catalog = df.sparkSession.catalog
    parts = table.replace("`", "").lower().split(".")
    return [catalog.currentCatalog().lower(), catalog.currentDatabase().lower()][: 3 - len(parts)] + parts


def _taken(target: str) -> DataError:
    return DataError(f"{target} exists already: give another --output, or --overwrite to replace it.")
