"""The lab's procedure, step by step as its notebook goes: what `penguins train` is measured against.

Nothing in it is tuned: the schema isn't declared, nothing is cached, every metric is a pass of its own over the data,
and the model is written twice, the second time leaving MLflow to find out what the model requires.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import click
import mlflow
import mlflow.spark
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.ml.feature import MinMaxScaler, StringIndexer, VectorAssembler
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

MEASUREMENTS = ["CulmenLength", "CulmenDepth", "FlipperLength", "BodyMass"]
METRICS: tuple[Literal["accuracy", "weightedRecall", "weightedPrecision"], ...] = (
    "accuracy",
    "weightedRecall",
    "weightedPrecision",
)


def run(
    spark: SparkSession, csv: str, max_iter: int, reg_param: float, report: Callable[[str], None] = lambda _: None
) -> dict[str, float]:
    """Go through the whole notebook with one training run, and return its metrics; `report` is told each step."""
    report("read, count, show")
    training, test = read(spark, csv)
    return train(training, test, max_iter, reg_param, report)


def read(spark: SparkSession, csv: str) -> tuple[DataFrame, DataFrame]:
    """Read the birds, split them without a seed, print both counts and show a fifth of the training rows."""
    birds = (
        spark.read.csv(csv, header=True)
        .dropna()
        .select(
            F.col("Island").cast("string"),
            *(F.col(name).cast("float") for name in MEASUREMENTS),
            F.col("Species").cast("int"),
        )
    )
    birds.sample(0.2).show()
    training, test = birds.randomSplit([0.7, 0.3])
    click.echo(f"Training rows: {training.count()}, test rows: {test.count()}")
    return training, test


def train(
    training: DataFrame,
    test: DataFrame,
    max_iter: int,
    reg_param: float,
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, float]:
    """Fit, evaluate and log in one MLflow run, save the model as well, and return the metrics."""
    with mlflow.start_run():
        report("fit")
        mlflow.log_param("maxIter", max_iter)
        mlflow.log_param("regParam", reg_param)
        model = _pipeline(max_iter, reg_param).fit(training)
        report("evaluate")
        predictions = model.transform(test)
        metrics: dict[str, float] = {}
        for name in METRICS:
            evaluator = MulticlassClassificationEvaluator(
                labelCol="Species", predictionCol="prediction", metricName=name
            )
            metrics[name] = evaluator.evaluate(predictions)
            click.echo(f"{name}: {metrics[name]}")
            mlflow.log_metric(name, metrics[name])
        report("log and save the model")
        _keep(model)
    return metrics


def _pipeline(max_iter: int, reg_param: float) -> Pipeline:
    return Pipeline(
        stages=[
            StringIndexer(inputCol="Island", outputCol="IslandIdx"),
            VectorAssembler(inputCols=MEASUREMENTS, outputCol="numericFeatures"),
            MinMaxScaler(inputCol="numericFeatures", outputCol="normalizedFeatures"),
            VectorAssembler(inputCols=["IslandIdx", "normalizedFeatures"], outputCol="Features"),
            LogisticRegression(labelCol="Species", featuresCol="Features", maxIter=max_iter, regParam=reg_param),
        ]
    )


def _keep(model: PipelineModel) -> None:
    """Log the model under a name made from the clock, then save it to a path."""
    name = time.strftime("penguins-%Y%m%d-%H%M%S")
    # The environment is given here, so MLflow infers nothing; it isn't for the path, so there MLflow does.
    mlflow.spark.log_model(model, name, conda_env=mlflow.spark.get_default_conda_env())
    mlflow.spark.save_model(model, str(Path("saved", name).absolute()))


@click.command()
@click.option("--data", "csv", required=True, help="The CSV file to read.")
@click.option("--max-iter", default=10, show_default=True)
@click.option("--reg-param", default=0.2, show_default=True)
def main(csv: str, max_iter: int, reg_param: float) -> None:
    """Run the lab's notebook as a script, with one training run."""
    spark = SparkSession.builder.getOrCreate()
    run(spark, csv, max_iter, reg_param)
    spark.stop()


if __name__ == "__main__":
    main()
