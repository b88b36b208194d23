"""Scoring many rows: what comes out, where it goes, and what is there when something goes wrong."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer

from penguins import data, flavor, pipeline, predict, show, target
from penguins.errors import DataError, ModelError
from penguins.predict import Scored, added_columns, score
from penguins.registry import Version
from penguins.spec import PENGUINS
from penguins.tracking import Tracking
from penguins.train import train_from_source
from tests.conftest import BREAST_CANCER, PENGUINS_CSV
from tests.test_cli import here

if TYPE_CHECKING:
    from pyspark.ml import PipelineModel
    from pyspark.sql import DataFrame, SparkSession

HEADER = "Id,Island,CulmenLength,CulmenDepth,FlipperLength,BodyMass"
ADELIE = "Torgersen,39.1,18.7,181,3750"
GENTOO = "Biscoe,48.7,14.1,210,4450"
CHINSTRAP = "Dream,46.5,17.9,192,3500"
MIXED = [HEADER, f"a,{ADELIE}", "b,Biscoe,48.7,,210,4450", f"c,{GENTOO}", "d,Moon,39.1,much,181,3750", f"e,{CHINSTRAP}"]
PROBABILITIES = ["probability_Adelie", "probability_Gentoo", "probability_Chinstrap"]
ADDED = ["prediction", "species", *PROBABILITIES, "reasons", "model_name", "model_version", "scored_at"]


@pytest.fixture(scope="module")
def champion(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[PipelineModel, Path]:
    """A model trained on the real birds, version 1 and champion in the store of the folder."""
    folder = tmp_path_factory.mktemp("champion")
    Tracking.local(folder).activate()
    trained = train_from_source(spark, PENGUINS_CSV, register_as="penguin_predictor")
    mlflow.MlflowClient().set_registered_model_alias("penguin_predictor", "champion", "1")
    return trained.model, folder


@pytest.fixture
def model(champion: tuple[PipelineModel, Path]) -> Iterator[PipelineModel]:
    """The champion, in the store that is active."""
    found, folder = champion
    Tracking.local(folder).activate()
    yield found
    mlflow.set_tracking_uri("")
    mlflow.set_registry_uri("")


def lines(path: Path, *text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(text) + "\n")
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def as_rows(df: DataFrame, *columns: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in df.select(*columns).collect()]


@pytest.mark.parametrize(
    ("columns", "renamed"),
    [
        ([], {}),
        (["Island", "Species"], {"species": "predicted_species"}),
        (["SPECIES", "Predicted_Species"], {"species": "predicted_species_2"}),
        (
            ["Prediction", "prediction_2", "reasons", "probability_gentoo"],
            {"prediction": "prediction_3", "reasons": "reasons_2", "probability_Gentoo": "probability_Gentoo_2"},
        ),
    ],
)
def test_a_column_that_is_added_gives_way_to_one_that_is_there(columns: list[str], renamed: dict[str, str]) -> None:
    assert added_columns(columns) == {**{name: name for name in ADDED}, **renamed}


@pytest.mark.spark
def test_good_and_bad_lines_of_a_csv_come_out_in_their_order(
    spark: SparkSession, model: PipelineModel, tmp_path: Path
) -> None:
    source = lines(
        tmp_path / "birds.csv",
        *MIXED,
        "f,Dream,46.5,17.9,192,NaN",
        "g,,46.5,17.9,192,Infinity",
        f"h,{GENTOO},2008",
        "i,Dream,1000,17.9,192,3500",
        "j,Dream,-1.7e308,1.7e308,1.7e308,1.7e308",
    )
    scored = score(data.read(spark, source, labelled=False), model)
    assert scored.columns == [*HEADER.split(","), "_corrupt_record", *ADDED[:6]]
    assert as_rows(scored, "Id", "prediction", "species", "reasons") == [
        ("a", 0, "Adelie", None),
        ("b", None, None, ["CulmenDepth is missing"]),
        ("c", 1, "Gentoo", None),
        ("d", None, None, ["Island is unknown to the model", "CulmenDepth is not a number"]),
        ("e", 2, "Chinstrap", None),
        ("f", None, None, ["BodyMass is missing"]),
        ("g", None, None, ["Island is missing", "BodyMass is not finite"]),
        ("h", None, None, ["the line does not fit the header"]),
        ("i", 2, "Chinstrap", None),  # outside of the range, but the model has an answer
        ("j", None, None, ["a number is too large to compute with"]),
    ]
    # All columns: Spark takes no offence at a value of a column that nobody asks for.
    kept = {row["Id"]: row["_corrupt_record"] for row in scored.collect() if row["_corrupt_record"] is not None}
    assert kept == {"d": "d,Moon,39.1,much,181,3750", "h": f"h,{GENTOO},2008"}
    for id_, *probabilities in as_rows(scored, "Id", *PROBABILITIES):
        if id_ in "acei":
            assert sum(probabilities) == pytest.approx(1)
        else:
            assert probabilities == [None, None, None]


@pytest.mark.spark
def test_typed_rows_with_columns_that_the_model_makes_itself_keep_them(
    spark: SparkSession, model: PipelineModel
) -> None:
    rows = [
        ("Biscoe", 48.7, "14.1", 210, 4450.0, "Gentoo", 1.5, [1, 2], "x", "y"),
        ("Biscoe", float("nan"), "deep", None, float("-inf"), None, 2.5, None, "z", "z"),
    ]
    schema = (
        "Island string, CulmenLength double, CulmenDepth string, FlipperLength long, BodyMass float, "
        "`species` string, prediction double, probability array<int>, Features string, `a.b` string"
    )
    df = spark.createDataFrame(rows, schema)
    scored = score(df, model)
    assert scored.columns == [*df.columns, "prediction_2", "predicted_species", *PROBABILITIES, "reasons"]
    assert as_rows(scored, *(f"`{name}`" for name in df.columns))[0] == rows[0]
    assert as_rows(scored, "species", "prediction", "probability", "Features", "`a.b`") == [
        ("Gentoo", 1.5, [1, 2], "x", "y"),
        (None, 2.5, None, "z", "z"),
    ]
    assert as_rows(scored, "prediction_2", "predicted_species", "reasons") == [
        (1, "Gentoo", None),
        (
            *(None, None),
            [
                "CulmenLength is not finite",
                "CulmenDepth is not a number",
                "FlipperLength is missing",
                "BodyMass is not finite",
            ],
        ),
    ]


def assert_same_answers(scored: DataFrame, birds: pd.DataFrame) -> None:
    """The batch's answers beside those of the twin that needs no JVM."""
    answers = scored.toPandas()
    expected = flavor.load_scorer("models:/penguin_predictor/1").predict(birds)
    assert answers["reasons"].isna().all()
    assert answers["prediction"].tolist() == expected["prediction"].tolist()
    name = "species" if "species" in answers else "predicted_species"
    assert answers[name].tolist() == expected["species"].tolist()
    np.testing.assert_allclose(answers[PROBABILITIES].to_numpy(), expected[PROBABILITIES].to_numpy(), rtol=0, atol=1e-9)


