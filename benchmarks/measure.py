"""What is measured inside a process: `python -m benchmarks.measure NAME ARGUMENTS RESULT`.

ARGUMENTS is a JSON object of the function's arguments, and what the function returns is written to RESULT as JSON.
Everything that a run leaves behind, its MLflow store included, goes to the current folder.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.birds import REAL_BIRDS, make_birds

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

MEASUREMENTS = ["CulmenLength", "CulmenDepth", "FlipperLength", "BodyMass"]
LAB_REQUEST = {
    "Island": "Biscoe",
    "CulmenLength": 48.7,
    "CulmenDepth": 14.1,
    "FlipperLength": 210.0,
    "BodyMass": 4450.0,
}


class Steps:
    """A `report` function that adds up the seconds between one step and the next."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._step, self._since = "", time.perf_counter()

    def __call__(self, step: str) -> None:
        """Begin `step`, and end the one before."""
        now = time.perf_counter()
        if self._step:
            self.seconds[self._step] = self.seconds.get(self._step, 0.0) + now - self._since
        self._step, self._since = step, now

    def finish(self) -> dict[str, float]:
        """The seconds of every step, the last one's until now."""
        self("")
        return self.seconds


def birds(rows: int, folder: str) -> list[str]:
    """Make the birds, unless they are there; the paths of the CSV and the Parquet file."""
    return [str(path) for path in make_birds(rows, Path(folder))]


def warm(repetitions: int, max_iter: int, reg_param: float) -> dict[str, list[float]]:
    """Seconds of a run on rows already read, the lab and ours by turns in one session, the first of each discarded."""
    from benchmarks import lab
    from penguins import data, train

    spark = _our_session()
    lab_rows = lab.read(spark, str(REAL_BIRDS))
    seconds: dict[str, list[float]] = {"lab": [], "ours": []}
    with data.cached(data.read(spark, REAL_BIRDS)) as observations:
        accepted, _ = data.check(observations)
        our_rows = data.split(accepted)
        for _ in range(repetitions + 1):
            seconds["lab"].append(_seconds(lambda: lab.train(*lab_rows, max_iter, reg_param)))
            seconds["ours"].append(
                _seconds(
                    lambda: train.train_model(
                        *our_rows, max_iter=max_iter, reg_param=reg_param, experiment="warm", register_as="warm"
                    )
                )
            )
    return {name: times[1:] for name, times in seconds.items()}


def tune(trials: int, lab_runs: int, max_iter: int, reg_param: float) -> dict[str, float]:
    """Seconds of `lab_runs` of the lab's runs and of one search, on rows already read, in one warm session."""
    from benchmarks import lab
    from penguins import data, tune

    spark = _our_session()
    lab_rows = lab.read(spark, str(REAL_BIRDS))
    with data.cached(data.read(spark, REAL_BIRDS)) as observations:
        accepted, _ = data.check(observations)
        our_rows = data.split(accepted)

        def search(trials: int) -> None:
            tune.tune_model(*our_rows, trials=trials, experiment="tune", register_as="tuned")

        lab.train(*lab_rows, max_iter, reg_param)
        search(2)
        return {
            "lab": _seconds(lambda: [lab.train(*lab_rows, max_iter, reg_param) for _ in range(lab_runs)]),
            "ours": _seconds(lambda: search(trials)),
        }


def lab_run(source: str, max_iter: int, reg_param: float) -> dict[str, Any]:
    """The lab's procedure on many rows, after one on the real birds to warm up."""
    from pyspark.sql import SparkSession

    from benchmarks import lab

    _keep_store_here()
    spark = SparkSession.builder.getOrCreate()
    lab.run(spark, str(REAL_BIRDS), max_iter, reg_param)
    steps = Steps()
    start = time.perf_counter()
    metrics = lab.run(spark, source, max_iter, reg_param, steps)
    return {"seconds": time.perf_counter() - start, "steps": steps.finish(), "accuracy": metrics["accuracy"]}


def our_run(source: str, max_iter: int, reg_param: float) -> dict[str, Any]:
    """`train_from_source` on many rows, after one on the real birds to warm up."""
    spark = _our_session()
    _train(spark, str(REAL_BIRDS), max_iter, reg_param)
    return _train(spark, source, max_iter, reg_param)


