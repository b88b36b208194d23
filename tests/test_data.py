"""Observations: the file that comes with the project, reading, setting bad rows aside, splitting, describing."""

from __future__ import annotations

import csv
import gzip
import math
import runpy
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd
import pytest
from chispa import assert_df_equality
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.errors import AnalysisException

from penguins import data
from penguins.data import PENGUINS, Numeric, Spec
from penguins.errors import DataError, ParameterError
from tests.conftest import BREAST_CANCER

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.spark

DATA = Path(__file__).parent.parent / "data"
COLUMNS = ["Island", "CulmenLength", "CulmenDepth", "FlipperLength", "BodyMass", "Species"]
HEADER = "Island,CulmenLength,CulmenDepth,FlipperLength,BodyMass,Species"
ADELIE = "Torgersen,39.1,18.7,181,3750,0"
GENTOO = "Biscoe,48.7,14.1,210,4450,1"

TYPED = "Island string, CulmenLength double, CulmenDepth double, FlipperLength double, BodyMass double, Species double"
TEXTS = "Island string, CulmenLength string, CulmenDepth string, FlipperLength string, BodyMass string, Species string"
ACCEPTED = "Island string, CulmenLength double, CulmenDepth double, FlipperLength double, BodyMass double, Species int"

# Each example is a few Spark jobs, so there are few examples, of many rows each.
WITH_SPARK = settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)


def csv_file(folder: Path, *lines: str, name: str = "birds.csv") -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


def accepted_rows(df: DataFrame, spec: Spec = PENGUINS) -> list[tuple[Any, ...]]:
    accepted, _ = data.check(df, spec)
    return [tuple(row) for row in accepted.collect()]


def reasons_of(df: DataFrame, spec: Spec = PENGUINS) -> list[list[str]]:
    """The reasons of each quarantined row, in the order of the rows."""
    _, quarantined = data.check(df, spec)
    return [row["reasons"] for row in quarantined.collect()]


@pytest.fixture(scope="module")
def birds(spark: SparkSession) -> Iterator[DataFrame]:
    """The 342 complete penguins, cached."""
    accepted, _ = data.check(data.read(spark, DATA / "penguins.csv"))
    with data.cached(accepted.coalesce(1)) as rows:
        yield rows


# --- the file -------------------------------------------------------------------------------------------------------


def test_the_file_has_the_344_birds_with_the_labs_columns_and_codes() -> None:
    with (DATA / "penguins.csv").open(newline="") as file:
        header, *rows = list(csv.reader(file))
    assert header == ["Island", "CulmenLength", "CulmenDepth", "FlipperLength", "BodyMass", "Species"]
    assert len(rows) == 344
    assert Counter(row[0] for row in rows) == {"Biscoe": 168, "Dream": 124, "Torgersen": 52}
    assert Counter(row[5] for row in rows) == {"0": 152, "1": 124, "2": 68}


def test_the_measurements_in_the_file_are_within_the_known_ranges() -> None:
    birds = pd.read_csv(DATA / "penguins.csv")
    lowest, highest = birds.min(numeric_only=True), birds.max(numeric_only=True)
    assert (lowest["CulmenLength"], highest["CulmenLength"]) == (32.1, 59.6)
    assert (lowest["CulmenDepth"], highest["CulmenDepth"]) == (13.1, 21.5)
    assert (lowest["FlipperLength"], highest["FlipperLength"]) == (172, 231)
    assert (lowest["BodyMass"], highest["BodyMass"]) == (2700, 6300)


def test_two_birds_in_the_file_lack_all_four_measurements() -> None:
    lines = (DATA / "penguins.csv").read_text().splitlines()
    assert [line for line in lines if ",," in line] == ["Torgersen,,,,,0", "Biscoe,,,,,1"]


def test_gentoo_live_only_on_biscoe_and_chinstrap_only_on_dream() -> None:
    birds = pd.read_csv(DATA / "penguins.csv")
    assert set(birds[birds["Species"] == 1]["Island"]) == {"Biscoe"}
    assert set(birds[birds["Species"] == 2]["Island"]) == {"Dream"}


def test_the_script_makes_the_same_file_byte_for_byte(tmp_path: Path) -> None:
    # The script writes beside itself, so a copy of it writes elsewhere.
    copy = shutil.copy(DATA / "make_penguins.py", tmp_path)
    runpy.run_path(str(copy), run_name="__main__")
    assert (tmp_path / "penguins.csv").read_bytes() == (DATA / "penguins.csv").read_bytes()


def test_the_file_gives_342_accepted_and_two_quarantined_rows(spark: SparkSession) -> None:
    accepted, quarantined = data.check(data.read(spark, DATA / "penguins.csv"))
    assert accepted.count() == 342
    assert data.count_reasons(quarantined) == (
        2,
        {
            "BodyMass is missing": 2,
            "CulmenDepth is missing": 2,
            "CulmenLength is missing": 2,
            "FlipperLength is missing": 2,
        },
    )


# --- Spec -----------------------------------------------------------------------------------------------------------


def test_the_default_spec_describes_the_penguins() -> None:
    assert PENGUINS.features == ("Island", "CulmenLength", "CulmenDepth", "FlipperLength", "BodyMass")
    assert PENGUINS.columns == ("Island", "CulmenLength", "CulmenDepth", "FlipperLength", "BodyMass", "Species")
    assert PENGUINS.classes == ("Adelie", "Gentoo", "Chinstrap")
    assert PENGUINS.name_column == "species"
    assert [column.unit for column in PENGUINS.numeric] == ["mm", "mm", "mm", "g"]


def test_features_are_the_categories_then_the_numbers_each_in_the_given_order() -> None:
    numbers = (Numeric("weight", "kg", 0, 90), Numeric("age", "years", 0, 30))
    spec = Spec(("breed", "colour"), numbers, "Kind", ("cat", "dog"))
    assert spec.features == ("breed", "colour", "weight", "age")
    assert spec.columns == ("breed", "colour", "weight", "age", "Kind")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: Spec((), (Numeric("a", "", 0, 1),), "y", ("only",)),
            "The spec has 1 classes: a classifier needs at least two.",
        ),
        (lambda: Spec(("c",), (), "y", ("n", "p")), "The spec has no numeric column: it needs at least one."),
        (
            lambda: Spec(("a",), (Numeric("A", "", 0, 1),), "y", ("n", "p")),
            "Every name in a spec must be its own, but one stands twice in a, A, y.",
        ),
        (
            lambda: Spec((), (Numeric("y", "", 0, 1),), "y", ("n", "p")),
            "Every name in a spec must be its own, but one stands twice in y, y.",
        ),
        (
            lambda: Spec((), (Numeric("a", "", 0, 1),), "y", ("n", "p", "n")),
            "Every name in a spec must be its own, but one stands twice in n, p, n.",
        ),
        (
            lambda: Spec((), (Numeric("a", "", 0, 1),), "Prediction", ("n", "p")),
            "The label can't be called Prediction: an answer's class code has that name.",
        ),
        (
            lambda: Spec(("Reasons",), (Numeric("a", "", 0, 1), Numeric("_b", "", 0, 1)), "y", ("n", "p")),
            "Columns that begin with an underscore, and `reasons`, are added here: give Reasons, _b another name.",
        ),
        (
            lambda: Spec((), (Numeric("a", "", 0, 1),), "income", ("<=50K", "more", "C++")),
            "MLflow takes only letters, digits and / _ . - : and spaces: give the class <=50K, C++ another name.",
        ),
        (lambda: Numeric("a", "mm", 5, 5), "The range of a is 5 to 5: it must go upwards."),
        (lambda: Numeric("a", "mm", 0, math.nan), "The range of a is 0 to nan: it must go upwards."),
    ],
)
def test_a_spec_that_can_not_work_is_refused(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ParameterError) as refused:
        make()
    assert str(refused.value) == sentence


