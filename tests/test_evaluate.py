"""Measures: right by hand, and the same as Spark's own evaluator gives."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penguins import evaluate
from penguins.config import Policy
from penguins.data import Numeric, Spec
from penguins.errors import DataError
from penguins.evaluate import Confusion, Verdict, judge

if TYPE_CHECKING:
    from pyspark.ml.param import Param
    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.spark

TWO_CLASSES = Spec((), (Numeric("mean radius", "mm", 1, 100),), "Diagnosis", ("malignant", "benign"))

# (true code, predicted code): how often. Each case has an uneven matrix, so that no two measures agree by chance.
CASES = {
    "every class is confused": {(0, 0): 5, (0, 1): 2, (1, 1): 4, (1, 2): 1, (2, 2): 3, (2, 0): 2},
    "a class is never predicted": {(0, 0): 5, (0, 1): 1, (1, 1): 4, (2, 0): 3, (2, 1): 1},
    "a class is never true": {(0, 0): 5, (0, 2): 1, (1, 1): 4, (1, 0): 2, (1, 2): 3},
    "all is right": {(0, 0): 2, (1, 1): 3, (2, 2): 4},
    "all is wrong": {(0, 1): 2, (1, 2): 3, (2, 0): 4},
}


def predictions(spark: SparkSession, counts: dict[tuple[int, int], int], label: str = "Species") -> DataFrame:
    rows = [(true, float(predicted)) for (true, predicted), count in counts.items() for _ in range(count)]
    return spark.createDataFrame(rows, f"{label} int, prediction double")


def test_the_counts_stand_at_true_row_and_predicted_column(spark: SparkSession) -> None:
    counted = evaluate.confusion(predictions(spark, {(0, 0): 2, (0, 2): 1, (1, 1): 3, (2, 0): 4}))
    assert counted.classes == ("Adelie", "Gentoo", "Chinstrap")
    assert counted.counts.tolist() == [[2, 0, 1], [0, 3, 0], [4, 0, 0]]
    assert counted.rows == 10


def test_two_classes_under_another_label_are_counted(spark: SparkSession) -> None:
    counted = evaluate.confusion(predictions(spark, {(0, 0): 3, (0, 1): 1, (1, 1): 6}, "Diagnosis"), TWO_CLASSES)
    assert counted.classes == ("malignant", "benign")
    assert counted.counts.tolist() == [[3, 1], [0, 6]]


def test_no_rows_can_not_be_evaluated(spark: SparkSession) -> None:
    with pytest.raises(DataError) as refused:
        evaluate.confusion(predictions(spark, {}))
    assert str(refused.value) == "There are no rows to evaluate: give at least one test row."


def test_measures_of_a_small_matrix_are_as_computed_by_hand() -> None:
    # 10 rows, 7 right. Adelie: 3 of 4 found, 3 of 5 named so. Gentoo: 4 of 4, 4 of 4. Chinstrap: 0 of 2, 0 of 1.
    measured = evaluate.metrics(
        Confusion(("Adelie", "Gentoo", "Chinstrap"), np.array([[3, 0, 1], [0, 4, 0], [2, 0, 0]]))
    )
    assert measured == pytest.approx(
        {
            "accuracy": 0.7,
            "weightedPrecision": 0.4 * 0.6 + 0.4 * 1.0 + 0.2 * 0.0,
            "weightedRecall": 0.7,
            "weightedFMeasure": 0.4 * (2 / 3) + 0.4 * 1.0,
            "precision_Adelie": 0.6,
            "recall_Adelie": 0.75,
            "fMeasure_Adelie": 2 / 3,
            "precision_Gentoo": 1.0,
            "recall_Gentoo": 1.0,
            "fMeasure_Gentoo": 1.0,
            "precision_Chinstrap": 0.0,
            "recall_Chinstrap": 0.0,
            "fMeasure_Chinstrap": 0.0,
        },
        abs=1e-12,
    )


def test_measures_are_plain_floats_that_json_and_mlflow_take() -> None:
    measured = evaluate.metrics(Confusion(("no", "yes"), np.array([[3, 1], [0, 2]])))
    assert {type(value) for value in measured.values()} == {float}


@pytest.mark.parametrize("case", CASES)
def test_measures_equal_sparks_own_evaluator(spark: SparkSession, case: str) -> None:
    from pyspark.ml.evaluation import MulticlassClassificationEvaluator

    scored = predictions(spark, CASES[case]).coalesce(1).cache()
    measured = evaluate.metrics(evaluate.confusion(scored))
    evaluator = MulticlassClassificationEvaluator(labelCol="Species")

    def spark_says(metric: str) -> float:
        return evaluator.evaluate(scored, {evaluator.metricName: metric})

    ours = {name: measured[name] for name in ("accuracy", "weightedPrecision", "weightedRecall", "weightedFMeasure")}
    assert ours == pytest.approx({name: spark_says(name) for name in ours}, abs=1e-12)
    # The evaluator's default metric, which the lab's notebooks print as F1.
    assert measured["weightedFMeasure"] == pytest.approx(spark_says("f1"), abs=1e-12)
    scored.unpersist()


@pytest.mark.parametrize("case", CASES)
def test_measures_of_each_class_equal_sparks_own_evaluator(spark: SparkSession, case: str) -> None:
    from pyspark.ml.evaluation import MulticlassClassificationEvaluator

    scored = predictions(spark, CASES[case]).coalesce(1).cache()
    measured = evaluate.metrics(evaluate.confusion(scored))
    evaluator = MulticlassClassificationEvaluator(labelCol="Species")
    # Of a class that is never true Spark's evaluator only says that its key is not found.
    true_codes = sorted({true for true, _ in CASES[case]})
    for code in true_codes:
        name = ("Adelie", "Gentoo", "Chinstrap")[code]
        for ours, metric in (
            ("precision", "precisionByLabel"),
            ("recall", "recallByLabel"),
            ("fMeasure", "fMeasureByLabel"),
        ):
            params: dict[Param[Any], Any] = {evaluator.metricName: metric, evaluator.metricLabel: float(code)}
            assert measured[f"{ours}_{name}"] == pytest.approx(evaluator.evaluate(scored, params), abs=1e-12)
    scored.unpersist()


def test_a_class_that_is_never_true_counts_as_not_found() -> None:
    # Spark's evaluator fails on this class, so there is nothing to compare it with.
    measured = evaluate.metrics(Confusion(("Adelie", "Gentoo"), np.array([[3, 1], [0, 0]])))
    assert (measured["recall_Gentoo"], measured["precision_Gentoo"], measured["fMeasure_Gentoo"]) == (0.0, 0.0, 0.0)
    assert measured["weightedRecall"] == 0.75


def test_the_report_is_a_table_of_the_classes_with_their_rows() -> None:
    table = evaluate.report(Confusion(("Adelie", "Gentoo", "Chinstrap"), np.array([[3, 0, 1], [0, 4, 0], [2, 0, 0]])))
    lines = [line.split() for line in table.splitlines() if line.strip()]
    assert lines[0] == ["precision", "recall", "F-measure", "rows"]
    assert lines[1:4] == [
        ["Adelie", "0.600", "0.750", "0.667", "4"],
        ["Gentoo", "1.000", "1.000", "1.000", "4"],
        ["Chinstrap", "0.000", "0.000", "0.000", "2"],
    ]
    # Weighed by hand: (0.6 * 4 + 1 * 4 + 0 * 2) / 10 and so on.
    assert lines[4:] == [["weighted", "0.640", "0.700", "0.667", "10"], ["accuracy", "0.700"]]


def of(*counts: list[int]) -> Confusion:
    return Confusion(("Adelie", "Gentoo", "Chinstrap"), np.array(counts))


# 100 rows: 50 Adelies, 30 Gentoos, 20 Chinstraps.
PERFECT = of([50, 0, 0], [0, 30, 0], [0, 0, 20])
ONE_WRONG = of([50, 0, 0], [0, 30, 0], [1, 0, 19])
TWO_WRONG = of([50, 0, 0], [0, 30, 0], [2, 0, 18])
TWO_ADELIES_WRONG = of([48, 0, 2], [0, 30, 0], [0, 0, 20])
FOUR_CHINSTRAPS_WRONG = of([50, 0, 0], [0, 30, 0], [4, 0, 16])


def test_a_first_model_needs_only_the_floors() -> None:
    verdict = judge(TWO_WRONG, None, Policy())
    assert verdict == Verdict(
        True, ("no champion stands against it, and its accuracy of 0.980 and every recall reach the floors",)
    )


def test_a_small_class_is_not_hidden_by_a_good_accuracy() -> None:
    verdict = judge(FOUR_CHINSTRAPS_WRONG, None, Policy())
    assert verdict == Verdict(False, ("its recall of Chinstrap, 0.800, is below 0.85",))
    assert judge(FOUR_CHINSTRAPS_WRONG, None, Policy(min_recall=0.8)).promote


def test_every_reason_against_a_model_is_told() -> None:
    half_wrong = of([25, 0, 25], [0, 30, 0], [0, 0, 0])
    assert judge(half_wrong, None, Policy(min_test_rows=81)) == Verdict(
        False,
        (
            "80 test rows are fewer than 81",
            "its accuracy of 0.688 is below 0.95",
            "its recall of Adelie, 0.500, is below 0.85",
            "no test row is Chinstrap",
        ),
    )
    assert judge(PERFECT, None, Policy(min_test_rows=100)).promote


def test_a_better_model_replaces_the_champion() -> None:
    assert judge(ONE_WRONG, TWO_WRONG, Policy()) == Verdict(
        True, ("its accuracy of 0.990 is higher than the champion's 0.980",)
    )


@pytest.mark.parametrize("challenger", [TWO_WRONG, TWO_ADELIES_WRONG])
def test_a_tie_keeps_the_champion(challenger: Confusion) -> None:
    verdict = judge(challenger, TWO_WRONG, Policy(tolerance=1))
    assert verdict == Verdict(False, ("its accuracy of 0.980 is not higher than the champion's 0.980",))


def test_a_worse_model_is_refused_with_both_reasons() -> None:
    assert judge(TWO_WRONG, PERFECT, Policy()) == Verdict(
        False,
        (
            "its accuracy of 0.980 is not higher than the champion's 1.000",
            "its recall of Chinstrap, 0.900, is lower than the champion's 1.000 by more than 0.05",
        ),
    )


def test_no_class_may_be_worse_by_more_than_the_tolerance() -> None:
    champion = of([47, 0, 3], [0, 30, 0], [0, 0, 20])
    assert judge(ONE_WRONG, champion, Policy()).promote, "exactly the tolerance is allowed"
    verdict = judge(ONE_WRONG, champion, Policy(tolerance=0.04))
    assert verdict == Verdict(
        False, ("its recall of Chinstrap, 0.950, is lower than the champion's 1.000 by more than 0.04",)
    )


def test_models_judged_on_other_rows_are_not_compared() -> None:
    others = of([49, 0, 0], [0, 30, 0], [1, 0, 20])
    assert judge(PERFECT, others, Policy()) == Verdict(False, ("the champion was not judged on the same rows",))
    renamed = Confusion(("Adelie", "Gentoo", "Emperor"), TWO_WRONG.counts)
    assert judge(PERFECT, renamed, Policy()) == Verdict(False, ("the champion was not judged on the same rows",))


def with_probabilities(spark: SparkSession, rows: list[tuple[int, list[float]]]) -> DataFrame:
    """Predictions with the likeliest class, as a Spark model gives them."""
    from pyspark.ml.linalg import Vectors

    return spark.createDataFrame(
        [(label, float(np.argmax(given)), Vectors.dense(given)) for label, given in rows],
        ["Species", "prediction", "probability"],
    )


def test_the_balanced_log_loss_counts_each_class_the_same(spark: SparkSession) -> None:
    rows = [
        (0, [0.5, 0.25, 0.25]),
        (0, [0.5, 0.25, 0.25]),
        (0, [0.25, 0.5, 0.25]),
        (1, [0.0, 1.0, 0.0]),
        (2, [0.5, 0.25, 0.25]),
    ]
    confusion, loss = evaluate.confusion_and_loss(with_probabilities(spark, rows))
    assert confusion.counts.tolist() == [[2, 1, 0], [0, 1, 0], [1, 0, 0]]
    # Adelie: (ln 2 + ln 2 + ln 4) / 3, Gentoo: 0, Chinstrap: ln 4.
    assert loss == pytest.approx((4 / 3 * math.log(2) + 0 + 2 * math.log(2)) / 3)


def test_a_class_without_rows_has_no_part_in_the_loss_and_none_is_infinite(spark: SparkSession) -> None:
    rows = [(0, [0.25, 0.75, 0.0]), (1, [1.0, 0.0, 0.0])]
    _, loss = evaluate.confusion_and_loss(with_probabilities(spark, rows))
    assert loss == pytest.approx((math.log(4) + 15 * math.log(10)) / 2), "nothing is held for less likely than 1e-15"


def test_the_loss_of_classes_of_one_size_equals_sparks_own(spark: SparkSession) -> None:
    from pyspark.ml.evaluation import MulticlassClassificationEvaluator

    rows = [(0, [0.7, 0.2, 0.1]), (1, [0.3, 0.6, 0.1]), (2, [0.5, 0.5, 0.0]), (0, [0.1, 0.8, 0.1])]
    rows += [(1, [0.2, 0.7, 0.1]), (2, [0.05, 0.15, 0.8])]
    predicted = with_probabilities(spark, rows)
    evaluator = MulticlassClassificationEvaluator(labelCol="Species", metricName="logLoss")  # type: ignore[arg-type]  # pyspark's types forgot it
    theirs = evaluator.evaluate(predicted.withColumn("Species", predicted["Species"].cast("double")))
    assert evaluate.confusion_and_loss(predicted)[1] == pytest.approx(theirs, abs=1e-12)


def test_probabilities_that_are_no_numbers_have_no_loss(spark: SparkSession) -> None:
    rows = [(0, [0.5, 0.25, 0.25]), (1, [math.nan, math.nan, math.nan])]
    with pytest.raises(DataError) as refused:
        evaluate.confusion_and_loss(with_probabilities(spark, rows))
    assert str(refused.value) == ("The model gives probabilities that are not numbers: try a larger regularization.")