@pytest.mark.spark
def test_every_real_bird_gets_the_scorers_answer(spark: SparkSession, model: PipelineModel) -> None:
    accepted, _ = data.check(data.read(spark, PENGUINS_CSV))
    birds = accepted.toPandas()
    assert len(birds) == 342
    assert_same_answers(score(accepted, model), birds)


@pytest.mark.spark
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Biscoe", "Dream", "Torgersen"]),
            *(st.floats(n.minimum, n.maximum, allow_nan=False) for n in PENGUINS.numeric),
        ),
        min_size=20,
        max_size=60,
    )
)
def test_any_usable_row_gets_the_scorers_answer(
    spark: SparkSession, model: PipelineModel, rows: list[tuple[Any, ...]]
) -> None:
    birds = pd.DataFrame(rows, columns=list(PENGUINS.features))
    assert_same_answers(score(spark.createDataFrame(birds), model), birds)


@pytest.mark.spark
def test_another_table_without_categories_is_scored_and_the_model_is_none_for_birds(
    spark: SparkSession, tmp_path: Path
) -> None:
    columns = ["mean radius", "mean texture", "mean smoothness"]
    tumours = load_breast_cancer(as_frame=True).frame.rename(columns={"target": "Diagnosis"})
    fitted = pipeline.build(BREAST_CANCER).fit(spark.createDataFrame(tumours[[*columns, "Diagnosis"]]))
    source = lines(tmp_path / "asked.csv", ",".join(columns), "12.3,15.7,0.09", "20.6,29.3,", "20.6,29.3,0.118")
    scored = score(data.read(spark, source, BREAST_CANCER, labelled=False), fitted, BREAST_CANCER)
    assert scored.columns[-5:] == ["prediction", "diagnosis", "probability_malignant", "probability_benign", "reasons"]
    assert as_rows(scored, "prediction", "diagnosis", "reasons") == [
        (1, "benign", None),
        (None, None, ["mean smoothness is missing"]),
        (0, "malignant", None),
    ]
    with pytest.raises(ModelError) as told:
        score(data.read(spark, PENGUINS_CSV), fitted)
    assert str(told.value) == (
        "Only the stages that penguins builds (1 indexers, assembler, scaler, assembler, logistic regression) can be "
        "exported, but this pipeline has VectorAssembler, MinMaxScalerModel, VectorAssembler, LogisticRegressionModel."
    )