def test_a_column_name_that_spark_takes_for_a_path_into_a_struct_is_refused() -> None:
    # `Sepal.Length` is how R names columns; Spark would look for a field Length of a column Sepal, much later.
    with pytest.raises(ParameterError, match=r"Sepal\.Length"):
        Spec((), (Numeric("Sepal.Length", "cm", 0, 10),), "Species", ("setosa", "virginica"))


# --- read -----------------------------------------------------------------------------------------------------------

BOTH_BIRDS = [("Torgersen", 39.1, 18.7, 181.0, 3750.0, 0), ("Biscoe", 48.7, 14.1, 210.0, 4450.0, 1)]


def test_a_csv_is_read_with_the_declared_types_and_the_lines_that_do_not_fit(
    spark: SparkSession, tmp_path: Path
) -> None:
    source = csv_file(tmp_path, HEADER, ADELIE, "Biscoe,long,14.1,210,4450,1")
    expected = spark.createDataFrame(
        [
            ("Torgersen", 39.1, 18.7, 181.0, 3750.0, 0.0, None),
            ("Biscoe", None, 14.1, 210.0, 4450.0, 1.0, "Biscoe,long,14.1,210,4450,1"),
        ],
        f"{TYPED}, _corrupt_record string",
    )
    assert_df_equality(data.read(spark, source), expected, ignore_nullable=True, ignore_metadata=True)


def test_columns_of_a_csv_may_stand_in_any_order_and_others_between_them(spark: SparkSession, tmp_path: Path) -> None:
    source = csv_file(
        tmp_path,
        "Species,Note,BodyMass,FlipperLength,CulmenDepth,CulmenLength,Island,Year",
        "0,small,3750,181,18.7,39.1,Torgersen,2007",
        "1,,4450,210,14.1,48.7,Biscoe,2008",
    )
    df = data.read(spark, source)
    assert accepted_rows(df) == BOTH_BIRDS
    assert [(row["Note"], row["Year"]) for row in df.collect()] == [("small", "2007"), (None, "2008")]


def test_quoted_and_padded_fields_are_read_as_what_they_hold(spark: SparkSession, tmp_path: Path) -> None:
    quoted = '"Biscoe","48.7","14.1","210","4450","1"'
    source = csv_file(tmp_path, f"{HEADER},Note", f'{ADELIE},"grey, mostly"', f"{quoted},  tall  ")
    df = data.read(spark, source)
    assert accepted_rows(df) == BOTH_BIRDS
    assert [row["Note"] for row in df.collect()] == ["grey, mostly", "tall"]


def test_a_quote_within_a_quoted_field_is_written_twice_as_excel_and_pandas_do(
    spark: SparkSession, tmp_path: Path
) -> None:
    source = csv_file(tmp_path, f"Note,{HEADER}", f'"the ""big"" one",{ADELIE}', f'"a"", b",{GENTOO}')
    df = data.read(spark, source)
    assert [row["Note"] for row in df.collect()] == ['the "big" one', 'a", b']
    assert accepted_rows(df) == BOTH_BIRDS


def test_windows_line_ends_and_a_byte_order_mark_make_no_difference(spark: SparkSession, tmp_path: Path) -> None:
    source = tmp_path / "windows.csv"
    source.write_bytes(f"\ufeff{HEADER}\r\n{ADELIE}\r\n{GENTOO}\r\n".encode())
    assert accepted_rows(data.read(spark, source)) == BOTH_BIRDS


def test_a_header_with_spaces_after_its_commas_is_read_like_the_rows_below_it(
    spark: SparkSession, tmp_path: Path
) -> None:
    source = csv_file(tmp_path, *(line.replace(",", ", ") for line in (HEADER, ADELIE, GENTOO)))
    assert accepted_rows(data.read(spark, source)) == BOTH_BIRDS


@pytest.mark.parametrize("name", ["my birds.csv", "a folder/birds.csv", "BIRDS.CSV", "birds%20(1).csv", "birds[1].csv"])
def test_a_file_may_have_any_name(spark: SparkSession, tmp_path: Path, name: str) -> None:
    assert accepted_rows(data.read(spark, csv_file(tmp_path, HEADER, ADELIE, GENTOO, name=name))) == BOTH_BIRDS


def test_a_compressed_csv_is_read(spark: SparkSession, tmp_path: Path) -> None:
    source = tmp_path / "birds.csv.gz"
    source.write_bytes(gzip.compress(f"{HEADER}\n{ADELIE}\n{GENTOO}\n".encode()))
    assert accepted_rows(data.read(spark, source)) == BOTH_BIRDS


def test_a_uri_and_a_path_as_text_are_passed_to_spark_as_they_are(spark: SparkSession, tmp_path: Path) -> None:
    source = csv_file(tmp_path, HEADER, ADELIE, GENTOO)
    assert accepted_rows(data.read(spark, source.as_uri())) == BOTH_BIRDS
    assert accepted_rows(data.read(spark, str(source))) == BOTH_BIRDS


def test_a_folder_of_csv_files_is_read_whole(spark: SparkSession, tmp_path: Path) -> None:
    csv_file(tmp_path, HEADER, ADELIE, name="birds/2007.csv")
    csv_file(tmp_path, HEADER, GENTOO, name="birds/2008.csv")
    assert sorted(accepted_rows(data.read(spark, tmp_path / "birds"))) == sorted(BOTH_BIRDS)


def test_an_empty_file_in_a_folder_hides_nothing(spark: SparkSession, tmp_path: Path) -> None:
    csv_file(tmp_path, name="birds/2006.csv")
    csv_file(tmp_path, HEADER, ADELIE, GENTOO, name="birds/2007.csv")
    assert accepted_rows(data.read(spark, tmp_path / "birds")) == BOTH_BIRDS


