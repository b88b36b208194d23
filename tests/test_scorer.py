"""The model without a JVM: what it answers, and what it says about input that it can't use."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from mlflow.exceptions import MlflowException

from penguins import data, pipeline
from penguins.data import Numeric, Spec
from penguins.export import to_onnx
from penguins.scorer import Scorer

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

PENGUINS_CSV = Path(__file__).parent.parent / "data" / "penguins.csv"


@pytest.fixture(scope="module")
def scorer(spark: SparkSession) -> Scorer:
    """A scorer of a real fit on the penguins."""
    accepted, _ = data.check(data.read(spark, PENGUINS_CSV))
    return Scorer(to_onnx(pipeline.build().fit(accepted.coalesce(1))).SerializeToString())


def birds(**changed: Any) -> pd.DataFrame:
    """A Gentoo, an Adelie and a Chinstrap, with some columns changed."""
    columns: dict[str, Any] = {
        "Island": ["Biscoe", "Torgersen", "Dream"],
        "CulmenLength": [48.7, 39.1, 50.5],
        "CulmenDepth": [14.1, 18.7, 19.6],
        "FlipperLength": [210.0, 181.0, 201.0],
        "BodyMass": [4450.0, 3750.0, 4050.0],
    }
    return pd.DataFrame(columns | changed)


def refusal(scorer: Scorer, asked: pd.DataFrame) -> str:
    with pytest.raises(MlflowException) as refused:
        scorer.predict(asked)
    # MLflow's scoring server answers this code with 400.
    assert refused.value.error_code == "INVALID_PARAMETER_VALUE"
    return refused.value.message


# --- answers --------------------------------------------------------------------------------------------------------


def test_each_row_gets_its_class_its_name_and_a_probability_of_each_class(scorer: Scorer) -> None:
    answers = scorer.predict(birds())
    assert answers.dtypes.astype(str).to_dict() == {
        "prediction": "int64",
        "species": "object",
        "probability_Adelie": "float64",
        "probability_Gentoo": "float64",
        "probability_Chinstrap": "float64",
    }
    assert answers["prediction"].tolist() == [1, 0, 2]
    assert answers["species"].tolist() == ["Gentoo", "Adelie", "Chinstrap"]
    probabilities = answers[["probability_Adelie", "probability_Gentoo", "probability_Chinstrap"]].to_numpy()
    assert probabilities.argmax(axis=1).tolist() == [1, 0, 2]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=0, atol=1e-12)


def test_the_name_column_of_another_spec_is_its_label_in_lower_case(spark: SparkSession) -> None:
    spec = Spec((), (Numeric("mean radius", "mm", 1, 60),), "Diagnosis", ("malignant", "benign"))
    known = spark.createDataFrame([(20.0, 0), (18.0, 0), (12.0, 1), (11.0, 1)], "`mean radius` double, Diagnosis int")
    scorer = Scorer(to_onnx(pipeline.build(spec, max_iter=5).fit(known), spec).SerializeToString())
    answers = scorer.predict(pd.DataFrame({"mean radius": [10.0, 25.0]}))
    assert answers.columns.tolist() == ["prediction", "diagnosis", "probability_malignant", "probability_benign"]
    assert answers["prediction"].tolist() == [1, 0]
    assert answers["diagnosis"].tolist() == ["benign", "malignant"]


def test_the_answers_keep_the_index_of_the_question(scorer: Scorer) -> None:
    asked = birds().set_axis(["b", "a", "a"])
    answers = scorer.predict(asked)
    assert answers.index.tolist() == ["b", "a", "a"]
    assert answers["species"].tolist() == ["Gentoo", "Adelie", "Chinstrap"]


def test_columns_may_stand_in_any_order_and_others_are_ignored(scorer: Scorer) -> None:
    asked = birds(Species=[None, "x", 7])[
        ["Species", "BodyMass", "CulmenLength", "Island", "FlipperLength", "CulmenDepth"]
    ]
    pd.testing.assert_frame_equal(scorer.predict(asked), scorer.predict(birds()))


def test_the_question_is_left_as_it_was(scorer: Scorer) -> None:
    asked = birds()
    scorer.predict(asked)
    pd.testing.assert_frame_equal(asked, birds())


@pytest.mark.parametrize(
    "dtype", ["int64", "Int64", "int16", "uint16", "Float64", "float64", "object", "int64[pyarrow]"]
)
def test_whole_numbers_are_as_good_as_doubles(scorer: Scorer, dtype: str) -> None:
    columns = ["FlipperLength", "BodyMass"]
    asked = birds()
    asked[columns] = asked[columns].astype("int64")
    pd.testing.assert_frame_equal(scorer.predict(asked.astype(dict.fromkeys(columns, dtype))), scorer.predict(birds()))


def test_numbers_of_several_kinds_in_one_column_are_numbers(scorer: Scorer) -> None:
    # As in a frame that was put together from rows.
    mixed = pd.Series([np.int64(4450), 3750, np.float32(4050)], dtype=object)
    pd.testing.assert_frame_equal(scorer.predict(birds().assign(BodyMass=mixed)), scorer.predict(birds()))


@pytest.mark.parametrize("dtype", ["category", "string", "string[pyarrow]"])
def test_categories_may_be_any_of_pandas_kinds_of_text(scorer: Scorer, dtype: str) -> None:
    pd.testing.assert_frame_equal(scorer.predict(birds().astype({"Island": dtype})), scorer.predict(birds()))


@pytest.mark.parametrize("dtype", ["object", pd.ArrowDtype(pa.decimal128(10, 2))])
def test_decimals_are_as_good_as_doubles(scorer: Scorer, dtype: Any) -> None:
    # As a database's client gives them.
    decimals = pd.Series([Decimal("4450.00"), Decimal("3750.00"), Decimal("4050.00")], dtype=dtype)
    pd.testing.assert_frame_equal(scorer.predict(birds().assign(BodyMass=decimals)), scorer.predict(birds()))


@pytest.mark.parametrize("value", ["NaN", "sNaN", "-Infinity", "1e400"])
def test_a_decimal_that_is_no_finite_double_is_refused(scorer: Scorer, value: str) -> None:
    decimals = pd.Series([Decimal("4450"), Decimal(value), Decimal("4050")], dtype=object)
    assert refusal(scorer, birds().assign(BodyMass=decimals)) == (
        f"BodyMass in row 2 of 3 is {Decimal(value)!r}: it must be a finite number."
    )


# --- refusals -------------------------------------------------------------------------------------------------------


def test_an_unknown_category_is_named_with_its_row_and_what_is_allowed(scorer: Scorer) -> None:
    assert refusal(scorer, birds(Island=["Biscoe", "Atlantis", "Dream"])) == (
        "Island in row 2 of 3 is 'Atlantis': it must be one of Biscoe, Dream, Torgersen."
    )


@pytest.mark.parametrize("island", ["biscoe", " Biscoe", ""])
def test_a_category_must_be_written_exactly(scorer: Scorer, island: str) -> None:
    assert refusal(scorer, birds(Island=["Biscoe", "Dream", island])) == (
        f"Island in row 3 of 3 is {island!r}: it must be one of Biscoe, Dream, Torgersen."
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "null"), (pd.NA, "null"), (np.nan, "nan"), (3, "3"), (["Dream"], "['Dream']"), ({}, "{}")],
)
def test_what_is_no_text_is_no_category(scorer: Scorer, value: object, shown: str) -> None:
    assert refusal(scorer, birds(Island=["Biscoe", value, "Dream"])) == (
        f"Island in row 2 of 3 is {shown}: it must be one of Biscoe, Dream, Torgersen."
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (np.nan, "nan"),
        (np.inf, "inf"),
        (-np.inf, "-inf"),
        ("4450", "'4450'"),
        ("heavy", "'heavy'"),
        (True, "True"),
        (pd.NA, "null"),
        ([4450], "[4450]"),
        (Fraction(8900, 2), "Fraction(4450, 1)"),
    ],
)
def test_what_is_no_finite_number_is_named_with_its_row(scorer: Scorer, value: object, shown: str) -> None:
    assert refusal(scorer, birds(BodyMass=[4450.0, 3750.0, value])) == (
        f"BodyMass in row 3 of 3 is {shown}: it must be a finite number."
    )


def test_null_is_told_as_null(scorer: Scorer) -> None:
    asked = birds().astype({"BodyMass": object})
    asked.loc[1, "BodyMass"] = None
    assert refusal(scorer, asked) == "BodyMass in row 2 of 3 is null: it must be a finite number."
    asked = birds().astype({"BodyMass": "Int64"})
    asked.loc[0, "BodyMass"] = pd.NA
    assert refusal(scorer, asked) == "BodyMass in row 1 of 3 is null: it must be a finite number."


def test_a_whole_column_of_truth_values_is_no_number(scorer: Scorer) -> None:
    assert refusal(scorer, birds(BodyMass=[True, False, True])) == (
        "BodyMass in row 1 of 3 is True (and 2 more): it must be a finite number."
    )


def test_a_whole_number_too_large_for_a_double_is_told(scorer: Scorer) -> None:
    # JSON has no limit, and Python reads 1 followed by 400 zeros as a whole number.
    sentence = refusal(scorer, birds(BodyMass=pd.Series([4450, 10**400, 3750], dtype=object)))
    assert sentence.startswith("BodyMass in row 2 of 3 is 1000")
    assert sentence.endswith("...: it must be a finite number.")


def test_numbers_too_large_to_compute_with_are_refused(scorer: Scorer) -> None:
    huge = birds(
        CulmenLength=[48.7, -1.7e308, 50.5],
        CulmenDepth=[14.1, 1.7e308, 19.6],
        FlipperLength=[210.0, 1.7e308, 201.0],
        BodyMass=[4450.0, 1.7e308, 4050.0],
    )
    assert refusal(scorer, huge) == (
        "CulmenLength in row 2 of 3 is -1.7e+308: it must be a number small enough to compute with."
    )


def test_one_bad_row_in_a_large_batch_is_named(scorer: Scorer) -> None:
    asked = pd.concat([birds()] * 100, ignore_index=True)
    asked.loc[250, "CulmenLength"] = np.nan
    assert refusal(scorer, asked) == "CulmenLength in row 251 of 300 is nan: it must be a finite number."


def test_rows_are_counted_from_one_whatever_the_index_says(scorer: Scorer) -> None:
    asked = birds(Island=["Biscoe", "Dream", "Atlantis"]).set_axis([70, 80, 90])
    assert refusal(scorer, asked) == "Island in row 3 of 3 is 'Atlantis': it must be one of Biscoe, Dream, Torgersen."


def test_of_several_bad_rows_the_first_is_named_and_the_others_counted(scorer: Scorer) -> None:
    assert refusal(scorer, birds(CulmenDepth=[14.1, np.inf, np.nan])) == (
        "CulmenDepth in row 2 of 3 is inf (and 1 more): it must be a finite number."
    )
    assert refusal(scorer, birds(Island=["Mars", "Venus", None])) == (
        "Island in row 1 of 3 is 'Mars' (and 2 more): it must be one of Biscoe, Dream, Torgersen."
    )


def test_a_long_value_is_cut_short(scorer: Scorer) -> None:
    assert refusal(scorer, birds(Island=["Biscoe", "Dream", "x" * 500])) == (
        f"Island in row 3 of 3 is '{'x' * 59}...: it must be one of Biscoe, Dream, Torgersen."
    )


def test_of_many_categories_the_first_are_named(scorer: Scorer) -> None:
    scorer.categories["Island"] = [f"I{number}" for number in range(23)]
    assert refusal(scorer, birds(Island=["I0", "I1", "Mars"])).endswith(
        "it must be one of "
        + ", ".join(
            [
                "I0",
                "I1",
                "I2",
                "I3",
                "I4",
                "I5",
                "I6",
                "I7",
                "I8",
                "I9",
                "I10",
                "I11",
                "I12",
                "I13",
                "I14",
                "I15",
                "I16",
            ]
        )
        + ", I17, I18, I19 and 3 more."
    )


def test_a_missing_column_is_named(scorer: Scorer) -> None:
    assert refusal(scorer, birds().drop(columns="BodyMass")) == (
        "The input lacks the column BodyMass: "
        "the model needs Island, CulmenLength, CulmenDepth, FlipperLength, BodyMass."
    )


def test_all_missing_columns_are_named_at_once(scorer: Scorer) -> None:
    assert refusal(scorer, birds().drop(columns=["BodyMass", "Island"])) == (
        "The input lacks the columns Island, BodyMass: "
        "the model needs Island, CulmenLength, CulmenDepth, FlipperLength, BodyMass."
    )


def test_a_frame_without_rows_is_refused(scorer: Scorer) -> None:
    assert refusal(scorer, birds().head(0)) == "The input has no rows: give at least one."


def test_a_frame_without_anything_is_refused_for_its_columns(scorer: Scorer) -> None:
    assert refusal(scorer, pd.DataFrame()).startswith("The input lacks the columns Island, CulmenLength, ")


def test_a_column_that_stands_twice_is_refused(scorer: Scorer) -> None:
    twice = pd.concat([birds(), birds()[["Island", "BodyMass"]]], axis=1)
    assert refusal(scorer, twice) == "The input has BodyMass, Island more than once: each column must stand once."
