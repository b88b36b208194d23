"""What a comparison finds: answers of the model, quality, windows, advice; and the defined answers at the edges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from pyspark.sql import functions as F

from penguins import data, pipeline
from penguins.bins import observe
from penguins.config import RetrainRule, Thresholds
from penguins.drift import lean_season
from penguins.errors import DataError, ModelError, ParameterError
from penguins.findings import Findings, Settings, ask, examine
from penguins.spec import Numeric, Spec
from tests.conftest import PENGUINS_CSV

if TYPE_CHECKING:
    from pyspark.ml import PipelineModel
    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.spark

SPEC = Spec(categorical=("Colour",), numeric=(Numeric("Size", "mm", 0, 100),), label="Kind", classes=("small", "large"))
COLUMNS = "Colour string, Size double, Kind int, Seen string"
DAILY = Settings.of(timestamp="Seen", window="1 day", rule="2 of 3")


@pytest.fixture(scope="module")
def reference(spark: SparkSession) -> DataFrame:
    """Forty things: up to 50 mm they are small and red, above large and blue."""
    rows = [("red", float(size), 0, "2026-01-01") for size in range(11, 51, 2)]
    rows += [("blue", float(size), 1, "2026-01-01") for size in range(51, 91, 2)]
    return spark.createDataFrame(rows, COLUMNS)


@pytest.fixture(scope="module")
def model(reference: DataFrame) -> PipelineModel:
    return pipeline.build(SPEC, max_iter=20).fit(reference)


def frame(spark: SparkSession, rows: Sequence[tuple[Any, ...]]) -> DataFrame:
    return spark.createDataFrame(list(rows), COLUMNS)


def test_a_row_that_the_model_cant_answer_has_no_answer_and_the_others_have_its_own(
    spark: SparkSession, reference: DataFrame, model: PipelineModel
) -> None:
    rows = frame(
        spark,
        [
            ("red", 12.0, 0, "x"),
            ("green", 12.0, 0, "x"),
            (None, 12.0, 0, "x"),
            ("blue", None, 1, "x"),
            ("blue", math.nan, 1, "x"),
            ("blue", 88.0, None, "x"),
            ("blue", 500.0, 1, "x"),
        ],
    )
    answered = ask(observe(rows, SPEC), model, SPEC)
    found = answered.select("Colour", "prediction", "prediction:flaw", "confidence", "Colour:flaw").collect()
    assert [row["prediction"] for row in found] == ["small", None, None, None, None, "large", "large"]
    assert [row["prediction:flaw"] for row in found] == [None, *["missing"] * 4, None, None]
    assert [row["Colour"] for row in found] == ["red", "green", None, "blue", "blue", "blue", "blue"]
    direct = [
        max(row["probability"]) for row in model.transform(rows.where("Size in (12, 88, 500)")).limit(1).collect()
    ]
    assert [row["confidence"] for row in found][:2] == [pytest.approx(direct[0], abs=1e-12), None]


def test_numbers_too_large_to_compute_with_have_no_answer_and_no_confidence(spark: SparkSession) -> None:
    accepted, _ = data.check(data.read(spark, PENGUINS_CSV))
    huge = ("Dream", -1.7e308, 1.7e308, 1.7e308, 1.7e308)
    rows = spark.createDataFrame(
        [huge, ("Biscoe", 48.7, 14.1, 210.0, 4450.0)],
        "Island string, CulmenLength double, CulmenDepth double, FlipperLength double, BodyMass double",
    )
    answered = ask(observe(rows), pipeline.build(max_iter=10).fit(accepted))
    [no_answer, answer] = answered.select("CulmenDepth", "prediction", "prediction:flaw", "confidence").collect()
    assert tuple(no_answer) == (1.7e308, None, "missing", None), "no NaN, which the highest bin would take"
    assert tuple(answer)[:3] == (14.1, "Gentoo", None)


def test_the_same_rows_are_no_drift_and_their_quality_is_known(reference: DataFrame, model: PipelineModel) -> None:
    findings = examine(reference, reference, model=model, spec=SPEC)
    assert [found.column for found in findings.whole.drifts] == ["Colour", "Size", "prediction", "confidence"]
    assert [found.psi for found in findings.whole.drifts] == [0, 0, 0, 0]
    assert (findings.breaches, findings.drifted, findings.retrain) == ((), False, False)
    assert findings.windows == (findings.whole,)
    assert findings.whole.confusion is not None
    assert findings.whole.confusion.counts.tolist() == [[20, 0], [0, 20]]
    assert findings.whole.metrics["recall_large"] == 1


def test_bad_values_and_wrong_answers_are_breaches_in_words(
    spark: SparkSession, reference: DataFrame, model: PipelineModel
) -> None:
    # All labels the wrong way round; a tenth without size; a fifth of a colour never seen.
    rows = [("red", float(size), 1, "") for size in range(11, 51, 2)]
    rows += [("blue", float(size), 0, "") for size in range(51, 75, 2)]
    rows += [("green", float(size), 0, "") for size in range(75, 91, 2)]
    findings = examine(reference, frame(spark, rows), Settings.of(rule="1 of 1"), model=model, spec=SPEC)
    assert findings.breaches == (
        "Colour has values unknown to the reference, such as green, in 8 of 40 rows (20.0%; allowed: 1.0%).",
        "prediction is missing in 8 of 40 rows (20.0%; in the reference: 0.0%; allowed increase: 5.0%).",
        "Accuracy is 0.000 on 32 rows (at least: 0.9).",
        "Recall of small is 0.000 on 12 rows (at least: 0.8).",
        "Recall of large is 0.000 on 20 rows (at least: 0.8).",
    )
    assert findings.drifted
    assert findings.retrain


def test_no_current_rows_is_a_breach_and_no_advice(reference: DataFrame, model: PipelineModel) -> None:
    for settings in (Settings.of(), DAILY):
        findings = examine(reference, reference.limit(0), settings, model=model, spec=SPEC)
        assert findings.breaches == ("There are no current rows: nothing arrived that could be judged.",)
        assert (findings.drifted, findings.retrain, findings.windows) == (True, False, ())
        assert findings.whole.metrics == {}


def test_one_row_is_shown_but_breaks_nothing(spark: SparkSession, reference: DataFrame, model: PipelineModel) -> None:
    findings = examine(reference, frame(spark, [("red", 89.0, 0, "")]), model=model, spec=SPEC)
    columns = findings.as_dict()["columns"]
    assert {name: found["verdict"] for name, found in columns.items()} == dict.fromkeys(columns, "too few")
    assert columns["Size"]["psi"] > 2
    assert findings.breaches == ()
    assert set(findings.whole.metrics) >= {"accuracy", "recall_small"}
    assert "recall_large" not in findings.whole.metrics, "no row of that class, no recall"


def test_labels_and_a_model_are_optional(spark: SparkSession, reference: DataFrame, model: PipelineModel) -> None:
    without = reference.drop("Kind")
    assert examine(without, without, model=model, spec=SPEC).whole.confusion is None
    findings = examine(without, without, spec=SPEC)
    assert [found.column for found in findings.whole.drifts] == ["Colour", "Size"]
    assert findings.whole.confusion is None


def test_windows_are_counted_apart_and_the_last_partial_one_counts_too(
    spark: SparkSession, reference: DataFrame, model: PipelineModel
) -> None:
    good = [(colour, size, kind) for colour, size, kind, _ in reference.collect()]
    bad = [("red", size, kind) for _, size, kind in good]  # the model takes colour for granted
    rows = [(*row, "2026-05-01 00:00:00") for row in good]
    rows += [(*row, "2026-05-02 23:59:59") for row in bad]
    rows += [(*row, "2026-05-03") for row in bad[:30]]
    findings = examine(reference, frame(spark, rows), DAILY, model=model, spec=SPEC)
    assert [(window.start, window.end, window.rows) for window in findings.windows] == [
        (datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 5, 2, tzinfo=UTC), 40),
        (datetime(2026, 5, 2, tzinfo=UTC), datetime(2026, 5, 3, tzinfo=UTC), 40),
        (datetime(2026, 5, 3, tzinfo=UTC), datetime(2026, 5, 4, tzinfo=UTC), 30),
    ]
    assert findings.whole.rows == 110
    first, second, third = findings.windows
    assert first.breaches == ()
    # Forty values each: (0.5 - 1) ln(0.5) + (0.5 - 0.0125) ln(0.5 / 0.0125) = 2.14
    assert second.breaches[0] == (
        "Colour has drifted: its PSI is 2.14 (allowed: less than 0.25; by chance: up to 0.54)."
    )
    assert findings.breaches[-len(third.breaches) :] == tuple(
        f"In the latest window, from 2026-05-03 00:00 UTC: {sentence}" for sentence in third.breaches
    )
    assert findings.retrain
    assert first.metrics["accuracy"] == 1
    assert third.confusion is not None
    assert third.confusion.rows == 30
    assert sum(window.confusion.rows for window in findings.windows if window.confusion) == 110


def test_rows_without_a_time_are_judged_with_all_and_told_when_many(spark: SparkSession, reference: DataFrame) -> None:
    rows = [(colour, size, kind, "2026-05-01") for colour, size, kind, _ in reference.collect()]
    few = [(*row[:3], None if place == 0 else row[3]) for place, row in enumerate(rows)]
    many = [(*row[:3], "soon" if place % 2 else row[3]) for place, row in enumerate(rows)]
    told = examine(reference, frame(spark, few), DAILY, spec=SPEC)
    assert (told.breaches, told.whole.rows, [window.rows for window in told.windows]) == ((), 40, [39])
    told = examine(reference, frame(spark, many), DAILY, spec=SPEC)
    assert told.breaches == ("Seen is missing or no time in 20 of 40 rows (50.0%; allowed: 5.0%).",)
    assert [window.rows for window in told.windows] == [20]


def test_a_time_is_a_date_or_a_count_since_1970_and_nothing_else(spark: SparkSession, reference: DataFrame) -> None:
    """2026-05-01 12:00 UTC is 1,777,636,800 seconds after 1970."""
    noon = 1_777_636_800
    texts = ["2026-05-01 12:00", "2026-05-01T12:00:00Z", "2026-05-01", "2026-5-1", "2026-05"]
    counts = [str(noon), str(noon * 1000), f" {noon * 1000}", str(noon * 10**6), str(noon * 10**9), f"{noon}.25"]
    none = [
        "10:30",
        "202611",
        "20260501",
        "2026",
        "9999-12-31",
        "0001-01-01",
        "1/5/2026",
        "2026-13-45",
        "-5",
        "",
        "soon",
    ]
    rows = [("red", 12.0, 0, text) for text in (*texts, *counts, *none)]
    found = examine(reference, frame(spark, rows), DAILY, spec=SPEC)
    assert [(window.start, window.rows) for window in found.windows] == [
        (datetime(2026, 5, 1, tzinfo=UTC), len(texts) + len(counts))
    ]
    assert found.whole.rows == len(rows)
    assert "Seen is missing or no time in 11 of 22 rows (50.0%; allowed: 5.0%)." in found.breaches


@pytest.mark.parametrize(
    ("kind", "value"), [("bigint", 1_777_636_800_000), ("double", 1_777_636_800.5), ("date", date(2026, 5, 1))]
)
def test_times_come_as_numbers_and_dates_as_well(
    spark: SparkSession, reference: DataFrame, kind: str, value: object
) -> None:
    far = date(9999, 12, 31) if kind == "date" else 202611
    rows = [("red", 12.0, 0, value), ("red", 12.0, 0, type(value)(far) if kind != "date" else far)]  # type: ignore[call-arg]  # of numbers
    found = examine(
        reference, spark.createDataFrame(rows, COLUMNS.replace("Seen string", f"Seen {kind}")), DAILY, spec=SPEC
    )
    assert [(window.start, window.rows) for window in found.windows] == [(datetime(2026, 5, 1, tzinfo=UTC), 1)]


@pytest.mark.parametrize("text", ["10:30", "202611"])
def test_a_column_without_any_time_is_refused_by_name(spark: SparkSession, reference: DataFrame, text: str) -> None:
    with pytest.raises(DataError) as raised:
        examine(reference, frame(spark, [("red", 12.0, 0, text), ("red", 13.0, 0, None)]), DAILY, spec=SPEC)
    assert str(raised.value) == (
        f"Seen has a time in no row of the current data, but values such as '{text}': give dates like 2026-11-01 "
        "10:30, or a number of seconds or milliseconds since 1970."
    )


def test_more_windows_than_anyone_reads_are_refused(spark: SparkSession, reference: DataFrame) -> None:
    rows = spark.range(1001).select(
        F.lit("red").alias("Colour"), F.lit(12.0).alias("Size"), F.col("id").cast("timestamp").alias("Seen")
    )
    settings = Settings.of(timestamp="Seen", window="1 second")
    with pytest.raises(ParameterError) as raised:
        examine(reference, rows, settings, spec=SPEC)
    assert str(raised.value) == (
        "The current data has more than 1,000 windows of 0:00:01 by Seen: give a longer window."
    )
    fewer = examine(reference, rows.where("Seen < timestamp_seconds(1000)"), settings, spec=SPEC)
    assert len(fewer.windows) == 1000


def test_labels_that_are_no_codes_are_told_and_never_dropped_in_silence(
    spark: SparkSession, reference: DataFrame, model: PipelineModel
) -> None:
    names = reference.withColumn("Kind", F.element_at(F.array(F.lit("small"), F.lit("large")), F.col("Kind") + 1))
    found = examine(reference, names, model=model, spec=SPEC)
    assert found.whole.confusion is None
    assert found.breaches == (
        "Kind is not a class code in 40 of 40 rows (100.0%; allowed: 1.0%), so quality isn't measured there: "
        "give the codes, 0 for small, 1 for large.",
    )
    assert not found.retrain, "a model isn't worse because its labels are named"
    unlabelled = reference.withColumn("Kind", F.lit(None).cast("string"))
    assert examine(reference, unlabelled, model=model, spec=SPEC).breaches == ()


def test_a_model_made_for_other_columns_is_refused(reference: DataFrame, model: PipelineModel) -> None:
    other = Spec(("Seen",), SPEC.numeric, "Kind", SPEC.classes)
    with pytest.raises(ModelError) as raised:
        examine(reference, reference, model=model, spec=other)
    assert str(raised.value) == (
        "The pipeline was fitted on Colour, Size with 2 classes, but the spec has Seen, Size with 2."
    )


def test_the_lean_season_drifts_and_asks_for_a_retraining(spark: SparkSession) -> None:
    birds = data.read(spark, PENGUINS_CSV)
    lean = spark.createDataFrame(lean_season(pd.read_csv(PENGUINS_CSV)))
    findings = examine(birds, lean, Settings.of(timestamp="MeasuredAt"))
    assert [bool(window.breaches) for window in findings.windows] == [False] * 3 + [True] * 3
    assert findings.retrain
    assert [found.column for found in findings.whole.drifts if (found.psi or 0) > 0.25] == ["BodyMass"]


def test_settings_from_texts() -> None:
    assert Settings.of() == Settings(Thresholds(), None, RetrainRule(1, 1))
    assert DAILY.windows is not None
    assert (DAILY.windows.length, DAILY.rule) == (timedelta(days=1), RetrainRule(2, 3))
    assert Settings.of(timestamp="Seen", window="12 hours").windows.length == timedelta(hours=12)  # type: ignore[union-attr]  # there are some
    with pytest.raises(ParameterError) as raised:
        Settings.of(window="1 day")
    assert str(raised.value) == ("A window of 1 day needs times: name the column that has them as the timestamp.")


def test_findings_are_plain_json(reference: DataFrame) -> None:
    import json

    findings: Findings = examine(reference, reference, DAILY, spec=SPEC)
    answer = json.loads(json.dumps(findings.as_dict()))
    assert set(answer) == {
        *("drifted", "retrain", "retrain_rule", "breaches", "rows", "columns", "metrics", "windows", "thresholds")
    }
    assert answer["rows"] == {"reference": 40, "current": 40}
    assert answer["columns"]["Colour"] == {
        **{"psi": 0, "js": 0, "missing": 0, "out_of_range": 0, "new": 0, "verdict": "stable"},
        **{"psi_by_chance": pytest.approx(10.828 * 2 / 40, rel=1e-4)},
        **{"bins": ["blue", "red", "new"], "reference": [20, 20, 0], "current": [20, 20, 0]},
    }
    assert [window["start"] for window in answer["windows"]] == ["2026-01-01T00:00:00+00:00"]
    assert answer["thresholds"]["psi_drift"] == 0.25


def test_a_column_of_times_may_have_a_dot_in_its_name(reference: DataFrame) -> None:
    dotted = reference.withColumnRenamed("Seen", "se`en.at")
    findings = examine(reference, dotted, Settings.of(timestamp="se`en.at"), spec=SPEC)
    assert [(f"{window.start:%Y-%m-%d}", window.rows) for window in findings.windows] == [("2026-01-01", 40)]
