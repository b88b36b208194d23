"""Which files a source of rows has: of which kind, in which folders, and none of them left out unsaid."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit

from penguins import paths
from penguins.delimited import suffixes
from penguins.errors import DataError, first_sentence, listed

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

T = TypeVar("T")

KINDS = (".csv", ".parquet")

TABLES = {"_delta_log": "a Delta table", ".hoodie": "a Hudi table", "metadata": "an Iceberg table"}
"""The folder by which a table is known that keeps a list of its files: what stands beside them may be stale."""


@dataclass(frozen=True)
class Files:
    """The files of a source, all of one kind (`.csv` or `.parquet`): those on this machine as paths, else as URIs.

    `partitions` are the columns that the names of folders such as `year=2026` hold.
    """

    kind: str
    here: tuple[Path, ...]
    elsewhere: tuple[str, ...]
    partitions: tuple[str, ...]


def find(spark: SparkSession, source: str, pattern: str) -> Files:
    """The files of the file, the folder or the URI `source`; `pattern` is what Spark is given for it.

    Raises DataError when there are none, when they are of several kinds or of another one, when they are a table's, or
    when there are folders among them that Spark would leave out.
    """
    path = paths.local(source)
    if path is not None and paths.is_file(path):
        # Of a file on this machine, the name says it all.
        return Files(_kind([path.name], source), (path,), (), ())
    if path is not None and paths.exists(path):
        if table := next((name for name in TABLES if _is_table(path, name)), None):
            raise _is_a_table(source, table)
        here = sorted(_visible(path))
        inner = [file.relative_to(path).as_posix() for file in here]
        return Files(_kind(inner, source), tuple(here), (), _partitions(inner, source))
    return _elsewhere(spark, source, pattern)


def _elsewhere(spark: SparkSession, source: str, pattern: str) -> Files:
    """Spark lists, so that any URI works."""
    listing = spark.read.format("binaryFile").option("recursiveFileLookup", "true")
    files = told(lambda: listing.load(pattern).inputFiles(), source)
    top = unquote(urlsplit(source).path).rstrip("/")
    paths = [unquote(urlsplit(file).path) for file in files]
    inner = [path.removeprefix(f"{top}/") for path in paths if path.startswith(f"{top}/")]
    places = [] if paths == [top] else [pattern.rstrip("/")]
    if re.search(r"[*?\[{]", source):
        places.append(pattern.rstrip("/").rpartition("/")[0])
    for place in places:
        if table := next((name for name in TABLES if _has(spark, f"{place}/{name}", name)), None):
            raise _is_a_table(source, table)
    if len(inner) < len(files):  # a file, or a pattern, of whose folders Spark takes only what is in them
        below = set(files) - set(told(lambda: spark.read.format("binaryFile").load(pattern).inputFiles(), source))
        if below:
            raise DataError(f"{source} leaves out {listed(sorted(map(unquote, below)))}: give a pattern that has them.")
        inner = [PurePosixPath(path).name for path in paths]
    return Files(_kind(inner, source), (), tuple(files), _partitions(inner, source))


def _has(spark: SparkSession, folder: str, name: str) -> bool:
    from pyspark.errors import PySparkException

    try:
        files = spark.read.format("binaryFile").load(folder).inputFiles()
    except PySparkException:  # it isn't there
        return False
    return name != "metadata" or any(file.endswith(".metadata.json") for file in files)


def _is_table(folder: Path, name: str) -> bool:
    return any((folder / name).glob("*.metadata.json")) if name == "metadata" else (folder / name).is_dir()


def _is_a_table(source: str, name: str) -> DataError:
    return DataError(
        f"{source} is the folder of {TABLES[name]} (it has {name}), and some of its files may be stale: "
        "give the table's name, as [catalog.][schema.]table."
    )


def _visible(folder: Path) -> Iterator[Path]:
    """The files in a folder and in those below it that Spark doesn't take for hidden."""
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not paths.is_hidden(name)]
        yield from (Path(place, name) for name in files if not paths.is_hidden(name))


def _kind(names: Sequence[str], source: str) -> str:
    if not names:
        raise DataError(f"{source} holds no files: give a CSV or Parquet file, a folder of them, or a table.")
    found = {suffixes(name)[0] for name in names}
    if len(found) > 1 or not found <= set(KINDS):
        kinds = listed(sorted(suffix or "a file without a suffix" for suffix in found))
        raise DataError(f"{source} can't be read as {kinds}: it must be .csv or .parquet, or a folder of one of them.")
    return found.pop()


def _partitions(files: Sequence[str], source: str) -> tuple[str, ...]:
    """The columns that the folders of these files stand for. Raises DataError when a folder is none such."""
    folders = {PurePosixPath(file).parts[:-1] for file in files}
    if other := sorted({name for names in folders for name in names if not re.fullmatch(r"[^=]+=.*", name)}):
        raise DataError(
            f"{source} has the folder{'s' if len(other) > 1 else ''} {listed(other)} in it, and only folders such as "
            f"year=2026 are read with the one they are in: give one of them, or all as {source.rstrip('/')}/*."
        )
    columns = {tuple(name.partition("=")[0] for name in names) for names in folders}
    if len(columns) > 1:
        found = listed(sorted("/".join(names) or "no folder" for names in columns))
        raise DataError(f"{source} has files in folders of different kinds ({found}): each must have the same columns.")
    return columns.pop()


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