@pytest.mark.spark
def test_columns_that_differ_only_in_case_are_told(spark: SparkSession, model: PipelineModel) -> None:
    df = data.read(spark, PENGUINS_CSV).selectExpr("*", "1 as note", "2 as NOTE")
    with pytest.raises(DataError) as told:
        score(df, model)
    assert str(told.value) == ("The data has note, NOTE, which differ in nothing but upper and lower case: rename one.")


@pytest.mark.spark
def test_a_csv_becomes_one_csv_with_a_header_and_the_counts_of_what_is_in_it(
    spark: SparkSession, model: PipelineModel, tmp_path: Path
) -> None:
    source = lines(tmp_path / "birds.csv", *MIXED)
    steps: list[str] = []
    before = datetime.now(UTC) - timedelta(seconds=1)
    result = predict.predict(spark, source, tmp_path / "out" / "scored.csv", report=steps.append)
    assert steps == list(predict.STEPS)
    assert before <= result.scored_at <= datetime.now(UTC)
    assert result == Scored(
        rows=5,
        classes={"Adelie": 1, "Gentoo": 1, "Chinstrap": 1},
        reasons={
            "CulmenDepth is missing": 1,
            "CulmenDepth is not a number": 1,
            "Island is unknown to the model": 1,
        },
        version=Version("penguin_predictor", 1),
        target=str(tmp_path / "out" / "scored.csv"),
        scored_at=result.scored_at,
    )
    assert (result.scored, result.unscored) == (3, 2)
    assert names_in(tmp_path / "out") == ["scored.csv"]
    rows = rows_of(tmp_path / "out" / "scored.csv")
    assert list(rows[0]) == [*HEADER.split(","), "_corrupt_record", *ADDED]
    assert [(row["Id"], row["species"], row["reasons"]) for row in rows] == [
        ("a", "Adelie", ""),
        ("b", "", "CulmenDepth is missing"),
        ("c", "Gentoo", ""),
        ("d", "", "Island is unknown to the model; CulmenDepth is not a number"),
        ("e", "Chinstrap", ""),
    ]
    assert {(row["model_name"], row["model_version"], row["scored_at"]) for row in rows} == {
        ("penguin_predictor", "1", f"{result.scored_at:%Y-%m-%dT%H:%M:%S}.000Z")
    }


