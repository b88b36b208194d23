"""The whole lifecycle against a real MLflow server over HTTP, with SQLite and with PostgreSQL behind it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pandas as pd
import pytest

from penguins import champion, drift, query, registry, serve
from penguins.config import SearchParameters, TrainingParameters
from penguins.monitor import monitor
from penguins.predict import predict
from penguins.promote import promote
from penguins.registry import Version
from penguins.tracking import Tracking
from penguins.train import train_from_source
from penguins.tune import tune_from_source
from tests.conftest import LAB_BIRD, PENGUINS_CSV
from tests.servers import POSTGRES_TOOLS, mlflow_server, postgres

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NAME = "penguin_predictor"
FIRST, SECOND = Version(NAME, 1), Version(NAME, 2)

pytestmark = [pytest.mark.spark, pytest.mark.slow]


@pytest.fixture(params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tracking]:
    """A store behind a server, which MLflow uses until the test is over."""
    if request.param == "postgresql" and not POSTGRES_TOOLS:
        if os.environ.get("CI"):
            pytest.fail("CI needs PostgreSQL, and Debian's package postgresql isn't installed")
        pytest.skip("Debian's package postgresql isn't installed")
    if request.param == "sqlite":
        with mlflow_server(tmp_path) as running:
            yield from _used(Tracking(running.uri))
    else:
        with postgres(tmp_path) as database, mlflow_server(tmp_path, database) as running:
            yield from _used(Tracking(running.uri))


def _used(store: Tracking) -> Iterator[Tracking]:
    store.require_reachable()
    store.activate()
    yield store
    mlflow.set_tracking_uri("")
    mlflow.set_registry_uri("")


def test_from_the_first_training_to_the_way_back(
    spark: SparkSession, server: Tracking, models: Path, tmp_path: Path
) -> None:
    server.activate()
    first = train_from_source(
        spark, PENGUINS_CSV, TrainingParameters(reg_param=0.01), experiment="birds", register_as=NAME
    )
    assert first.version == 1
    assert promote(spark, FIRST).moved

    tuned = tune_from_source(spark, PENGUINS_CSV, SearchParameters(trials=3), experiment="birds", register_as=NAME)
    assert tuned.trained.version == 2
    children = mlflow.search_runs(
        experiment_names=["birds"],
        filter_string=f"tags.`mlflow.parentRunId` = '{tuned.run_id}'",
        output_format="list",
    )
    assert len(children) == 4, "three trials and the best"
    assert promote(spark, SECOND).moved
    assert champion.version_of(NAME, "previous_champion") == FIRST

    # From another store: the good model of the local one is the third version here, and can be judged here.
    copied = registry.copy_version(NAME, 3, Tracking.local(tmp_path), server)
    assert copied == 3
    judged = promote(spark, Version(NAME, copied), dry_run=True)
    assert (judged.rows, set(judged.metrics)) == (116, {"challenger", "champion"})

    scored = predict(spark, PENGUINS_CSV, tmp_path / "scored.csv")
    assert (scored.rows, scored.unscored, scored.version.number) == (344, 2, 2)

    season = tmp_path / "season.csv"
    drift.lean_season(pd.read_csv(PENGUINS_CSV)).to_csv(season, index=False)
    watched = monitor(spark, PENGUINS_CSV, season, model=f"models:/{NAME}@champion", experiment="birds")
    assert watched.drifted
    assert mlflow.get_run(watched.run_id).data.tags["drifted"] == "true"

    with serve.serving(f"models:/{NAME}@champion") as url:
        assert query.ask(url, LAB_BIRD)["species"].tolist() == ["Gentoo"]

    assert champion.roll_back(NAME) == (FIRST, SECOND)

    def move(_: int) -> bool:
        return champion.move(SECOND, instead_of=FIRST)

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(move, range(4))) == [False, False, False, True]