def scikit_learn_run(source: str, max_iter: int, reg_param: float) -> dict[str, Any]:
    """The same model with pandas and scikit-learn on the same rows, after one on the real birds to warm up."""
    _scikit_learn(str(REAL_BIRDS), max_iter, reg_param)
    return _scikit_learn(source, max_iter, reg_param)


def scaling(sources: dict[str, str], repetitions: int, max_iter: int, reg_param: float) -> dict[str, list[float]]:
    """Seconds of `train_from_source` by number of rows, in one warm session."""
    spark = _our_session()
    for _ in range(3):
        _train(spark, str(REAL_BIRDS), max_iter, reg_param)
    return {
        rows: [_train(spark, source, max_iter, reg_param)["seconds"] for _ in range(repetitions)]
        for rows, source in sources.items()
    }


def predict(many_birds: str, repetitions: int) -> dict[str, float]:
    """Seconds of one prediction: the lab's model as MLflow and as Spark ask it, and ours; ours on many rows as well."""
    import mlflow.pyfunc
    import mlflow.spark
    import pandas as pd

    from benchmarks import lab
    from penguins import train

    spark = _our_session()
    lab.run(spark, str(REAL_BIRDS), 10, 0.2)
    [lab_model] = Path("saved").iterdir()
    ours = train.train_from_source(spark, REAL_BIRDS, experiment="predict")
    bird = pd.DataFrame([LAB_REQUEST])
    many = pd.read_parquet(many_birds, columns=list(LAB_REQUEST))

    spark_flavor = mlflow.pyfunc.load_model(str(lab_model))
    pipeline = mlflow.spark.load_model(str(lab_model))
    one_row = spark.createDataFrame(bird)
    python_function = mlflow.pyfunc.load_model(ours.model_uri)
    return {
        "spark_flavor": _median(lambda: spark_flavor.predict(bird), repetitions),
        "transform": _median(lambda: pipeline.transform(one_row).collect(), repetitions),
        "python_function": _median(lambda: python_function.predict(bird), 10 * repetitions),
        "rows": len(many),
        "python_function_many": _median(lambda: python_function.predict(many), 3, discarded=1),
    }


def batch(source: str, repetitions: int) -> dict[str, Any]:
    """Seconds of `penguins.predict` and of MLflow's `spark_udf` on many rows, Parquet to Parquet, by turns."""
    import mlflow.pyfunc
    from pyspark.sql import functions as F

    from penguins import predict, train
    from penguins.spec import PENGUINS

    spark = _our_session()
    trained = train.train_from_source(spark, REAL_BIRDS, experiment="batch", register_as="penguin_predictor")
    uri = f"models:/{trained.registered_model}/{trained.version}"
    probabilities = ", ".join(f"probability_{name} double" for name in PENGUINS.classes)
    answer = f"prediction long, species string, {probabilities}"

    def ours() -> None:
        predict.predict(spark, source, "ours.parquet", model_uri=uri, overwrite=True)

    def spark_udf() -> None:
        udf = mlflow.pyfunc.spark_udf(spark, uri, result_type=answer, env_manager="local")
        rows = spark.read.parquet(source)
        # Not unpacked: to Spark `species` is the name of the label, too.
        answered = rows.withColumn("answer", udf(F.struct(*PENGUINS.features)))
        answered.write.mode("overwrite").parquet("spark_udf.parquet")

    seconds: dict[str, list[float]] = {"ours": [], "spark_udf": []}
    for _ in range(repetitions + 1):
        seconds["ours"].append(_seconds(ours))
        seconds["spark_udf"].append(_seconds(spark_udf))
    answers = {"ours": "prediction", "spark_udf": "answer.prediction"}
    counts = {
        name: spark.read.parquet(f"{name}.parquet").where(f"{column} is not null").count()
        for name, column in answers.items()
    }
    return {"rows": counts, "seconds": {name: times[1:] for name, times in seconds.items()}}


