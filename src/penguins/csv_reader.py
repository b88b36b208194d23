"""Read CSV files with Spark: with declared types, and every line that doesn't fit kept with its text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import unquote

from penguins import delimited, paths
from penguins.delimited import GAPS, Layout
from penguins.errors import DataError, listed
from penguins.files import Files, told
from penguins.spec import Spec

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

CORRUPT_RECORD = "_corrupt_record"
"""Spark's own name for the column that keeps the text of a CSV line that doesn't fit the schema."""

HEADER = "header"
"""The key in that column's metadata under which the file's column names travel."""

MISSING_WORDS = "missing"
"""The key in that column's metadata under which the words travel that stand for a missing value in this file."""

MOST_HERE = 2 * 2**30
"""Bytes of files on this machine that are looked at here; of more, Spark looks at them with all its cores."""


def read(
    spark: SparkSession, files: Files, source: str, pattern: str, spec: Spec, required: tuple[str, ...]
) -> DataFrame:
    """The rows of the CSV `files` of a source, which Spark reads by `pattern`, with types as the spec says.

    The columns are the header's (`delimited.column_names`), then `_corrupt_record` and those of folders' names.
    Raises DataError when a file isn't UTF-8, or the headers aren't what they must be.
    """
    from pyspark.sql.types import DoubleType, StringType, StructField, StructType

    layouts = _layouts(spark, files, source, pattern)
    layout = _agreed(layouts, source)
    delimited.require_header(layout, [name for name in required if name not in files.partitions], source)
    header = delimited.column_names(layout.header)
    numbers = {name for name in required if name not in spec.categorical}
    fields = [StructField(name, DoubleType() if name in numbers else StringType()) for name in header]
    name = CORRUPT_RECORD
    while name in header:  # as in a quarantine file that was corrected and comes back
        name += "_"
    # What is known of the file travels as metadata, so that `check` can read a rejected line again whatever happens to
    # the columns.
    corrupt = StructField(name, StringType(), metadata={HEADER: header, MISSING_WORDS: list(GAPS)})
    reader = spark.read.schema(StructType([*fields, corrupt])).options(
        **paths.options(files.here),
        header=True,
        mode="PERMISSIVE",
        # A quote within quotes is written twice, as RFC 4180 has it and pandas and Excel write it.
        escape='"',
        ignoreLeadingWhiteSpace=True,
        ignoreTrailingWhiteSpace=True,
        columnNameOfCorruptRecord=name,
        # Spark would otherwise not look at columns that a query doesn't use, and find a line bad in one query only.
        columnPruning=False,
    )
    if any(one.has_line_breaks for one in layouts.values()):
        # Spark doesn't split such a file among cores. It would also guess how lines end, from the first that does.
        has_line_feeds = any("\n" in one.start for one in layouts.values()) or not files.here
        reader = reader.options(multiLine=True, lineSep="\n" if has_line_feeds else "\r")
    return reader.csv(pattern)


def _layouts(spark: SparkSession, files: Files, source: str, pattern: str) -> dict[str, Layout]:
    """What each file that isn't empty looks like, by its name."""
    is_open = all(delimited.suffixes(file.name)[1] in delimited.OPENERS for file in files.here)
    if files.here and is_open and sum(file.stat().st_size for file in files.here) < MOST_HERE:
        found = {str(file): delimited.scan(file) for file in files.here}
    else:
        found = _scan_with_spark(spark, files, source, pattern)
    return {file: layout for file, layout in found.items() if layout.header}


def _scan_with_spark(spark: SparkSession, files: Files, source: str, pattern: str) -> dict[str, Layout]:
    """What `delimited.scan` finds, by one job over the lines of all files, which takes a fifth of the time of parsing.

    Files whose quotes don't go in pairs on a line are then read line by line here.
    """
    from pyspark.sql import functions as F

    text = F.col("value")
    lines = (
        spark.read.options(**paths.options(files.here))
        .text(pattern)
        .select(
            text.cast("binary").alias("bytes"),
            F.col("_metadata.file_path").alias("file"),
            F.struct("_metadata.file_block_start", F.monotonically_increasing_id()).alias("place"),
            F.is_valid_utf8(text).alias("is_valid"),
            (F.length(F.regexp_replace(text, '[^"]+', "")) % 2 == 1).alias("is_odd"),
            (F.trim(text) == "").alias("is_blank"),
        )
    )
    each = lines.groupBy("file").agg(
        F.min_by("bytes", F.when(~F.col("is_blank"), F.col("place"))).alias("first"),
        F.min_by("bytes", F.when(~F.col("is_valid"), F.col("place"))).alias("invalid"),
        F.max("is_odd").alias("is_odd"),
    )
    found = {}
    for row in told(each.collect, source):
        first = bytes(row["first"] or b"")
        delimited.require_one_byte_units(first[:1000], row["file"])
        if row["invalid"] is not None:
            raise _not_utf8(row["file"], bytes(row["invalid"]))
        found[row["file"]] = _layout(spark, unquote(row["file"]), first.decode().removeprefix("\ufeff"), row["is_odd"])
    return found


def _layout(spark: SparkSession, file: str, first: str, is_odd: bool) -> Layout:
    if not is_odd:
        return Layout(delimited.header(first, file), False, first)
    lines = spark.read.text(paths.literal(file))
    has_line_breaks = delimited.has_line_breaks((f"{row['value']}\n" for row in lines.toLocalIterator()), file)
    if has_line_breaks and delimited.has_odd_line(first):
        first = "\n".join(row["value"] for row in lines.limit(100).collect())
    return Layout(delimited.header(first, file), has_line_breaks, first)


def _not_utf8(file: str, line: bytes) -> DataError:
    try:
        line.decode()
    except UnicodeDecodeError as error:
        shown = line.decode("latin-1")[max(0, error.start - 20) : error.start + 20]
        return delimited.not_utf8(file, f"a line with {shown!r}", line[error.start])
    raise AssertionError(f"{line!r} is UTF-8 for Python and not for Spark")


def _agreed(layouts: dict[str, Layout], source: str) -> Layout:
    """The layout that all files have. Raises DataError when their headers differ."""
    if not layouts:
        return Layout((), False, "")
    files: Iterable[str] = iter(layouts)
    first = next(iter(files))
    for file in files:
        if _lower(layouts[file]) != _lower(layouts[first]):
            raise DataError(
                f"The files of {source} have different headers: {first} has {_shown(layouts[first])}, "
                f"and {file} has {_shown(layouts[file])}. Give each of them the same columns in the same order."
            )
    return layouts[first]


def _lower(layout: Layout) -> list[str]:
    return [name.lower() for name in layout.header]


def _shown(layout: Layout) -> str:
    return listed(layout.header, delimited.COLUMNS_SHOWN)