@pytest.mark.spark
def test_the_birds_with_their_species_go_to_parquet_and_from_there_to_a_table(
    spark: SparkSession, model: PipelineModel, tmp_path: Path
) -> None:
    first = predict.predict(spark, PENGUINS_CSV, tmp_path / "scored.parquet")
    assert first.classes == {"Adelie": 153, "Gentoo": 123, "Chinstrap": 66}
    assert first.reasons == {
        f"{name} is missing": 2 for name in ("BodyMass", "CulmenDepth", "CulmenLength", "FlipperLength")
    }
    spark.sql("DROP TABLE IF EXISTS scored_twice")
    try:
        second = predict.predict(spark, tmp_path / "scored.parquet", "default.scored_twice")
        assert (second.rows, second.classes, second.reasons) == (344, first.classes, first.reasons)
        table = spark.table("scored_twice")
        assert table.where("Species = 0").where("predicted_species = 'Adelie'").count() == 151
        assert table.where("predicted_species <=> predicted_species_2 and reasons <=> reasons_2").count() == 344
        assert dict(table.dtypes)["scored_at_2"] == "timestamp"
        assert dict(table.dtypes)["reasons_2"] == "array<string>"
        with pytest.raises(DataError) as told:
            predict.predict(spark, PENGUINS_CSV, "scored_twice")
        assert str(told.value) == ("scored_twice exists already: give another --output, or --overwrite to replace it.")
        with pytest.raises(DataError) as told:
            predict.predict(spark, "scored_twice", "spark_catalog.default.scored_twice", overwrite=True)
        assert str(told.value) == (
            "spark_catalog.default.scored_twice is where the rows are read from (scored_twice): "
            "give another place for the result."
        )
        third = predict.predict(spark, lines(tmp_path / "few.csv", *MIXED), "scored_twice", overwrite=True)
        assert third.rows == spark.table("scored_twice").count() == 5
        assert [table.name for table in spark.catalog.listTables() if "scored" in table.name] == ["scored_twice"]
    finally:
        spark.sql("DROP TABLE IF EXISTS scored_twice")


@pytest.mark.spark
@pytest.mark.parametrize("name", ["scored.csv", "scored.parquet"])
def test_overwriting_is_asked_for_and_gives_the_same_but_for_the_time(
    spark: SparkSession, model: PipelineModel, tmp_path: Path, name: str
) -> None:
    source, output = lines(tmp_path / "birds.csv", *MIXED), tmp_path / name

    def content() -> list[tuple[Any, ...]]:
        df = spark.read.csv(str(output), header=True) if name.endswith("csv") else spark.read.parquet(str(output))
        return sorted(as_rows(df.drop("scored_at"), "*"), key=str)

    first = predict.predict(spark, source, output)
    before = content()
    with pytest.raises(DataError) as told:
        predict.predict(spark, source, output)
    assert str(told.value) == f"{output} exists already: give another --output, or --overwrite to replace it."
    second = predict.predict(spark, source, output, overwrite=True)
    assert len(before) == 5
    assert content() == before
    assert (second.rows, second.classes, second.reasons) == (first.rows, first.classes, first.reasons)
    assert names_in(tmp_path) == ["birds.csv", name]


@pytest.mark.spark
def test_the_input_is_never_overwritten(spark: SparkSession, model: PipelineModel, tmp_path: Path) -> None:
    source = lines(tmp_path / "birds.parquet" / "birds.csv", *MIXED)
    shutil.copy(source, tmp_path / "same.csv")
    (tmp_path / "link.csv").symlink_to(tmp_path / "same.csv")
    for read, output in (
        (tmp_path / "same.csv", tmp_path / "same.csv"),
        ((tmp_path / "same.csv").as_uri(), tmp_path / "link.csv"),
        (source.parent, source.parent / "scored.csv"),
        (source, source.parent),
        (tmp_path / "*.csv", tmp_path / "same.csv"),
    ):
        with pytest.raises(DataError) as told:
            predict.predict(spark, read, output, overwrite=True)
        assert (
            str(told.value) == f"{output} is where the rows are read from ({read}): give another place for the result."
        )
    assert source.read_text() == (tmp_path / "same.csv").read_text() == "\n".join(MIXED) + "\n"