def test_a_parquet_file_and_a_folder_of_them_are_read(spark: SparkSession, tmp_path: Path) -> None:
    spark.createDataFrame(BOTH_BIRDS, ACCEPTED).repartition(2).write.parquet(str(tmp_path / "folder"))
    assert sorted(accepted_rows(data.read(spark, tmp_path / "folder"))) == sorted(BOTH_BIRDS)
    pd.DataFrame(BOTH_BIRDS, columns=COLUMNS).to_parquet(tmp_path / "birds.parquet")
    assert accepted_rows(data.read(spark, tmp_path / "birds.parquet")) == BOTH_BIRDS


def test_a_table_and_a_view_are_read_by_name(spark: SparkSession) -> None:
    birds = spark.createDataFrame(BOTH_BIRDS, ACCEPTED)
    birds.createOrReplaceTempView("birds_of_today")
    birds.coalesce(1).write.mode("overwrite").saveAsTable("default.birds_of_old")
    try:
        assert accepted_rows(data.read(spark, "birds_of_today")) == BOTH_BIRDS
        assert accepted_rows(data.read(spark, "birds_of_old")) == BOTH_BIRDS
        assert accepted_rows(data.read(spark, "default.birds_of_old")) == BOTH_BIRDS
        assert accepted_rows(data.read(spark, "spark_catalog.default.birds_of_old")) == BOTH_BIRDS
    finally:
        spark.catalog.dropTempView("birds_of_today")
        spark.sql("DROP TABLE default.birds_of_old")


def refusal(spark: SparkSession, source: str | Path) -> str:
    with pytest.raises(DataError) as refused:
        data.read(spark, source)
    return str(refused.value)


def test_a_missing_file_is_told(spark: SparkSession, tmp_path: Path) -> None:
    source = tmp_path / "none.csv"
    assert refusal(spark, source) == (
        f"{source} doesn't exist: give a .csv or .parquet file, a folder of them, or a table."
    )


def test_an_empty_file_is_told(spark: SparkSession, tmp_path: Path) -> None:
    source = csv_file(tmp_path)
    assert refusal(spark, source) == (
        f"{source} is empty: its first line must be a header with "
        "Island, CulmenLength, CulmenDepth, FlipperLength, BodyMass, Species."
    )


def test_all_columns_that_the_header_lacks_are_named_at_once(spark: SparkSession, tmp_path: Path) -> None:
    source = csv_file(tmp_path, "Island,Bill,CulmenDepth,FlipperLength,Species", "Biscoe,48.7,14.1,210,1")
    assert refusal(spark, source) == (
        f"{source} lacks the columns CulmenLength, BodyMass; "
        "its header has Island, Bill, CulmenDepth, FlipperLength, Species."
    )


def test_one_column_that_the_header_lacks_is_named(spark: SparkSession, tmp_path: Path) -> None:
    source = csv_file(tmp_path, "Island,CulmenLength,CulmenDepth,FlipperLength,BodyMass", "Biscoe,48.7,14.1,210,4450")
    assert refusal(spark, source) == (
        f"{source} lacks the column Species; its header has Island, CulmenLength, CulmenDepth, FlipperLength, BodyMass."
    )


def test_a_header_of_other_names_is_no_missing_header(spark: SparkSession, tmp_path: Path) -> None:
    source = csv_file(tmp_path, "species,island,bill_length_mm", "Adelie,Torgersen,39.1")
    assert refusal(spark, source) == (
        f"{source} lacks the columns Island, CulmenLength, CulmenDepth, FlipperLength, BodyMass, Species; "
        "its header has species, island, bill_length_mm."
    )


def test_a_file_without_a_header_is_told(spark: SparkSession, tmp_path: Path) -> None:
    source = csv_file(tmp_path, ADELIE, GENTOO)
    assert refusal(spark, source) == (
        f"{source} has no header: its first line must name Island, CulmenLength, CulmenDepth, FlipperLength, "
        "BodyMass, Species, but reads 'Torgersen,39.1,18.7,181,3750,0'."
    )


@pytest.mark.parametrize("suffix", ["json", "xlsx"])
def test_another_type_of_file_is_told(spark: SparkSession, tmp_path: Path, suffix: str) -> None:
    source = csv_file(tmp_path, HEADER, ADELIE, name=f"birds.{suffix}")
    assert refusal(spark, source) == (
        f"{source} can't be read as .{suffix}: it must be .csv or .parquet, or a folder of one of them."
    )


def test_a_file_without_a_suffix_is_told(spark: SparkSession, tmp_path: Path) -> None:
    source = csv_file(tmp_path, HEADER, ADELIE, name="v1.0/birds")
    sentence = refusal(spark, source)
    assert sentence.endswith("it must be .csv or .parquet, or a folder of one of them.")
    # Neither a part of the folder's name nor the whole URI is a suffix.
    assert ".0/birds:" not in sentence
    assert ".file:" not in sentence


def test_a_folder_of_mixed_types_is_told(spark: SparkSession, tmp_path: Path) -> None:
    csv_file(tmp_path, HEADER, ADELIE, name="birds/2007.csv")
    csv_file(tmp_path, "About the birds", name="birds/README.md")
    assert refusal(spark, tmp_path / "birds") == (
        f"{tmp_path / 'birds'} can't be read as .csv, .md: it must be .csv or .parquet, or a folder of one of them."
    )


