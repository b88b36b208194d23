"""SIGKILL at many moments of training and promoting: what was good before is good after, and the next run works."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from penguins import champion, registry
from penguins.flavor import load_scorer
from penguins.registry import Version
from tests.conftest import LAB_BIRD, PENGUINS_CSV
from tests.servers import free_port
from tests.test_elsewhere import spark_process

NAME = "penguin_predictor"

# From the first step of training to the moment after the champion has moved.
STEPS = (
    "Reading and checking the data",
    "Fitting the regression",
    "Evaluating on the test rows",
    "Logging",
    "Making the test rows again",
    "Asking the champion",
    "Judging",
)
DELAYS = (0.0, 0.3, 0.05, 0.15, 0.0, 0.1, 0.3)
"""Seconds after each step has begun."""

pytestmark = [pytest.mark.spark, pytest.mark.slow]

# Forks a process per moment, so that what takes long to import is imported once. The child trains and promotes; it is
# killed so many seconds after it reported the step, or lives to the end.
KILLED = """
import os, signal, sys, time
import mlflow.onnx, mlflow.spark, matplotlib.figure, onnxruntime, pandas
import pyspark.sql.connect.session
from penguins import config, promote, registry, train
from penguins.session import spark_session
from penguins.tracking import Tracking

def train_and_promote(report):
    Tracking.local().activate()
    spark = spark_session()
    parameters = config.TrainingParameters(reg_param=float(sys.argv[2]))
    names = {"experiment": "birds", "register_as": "penguin_predictor"}
    trained = train.train_from_source(spark, sys.argv[1], parameters, report=report, **names)
    promote.promote(spark, registry.Version("penguin_predictor", trained.version), report=report)

for line in sys.stdin:
    step, delay = line.strip().split("|")
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        train_and_promote(lambda begun: os.write(tell, f"{begun}\\n".encode()))
        os._exit(0)
    os.close(tell)
    with os.fdopen(told) as steps:
        for begun in steps:
            if begun.strip() == step:
                time.sleep(float(delay))
                os.kill(child, signal.SIGKILL)
                break
    _, status = os.waitpid(child, 0)
    print("killed" if os.WIFSIGNALED(status) else f"ended {os.WEXITSTATUS(status)}", flush=True)
"""


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[str]:
    """A Spark Connect server, so that a killed process takes no Spark with it."""
    port = free_port()
    server = (
        *("org.apache.spark.deploy.SparkSubmit", "--master", "local[2]"),
        *("--conf", "spark.ui.enabled=false", "--conf", "spark.connect.grpc.binding.address=127.0.0.1"),
        *("--conf", f"spark.connect.grpc.binding.port={port}"),
        *("--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "spark-internal"),
    )
    log = tmp_path / "connect.log"
    with spark_process(log, *server) as process:
        while "Spark Connect server started" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
        yield f"sc://127.0.0.1:{port}"


def test_killed_at_many_moments_the_champion_is_there_and_the_next_run_works(models: Path, connect: str) -> None:
    assert champion.move(Version(NAME, 1), instead_of=None)
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(PENGUINS_CSV), "0.001"]
    environment = {**os.environ, "SPARK_REMOTE": connect}
    with subprocess.Popen(
        command, cwd=models.parent, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as killed:
        assert killed.stdin is not None
        assert killed.stdout is not None
        for step, delay in zip(STEPS, DELAYS, strict=True):
            killed.stdin.write(f"{step}|{delay}\n")
            killed.stdin.flush()
            assert killed.stdout.readline() == "killed\n"
            require_good_aliases()
        running = mlflow.search_runs(experiment_names=["birds"], filter_string="status = 'RUNNING'")
        assert len(running) >= len(STEPS) - 1, "what is half-finished can be recognised"
        killed.stdin.write("none|0\n")
        killed.stdin.flush()
        assert killed.stdout.readline() == "ended 0\n"
        killed.stdin.close()
    require_good_aliases()
    now = champion.version_of(NAME)
    assert now is not None
    assert now.number > 1, "a better version became champion in the end"


def require_good_aliases() -> None:
    aliases = mlflow.MlflowClient().get_registered_model(NAME).aliases
    assert "champion" in aliases
    for alias in aliases:
        version = registry.resolve(f"models:/{NAME}@{alias}")
        assert load_scorer(version.uri).predict(LAB_BIRD)["species"].tolist() == ["Gentoo"]
