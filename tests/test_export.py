"""The ONNX graph: the same answers as the Spark pipeline it was made from, for any parameters and any valid rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from penguins import data, export, pipeline
from penguins.data import PENGUINS, Numeric, Spec
from penguins.errors import ModelError
from penguins.export import to_onnx
from penguins.scorer import Scorer
from tests.conftest import BREAST_CANCER, PENGUINS_CSV

if TYPE_CHECKING:
    from pyspark.ml import PipelineModel
    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.spark

# Two classes with two categories; `Chicks` is the same for every bird.
IS_GENTOO = Spec(
    ("Island", "Size"),
    (Numeric("CulmenDepth", "mm", 6.5, 32.5), Numeric("Chicks", "", 0, 9)),
    "IsGentoo",
    ("other", "Gentoo"),
)

# Three classes; `Eggs` is the same for every bird.
WITH_CONSTANT = Spec(
    (), (Numeric("CulmenLength", "mm", 16, 90), Numeric("Eggs", "", 0, 9)), "Species", PENGUINS.classes
)

WINE = Spec(
    (),
    (Numeric("alcohol", "%", 5, 20), Numeric("hue", "", 0, 3), Numeric("proline", "mg/l", 100, 3000)),
    "Cultivar",
    ("first", "second", "third"),
)

SPECS = {
    "penguins": PENGUINS,
    "two classes without categories": BREAST_CANCER,
    "two classes with two categories and a constant column": IS_GENTOO,
    "three classes with a constant column": WITH_CONSTANT,
    "three classes without categories": WINE,
}

WITH_SPARK = settings(
    max_examples=4,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def training(spark: SparkSession) -> Iterator[dict[str, DataFrame]]:
    """Accepted rows for each of SPECS, cached."""
    from sklearn.datasets import load_breast_cancer, load_wine

    birds, _ = data.check(data.read(spark, PENGUINS_CSV))
    tumours = load_breast_cancer(as_frame=True).frame.rename(columns={"target": "Diagnosis"})
    wine = load_wine(as_frame=True).frame.rename(columns={"target": "Cultivar"})
    size = "if(BodyMass < 4000, 'small', 'tall') as Size"
    sources = {
        "penguins": birds,
        "two classes without categories": _frame(spark, tumours, BREAST_CANCER),
        "two classes with two categories and a constant column": birds.selectExpr(
            "Island", size, "CulmenDepth", "2D as Chicks", "int(Species = 1) as IsGentoo"
        ),
        "three classes with a constant column": birds.selectExpr("CulmenLength", "2D as Eggs", "Species"),
        "three classes without categories": _frame(spark, wine, WINE),
    }
    cached = {name: data.check(source, SPECS[name])[0].coalesce(1).cache() for name, source in sources.items()}
    yield cached
    for df in cached.values():
        df.unpersist()


def _frame(spark: SparkSession, table: pd.DataFrame, spec: Spec) -> DataFrame:
    return spark.createDataFrame(table[list(spec.columns)].astype(object).to_numpy().tolist(), list(spec.columns))


def valid_rows(spec: Spec, categories: dict[str, list[str]]) -> st.SearchStrategy[list[tuple[Any, ...]]]:
    """Rows that `check` would accept, mostly other ones than the training rows."""
    values = [st.sampled_from(categories[name]) for name in spec.categorical]
    numbers = [st.floats(column.minimum, column.maximum) for column in spec.numeric]
    return st.lists(st.tuples(*values, *numbers), min_size=20, max_size=60)


def assert_same_answers(model: PipelineModel, asked: DataFrame, spec: Spec) -> None:
    from pyspark.ml.functions import vector_to_array

    scored = model.transform(asked)
    probability = vector_to_array(scored["probability"]).alias("probability")
    expected = scored.select(*spec.features, "prediction", probability).toPandas()
    answers = Scorer(to_onnx(model, spec).SerializeToString()).predict(expected[list(spec.features)])
    probabilities = answers[[f"probability_{name}" for name in spec.classes]].to_numpy()
    np.testing.assert_allclose(probabilities, np.stack(expected["probability"].tolist()), rtol=0, atol=1e-9)
    assert answers["prediction"].tolist() == expected["prediction"].astype(int).tolist()


@pytest.mark.parametrize("case", SPECS)
@WITH_SPARK
@given(
    chance=st.data(),
    max_iter=st.integers(1, 12),
    reg_param=st.sampled_from([0.0, 0.001, 0.2, 5.0]) | st.floats(0, 2),
    elastic_net_param=st.sampled_from([0.0, 1.0]) | st.floats(0, 1),
)
def test_the_graph_answers_as_spark_does_for_any_parameters_and_valid_rows(
    spark: SparkSession,
    training: dict[str, DataFrame],
    case: str,
    chance: st.DataObject,
    max_iter: int,
    reg_param: float,
    elastic_net_param: float,
) -> None:
    spec, known = SPECS[case], training[case]
    features = pipeline.fit_features(known, spec)
    categories = {name: stage.labels for name, stage in zip(spec.categorical, features.stages, strict=False)}  # type: ignore[attr-defined]  # indexers come first
    regression = pipeline.regression_of(
        spec, max_iter=max_iter, reg_param=reg_param, elastic_net_param=elastic_net_param
    )
    model = pipeline.join(features, regression.fit(pipeline.assemble(features, known, spec)))
    rows = chance.draw(valid_rows(spec, categories))
    schema = ", ".join(f"`{name}` {'string' if name in spec.categorical else 'double'}" for name in spec.features)
    assert_same_answers(model, spark.createDataFrame(rows, schema), spec)


@pytest.mark.parametrize("case", SPECS)
def test_the_graph_answers_as_spark_does_for_all_training_rows_at_the_default_parameters(
    spark: SparkSession, training: dict[str, DataFrame], case: str
) -> None:
    spec, known = SPECS[case], training[case]
    features = pipeline.fit_features(known, spec)
    regression = pipeline.regression_of(spec).fit(pipeline.assemble(features, known, spec))
    assert_same_answers(pipeline.join(features, regression), known, spec)


def test_a_reread_graph_of_a_pipeline_that_spark_fitted_itself_answers_the_labs_request(
    spark: SparkSession, training: dict[str, DataFrame], tmp_path: Path
) -> None:
    model = pipeline.build().fit(training["penguins"])
    (tmp_path / "model.onnx").write_bytes(to_onnx(model).SerializeToString())
    asked = pd.DataFrame(
        {
            "Island": ["Biscoe", "Dream"],
            "CulmenLength": [48.7, 50.5],
            "CulmenDepth": [14.1, 19.6],
            "FlipperLength": [210, 201],
            "BodyMass": [4450, 4050],
        }
    )
    answers = Scorer(str(tmp_path / "model.onnx")).predict(asked)
    assert answers["species"].tolist() == ["Gentoo", "Chinstrap"]
    assert (answers[["probability_Gentoo", "probability_Chinstrap"]].to_numpy().max(axis=1) > 0.9).all()


def test_the_graph_says_what_goes_in_and_what_comes_out(spark: SparkSession, training: dict[str, DataFrame]) -> None:
    graph = to_onnx(pipeline.build(max_iter=2).fit(training["penguins"])).graph
    inputs = {value.name: value.type.tensor_type.elem_type for value in graph.input}
    # 8 is text and 11 is double, in ONNX's own numbering.
    assert inputs == {"Island": 8, "CulmenLength": 11, "CulmenDepth": 11, "FlipperLength": 11, "BodyMass": 11}
    assert [value.name for value in graph.output] == ["prediction", "probabilities"]


def test_a_pipeline_with_other_stages_is_refused(spark: SparkSession, training: dict[str, DataFrame]) -> None:
    from pyspark.ml import Pipeline
    from pyspark.ml.classification import DecisionTreeClassifier

    *features, _ = pipeline.build().getStages()
    tree = DecisionTreeClassifier(labelCol="Species", featuresCol="Features")
    model = Pipeline(stages=[*features, tree]).fit(training["penguins"])
    with pytest.raises(ModelError) as refused:
        to_onnx(model)
    assert str(refused.value) == (
        "Only the stages that penguins builds (1 indexers, assembler, scaler, assembler, logistic regression) can be "
        "exported, but this pipeline has StringIndexerModel, VectorAssembler, MinMaxScalerModel, VectorAssembler, "
        "DecisionTreeClassificationModel."
    )


def test_a_pipeline_of_another_spec_is_refused(spark: SparkSession, training: dict[str, DataFrame]) -> None:
    model = pipeline.build(BREAST_CANCER, max_iter=2).fit(training["two classes without categories"])
    with pytest.raises(ModelError) as refused:
        to_onnx(model, PENGUINS)
    assert str(refused.value) == (
        "Only the stages that penguins builds (1 indexers, assembler, scaler, assembler, logistic regression) can be "
        "exported, but this pipeline has VectorAssembler, MinMaxScalerModel, VectorAssembler, LogisticRegressionModel."
    )


def test_a_pipeline_of_other_columns_or_classes_is_refused(spark: SparkSession, training: dict[str, DataFrame]) -> None:
    # The stages are alike, so only their columns tell: the graph would answer with the wrong ones.
    model = pipeline.build(WINE, max_iter=2).fit(training["three classes without categories"])
    turned = Spec((), WINE.numeric[::-1], "Cultivar", WINE.classes)
    with pytest.raises(
        ModelError, match=r"^The pipeline was fitted on .* with 3 classes, but the spec has .* with 3\.$"
    ):
        to_onnx(model, turned)
    with pytest.raises(ModelError, match=r" with 3 classes, but the spec has .* with 4\.$"):
        to_onnx(model, Spec((), WINE.numeric, "Cultivar", ("first", "second", "third", "fourth")))


def test_a_graph_too_large_for_one_file_is_refused_before_it_is_built() -> None:
    # A view of one zero: it takes no memory, and says the size that the values would take.
    coefficients = np.broadcast_to(0.0, (1000, 300_000))
    with pytest.raises(ModelError) as refused:
        export._require_size({"coefficients": coefficients, "intercepts": np.zeros(1000)})
    assert str(refused.value) == (
        "The model's coefficients take 2.4 GB, and an ONNX file holds at most 2.1: train on fewer columns or classes."
    )
    export._require_size({"coefficients": np.broadcast_to(0.0, (1000, 200_000))})
