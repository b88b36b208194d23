"""Which files a source has, and which folders are refused because some of their rows would be left out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from penguins import data
from penguins.errors import DataError
from tests.conftest import PENGUINS_CSV

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

HEADER, *ROWS = PENGUINS_CSV.read_text().splitlines()


def csv_file(file: Path, rows: list[str], header: str = HEADER) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([header, *rows, ""]))
    return file


def refusal(spark: SparkSession, source: str | Path) -> str:
    with pytest.raises(DataError) as refused:
        data.read(spark, source)
    return str(refused.value)


@pytest.mark.parametrize(
    ("marker", "table"),
    [
        ("_delta_log/0.json", "a Delta table (it has _delta_log)"),
        (".hoodie/hoodie.properties", "a Hudi table (it has .hoodie)"),
        ("metadata/v1.metadata.json", "an Iceberg table (it has metadata)"),
    ],
)
def test_the_folder_of_a_table_is_refused_by_name(spark: SparkSession, tmp_path: Path, marker: str, table: str) -> None:
    (tmp_path / marker).parent.mkdir()
    (tmp_path / marker).write_text("{}")
    pd.read_csv(PENGUINS_CSV).to_parquet(tmp_path / "stale.parquet")
    # At a pattern Spark looks; at a path, this process does.
    for source in (str(tmp_path), f"{tmp_path}/*.parquet", f"{str(tmp_path)[:-1]}[{tmp_path.name[-1]}]"):
        expected = f"{source} is the folder of {table}, and some of its files may be stale: "
        assert refusal(spark, source) == f"{expected}give the table's name, as [catalog.][schema.]table."


def test_folders_within_a_folder_are_never_left_out_unsaid(spark: SparkSession, tmp_path: Path) -> None:
    csv_file(tmp_path / "s/2026-11-01/a.csv", ROWS[:2])
    csv_file(tmp_path / "s/2026-11-02/a.csv", ROWS[2:5])
    source = str(tmp_path / "s")
    said = (
        f"{source} has the folders 2026-11-01, 2026-11-02 in it, and only folders such as year=2026 are read with the "
        f"one they are in: give one of them, or all as {source}/*."
    )
    assert refusal(spark, source) == said
    # What is advised works.
    assert data.read(spark, f"{source}/*").count() == 5
    csv_file(tmp_path / "s/top.csv", ROWS[5:6])
    assert refusal(spark, source) == said
    # A pattern leaves nothing out either.
    csv_file(tmp_path / "s/2026-11-02/more/a.csv", ROWS[6:9])
    assert f"{source}/2026-11-0* leaves out " in refusal(spark, f"{source}/2026-11-0*")


def test_folders_named_by_a_value_are_read_and_the_value_is_a_column(spark: SparkSession, tmp_path: Path) -> None:
    birds = pd.read_csv(PENGUINS_CSV)
    for island in ("Biscoe", "Dream", "Torgersen"):
        rows = birds[birds["Island"] == island]
        csv_file(tmp_path / f"csv/Island={island}/a.csv", [line.partition(",")[2] for line in ROWS if island in line],
                 HEADER.partition(",")[2])  # fmt: skip
        (tmp_path / f"parquet/Island={island}").mkdir(parents=True)
        rows.drop(columns="Island").to_parquet(tmp_path / f"parquet/Island={island}/a.parquet")
    for kind in ("csv", "parquet"):
        accepted, quarantined = data.check(data.read(spark, tmp_path / kind))
        counts = {row["Island"]: row["count"] for row in accepted.groupBy("Island").count().collect()}
        assert counts == {"Biscoe": 167, "Dream": 124, "Torgersen": 51}
        assert quarantined.count() == 2
    csv_file(tmp_path / "csv/top.csv", ROWS)
    assert refusal(spark, tmp_path / "csv") == (
        f"{tmp_path / 'csv'} has files in folders of different kinds (Island, no folder): "
        "each must have the same columns."
    )


def test_hidden_files_and_folders_are_hidden_for_spark_too(spark: SparkSession, tmp_path: Path) -> None:
    csv_file(tmp_path / "s/a.csv", ROWS[:2])
    for hidden in ("_SUCCESS", ".a.csv.crc", "_old/b.csv", ".git/c.csv"):
        csv_file(tmp_path / "s" / hidden, ROWS)
    assert data.read(spark, tmp_path / "s").count() == 2