@pytest.mark.spark
@pytest.mark.parametrize("output", ["scored.csv", "scored.parquet", "scored_by_loss"])
def test_rows_that_get_lost_are_noticed_before_anything_is_replaced(
    spark: SparkSession, model: PipelineModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    source = lines(tmp_path / "birds.csv", *MIXED)
    place = output if "_" in output else str(tmp_path / output)
    predict.predict(spark, source, place, overwrite=True)
    tables = [table.name for table in spark.catalog.listTables()]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr(predict, "score", lambda *given: score(*given).where("Id <> 'c'"))
    try:
        with pytest.raises(DataError) as told:
            predict.predict(spark, source, place, overwrite=True)
        assert str(told.value) == (
            f"5 rows were read and 4 written to {place}: it is left as it was; "
            "on a cluster, write to a table or to a place that all its machines share."
        )
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
        assert [table.name for table in spark.catalog.listTables()] == tables
        if "_" in output:
            assert spark.table(place).count() == 5
    finally:
        spark.sql("DROP TABLE IF EXISTS scored_by_loss")


@pytest.mark.spark
def test_a_table_that_spark_drops_and_cant_make_anew_leaves_the_finished_one(
    spark: SparkSession, model: PipelineModel, tmp_path: Path
) -> None:
    source = lines(tmp_path / "birds.csv", *MIXED)
    # Of a table elsewhere only the name is dropped; the new one's place is taken.
    spark.range(2).write.option("path", str(tmp_path / "old")).saveAsTable("scored_anew")
    warehouse = Path(str(spark.conf.get("spark.sql.warehouse.dir")).removeprefix("file:"))
    lines(warehouse / "scored_anew" / "other.txt", "in the way")
    try:
        with pytest.raises(DataError) as told:
            predict.predict(spark, source, "scored_anew", overwrite=True)
        assert not spark.catalog.tableExists("scored_anew")
        [beside] = [table.name for table in spark.catalog.listTables() if "scored_anew" in table.name]
        assert str(told.value).startswith(
            f"scored_anew can't be written (all its rows are in the table {beside}): [LOCATION_ALREADY_EXISTS] "
        )
        assert spark.table(beside).count() == 5
    finally:
        shutil.rmtree(warehouse / "scored_anew")
        for table in spark.catalog.listTables():
            if "scored_anew" in table.name:
                spark.sql(f"DROP TABLE {table.name}")


@pytest.mark.spark
def test_the_command_refuses_a_table_that_would_end_with_it(
    spark: SparkSession, champion: tuple[PipelineModel, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = f"sqlite:///{champion[1] / 'mlflow.db'}"
    options = ["--data", str(lines(tmp_path / "birds.csv", *MIXED)), "--output", "scored_here", "--tracking-uri", store]
    result = here("predict", *options)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines()[-1] == (
        "Error: The table scored_here would be gone when the command ends, as all tables of this Spark: "
        "give a path that ends with .csv or .parquet."
    )
    assert not spark.catalog.tableExists("scored_here")
    # Where Spark runs elsewhere, so do its tables.
    monkeypatch.setenv("SPARK_REMOTE", "sc://spark.example")
    target.require_lasting(spark, "scored_here")


@pytest.mark.spark
def test_a_suffix_in_capitals_is_one(spark: SparkSession, model: PipelineModel, tmp_path: Path) -> None:
    source = lines(tmp_path / "BIRDS.CSV", *MIXED)
    for name in ("SCORED.CSV", "Scored.Parquet"):
        assert predict.predict(spark, source, tmp_path / name).rows == 5
    assert [row["Id"] for row in rows_of(tmp_path / "SCORED.CSV")] == ["a", "b", "c", "d", "e"]
    assert spark.read.parquet(str(tmp_path / "Scored.Parquet")).count() == 5
    target.require_free("scored.CSV", overwrite=False)
    with pytest.raises(DataError, match=r"^scored\.CSV\.gz can't be written: give a path that ends with "):
        target.require_free("scored.CSV.gz", overwrite=False)


@pytest.mark.spark
def test_a_file_that_turns_out_to_be_unreadable_leaves_nothing(
    spark: SparkSession, model: PipelineModel, tmp_path: Path
) -> None:
    lines(tmp_path / "birds" / "a.csv", *MIXED)
    lines(tmp_path / "birds" / "b.csv", "Island,Id,CulmenLength,CulmenDepth,FlipperLength,BodyMass", f"x,{ADELIE}")
    with pytest.raises(DataError) as told:
        predict.predict(spark, tmp_path / "birds", tmp_path / "scored.csv")
    birds, columns = tmp_path / "birds", "CulmenLength, CulmenDepth, FlipperLength, BodyMass"
    assert str(told.value) == (
        f"The files of {birds} have different headers: {birds}/a.csv has Id, Island, {columns}, and {birds}/b.csv has "
        f"Island, Id, {columns}. Give each of them the same columns in the same order."
    )
    assert names_in(tmp_path) == ["birds"]


@pytest.mark.spark
@pytest.mark.parametrize("output", ["scored.csv", "scored.parquet"])
def test_no_rows_give_a_header_and_no_rows(
    spark: SparkSession, model: PipelineModel, tmp_path: Path, output: str
) -> None:
    result = predict.predict(spark, lines(tmp_path / "none.csv", HEADER), tmp_path / output)
    assert (result.rows, result.classes, result.reasons) == (0, {"Adelie": 0, "Gentoo": 0, "Chinstrap": 0}, {})
    again = data.read(spark, tmp_path / output, labelled=False)
    assert again.count() == 0
    assert again.columns[-3:] == ["model_name", "model_version", "scored_at"] or output.endswith("csv")


@pytest.mark.spark
def test_text_comes_out_of_a_csv_as_it_was_and_what_a_csv_cant_hold_is_told(
    spark: SparkSession, model: PipelineModel, tmp_path: Path
) -> None:
    notes = ['two\nlines, a comma and "quotes"', "  spaces  ", None, ""]
    birds = spark.createDataFrame(
        [("Biscoe", 48.7, 14.1, 210.0, 4450.0, note, ["x", "y"]) for note in notes],
        "Island string, CulmenLength double, CulmenDepth double, FlipperLength double, BodyMass double, "
        "`the.note` string, reasons array<string>",
    )
    birds.coalesce(1).write.parquet(str(tmp_path / "birds.parquet"))
    predict.predict(spark, tmp_path / "birds.parquet", tmp_path / "scored.csv")
    rows = rows_of(tmp_path / "scored.csv")
    assert [row["the.note"] for row in rows] == [notes[0], notes[1], "", ""]
    assert {row["reasons"] for row in rows} == {"x; y"}
    assert {row["reasons_2"] for row in rows} == {""}
    birds.selectExpr("*", "map('a', 1) as m").write.parquet(str(tmp_path / "maps.parquet"))
    with pytest.raises(DataError, match=r"^\S*/maps\.csv can't be written: .*`m`"):
        predict.predict(spark, tmp_path / "maps.parquet", tmp_path / "maps.csv")
    assert names_in(tmp_path) == ["birds.parquet", "maps.parquet", "scored.csv"]


TEXTS = st.lists(
    st.none() | st.text(st.sampled_from("\r\n\t \",;\\#'a\0\ufeff\u2028ü") | st.characters(codec="utf-8"), max_size=6),
    min_size=30,
    max_size=60,
)


@pytest.mark.spark
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(TEXTS, st.sampled_from(["a\r\nb", "\r", "a\rb", "\n"]))
def test_every_text_comes_out_of_a_csv_as_it_went_in(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, texts: list[str | None], first: str
) -> None:
    # The first line end is the one that Spark would take for that of all lines.
    texts = [first, *texts, " a\r", '"\r\n"', '\\"', "a\\"]
    rows = [(text, number, text) for number, text in enumerate(texts)]
    df = spark.createDataFrame(rows, 'first string, number int, `last\r\n"one"` string')
    output = tmp_path_factory.mktemp("texts") / "texts.csv"
    written = target.write(df, str(output), lambda read: [tuple(row) for row in read.collect()])
    # A CSV has one way to write a text that is empty and one that isn't there.
    assert written == [(text or None, str(number), text or None) for text, number, _ in rows]
    with output.open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [df.columns, *([text or "", str(n), text or ""] for text, n, _ in rows)]


@pytest.mark.spark
def test_rows_whose_first_text_has_line_ends_are_scored(
    spark: SparkSession, model: PipelineModel, tmp_path: Path
) -> None:
    birds = pd.DataFrame(
        [["a\r\nb", "Biscoe", 48.7, 14.1, 210.0, 4450.0], ["c\rd", "Dream", 46.5, 17.9, 192.0, 3500.0]]
    )
    birds.columns = pd.Index(["Note", *PENGUINS.features])
    birds.to_parquet(tmp_path / "birds.parquet")
    (tmp_path / "my 100%41 #data").mkdir()
    output = tmp_path / "my 100%41 #data" / "scored (1).csv"
    lines(output, "what was there")
    result = predict.predict(spark, tmp_path / "birds.parquet", output, overwrite=True)
    assert (result.rows, result.classes) == (2, {"Adelie": 0, "Gentoo": 1, "Chinstrap": 1})
    assert [(row["Note"], row["species"]) for row in rows_of(output)] == [("a\r\nb", "Gentoo"), ("c\rd", "Chinstrap")]
    assert names_in(tmp_path) == ["birds.parquet", "my 100%41 #data"]


@pytest.mark.spark
def test_a_uri_that_only_spark_reaches_gets_a_folder_as_spark_writes_it(
    spark: SparkSession, model: PipelineModel, tmp_path: Path
) -> None:
    key = "fs.viewfs.mounttable.lake.link./out"
    (tmp_path / "out").mkdir()
    spark.conf.set(key, (tmp_path / "out").as_uri())
    try:
        source, uri = lines(tmp_path / "birds.csv", *MIXED), "viewfs://lake/out/scored.csv"
        result = predict.predict(spark, source, uri)
        assert (result.rows, result.unscored) == (5, 2)
        with pytest.raises(DataError, match=r"^viewfs://lake/out/scored\.csv can't be written: .*already exists"):
            predict.predict(spark, source, uri)
        assert predict.predict(spark, source, uri, overwrite=True).rows == 5
        [part] = (tmp_path / "out" / "scored.csv").glob("part-*.csv")
        assert [row["Id"] for row in rows_of(part)] == ["a", "b", "c", "d", "e"]
    finally:
        spark.conf.unset(key)


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("out/scored", "out/scored can't be written: give a path that ends with .csv or .parquet, or a table."),
        ("scored.csv.gz", "scored.csv.gz can't be written: give a path that ends with .csv or .parquet, or a table."),
        (
            "my table",
            "'my table' is neither a file nor a table: give a .csv or .parquet path, or [catalog.][schema.]table.",
        ),
    ],
)
def test_a_place_that_is_none_is_told(output: str, sentence: str) -> None:
    with pytest.raises(DataError) as told:
        target.require_free(output, overwrite=True)
    assert str(told.value) == sentence


@pytest.mark.spark
def test_a_place_that_cant_be_written_and_a_model_that_isnt_there_are_told(
    spark: SparkSession, model: PipelineModel, tmp_path: Path
) -> None:
    source = lines(tmp_path / "birds.csv", *MIXED)
    with pytest.raises(DataError) as told:
        predict.predict(spark, source, PENGUINS_CSV / "scored.csv")
    assert str(told.value) == f"{PENGUINS_CSV}/scored.csv can't be written: File exists."
    with pytest.raises(ModelError) as missing:
        predict.predict(spark, source, tmp_path / "scored.csv", model_uri="models:/penguin_predictor@nobody")
    assert str(missing.value) == (
        "penguin_predictor doesn't have the alias nobody: "
        "`penguins train` makes a version, `penguins promote` the champion."
    )
    assert names_in(tmp_path) == ["birds.csv"]


@pytest.mark.spark
@pytest.mark.slow
def test_the_command_scores_a_file_with_the_champion(
    champion: tuple[PipelineModel, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines(tmp_path / "birds.csv", *MIXED)
    store = f"sqlite:///{champion[1] / 'mlflow.db'}"
    options = ["--data", "birds.csv", "--output", "scored.csv", "--tracking-uri", store]
    result = here("predict", *options, "--json")
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", answer.pop("scored_at"))
    assert answer == {
        "rows": 5,
        "scored": 3,
        "unscored": 2,
        "classes": {"Adelie": 1, "Gentoo": 1, "Chinstrap": 1},
        "reasons": {
            "CulmenDepth is missing": 1,
            "CulmenDepth is not a number": 1,
            "Island is unknown to the model": 1,
        },
        "model_name": "penguin_predictor",
        "model_version": 1,
        "output": "scored.csv",
    }
    assert names_in(tmp_path) == ["birds.csv", "scored.csv"]
    again = here("predict", *options)
    assert (again.exit_code, again.stdout, again.stderr) == (
        1,
        "",
        "Error: scored.csv exists already: give another --output, or --overwrite to replace it.\n",
    )
    lines(tmp_path / "birds.csv", *MIXED[:2])
    replaced = here("predict", *options, "--overwrite", "--model", "models:/penguin_predictor/1", "--json")
    assert replaced.exit_code == 0, replaced.stderr
    assert [json.loads(replaced.stdout)[name] for name in ("rows", "model_version")] == [1, 1]
    assert [row["Id"] for row in rows_of(tmp_path / "scored.csv")] == ["a"]
    nobody = here("predict", *options, "--overwrite", "--model", "models:/penguin_predictor/7")
    assert nobody.exit_code == 1
    assert "penguin_predictor doesn't have a version 7: " in nobody.stderr
    assert here("predict", "--data", "birds.csv").exit_code == 2


def test_a_person_reads_what_came_out_and_where_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    show.scored(
        Scored(
            rows=1344,
            classes={"Adelie": 1000, "Gentoo": 342},
            reasons={"BodyMass is missing": 2, "Island is unknown to the model": 1},
            version=Version("penguin_predictor", 7),
            target="scored[may].csv",
            scored_at=datetime(2026, 11, 21, tzinfo=UTC),
        )
    )
    assert capsys.readouterr().out.splitlines() == [
        "",
        "1,344 rows: 1,342 scored, 2 with reasons why not.",
        "  2 × BodyMass is missing",
        "  1 × Island is unknown to the model",
        "┏━━━━━━━━┳━━━━━━━┓",
        "┃ class  ┃  rows ┃",
        "┡━━━━━━━━╇━━━━━━━┩",
        "│ Adelie │ 1,000 │",
        "│ Gentoo │   342 │",
        "└────────┴───────┘",
        "Version  models:/penguin_predictor/7",
        "Written  scored[may].csv",
    ]
