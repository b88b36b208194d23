"""Paths that other tools stumble over go to Spark and back unharmed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penguins import data, paths, target
from penguins.errors import DataError
from tests.conftest import BRIEF_JVM, PENGUINS_CSV

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# What Hadoop, a shell, a URI or Spark's partitions take for something else.
AWKWARD = [
    "year=2026 my%20data 100% ü,#'\"&;$~",
    "[1] {a,b} *? back\\slash ^!",
    "-run:1 2026-11-25T10:00",
]


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_the_uri_of_a_path_is_that_path_again(name: str) -> None:
    path = Path("/", name.strip("/") or "x")
    assert paths.local(paths.uri(path)) == path
    assert paths.local(path.as_uri()) == path


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a b/c%20.csv", "a b/c%20.csv"),
        ("run:1.csv", "run:1.csv"),
        ("file:/my data/x#1?.csv", "/my data/x#1?.csv"),
        ("file:///my%20data/x.csv", "/my data/x.csv"),
        ("FILE://localhost/x.csv", "/x.csv"),
        ("file://elsewhere/x.csv", None),
        ("s3://bucket/a%20b.csv", None),
        ("abfss://container@account.dfs.core.windows.net/a.csv", None),
        ("dbfs:/Volumes/a/b/c/x.csv", None),
    ],
)
def test_only_a_path_and_a_uri_of_this_machine_are_local(text: str, path: str | None) -> None:
    assert paths.local(text) == (None if path is None else Path(path))


def test_a_uri_that_isnt_encoded_is_understood_where_only_that_is_there(tmp_path: Path) -> None:
    raw = tmp_path / "a%20b"
    raw.touch()
    assert paths.local(f"file:{raw}") == raw
    (tmp_path / "a b").touch()
    assert paths.local(f"file:{raw}") == tmp_path / "a b"


def test_what_spark_reaches_elsewhere_passes_as_it_is() -> None:
    for text in ("s3://bucket/a%20[1].csv", "dbfs:/a b.csv", "abfss://c@a.dfs.core.windows.net/*.csv", "data/*.csv"):
        assert paths.to_read(text) == text
    assert paths.to_write(Path("/Volumes/main/lab/files/a%20b.csv")) == "/Volumes/main/lab/files/a%20b.csv"
    assert paths.to_write(Path("/tmp/a%20b.csv")) == "file:/tmp/a%20b.csv"


def test_a_name_that_spark_passes_over_or_cant_open_is_told(tmp_path: Path) -> None:
    hidden, both = tmp_path / "_birds.csv", tmp_path / "10:00 [1].csv"
    for path in (hidden, both, tmp_path / "_year=1.csv"):
        path.touch()
    with pytest.raises(DataError) as told:
        paths.to_read(str(hidden))
    assert str(told.value) == (
        f"{hidden} can't be read: Spark passes over files whose names start with _ or .: rename it."
    )
    with pytest.raises(DataError) as told:
        paths.to_read(str(both))
    assert str(told.value) == (
        f"{both} can't be read: Spark takes no colon in a path that has any of []{{}}*?\\ in it: rename it."
    )
    with pytest.raises(DataError) as told:
        paths.to_write(Path("/tmp/b\udcffrds.csv"))
    assert str(told.value) == "'/tmp/b\\udcffrds.csv' is no name in UTF-8, and Spark takes no other: rename it."
    assert paths.to_read(str(tmp_path / "_year=1.csv")) == f"{tmp_path}/_year=1.csv"


def test_a_place_where_one_may_not_look_is_none(tmp_path: Path) -> None:
    assert not paths.exists(tmp_path / ("x" * 300))
    assert not paths.is_file(tmp_path / "a\0b")
    assert data.located("x" * 300) == "x" * 300


@pytest.mark.spark
@pytest.mark.parametrize("name", AWKWARD)
def test_rows_go_to_any_path_and_come_back(
    spark: SparkSession, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.chdir(folder)
    shutil.copy(PENGUINS_CSV, f"./{name}.csv")
    birds = data.read(spark, f"{name}.csv")
    assert (len(birds.columns), birds.count()) == (7, 344)
    for output in (f"out {name}.csv", f"out {name}.parquet"):
        assert target.write(birds, output, count) == 344
        for source in (output, folder / output, (folder / output).as_uri()):
            again = data.read(spark, source)
            # Spark makes no column of a folder called `year=2026`.
            assert (len(again.columns), again.count()) == (8 if output.endswith("csv") else 7, 344)
            with pytest.raises(DataError, match="is where the rows are read from"):
                target.require_apart(again, source, output)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [f"{name}.csv", f"out {name}.csv", f"out {name}.parquet"]
    )
    assert [path.name for path in tmp_path.iterdir()] == [name]


def count(df: DataFrame) -> int:
    return df.count()


@pytest.mark.spark
def test_names_are_in_utf8_where_the_locale_is_c(tmp_path: Path) -> None:
    script = (
        "from penguins import target; from penguins.session import spark_session\n"
        "print(target.write(spark_session(brief=True).range(2), 'ümläut/ö.csv', lambda df: df.count()))"
    )
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, **BRIEF_JVM, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("2\n", 0), done.stderr
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["ümläut", "ümläut/ö.csv"]
