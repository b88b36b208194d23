"""One behaviour of two readers: what training reads with Spark, `penguins query` reads without, value by value."""

from __future__ import annotations

import bz2
import gzip
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from penguins import data, query
from penguins.errors import DataError
from tests.conftest import PENGUINS_CSV

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

FEATURES = list(data.PENGUINS.features)
HEADER = "Island,CulmenLength,CulmenDepth,FlipperLength,BodyMass"
LINES = (HEADER, "Dream,39.1,18.7,181,3750", "Biscoe,48.7,14.1,210,4450")
EXPECTED: list[tuple[Any, ...]] = [("Dream", 39.1, 18.7, 181.0, 3750.0), ("Biscoe", 48.7, 14.1, 210.0, 4450.0)]


def text(*lines: str, end: str = "\n") -> bytes:
    return "".join(f"{line}{end}" for line in lines).encode()


def plus(*cells: str) -> bytes:
    return text(*(f"{line},{cell}" for line, cell in zip(LINES, cells, strict=True)))


READ: dict[str, tuple[str, bytes, list[tuple[Any, ...]]]] = {
    "plain": ("a.csv", text(*LINES), EXPECTED),
    "capitals": ("BIRDS.CSV", text(*LINES), EXPECTED),
    "gzip": ("a.csv.gz", gzip.compress(text(*LINES)), EXPECTED),
    "gzip in capitals": ("A.CSV.GZ", gzip.compress(text(*LINES)), EXPECTED),
    "bzip2": ("a.csv.bz2", bz2.compress(text(*LINES)), EXPECTED),
    "byte order mark": ("a.csv", b"\xef\xbb\xbf" + text(*LINES), EXPECTED),
    "Windows": ("a.csv", text(*LINES, end="\r\n"), EXPECTED),
    "old Macs": ("a.csv", text(*LINES, end="\r"), EXPECTED),
    "no end": ("a.csv", text(*LINES)[:-1], EXPECTED),
    "spaces": ("a.csv", text(*(f"  {line.replace(',', ' , ')}  " for line in LINES)), EXPECTED),
    "blank lines": ("a.csv", text("", "  ", *LINES, "", " "), EXPECTED),
    "quotes": ("a.csv", text(*(f'"{line.replace(",", chr(34) + "," + chr(34))}"' for line in LINES)), EXPECTED),
    "spaces within quotes": (
        "a.csv",
        text(HEADER, '" Dream ",39.1,18.7,181,3750', LINES[2]),
        [(" Dream ", *EXPECTED[0][1:]), EXPECTED[1]],
    ),
    "line breaks": ("a.csv", plus("Note", '"a\n""b"""', '"c\r\nd"'), EXPECTED),
    "line break in the header": ("a.csv", plus('"No\nte"', "a", '"b"'), EXPECTED),
    "inches": ("a.csv", plus("Note", '5" long', 'a "b" c'), EXPECTED),
    "a blank name": ("a.csv", text(f",{LINES[0]}", f"0,{LINES[1]}", f"1,{LINES[2]}"), EXPECTED),
    "a trailing comma": ("a.csv", plus("", "", ""), EXPECTED),
    "a name twice": ("a.csv", plus("Note,note", "a,b", "c,d"), EXPECTED),
    "umlauts": ("a.csv", text(HEADER, "Süd,39.1,18.7,181,3750", LINES[2]), [("Süd", *EXPECTED[0][1:]), EXPECTED[1]]),
    "gaps": (
        "a.csv",
        text(HEADER, "NA,39.1,,NaN,null", 'Biscoe,N/A,14.1, ,"4450"'),
        [(None, 39.1, None, None, None), ("Biscoe", None, 14.1, None, 4450.0)],
    ),
}  # fmt: skip

REFUSED: dict[str, tuple[str, bytes]] = {
    "Latin-1": ("a.csv", "".join(f"{line},Müller\n" for line in LINES).encode("latin-1")),
    "UTF-16": ("a.csv", text(*LINES).decode().encode("utf-16")),
    "semicolons": ("a.csv", text(*LINES).replace(b",", b";")),
    "tabs": ("a.csv", text(*LINES).replace(b",", b"\t")),
    "no gzip": ("a.csv.gz", text(*LINES)),
    "half a gzip": ("a.csv.gz", gzip.compress(text(*LINES))[:-9]),
    "an open quote among line breaks": ("a.csv", plus("Note", '"a\nb"', '"c')),
}


