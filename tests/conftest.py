"""What the tests share: one Spark session, and an MLflow store of its own for each test that tracks."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from filelock import FileLock

from penguins.spec import Numeric, Spec

# Before mlflow is imported anywhere: no telemetry, and no helper processes in the servers that tests start.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
# Started in the background of a shell, the tests and what they start would not hear the Ctrl-C that they press.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROOT = Path(__file__).parent.parent
PENGUINS_CSV = ROOT / "data" / "penguins.csv"

LAB_BIRD = pd.DataFrame(
    [{"Island": "Biscoe", "CulmenLength": 48.7, "CulmenDepth": 14.1, "FlipperLength": 210.0, "BodyMass": 4450.0}]
)
"""The bird that the lab's notebook asks about: a Gentoo."""

BRIEF_JVM = {"JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
"""For a JVM that works for seconds: its second compiler and its parallel collector would cost more than they give."""

# A second real table, which scikit-learn ships: two classes, no category, names with spaces.
BREAST_CANCER = Spec(
    categorical=(),
    numeric=(
        Numeric("mean radius", "mm", 1, 60),
        Numeric("mean texture", "", 1, 80),
        Numeric("mean smoothness", "", 0, 1),
    ),
    label="Diagnosis",
    classes=("malignant", "benign"),
)


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """The one Spark session of all tests: no web page, UTC, one shuffle partition."""
    from penguins.session import spark_session

    os.chdir(tmp_path_factory.mktemp("spark"))  # where Spark puts its warehouse
    session = spark_session(brief=True)
    session.conf.set("spark.sql.shuffle.partitions", "1")
    yield session
    session.stop()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store with its tables made and nothing in them: making them takes seconds, copying them nothing."""
    import mlflow

    from penguins.tracking import Tracking

    folder = tmp_path_factory.mktemp("empty")
    Tracking.local(folder).client().search_experiments()
    assert mlflow.active_run() is None
    return folder / "mlflow.db"


@pytest.fixture
def store(tmp_path: Path, empty_store: Path) -> Iterator[Path]:
    """A folder with an empty MLflow store, which MLflow uses until the test is over."""
    import mlflow

    from penguins.tracking import Tracking

    folder = tmp_path / "store"
    folder.mkdir()
    shutil.copy(empty_store, folder)
    Tracking.local(folder).activate()
    yield folder
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri("")
    mlflow.set_registry_uri("")


@pytest.fixture(scope="session")
def three_models(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, worker_id: str, empty_store: Path
) -> Path:
    """A store with three versions of `penguin_predictor`: a fair one, the lab's second, and a good one."""
    # All processes of pytest-xdist share it: the first to come trains.
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "three"
    with FileLock(f"{folder}.lock"):
        if not (folder / "whole").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            _train_three_models(request.getfixturevalue("spark"), folder, empty_store)
            (folder / "whole").touch()
    return folder / "mlflow.db"


def _train_three_models(spark: SparkSession, folder: Path, empty_store: Path) -> None:
    import mlflow

    from penguins.config import TrainingParameters
    from penguins.tracking import Tracking
    from penguins.train import train_from_source

    shutil.copy(empty_store, folder)
    Tracking.local(folder).activate()
    for max_iter, reg_param in ((100, 0.01), (10, 0.2), (100, 0.001)):
        parameters = TrainingParameters(max_iter, reg_param)
        train_from_source(spark, PENGUINS_CSV, parameters, experiment="birds", register_as="penguin_predictor")
    mlflow.set_tracking_uri("")
    mlflow.set_registry_uri("")


@pytest.fixture
def models(tmp_path: Path, three_models: Path) -> Iterator[Path]:
    """The database of a store of its own with the three versions; their files are shared, and must stay as they are."""
    import mlflow

    from penguins.tracking import Tracking

    database = Path(shutil.copy(three_models, tmp_path))
    Tracking.local(tmp_path).activate()
    yield database
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri("")
    mlflow.set_registry_uri("")


def point_at_nothing(database: Path, version: int) -> None:
    """Make the registry say that a version's files are where there are none."""
    connection = sqlite3.connect(database)
    with connection:
        connection.execute("UPDATE model_versions SET storage_location = '/gone' WHERE version = ?", (version,))
    connection.close()


def no_java_path(folder: Path) -> str:
    """A PATH with every tool of this machine but Java."""
    tools = folder / "tools"
    tools.mkdir()
    for place in ("/usr/bin", "/bin"):
        for tool in Path(place).iterdir():
            if not tool.name.startswith("java") and not (tools / tool.name).is_symlink():
                (tools / tool.name).symlink_to(tool)
    return str(tools)