def test_an_empty_folder_is_told(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert refusal(spark, tmp_path / "empty") == (
        f"{tmp_path / 'empty'} holds no files: give a CSV or Parquet file, a folder of them, or a table."
    )


@pytest.mark.parametrize("name", ["no_such_table", "no_such_schema.birds"])
def test_a_missing_table_is_told(spark: SparkSession, name: str) -> None:
    assert refusal(spark, name) == f"The table {name} doesn't exist, and no file of that name does either."


def test_a_name_that_is_neither_a_file_nor_a_table_is_told(spark: SparkSession) -> None:
    assert refusal(spark, "my birds") == (
        "'my birds' is neither a file nor a table: give a .csv or .parquet path, or [catalog.][schema.]table."
    )


def test_no_name_at_all_is_told_and_not_taken_for_the_current_folder(spark: SparkSession) -> None:
    assert refusal(spark, "") == (
        "'' is neither a file nor a table: give a .csv or .parquet path, or [catalog.][schema.]table."
    )


def test_text_named_parquet_is_told(spark: SparkSession, tmp_path: Path) -> None:
    source = csv_file(tmp_path, HEADER, ADELIE, GENTOO, name="birds.parquet")
    sentence = refusal(spark, source)
    assert sentence.startswith(f"{source} can't be read: ")
    assert "\n" not in sentence


def test_text_named_as_compressed_is_told(spark: SparkSession, tmp_path: Path) -> None:
    source = csv_file(tmp_path, HEADER, ADELIE, GENTOO, name="birds.csv.gz")
    sentence = refusal(spark, source)
    assert sentence.startswith(f"{source} can't be read: ")
    assert "\n" not in sentence


def test_all_columns_that_a_parquet_file_lacks_are_named_at_once(spark: SparkSession, tmp_path: Path) -> None:
    source = tmp_path / "birds.parquet"
    pd.DataFrame({"Species": [0, 1], "Island": ["Dream", "Biscoe"], "CulmenDepth": [18.7, 14.1]}).to_parquet(source)
    assert refusal(spark, source) == (
        f"{source} lacks the columns CulmenLength, FlipperLength, BodyMass; it has Species, Island, CulmenDepth."
    )


def test_a_table_that_lacks_columns_is_told(spark: SparkSession) -> None:
    spark.createDataFrame([("Dream", 0), ("Biscoe", 1)], "Island string, Species int").createOrReplaceTempView("few")
    try:
        assert refusal(spark, "few") == (
            "few lacks the columns CulmenLength, CulmenDepth, FlipperLength, BodyMass; it has Island, Species."
        )
    finally:
        spark.catalog.dropTempView("few")


@pytest.mark.parametrize(
    "second",
    [
        ("Species,BodyMass,FlipperLength,CulmenDepth,CulmenLength,Island", "1,4450,210,14.1,48.7,Biscoe"),
        ("Island,CulmenDepth,CulmenLength,FlipperLength,BodyMass,Species", "Biscoe,14.1,48.7,210,4450,1"),
        ("Island,CulmenLength,CulmenDepth,FlipperLength,BodyMass", "Biscoe,48.7,14.1,210,4450"),
        (f"{HEADER},Note", f"{GENTOO},tall"),
        (GENTOO, GENTOO),
    ],
    ids=["other order", "two swapped", "one less", "one more", "no header"],
)
def test_a_folder_whose_files_have_different_headers_is_never_read_silently(
    spark: SparkSession, tmp_path: Path, second: tuple[str, str]
) -> None:
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    csv_file(tmp_path, HEADER, ADELIE, name="birds/2007.csv")
    csv_file(tmp_path, *second, name="birds/2008.csv")
    # A DataError from `read` would be welcome; Spark notices when it gets to the second file.
    with pytest.raises((DataError, PySparkException, Py4JJavaError), match=r"(?i)header"):
        accepted_rows(data.read(spark, tmp_path / "birds"))
    with pytest.raises((DataError, PySparkException, Py4JJavaError), match=r"(?i)header"):
        data.count_reasons(data.check(data.read(spark, tmp_path / "birds"))[1])


def test_a_header_that_names_a_column_twice_is_told(spark: SparkSession, tmp_path: Path) -> None:
    source = csv_file(tmp_path, f"{HEADER},Island", f"{GENTOO},Dream")
    assert refusal(spark, source) == f"{source} has the column Island more than once: name each column once."


# --- check ----------------------------------------------------------------------------------------------------------


def test_rows_are_accepted_with_the_specs_columns_and_quarantined_with_all_of_theirs(spark: SparkSession) -> None:
    observations = spark.createDataFrame(
        [
            ("a", 1, "Torgersen", 39.1, 18.7, 181.0, 3750.0),
            ("b", 3, "Dream", 46.5, 17.9, 192.0, 3500.0),
            ("c", 1, "Biscoe", 48.7, 14.1, 210.0, 4450.0),
        ],
        "Ring string, Species int, Island string, "
        "CulmenLength double, CulmenDepth double, FlipperLength double, BodyMass double",
    )
    accepted, quarantined = data.check(observations)
    expected = spark.createDataFrame(
        [("Torgersen", 39.1, 18.7, 181.0, 3750.0, 1), ("Biscoe", 48.7, 14.1, 210.0, 4450.0, 1)], ACCEPTED
    )
    assert_df_equality(accepted, expected, ignore_nullable=True)
    expected = spark.createDataFrame(
        [("b", 3, "Dream", 46.5, 17.9, 192.0, 3500.0, ["Species is not a class code (0 to 2)"])],
        "Ring string, Species int, Island string, CulmenLength double, CulmenDepth double, "
        "FlipperLength double, BodyMass double, reasons array<string>",
    )
    assert_df_equality(quarantined, expected, ignore_nullable=True)


def test_each_reason_is_given_for_typed_rows(spark: SparkSession) -> None:
    rows = [
        (("Biscoe", 48.7, 14.1, 210.0, 4450.0, 1.0), None),
        ((None, 48.7, 14.1, 210.0, 4450.0, 1.0), ["Island is missing"]),
        (("", 48.7, 14.1, 210.0, 4450.0, 1.0), ["Island is empty"]),
        (("   ", 48.7, 14.1, 210.0, 4450.0, 1.0), ["Island is empty"]),
        (("Biscoe", None, 14.1, 210.0, 4450.0, 1.0), ["CulmenLength is missing"]),
        (("Biscoe", 48.7, math.nan, 210.0, 4450.0, 1.0), ["CulmenDepth is not finite"]),
        (("Biscoe", 48.7, 14.1, math.inf, 4450.0, 1.0), ["FlipperLength is not finite"]),
        (("Biscoe", 48.7, 14.1, 210.0, -math.inf, 1.0), ["BodyMass is not finite"]),
        (("Biscoe", 15.9, 14.1, 210.0, 4450.0, 1.0), ["CulmenLength is outside 16 to 90 mm"]),
        (("Biscoe", 90.1, 14.1, 210.0, 4450.0, 1.0), ["CulmenLength is outside 16 to 90 mm"]),
        (("Biscoe", 48.7, 32.6, 210.0, 4450.0, 1.0), ["CulmenDepth is outside 6.5 to 32.5 mm"]),
        (("Biscoe", 48.7, 14.1, 85.9, 4450.0, 1.0), ["FlipperLength is outside 86 to 347 mm"]),
        (("Biscoe", 48.7, 14.1, 210.0, 4.45, 1.0), ["BodyMass is outside 1350 to 9450 g"]),
        (("Biscoe", 48.7, 14.1, 210.0, 4450.0, None), ["Species is missing"]),
        (("Biscoe", 48.7, 14.1, 210.0, 4450.0, 3.0), ["Species is not a class code (0 to 2)"]),
        (("Biscoe", 48.7, 14.1, 210.0, 4450.0, -1.0), ["Species is not a class code (0 to 2)"]),
        (("Biscoe", 48.7, 14.1, 210.0, 4450.0, 1.5), ["Species is not a class code (0 to 2)"]),
        (("Biscoe", 48.7, 14.1, 210.0, 4450.0, math.nan), ["Species is not a class code (0 to 2)"]),
    ]
    observations = spark.createDataFrame([row for row, _ in rows], TYPED).coalesce(1)
    assert reasons_of(observations) == [reasons for _, reasons in rows if reasons is not None]
    assert accepted_rows(observations) == [("Biscoe", 48.7, 14.1, 210.0, 4450.0, 1)]


def test_each_reason_is_given_for_rows_of_text(spark: SparkSession) -> None:
    rows = [
        (("Biscoe", "48.7", "14.1", "210", "4450", "1"), None),
        (("Biscoe", " 48.7 ", "1.41e1", "210.0", "+4450", "1.0"), None),
        (("Biscoe", None, "14.1", "210", "4450", "1"), ["CulmenLength is missing"]),
        (("Biscoe", "", "14.1", "210", "4450", "1"), ["CulmenLength is missing"]),
        (("Biscoe", "48.7", "  ", "210", "4450", "1"), ["CulmenDepth is missing"]),
        (("Biscoe", "48.7", "14.1", "long", "4450", "1"), ["FlipperLength is not a number"]),
        (("Biscoe", "48.7", "14.1", "210", "4,450", "1"), ["BodyMass is not a number"]),
        (("Biscoe", "48.7", "14.1", "NaN", "4450", "1"), ["FlipperLength is not finite"]),
        (("Biscoe", "48.7", "14.1", "210", "Infinity", "1"), ["BodyMass is not finite"]),
        (("Biscoe", "48.7", "14.1", "NA", "4450", "N/A"), ["FlipperLength is missing", "Species is missing"]),
        (("Biscoe", "48.7", "14.1", "210", "445", "1"), ["BodyMass is outside 1350 to 9450 g"]),
        (("Biscoe", "48.7", "14.1", "210", "4450", "Gentoo"), ["Species is not a class code (0 to 2)"]),
        (("Biscoe", "48.7", "14.1", "210", "4450", ""), ["Species is missing"]),
    ]
    observations = spark.createDataFrame([row for row, _ in rows], TEXTS).coalesce(1)
    assert reasons_of(observations) == [reasons for _, reasons in rows if reasons is not None]
    assert accepted_rows(observations) == [("Biscoe", 48.7, 14.1, 210.0, 4450.0, 1)] * 2


@pytest.mark.parametrize("is_reversed", [False, True], ids=["columns in order", "columns in another order"])
def test_each_reason_is_given_for_lines_of_a_csv(spark: SparkSession, tmp_path: Path, is_reversed: bool) -> None:
    lines = [
        (GENTOO, None),
        (",48.7,14.1,210,4450,1", ["Island is missing"]),
        ('"  ",48.7,14.1,210,4450,1', ["Island is empty"]),
        ("Biscoe,,14.1,210,4450,1", ["CulmenLength is missing"]),
        ("Biscoe,48.7,   ,210,4450,1", ["CulmenDepth is missing"]),
        ('Biscoe,48.7,14.1,"",4450,1', ["FlipperLength is missing"]),
        ("Biscoe,x,14.1,210,4450,1", ["CulmenLength is not a number"]),
        ("Biscoe,NA,14.1,210,4450,1", ["CulmenLength is missing"]),
        ("NA,48.7,14.1,null,4450,None", ["Island is missing", "FlipperLength is missing", "Species is missing"]),
        # The number that is none and the number that is missing stand in one line: neither is taken for the other.
        ("Biscoe,48.7,deep,,4450,1", ["CulmenDepth is not a number", "FlipperLength is missing"]),
        ("Biscoe,48.7,14.1,NaN,4450,1", ["FlipperLength is missing"]),
        ("Biscoe,48.7,14.1,210,Infinity,1", ["BodyMass is not finite"]),
        ("Biscoe,48.7,14.1,210,-Infinity,1", ["BodyMass is not finite"]),
        ("Biscoe,48.7,14.1,210,44500,1", ["BodyMass is outside 1350 to 9450 g"]),
        ("Biscoe,48.7,14.1,210,4450,", ["Species is missing"]),
        ("Biscoe,48.7,14.1,210,4450,3", ["Species is not a class code (0 to 2)"]),
        ("Biscoe,48.7,14.1,210,4450,1.5", ["Species is not a class code (0 to 2)"]),
        ("Biscoe,48.7,14.1,210,4450,Gentoo", ["Species is not a class code (0 to 2)"]),
    ]
    written = [HEADER, *(line for line, _ in lines)]
    if is_reversed:
        written = [",".join(reversed(line.split(","))) for line in written]
    observations = data.read(spark, csv_file(tmp_path, *written))
    assert reasons_of(observations) == [reasons for _, reasons in lines if reasons is not None]
    assert accepted_rows(observations) == [("Biscoe", 48.7, 14.1, 210.0, 4450.0, 1)]


def test_a_line_with_too_many_or_too_few_fields_is_set_aside_with_its_text(spark: SparkSession, tmp_path: Path) -> None:
    observations = data.read(spark, csv_file(tmp_path, HEADER, f"{GENTOO},2008", ADELIE, "Biscoe,48.7,14.1,210"))
    _, quarantined = data.check(observations)
    assert [(row["_corrupt_record"], row["reasons"]) for row in quarantined.collect()] == [
        ("Biscoe,48.7,14.1,210,4450,1,2008", ["the line does not fit the header"]),
        ("Biscoe,48.7,14.1,210", ["BodyMass is missing", "Species is missing"]),
    ]
    assert accepted_rows(observations) == [("Torgersen", 39.1, 18.7, 181.0, 3750.0, 0)]


def test_a_line_that_does_not_fit_is_set_aside_once_where_the_file_has_extra_columns(
    spark: SparkSession, tmp_path: Path
) -> None:
    # Spark prunes the column that nobody asks for, and then such lines fit: some were accepted and quarantined.
    source = csv_file(tmp_path, f"{HEADER},Note", f"{ADELIE},ok", f"{GENTOO},tall,wide", GENTOO)
    accepted, quarantined = data.check(data.read(spark, source))
    assert [tuple(row) for row in accepted.collect()] == [("Torgersen", 39.1, 18.7, 181.0, 3750.0, 0)]
    assert accepted.count() == 1
    assert data.count_reasons(quarantined) == (2, {"the line does not fit the header": 2})


def test_a_value_exactly_on_the_edge_of_its_range_is_accepted(spark: SparkSession) -> None:
    rows = [("Biscoe", 16.0, 6.5, 86.0, 1350.0, 0.0), ("Biscoe", 90.0, 32.5, 347.0, 9450.0, 2.0)]
    assert accepted_rows(spark.createDataFrame(rows, TYPED)) == rows


def test_a_row_that_breaks_several_rules_has_a_reason_for_each_in_the_specs_order(spark: SparkSession) -> None:
    row = ("", math.nan, None, 1.0, 4450.0, 7.0)
    assert reasons_of(spark.createDataFrame([row], TYPED)) == [
        [
            "Island is empty",
            "CulmenLength is not finite",
            "CulmenDepth is missing",
            "FlipperLength is outside 86 to 347 mm",
            "Species is not a class code (0 to 2)",
        ]
    ]


def test_whole_numbers_and_decimals_are_as_good_as_doubles(spark: SparkSession) -> None:
    from decimal import Decimal

    schema = (
        "Island string, CulmenLength decimal(5,1), CulmenDepth float, FlipperLength int, BodyMass bigint, Species short"
    )
    observations = spark.createDataFrame(
        [("Biscoe", Decimal("48.7"), 14.5, 210, 4450, 1), ("Dream", Decimal("46.5"), 17.5, 192, 3500, 2)], schema
    )
    accepted, quarantined = data.check(observations)
    assert_df_equality(
        accepted,
        spark.createDataFrame(
            [("Biscoe", 48.7, 14.5, 210.0, 4450.0, 1), ("Dream", 46.5, 17.5, 192.0, 3500.0, 2)], ACCEPTED
        ),
        ignore_nullable=True,
    )
    assert quarantined.count() == 0


def test_reasons_are_counted_the_most_frequent_first_then_by_name(spark: SparkSession) -> None:
    observations = spark.createDataFrame(
        [
            ("Biscoe", 48.7, 14.1, 210.0, 4450.0, 9.0),
            ("Biscoe", None, 14.1, 210.0, 4450.0, 9.0),
            (None, None, 14.1, 210.0, 4450.0, 1.0),
            ("Biscoe", 48.7, 14.1, 210.0, 4450.0, 9.0),
            ("Biscoe", 48.7, 14.1, 210.0, 0.0, 1.0),
            ("Biscoe", 48.7, 14.1, 210.0, 4450.0, 1.0),
        ],
        TYPED,
    )
    rows, reasons = data.count_reasons(data.check(observations)[1])
    assert rows == 5
    # As a list, because dicts are equal in any order.
    assert list(reasons.items()) == [
        ("Species is not a class code (0 to 2)", 3),
        ("CulmenLength is missing", 2),
        ("BodyMass is outside 1350 to 9450 g", 1),
        ("Island is missing", 1),
    ]


def test_nothing_quarantined_is_counted_as_nothing(spark: SparkSession) -> None:
    observations = spark.createDataFrame([("Biscoe", 48.7, 14.1, 210.0, 4450.0, 1.0)], TYPED)
    assert data.count_reasons(data.check(observations)[1]) == (0, {})


def test_columns_of_types_that_no_value_could_have_are_refused_at_once(spark: SparkSession) -> None:
    observations = spark.createDataFrame(
        [(["Biscoe"], 48.7, b"14.1", 210.0, {"g": 4450.0}, 1.0)],
        "Island array<string>, CulmenLength double, CulmenDepth binary, FlipperLength double, "
        "BodyMass map<string,double>, Species double",
    )
    with pytest.raises(DataError) as refused:
        data.check(observations)
    assert str(refused.value) == (
        "A category must be text and a number must be a number or text, but "
        "Island is array<string>, CulmenDepth is binary, BodyMass is map<string,double>."
    )


def test_a_date_is_no_number(spark: SparkSession) -> None:
    observations = spark.createDataFrame([("Biscoe", 48.7, 14.1, 210.0, 4450.0, 1.0)], TYPED)
    with pytest.raises(DataError) as refused:
        data.check(observations.selectExpr("* except (BodyMass)", "current_date() as BodyMass"))
    assert str(refused.value) == "A category must be text and a number must be a number or text, but BodyMass is date."


def test_rows_without_all_columns_are_refused_with_all_names_at_once(spark: SparkSession) -> None:
    observations = spark.createDataFrame([("Biscoe", 48.7), ("Dream", 46.5)], "Island string, CulmenLength double")
    with pytest.raises(DataError) as refused:
        data.check(observations)
    assert str(refused.value) == (
        "The data lacks the columns CulmenDepth, FlipperLength, BodyMass, Species; it has Island, CulmenLength."
    )


def test_two_columns_that_differ_only_in_case_are_told(spark: SparkSession) -> None:
    observations = spark.createDataFrame([("Biscoe", 48.7, 14.1, 210.0, 4450.0, 1.0, "x")], f"{TYPED}, island string")
    with pytest.raises(DataError, match="Island"):
        data.check(observations)


def test_a_corrected_quarantine_file_can_be_read_and_checked_again(spark: SparkSession, tmp_path: Path) -> None:
    # `train --quarantine` writes all columns: somebody corrects the values and feeds the file back.
    source = csv_file(
        tmp_path,
        f"{HEADER},_corrupt_record,reasons",
        f'{GENTOO},"Biscoe,48.7,14.1,210,x,1",BodyMass is not a number',
        "Torgersen,39.1,18.7,181,1,0,,BodyMass is outside 1350 to 9450 g",
    )
    accepted, quarantined = data.check(data.read(spark, source))
    assert [tuple(row) for row in accepted.collect()] == [("Biscoe", 48.7, 14.1, 210.0, 4450.0, 1)]
    [row] = quarantined.collect()
    assert row["reasons"] == ["BodyMass is outside 1350 to 9450 g"]


def texts() -> st.SearchStrategy[str | None]:
    """What may stand in a cell: nothing, a good number, an edge, a special value, any text."""
    known = st.sampled_from([None, "", " ", "0", "1", "2", "1.5", "20", "30", "210", "4450", "NaN", "-Infinity", "NA"])
    # Java reads 30d and 0x1p5 as numbers and Python doesn't, so the letters that do this are left out.
    any_text = st.text(st.characters(exclude_categories=["Cs", "Nd"], exclude_characters="dDfFxX"), max_size=3)
    return known | st.floats().map(repr) | any_text


@WITH_SPARK
@given(st.lists(st.tuples(texts(), *[texts() for _ in range(5)]), min_size=12, max_size=40))
def test_every_row_of_text_is_either_accepted_or_quarantined(
    spark: SparkSession, rows: list[tuple[str | None, ...]]
) -> None:
    good: tuple[str | None, ...] = ("Biscoe", "48.7", "14.1", "210", "4450", "1")
    # Rows that are all chance are hardly ever good: each generated row also replaces a single cell of a good one.
    rows = [good, *rows, *((*good[: i % 6], row[i % 6], *good[i % 6 + 1 :]) for i, row in enumerate(rows))]
    numbered = [(place, *row) for place, row in enumerate(rows)]
    observations = spark.createDataFrame(numbered, f"id int, {TEXTS}").coalesce(1)
    accepted, quarantined = data.check(observations)
    set_aside = {row["id"]: row for row in quarantined.collect()}
    assert len(set_aside) == quarantined.count()
    assert all(row["reasons"] for row in set_aside.values())
    # What was set aside is as it came in, and what was accepted is all the rest.
    assert all(tuple(row)[1:7] == rows[place] for place, row in set_aside.items())
    rest = [row for place, row in enumerate(rows) if place not in set_aside]
    expected = Counter((island, *(float(str(number)) for number in numbers)) for island, *numbers in rest)
    assert Counter(tuple(row) for row in accepted.collect()) == expected


@WITH_SPARK
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Biscoe", "", " ", None]),
            *[st.none() | st.sampled_from([16.0, 30.0, 210.0, 4450.0, math.nan, math.inf]) | st.floats()] * 4,
            st.none() | st.integers(-1, 3).map(float) | st.floats(),
        ),
        min_size=12,
        max_size=60,
    )
)
def test_every_typed_row_is_either_accepted_or_quarantined(
    spark: SparkSession, rows: list[tuple[str | float | None, ...]]
) -> None:
    rows = [("Biscoe", 48.7, 14.1, 210.0, 4450.0, 1.0), *rows]
    observations = spark.createDataFrame([(i, *row) for i, row in enumerate(rows)], f"id int, {TYPED}").coalesce(1)
    accepted, quarantined = data.check(observations)
    set_aside = Counter(row["id"] for row in quarantined.collect())
    assert set(set_aside.values()) <= {1}
    expected = Counter(row for place, row in enumerate(rows) if place not in set_aside)
    assert Counter(tuple(row) for row in accepted.collect()) == expected