def plain(rows: pd.DataFrame) -> list[tuple[Any, ...]]:
    null: Any = None
    return [tuple(row) for row in rows.astype(object).where(rows.notna(), null).to_numpy().tolist()]


@pytest.mark.parametrize(("name", "content", "expected"), READ.values(), ids=list(READ))
def test_both_readers_read_the_same(
    spark: SparkSession, tmp_path: Path, name: str, content: bytes, expected: list[tuple[Any, ...]]
) -> None:
    (tmp_path / name).write_bytes(content)
    assert plain(query.read(tmp_path / name)[FEATURES]) == expected
    observed = data.read(spark, tmp_path / name, labelled=False)
    unscorable = data.unscorable(observed, data.PENGUINS, {"Island": ["Dream", "Biscoe", "Süd", " Dream ", "NA"]})
    found = observed.select(*FEATURES, unscorable.alias("reasons")).collect()
    # What Spark calls missing is a gap for the other reader, whatever word stands there.
    rows = [
        [None if f"{name} is missing" in (row["reasons"] or ()) else row[name] for name in FEATURES] for row in found
    ]
    assert list(map(tuple, rows)) == expected
    assert [row["reasons"] for row in found] == [
        [f"{column} is missing" for column, value in zip(FEATURES, row, strict=True) if value is None] or None
        for row in expected
    ]


@pytest.mark.parametrize(("name", "content"), REFUSED.values(), ids=list(REFUSED))
def test_both_readers_refuse_the_same_in_the_same_words(
    spark: SparkSession, tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    readers: tuple[Callable[[], object], ...] = (
        lambda: query.read(tmp_path / name),
        lambda: data.read(spark, tmp_path / name, labelled=False),
    )
    said = []
    for reader in readers:
        with pytest.raises(DataError) as refused:
            reader()
        said.append(str(refused.value))
    assert said[0] == said[1]
    assert said[0].startswith(str(tmp_path / name))


def test_parquet_is_read_by_both(spark: SparkSession, tmp_path: Path) -> None:
    birds = pd.read_csv(PENGUINS_CSV)
    birds.to_parquet(tmp_path / "BIRDS.PARQUET")
    expected = plain(birds[FEATURES])
    assert plain(query.read(tmp_path / "BIRDS.PARQUET")[FEATURES]) == expected
    assert [tuple(row) for row in data.read(spark, tmp_path / "BIRDS.PARQUET").select(*FEATURES).collect()] == expected


def test_times_in_nanoseconds_are_times(spark: SparkSession, tmp_path: Path) -> None:
    time = pd.Timestamp("2026-01-02 03:04:05.123456789")
    birds = pd.read_csv(PENGUINS_CSV).head(3).assign(At=time, There=time.tz_localize("Europe/Berlin"), By="x")
    birds.loc[1, "At"] = None
    birds.to_parquet(tmp_path / "birds.parquet")
    zone = spark.conf.get("spark.sql.session.timeZone")
    spark.conf.set("spark.sql.session.timeZone", "America/New_York")
    try:
        df = data.read(spark, tmp_path / "birds.parquet")
        assert df.columns == list(birds.columns)
        assert dict(df.dtypes)["At"] == "timestamp_ntz"
        shown = df.selectExpr("cast(At as string)", "unix_micros(There)", "By").collect()
    finally:
        spark.conf.set("spark.sql.session.timeZone", zone or "UTC")
        spark.conf.unset("spark.sql.legacy.parquet.nanosAsLong")
    at, there = "2026-01-02 03:04:05.123456", 1767319445123456
    assert [tuple(row) for row in shown] == [(at, there, "x"), (None, there, "x"), (at, there, "x")]


def test_a_query_reads_without_spark(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(text(*LINES))
    code = f"import sys; from penguins import query; print(len(query.read({str(tmp_path / 'a.csv')!r})))\n"
    code += "sys.exit('pyspark' in sys.modules or 'py4j' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")
