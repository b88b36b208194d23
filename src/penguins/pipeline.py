"""The MLlib pipeline: build it, fit it in stages so that each row is assembled once, ask it about any rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from penguins.errors import ParameterError, listed
from penguins.spec import PENGUINS, Spec

if TYPE_CHECKING:
    from pyspark.ml import Pipeline, PipelineModel, Transformer
    from pyspark.ml.classification import LogisticRegression, LogisticRegressionModel
    from pyspark.ml.feature import MinMaxScaler, StringIndexer, VectorAssembler
    from pyspark.sql import Column, DataFrame

FEATURES = "Features"
NUMERIC = "numericFeatures"
NORMALIZED = "normalizedFeatures"
INDEX = "Idx"
"""How the names of indexed categories end."""

PREDICTION, PROBABILITY = "prediction", "probability"

# No column of a spec has a dot in its name, so these can't be one.
ROW, USABLE = "input.row", "input.usable"


def build(
    spec: Spec = PENGUINS, *, max_iter: int = 100, reg_param: float = 0.001, elastic_net_param: float = 0.0
) -> Pipeline:
    """The unfitted pipeline with the lab's stages and column names.

    One StringIndexer per categorical column, a VectorAssembler of the numeric columns, a MinMaxScaler, a
    VectorAssembler of both into `Features`, and a LogisticRegression of the label: five stages for PENGUINS.
    """
    from pyspark.ml import Pipeline

    indexers, numeric, scaler, features = _feature_stages(spec)
    regression = regression_of(spec, max_iter=max_iter, reg_param=reg_param, elastic_net_param=elastic_net_param)
    return Pipeline(stages=[*indexers, numeric, scaler, features, regression])


def require_names(spec: Spec) -> None:
    """Raise ParameterError when a column of the spec has the name of one that the pipeline adds."""
    added = {FEATURES, NUMERIC, NORMALIZED, "rawPrediction", "probability", "prediction"}
    added |= {f"{name}{INDEX}" for name in spec.categorical}
    # Spark doesn't tell upper from lower case.
    lower = {name.lower() for name in added}
    if taken := [name for name in spec.columns if name.lower() in lower]:
        raise ParameterError(
            f"The pipeline adds the columns {', '.join(sorted(added))}: give {listed(taken)} another name."
        )


def regression_of(
    spec: Spec = PENGUINS, *, max_iter: int = 100, reg_param: float = 0.001, elastic_net_param: float = 0.0
) -> LogisticRegression:
    """The last stage of the pipeline, unfitted."""
    from pyspark.ml.classification import LogisticRegression

    return LogisticRegression(
        labelCol=spec.label,
        featuresCol=FEATURES,
        maxIter=max_iter,
        regParam=reg_param,
        elasticNetParam=elastic_net_param,
    )


def fit_features(training: DataFrame, spec: Spec = PENGUINS) -> PipelineModel:
    """Fit every stage but the regression, reading the rows as few times as the stages allow.

    The result is the same as `Pipeline.fit` gives: the scaler is a real MinMaxScaler, fitted on two rows that
    hold each numeric column's smallest and largest value, because these are all it learns from any rows.
    """
    from pyspark.ml import PipelineModel
    from pyspark.sql import functions as F

    indexers, numeric, scaler, features = _feature_stages(spec)
    names = [column.name for column in spec.numeric]
    sides = [F.struct(*(of(name).alias(name) for name in names)) for of in (F.min, F.max)]
    # Not `createDataFrame`, for which Spark would start a Python process.
    two_rows = training.agg(F.array(*sides).alias("sides")).select(F.inline("sides"))
    fitted: list[Transformer] = [indexer.fit(training) for indexer in indexers]
    return PipelineModel([*fitted, numeric, scaler.fit(numeric.transform(two_rows)), features])


def assemble(features: PipelineModel, df: DataFrame, spec: Spec = PENGUINS, *also: str) -> DataFrame:
    """What the regression learns from: the column `Features`, the label, `also` others. Cache it before fitting."""
    return features.transform(df).select(FEATURES, spec.label, *also)


def join(features: PipelineModel, regression: LogisticRegressionModel) -> PipelineModel:
    """One PipelineModel of the fitted feature stages and the fitted regression."""
    from pyspark.ml import PipelineModel

    return PipelineModel([*features.stages, regression])


def answer(
    df: DataFrame, model: PipelineModel, known: Mapping[str, Sequence[str]], usable: Column, spec: Spec = PENGUINS
) -> DataFrame:
    """Ask a fitted pipeline about the rows of `df` in which `usable` is true, in one pass; `known` are its categories.

    Returns every row, as one struct in the column `input.row`, with `prediction` (the label's code, int) and
    `probability` (an array). Both are null where the row isn't usable, and where its numbers are so large (above about
    1e307) that the probabilities can't be computed.
    """
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import functions as F

    is_usable = F.col(f"`{USABLE}`")
    # The model fails at a value that it can't use, so it gets one that it can, and that answer is dropped below.
    given = [
        *(F.when(is_usable, F.col(name).cast("string")).otherwise(known[name][0]).alias(name) for name in known),
        *(F.when(is_usable, F.col(n.name).try_cast("double")).otherwise(0.0).alias(n.name) for n in spec.numeric),
    ]
    # The row travels as one value, so that none of its columns is in the way of one that the model makes.
    packed = df.select(F.struct("*").alias(ROW), *spec.features, usable.alias(USABLE))
    asked = model.transform(packed.select(f"`{ROW}`", f"`{USABLE}`", *given))
    probability = vector_to_array(F.col(PROBABILITY))
    # With three classes or more Spark makes a probability of 1 of an infinite margin, which the twin refuses.
    margins = [vector_to_array(F.col("rawPrediction"))] if len(spec.classes) > 2 else []
    # A NaN is larger than infinity in Spark.
    has_answer = is_usable & F.forall(F.concat(probability, *margins), lambda number: number < float("inf"))
    return asked.select(
        f"`{ROW}`",
        F.when(has_answer, F.col(PREDICTION).cast("int")).alias(PREDICTION),
        F.when(has_answer, probability).alias(PROBABILITY),
    )


def _feature_stages(spec: Spec) -> tuple[list[StringIndexer], VectorAssembler, MinMaxScaler, VectorAssembler]:
    from pyspark.ml.feature import MinMaxScaler, StringIndexer, VectorAssembler

    indexers = [StringIndexer(inputCol=name, outputCol=f"{name}{INDEX}") for name in spec.categorical]
    numeric = VectorAssembler(inputCols=[column.name for column in spec.numeric], outputCol=NUMERIC)
    scaler = MinMaxScaler(inputCol=NUMERIC, outputCol=NORMALIZED)
    inputs = [*(indexer.getOutputCol() for indexer in indexers), NORMALIZED]
    return indexers, numeric, scaler, VectorAssembler(inputCols=inputs, outputCol=FEATURES)