@WITH_SPARK
@given(
    lines=st.lists(
        st.lists(
            st.sampled_from(["Biscoe", "1", "30", "210", "4450", "", "NA", "a,b", "NaN", "x y"]), min_size=2, max_size=9
        ),
        max_size=40,
    )
)
def test_every_line_of_a_csv_is_either_accepted_or_quarantined(
    spark: SparkSession, tmp_path: Path, lines: list[list[str]]
) -> None:
    good = ["x", "Biscoe", "48.7", "14.1", "210", "4450", "1"]
    replaced = [good[: i % 7] + line[:1] + good[i % 7 + 1 :] for i, line in enumerate(lines)]
    lines = [good, *lines, *replaced, *(good + line[:1] for line in lines), good[:6]]
    source = tmp_path / "birds.csv"
    with source.open("w", newline="") as file:
        csv.writer(file).writerows([["Note", *COLUMNS], *lines])
    accepted, quarantined = data.check(data.read(spark, source))
    kept, aside = accepted.collect(), quarantined.collect()
    assert len(kept) + len(aside) == len(lines)
    assert (accepted.count(), quarantined.count()) == (len(kept), len(aside))
    assert all(row["reasons"] for row in aside)


# --- split ----------------------------------------------------------------------------------------------------------

Row = tuple[Any, ...]