def serve(repetitions: int, requests: int) -> dict[str, Any]:
    """The lab's model and ours behind HTTP, by turns: until ready, p50 of a request, memory; and the scorer's part."""
    import mlflow
    import pandas as pd

    from benchmarks import lab, servers
    from penguins import flavor, train
    from penguins.config import CHAMPION, DEFAULT_MODEL, DEFAULT_MODEL_URI

    spark = _our_session()
    lab.run(spark, str(REAL_BIRDS), 10, 0.2)
    [lab_model] = Path("saved").iterdir()
    version = train.train_from_source(spark, REAL_BIRDS, experiment="serve", register_as=DEFAULT_MODEL).version
    mlflow.MlflowClient().set_registered_model_alias(DEFAULT_MODEL, CHAMPION, str(version))
    spark.stop()

    bird = pd.DataFrame([LAB_REQUEST])
    scorer = flavor.load_scorer(DEFAULT_MODEL_URI)
    by_mlflow = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local", "-w", "1", "-m"]
    commands = {
        "lab": [*by_mlflow, str(lab_model.absolute())],
        "ours": [sys.executable, "-m", "penguins", "serve"],
        "ours by mlflow": [*by_mlflow, DEFAULT_MODEL_URI],
    }
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    for _ in range(repetitions):
        for name, command in commands.items():
            port = servers.free_port()
            measured = servers.measure([*command, "--port", str(port)], port, LAB_REQUEST, requests)
            runs[name].append({**measured, "requests": statistics.median(measured["requests"])})
    return {**runs, "scorer": _median(lambda: scorer.predict(bird), requests)}


def attacked(questions: int) -> dict[str, Any]:
    """One bird asked of `penguins serve` in peace and under attack."""
    import mlflow

    from benchmarks import attack, servers
    from penguins import train
    from penguins.config import CHAMPION, DEFAULT_MODEL

    spark = _our_session()
    version = train.train_from_source(spark, REAL_BIRDS, experiment="serve", register_as=DEFAULT_MODEL).version
    mlflow.MlflowClient().set_registered_model_alias(DEFAULT_MODEL, CHAMPION, str(version))
    spark.stop()

    port = servers.free_port()
    with servers.running([sys.executable, "-m", "penguins", "serve", "--port", str(port)], port) as process:
        return attack.measure(process, port, LAB_REQUEST, questions)


def _our_session() -> SparkSession:
    from penguins.session import spark_session

    _keep_store_here()
    return spark_session()


def _keep_store_here() -> None:
    from penguins.tracking import Tracking

    Tracking.local().activate()


def _train(spark: SparkSession, source: str, max_iter: int, reg_param: float) -> dict[str, Any]:
    from penguins import train
    from penguins.config import TrainingParameters

    steps = Steps()
    parameters = TrainingParameters(max_iter, reg_param)
    start = time.perf_counter()
    trained = train.train_from_source(
        spark, source, parameters, experiment="many", register_as="penguin_predictor", report=steps
    )
    return {"seconds": time.perf_counter() - start, "steps": steps.finish(), "accuracy": trained.metrics["accuracy"]}


def _scikit_learn(source: str, max_iter: int, reg_param: float) -> dict[str, Any]:
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, OrdinalEncoder, StandardScaler

    # Ten iterations are what was asked for, converged or not.
    warnings.simplefilter("ignore", ConvergenceWarning)
    steps = Steps()
    start = time.perf_counter()
    steps("read")
    birds = pd.read_csv(source).dropna()
    training, test = train_test_split(birds, test_size=0.3, random_state=42)
    steps("fit")
    model = make_pipeline(
        make_column_transformer((OrdinalEncoder(), ["Island"]), (MinMaxScaler(), MEASUREMENTS)),
        # Spark standardizes inside its regression, and regularizes the standardized coefficients.
        StandardScaler(),
        # Spark minimizes mean loss + regParam/2 |w|², scikit-learn C * sum of losses + 1/2 |w|².
        LogisticRegression(C=1 / (reg_param * len(training)), max_iter=max_iter),
    )
    model.fit(training, training["Species"])
    steps("evaluate")
    accuracy = _accuracy(model.predict(test), test["Species"])
    return {"seconds": time.perf_counter() - start, "steps": steps.finish(), "accuracy": accuracy}


def _accuracy(predicted: Any, truth: pd.Series[int]) -> float:
    return float((predicted == truth.to_numpy()).mean())


def _median(call: Callable[[], object], repetitions: int, discarded: int = 5) -> float:
    return statistics.median([_seconds(call) for _ in range(repetitions + discarded)][discarded:])


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    name, arguments, result = sys.argv[1:]
    functions = {
        f.__name__: f
        for f in (birds, warm, tune, lab_run, our_run, scikit_learn_run, scaling, predict, batch, serve, attacked)
    }
    Path(result).write_text(json.dumps(functions[name](**json.loads(arguments))))
