"""The same training and scoring on other Sparks: a cluster of separate processes, and over Spark Connect."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pyspark
import pytest

from penguins.java import java_home
from penguins.train import train_from_source
from tests.conftest import BRIEF_JVM, PENGUINS_CSV

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.slow]

TRAIN = """
import json, sys
from penguins import flavor, predict, session, tracking, train
tracking.Tracking.local(sys.argv[2]).activate()
with session.running_session() as spark:
    trained = train.train_from_source(spark, sys.argv[1], register_as="penguin_predictor")
    uri = f"models:/penguin_predictor/{trained.version}"
    regression = flavor.load_spark(uri).stages[-1]
    scored = predict.predict(spark, sys.argv[1], sys.argv[2] + "/scored.csv", model_uri=uri)
    print(json.dumps({
        "session": type(spark).__module__,
        "master": None if "connect" in type(spark).__module__ else spark.sparkContext.master,
        "coefficients": regression.coefficientMatrix.toArray().tolist(),
        "intercepts": regression.interceptVector.toArray().tolist(),
        "species": flavor.load_scorer(trained.model_uri).predict(trained.input_example)["species"].tolist(),
        "metrics": trained.metrics,
        "scored": [scored.rows, scored.classes],
    }))
"""


def train_elsewhere(folder: Path, **environment: str) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-c", TRAIN, str(PENGUINS_CSV), str(folder)]
    result = subprocess.run(
        command, env={**os.environ, **BRIEF_JVM, **environment}, cwd=folder, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    answer: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return answer


@pytest.fixture(scope="module")
def expected(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the tests' own session, local Spark, makes of the same data."""
    from penguins.tracking import Tracking

    Tracking.local(tmp_path_factory.mktemp("local")).activate()
    trained = train_from_source(spark, PENGUINS_CSV)
    regression: Any = trained.model.stages[-1]
    return {"coefficients": regression.coefficientMatrix.toArray(), "metrics": trained.metrics}


@contextmanager
def spark_process(log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Spark daemon of the pip-installed pyspark, ended with the block."""
    home = Path(pyspark.__file__).parent
    environment = {**os.environ, **BRIEF_JVM, "SPARK_HOME": str(home), "SPARK_NO_DAEMONIZE": "1"}
    if java := java_home():
        environment["JAVA_HOME"] = java
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(home / "bin" / "spark-class"), *arguments],
            env=environment,
            stdout=output,
            stderr=output,
            cwd=log.parent,
        )
        try:
            yield process
        finally:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.wait(timeout=30)


def wait_for(log: Path, words: str, times: int = 1) -> str:
    """The log once it says `words` as often as asked."""
    import time

    for _ in range(600):
        text = log.read_text() if log.exists() else ""
        if text.count(words) >= times:
            return text
        time.sleep(0.1)
    raise TimeoutError(f"{log} never said {words!r} {times} times")


def test_a_cluster_of_two_workers_gives_the_same_model(tmp_path: Path, expected: dict[str, Any]) -> None:
    package = "org.apache.spark.deploy"
    with ExitStack() as stack:
        log = tmp_path / "master.log"
        options = ["--host", "127.0.0.1", "--port", "0", "--webui-port", "0"]
        stack.enter_context(spark_process(log, f"{package}.master.Master", *options))
        text = wait_for(log, "Starting Spark master at spark://")
        master = "spark://" + text.partition("Starting Spark master at spark://")[2].split()[0]
        for number in (1, 2):
            folder = tmp_path / f"worker{number}"
            folder.mkdir()
            stack.enter_context(
                spark_process(
                    folder / "log",
                    *(f"{package}.worker.Worker", master, "--host", "127.0.0.1", "--webui-port", "0"),
                    *("--cores", "1", "--memory", "1g", "--work-dir", str(folder)),
                )
            )
        wait_for(log, "Registering worker", times=2)
        result = train_elsewhere(tmp_path, MASTER=master)
        text = log.read_text()
    assert result["master"] == master
    assert text.count("Launching executor") == 2, "both workers took part"
    np.testing.assert_allclose(result["coefficients"], expected["coefficients"], atol=1e-6, rtol=0)
    assert result["metrics"]["accuracy"] == expected["metrics"]["accuracy"]
    assert result["scored"] == [344, {"Adelie": 153, "Gentoo": 123, "Chinstrap": 66}]


def test_spark_connect_gives_the_same_model(tmp_path: Path, expected: dict[str, Any]) -> None:
    result = train_elsewhere(tmp_path, SPARK_REMOTE="local[2]")
    assert result["session"] == "pyspark.sql.connect.session"
    np.testing.assert_allclose(result["coefficients"], expected["coefficients"], atol=1e-6, rtol=0)
    assert result["metrics"]["accuracy"] == expected["metrics"]["accuracy"]
    assert result["scored"] == [344, {"Adelie": 153, "Gentoo": 123, "Chinstrap": 66}]
    assert set(result["species"]) <= {"Adelie", "Gentoo", "Chinstrap"}