def sides(df: DataFrame, test_fraction: float = 0.3, seed: int = 42) -> tuple[Counter[Row], Counter[Row]]:
    training, test = data.split(df, test_fraction, seed)
    return Counter(tuple(row) for row in training.collect()), Counter(tuple(row) for row in test.collect())


def test_a_split_loses_no_row_and_doubles_none(birds: DataFrame) -> None:
    training, test = sides(birds)
    assert training + test == Counter(tuple(row) for row in birds.collect())
    assert not set(training) & set(test)
    assert (training.total() + test.total()) == 342


def test_a_split_is_the_same_for_any_partitioning_and_row_order(birds: DataFrame) -> None:
    from pyspark.sql import functions as F

    assert sides(birds.orderBy(F.desc("BodyMass")).repartition(5)) == sides(birds)


def test_a_split_depends_on_the_seed(birds: DataFrame) -> None:
    assert sides(birds, seed=1) != sides(birds, seed=2)
    assert sides(birds, seed=1) == sides(birds, seed=1)


def test_the_test_rows_of_a_smaller_fraction_are_among_those_of_a_larger_one(birds: DataFrame) -> None:
    _, at_20 = sides(birds, 0.2)
    _, at_30 = sides(birds, 0.3)
    assert 0 < at_20.total() < at_30.total()
    assert at_20 <= at_30


