"""The story of the package, told while it happens."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console
from rich.table import Table

from penguins import config, flavor, show, train

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LAB_REQUEST = {"Island": "Biscoe", "CulmenLength": 48.7, "CulmenDepth": 14.1, "FlipperLength": 210, "BodyMass": 4450}
"""The bird that the lab's notebook asks about: a Gentoo."""


def tell(spark: SparkSession, source: str) -> None:
    """Train and register a model from `source`, then ask it both ways, printing what happens and how to repeat it."""
    console = Console(highlight=False)
    console.rule("1. Train a model from the CSV file, track it, register it", align="left")
    console.print(f"[dim]penguins train --data {source}[/dim]")
    with show.progress((*train.SOURCE_STEPS, *train.STEPS)) as report:
        trained = train.train_from_source(
            spark, source, experiment=config.DEFAULT_EXPERIMENT, register_as=config.DEFAULT_MODEL, report=report
        )
    show.trained(trained)

    uri = f"models:/{trained.registered_model}/{trained.version}"
    birds = pd.DataFrame([LAB_REQUEST])
    console.rule(f"2. Ask {uri} on Spark: the pipeline itself, for batches", align="left")
    spark_model = flavor.load_spark(uri)
    asked = spark.createDataFrame(birds.astype({"FlipperLength": float, "BodyMass": float}))
    # The first answer pays for Spark's code generation; the second one is what every other answer costs.
    spark_model.transform(asked).collect()
    start = time.perf_counter()
    answer = spark_model.transform(asked).select("prediction", "probability").collect()[0]
    spark_time = time.perf_counter() - start

    console.rule("3. Ask the same version without a JVM: its ONNX twin, for serving", align="left")
    scorer = flavor.load_scorer(uri)
    scorer.predict(birds)
    start = time.perf_counter()
    twin = scorer.predict(birds).iloc[0]
    twin_time = time.perf_counter() - start

    table = Table(
        title=f"The lab's bird: {', '.join(str(value) for value in LAB_REQUEST.values())}", title_justify="left"
    )
    for heading in ("flavor", "species", *trained.confusion.classes, "time"):
        table.add_column(heading, justify="left" if heading in {"flavor", "species"} else "right")
    species = trained.confusion.classes[int(answer["prediction"])]
    table.add_row("spark", species, *(f"{p:.6f}" for p in answer["probability"]), f"{spark_time * 1e3:.1f} ms")
    probabilities = [twin[f"probability_{name}"] for name in trained.confusion.classes]
    table.add_row("python_function", twin["species"], *(f"{p:.6f}" for p in probabilities), f"{twin_time * 1e3:.1f} ms")
    console.print(table)
    console.print("The two are one registered version, and training refuses to log them unless they agree.")
