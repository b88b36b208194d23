"""CSV files in Spark as people have them: other encodings, line breaks in values, odd headers, words for gaps.

Each file is read as a path, which this process looks at, and as a pattern, which Spark looks at.
"""

from __future__ import annotations

import gzip
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
BIRDS = pd.read_csv(PENGUINS_CSV)


def both(file: Path) -> tuple[str, str]:
    """A file as a path, and as a pattern for it alone."""
    return str(file), f"{file.parent}/{file.name[:1]}[{file.name[1]}]{file.name[2:]}"


def counted(spark: SparkSession, source: str) -> tuple[int, int]:
    """How many rows are accepted and quarantined."""
    accepted, quarantined = data.check(data.read(spark, source))
    return accepted.count(), quarantined.count()


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_line_break_within_quotes_is_part_of_the_value(spark: SparkSession, tmp_path: Path, line_end: str) -> None:
    notes = [f'seen at{line_end}the nest, "late"' if place % 10 == 0 else "ok" for place in range(len(BIRDS))]
    file = tmp_path / "notes.csv"
    BIRDS.assign(**{f"A{line_end}note": notes}).to_csv(file, index=False, lineterminator=line_end)
    # One row that doesn't fit, to see its text whole.
    file.write_bytes(file.read_bytes() + f'Biscoe,x,14,210,4450,1,"a{line_end}b"{line_end}'.encode())
    for source in both(file):
        df = data.read(spark, source)
        assert df.columns[6] == f"A{line_end}note".replace("\r\n", "\n" if source != str(file) else "\r\n")
        assert [row[6] for row in df.collect()] == [*notes, f"a{line_end}b"]
        accepted, quarantined = data.check(df)
        assert accepted.count() == 342
        assert [row["reasons"] for row in quarantined.where("_corrupt_record is not null").collect()] == [
            ["CulmenLength is not a number"]
        ]


def test_a_quote_that_isnt_closed_costs_its_line_alone(spark: SparkSession, tmp_path: Path) -> None:
    file = tmp_path / "notes.csv"
    file.write_text(
        "\n".join([f"{HEADER},Note", *(f"{row},{chr(34)}ok" if row is ROWS[0] else f"{row},ok" for row in ROWS)])
    )
    for source in both(file):
        assert counted(spark, source) == (342, 2)


def test_bytes_that_are_no_utf8_are_refused(spark: SparkSession, tmp_path: Path) -> None:
    rows = [f"{HEADER},By", *(f"{row},Müller" for row in ROWS)]
    file = tmp_path / "birds.csv"
    file.write_bytes("\n".join(rows).encode("latin-1"))
    (tmp_path / "birds.csv.gz").write_bytes(gzip.compress(file.read_bytes()))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/a.csv").write_text("\n".join(rows[:3]))
    (tmp_path / "folder/b.csv").write_bytes(file.read_bytes())
    for name in ("birds.csv", "birds.csv.gz", "folder"):
        for source, place in zip(both(tmp_path / name), ("line 2", r"a line with '.*,Müller'"), strict=True):
            with pytest.raises(
                DataError, match=rf"(birds|b)\.csv(\.gz)? isn't UTF-8: {place} has the byte 0xFC\. Save"
            ):
                data.read(spark, source)
    file.write_bytes("\n".join(rows).encode("utf-16"))
    for source in both(file):
        with pytest.raises(DataError, match=r"birds\.csv is UTF-16: save it as UTF-8, as"):
            data.read(spark, source)
    file.write_text("\n".join([*rows[:2], rows[2].replace("Müller", "M\ufffdller")]), encoding="utf-8-sig")
    for source in both(file):
        # Written by somebody else, the replacement character is a character.
        assert [row["By"] for row in data.read(spark, source).collect()] == ["Müller", "M\ufffdller"]


def test_columns_without_a_name_or_with_one_that_stands_twice_are_read(spark: SparkSession, tmp_path: Path) -> None:
    BIRDS.to_csv(tmp_path / "index.csv")
    (tmp_path / "trailing.csv").write_text("".join(f"{line},\n" for line in (HEADER, *ROWS)))
    twice = [f"{HEADER},Note,note", *(f"{row},a,b" for row in ROWS)]
    (tmp_path / "twice.csv").write_text("\n".join(twice))
    names = HEADER.split(",")
    expected = {"index": ["_c0", *names], "trailing": [*names, "_c6"], "twice": [*names, "Note", "note_2"]}
    for name, columns in expected.items():
        for source in both(tmp_path / f"{name}.csv"):
            assert data.read(spark, source).columns == [*columns, "_corrupt_record"]
            assert counted(spark, source) == (342, 2)


def test_files_of_a_folder_must_agree_on_their_header(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    (tmp_path / "all/a.csv").write_text(f"{HEADER},Note\n{ROWS[0]},x\n")
    (tmp_path / "all/b.csv").write_text(f"{HEADER}\n{ROWS[0]}\n")
    (tmp_path / "all/c.csv").write_text("")
    for source in both(tmp_path / "all"):
        with pytest.raises(DataError) as refused:
            data.read(spark, source)
        said = str(refused.value)
        shown = ", ".join(HEADER.split(","))
        assert said.startswith(f"The files of {source} have different headers: ")
        assert f"a.csv has {shown}, Note" in said
        assert f"b.csv has {shown}" in said


def test_words_for_gaps_are_gaps_in_a_csv_alone(spark: SparkSession, tmp_path: Path) -> None:
    gaps = ["NA", "N/A", "NaN", "null", "None", '"NA"']
    rows = [f"{word},39.1,18.7,181,3750,0" for word in gaps] + [f"Dream,{word},18.7,181,3750,0" for word in gaps]
    (tmp_path / "gaps.csv").write_text("\n".join([HEADER, *rows]))
    observations = data.read(spark, tmp_path / "gaps.csv")
    assert data.count_reasons(data.check(observations)[1]) == (
        12,
        {"CulmenLength is missing": 6, "Island is missing": 6},
    )
    # A batch says the same, and gives the values back as they came.
    told = observations.select(
        "Island", data.unscorable(observations, data.PENGUINS, {"Island": ["NA", "Dream"]})
    ).collect()
    assert [tuple(row) for row in told] == [
        *((word.strip('"'), ["Island is missing"]) for word in gaps),
        *[("Dream", ["CulmenLength is missing"])] * 6,
    ]
    # Elsewhere there are nulls, and NA is a text like any other.
    BIRDS.assign(Island=BIRDS["Island"].replace("Dream", "NA")).to_parquet(tmp_path / "namibia.parquet")
    assert counted(spark, str(tmp_path / "namibia.parquet")) == (342, 2)