def test_identical_rows_stay_together(birds: DataFrame) -> None:
    training, test = sides(birds)
    doubled = sides(birds.union(birds))
    assert doubled == (training + training, test + test)


def test_the_fraction_is_kept_approximately_on_many_rows(spark: SparkSession) -> None:
    many = spark.range(60_000).selectExpr(
        "'Biscoe' as Island",
        "30 + id / 10000 as CulmenLength",
        "15D as CulmenDepth",
        "200D as FlipperLength",
        "4000D as BodyMass",
        "int(id % 3) as Species",
    )
    for fraction in (0.1, 0.3, 0.5):
        training, test = data.split(many, fraction)
        assert test.count() / 60_000 == pytest.approx(fraction, abs=0.01)
        assert training.count() + test.count() == 60_000


@WITH_SPARK
@given(
    kept=st.sets(st.integers(0, 341), min_size=150),
    new=st.lists(st.tuples(st.floats(16, 90), st.integers(0, 2)), max_size=30),
)
def test_growing_data_never_moves_a_row(
    spark: SparkSession, birds: DataFrame, kept: set[int], new: list[tuple[float, int]]
) -> None:
    rows = [tuple(row) for row in birds.collect()]
    # A few of each class always, because a split without a class on one side is refused.
    some = [rows[place] for place in sorted(kept | set(range(0, 342, 6)))]
    training, test = sides(spark.createDataFrame(some, ACCEPTED))
    added = [("Dream", length, 18.0, 200.0, 4000.0, code) for length, code in new]
    grown_training, grown_test = sides(spark.createDataFrame([*added, *some], ACCEPTED))
    assert training <= grown_training
    assert test <= grown_test


FEW = [
    ("Torgersen", 39.1, 18.7, 181.0, 3750.0, 0),
    ("Dream", 46.5, 17.9, 192.0, 3500.0, 2),
    ("Torgersen", 39.5, 17.4, 186.0, 3800.0, 0),
    ("Dream", 50.0, 19.5, 196.0, 3900.0, 2),
    ("Dream", 51.3, 19.2, 193.0, 3650.0, 2),
    ("Biscoe", 48.7, 14.1, 210.0, 4450.0, 1),
]


def test_a_split_that_leaves_a_class_without_rows_is_refused_with_the_counts(spark: SparkSession) -> None:
    few = spark.createDataFrame(FEW, ACCEPTED)
    with pytest.raises(DataError) as refused:
        data.split(few, 1e-9)
    assert str(refused.value) == (
        "A test fraction of 1e-09 leaves a class without rows on one side: 2 Adelie, 1 Gentoo, 3 Chinstrap in training "
        "and 0 Adelie, 0 Gentoo, 0 Chinstrap in test."
    )
    with pytest.raises(DataError) as refused:
        data.split(few, 0.999999999)
    assert str(refused.value) == (
        "A test fraction of 1 leaves a class without rows on one side: 0 Adelie, 0 Gentoo, 0 Chinstrap in training "
        "and 2 Adelie, 1 Gentoo, 3 Chinstrap in test."
    )


def test_a_split_of_nothing_is_refused(spark: SparkSession) -> None:
    with pytest.raises(DataError) as refused:
        data.split(spark.createDataFrame([], ACCEPTED))
    assert str(refused.value) == (
        "A test fraction of 0.3 leaves a class without rows on one side: 0 Adelie, 0 Gentoo, 0 Chinstrap in training "
        "and 0 Adelie, 0 Gentoo, 0 Chinstrap in test."
    )


# --- profile and cached ---------------------------------------------------------------------------------------------


def test_a_profile_counts_the_rows_of_each_class(spark: SparkSession) -> None:
    described = data.profile(spark.createDataFrame(FEW, ACCEPTED))
    assert list(described.classes.items()) == [("Adelie", 2), ("Gentoo", 1), ("Chinstrap", 3)]
    assert described.rows == 6


