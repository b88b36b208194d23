"""SIGKILL at many moments of training and promoting: what was good before is good after, and the next run works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pytest

from penguins import champion, registry
from penguins.flavor import load_scorer
from penguins.promote import promote
from penguins.registry import Version
from penguins.train import train_from_source
from tests.conftest import LAB_BIRD, PENGUINS_CSV

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NAME = "penguin_predictor"

BEGIN = """
import sys
from penguins import config, promote, registry, train
from penguins.session import spark_session
from penguins.tracking import Tracking

def report(step):
    print(step, flush=True)

Tracking.local().activate()
spark = spark_session(brief=True)
"""

TRAIN = """
train.train_from_source(spark, sys.argv[1], experiment="birds", register_as="penguin_predictor", report=report)
"""

PROMOTE = """
promote.promote(spark, registry.Version("penguin_predictor", 3), report=report)
"""

MOMENTS = (
    (TRAIN, "Fitting the regression", 0.0),
    (TRAIN, "Logging", 0.3),
    (PROMOTE, "Asking the champion", 0.1),
    (PROMOTE, "Judging", 0.1),
)
"""What is done, the step in which it is killed, and how many seconds after the step has begun."""

pytestmark = [pytest.mark.spark, pytest.mark.slow]


def test_killed_at_many_moments_the_champion_is_there_and_the_next_run_works(spark: SparkSession, models: Path) -> None:
    assert champion.move(Version(NAME, 1), instead_of=None)
    for work, step, delay in MOMENTS:
        command = [sys.executable, "-W", "ignore", "-c", BEGIN + work, str(PENGUINS_CSV)]
        with subprocess.Popen(
            command, cwd=models.parent, stdout=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            assert process.stdout is not None
            assert step in (begun.strip() for begun in process.stdout), "it got that far"
            time.sleep(delay)
            # With the JVM that it started.
            os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode in {-signal.SIGKILL, 0}, "or it was done already"
        require_good_aliases()
    half_finished = mlflow.search_runs(
        experiment_names=["birds"], filter_string="attributes.status = 'RUNNING'", output_format="list"
    )
    assert len(half_finished) >= 2, "what is half-finished can be recognised"
    trained = train_from_source(spark, PENGUINS_CSV, experiment="birds", register_as=NAME)
    assert trained.version is not None
    promote(spark, Version(NAME, trained.version))
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