def test_a_profile_of_nothing_has_no_rows_of_any_class(spark: SparkSession) -> None:
    described = data.profile(spark.createDataFrame([], ACCEPTED))
    assert (described.classes, described.rows) == ({"Adelie": 0, "Gentoo": 0, "Chinstrap": 0}, 0)


def test_a_digest_is_the_same_for_any_order_and_partitioning(birds: DataFrame) -> None:
    from pyspark.sql import functions as F

    assert data.profile(birds.orderBy(F.desc("BodyMass")).repartition(5)) == data.profile(birds)


def test_a_digest_is_changed_by_one_value_one_double_row_one_row_less_and_by_a_swap(spark: SparkSession) -> None:
    first, second, *rest = FEW
    another_value = ("Torgersen", 39.100000001, 18.7, 181.0, 3750.0, 0)
    another_class = (*first[:5], 1)
    # Values that change places between rows, so that every column still has the same sum.
    swapped = [(*first[:4], second[4], first[5]), (*second[:4], first[4], second[5])]
    variants = [
        FEW,
        [another_value, second, *rest],
        [another_class, second, *rest],
        [*FEW, first],
        [*FEW, first, first],
        [second, *rest],
        [*swapped, *rest],
        [],
    ]
    digests = [data.profile(spark.createDataFrame(rows, ACCEPTED)).digest for rows in variants]
    assert len(set(digests)) == len(variants)
    assert all(len(digest) == 16 for digest in digests)


def test_a_cache_is_kept_within_the_block_and_released_after_it(spark: SparkSession) -> None:
    df = spark.createDataFrame(FEW, ACCEPTED)
    with data.cached(df) as kept:
        assert kept.count() == 6
        assert df.storageLevel.useMemory
    assert not df.storageLevel.useMemory


def test_a_cache_is_released_even_when_the_block_fails(spark: SparkSession) -> None:
    df = spark.createDataFrame(FEW, ACCEPTED)

    def fail_within() -> None:
        with data.cached(df) as kept:
            raise InterruptedError(f"after {kept.count()} rows, cached: {kept.storageLevel.useMemory}")

    with pytest.raises(InterruptedError, match="after 6 rows, cached: True"):
        fail_within()
    assert not df.storageLevel.useMemory


class Serverless:
    """A frame that refuses to be cached, in the words of serverless Databricks, which can't be had here."""

    def persist(self) -> None:
        raise AnalysisException(
            "[NOT_SUPPORTED_WITH_SERVERLESS] PERSIST TABLE is not supported on serverless compute. SQLSTATE: 0A000"
        )


def test_cached_where_there_is_no_cache() -> None:
    frame = cast("DataFrame", Serverless())
    with data.cached(frame) as kept:
        assert kept is frame


def test_another_refusal_to_cache_is_told() -> None:
    class Broken:
        def persist(self) -> None:
            raise AnalysisException("[SOMETHING_ELSE] no")

    with pytest.raises(AnalysisException, match="SOMETHING_ELSE"), data.cached(cast("DataFrame", Broken())):
        pass


# --- another spec ---------------------------------------------------------------------------------------------------


def test_a_real_binary_table_without_categories_goes_all_the_way(spark: SparkSession, tmp_path: Path) -> None:
    from sklearn.datasets import load_breast_cancer

    table = load_breast_cancer(as_frame=True).frame.rename(columns={"target": "Diagnosis"})
    table.to_csv(tmp_path / "tumours.csv", index=False)
    observations = data.read(spark, tmp_path / "tumours.csv", BREAST_CANCER)
    accepted, quarantined = data.check(observations, BREAST_CANCER)
    assert accepted.columns == ["mean radius", "mean texture", "mean smoothness", "Diagnosis"]
    assert data.count_reasons(quarantined) == (0, {})
    assert data.profile(accepted, BREAST_CANCER).classes == {"malignant": 212, "benign": 357}
    training, test = data.split(accepted, 0.3, 42, BREAST_CANCER)
    assert training.count() + test.count() == 569


def test_a_range_without_a_unit_is_told_without_one(spark: SparkSession) -> None:
    observations = spark.createDataFrame(
        [(15.0, 20.0, 0.1, 0), (15.0, 20.0, 1.1, 1), (70.0, 0.5, 0.1, 2)],
        "`mean radius` double, `mean texture` double, `mean smoothness` double, Diagnosis int",
    )
    assert reasons_of(observations, BREAST_CANCER) == [
        ["mean smoothness is outside 0 to 1"],
        [
            "mean radius is outside 1 to 60 mm",
            "mean texture is outside 1 to 80",
            "Diagnosis is not a class code (0 to 1)",
        ],
    ]


def test_several_categories_are_read_checked_and_described(spark: SparkSession, tmp_path: Path) -> None:
    spec = Spec(("Breed", "Colour"), (Numeric("Weight", "kg", 0.1, 90),), "Kind", ("cat", "dog"))
    source = csv_file(
        tmp_path, "Weight,Colour,Breed,Kind", "4.5,red,Manx,0", "30,,Boxer,1", "20, ,,1", "25,black,Pug,1"
    )
    observations = data.read(spark, source, spec)
    assert accepted_rows(observations, spec) == [("Manx", "red", 4.5, 0), ("Pug", "black", 25.0, 1)]
    assert reasons_of(observations, spec) == [["Colour is missing"], ["Breed is missing", "Colour is missing"]]


def test_ten_classes_are_checked_split_and_described(spark: SparkSession) -> None:
    from sklearn.datasets import load_digits

    pixels = tuple(Numeric(f"pixel_{row}_{column}", "", 0, 16) for row in (2, 3, 4, 5) for column in (2, 3, 4, 5))
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    spec = Spec((), pixels, "Digit", names)
    digits = load_digits(as_frame=True).frame.rename(columns={"target": "Digit"})[list(spec.columns)]
    observations = spark.createDataFrame(digits.astype(object).to_numpy().tolist(), list(spec.columns))
    accepted, _ = data.check(observations, spec)
    assert data.profile(accepted, spec).classes == {
        "zero": 178,
        "one": 182,
        "two": 177,
        "three": 183,
        "four": 181,
        "five": 182,
        "six": 181,
        "seven": 179,
        "eight": 174,
        "nine": 180,
    }
    training, test = data.split(accepted, 0.3, 42, spec)
    assert training.count() + test.count() == 1797


def test_columns_may_be_called_what_the_counting_calls_its_own(spark: SparkSession) -> None:
    spec = Spec(("set", "high"), (Numeric("low", "", 0, 9),), "rows", ("few", "many"))
    rows = [("a", "x", 1.0, 0), ("b", "y", 2.0, 1), ("b", "x", 3.0, 1)]
    table = spark.createDataFrame(rows, "set string, high string, low double, rows int")
    found = data.profile(table, spec)
    assert found.classes == {"few": 1, "many": 2}
    assert found.categories == {"set": frozenset("ab"), "high": frozenset("xy")}
