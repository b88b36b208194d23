"""The lifecycle in an Azure Machine Learning workspace on this machine, through Microsoft's own plugin for MLflow."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
import pytest

from penguins import champion, dialect, drift, flavor, query, serve
from penguins.config import SearchParameters, TrainingParameters
from penguins.monitor import monitor
from penguins.predict import predict
from penguins.promote import promote
from penguins.registry import Version
from penguins.tracking import Tracking
from penguins.train import train_from_source
from penguins.tune import tune_from_source
from tests.azureml.mlflow_workspace import MlflowWorkspace
from tests.conftest import LAB_BIRD, PENGUINS_CSV

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.azureml, pytest.mark.spark, pytest.mark.slow]

FILES = [
    *("coefficients.png", "confusion_matrix.png", "quarantined.json", "report.txt"),
    *("model/MLmodel", "model/conda.yaml", "model/model.onnx", "model/python_env.yaml", "model/requirements.txt"),
]


@pytest.fixture
def store(workspace: MlflowWorkspace) -> Tracking:
    store = Tracking(workspace.uri)
    store.require_reachable()
    store.activate()
    return store


def test_from_the_first_training_to_the_way_back(
    spark: SparkSession, workspace: MlflowWorkspace, store: Tracking, tmp_path: Path
) -> None:
    """In a workspace that knows neither aliases nor inputs; one that does is like any other store."""
    workspace.has_aliases = workspace.has_inputs = False
    name = "lifecycle"
    first_version, second_version = Version(name, 1), Version(name, 2)
    options: dict[str, Any] = {"experiment": name, "register_as": name}
    trained = train_from_source(spark, PENGUINS_CSV, TrainingParameters(reg_param=0.01), **options)
    assert (trained.version, trained.model_uri) == (1, f"runs:/{trained.run_id}/model")
    assert set(FILES) < set(dialect.artifacts(trained.run_id))
    assert mlflow.get_run(trained.run_id).data.metrics["accuracy"] == pytest.approx(113 / 116)
    assert flavor.load_scorer(trained.model_uri).predict(LAB_BIRD)["species"].tolist() == ["Gentoo"]
    promoted = promote(spark, first_version)
    assert (promoted.moved, promoted.verdict.reasons) == (
        True,
        ("no champion stands against it, and its accuracy of 0.974 and every recall reach the floors",),
    )

    tuned = tune_from_source(spark, PENGUINS_CSV, SearchParameters(trials=2), **options)
    assert tuned.trained.version == 2
    nested = mlflow.search_runs(
        experiment_names=[name], filter_string=f"tags.`mlflow.parentRunId` = '{tuned.run_id}'", output_format="list"
    )
    assert len(nested) == 3, "two trials and the best"
    assert promote(spark, second_version).moved
    assert champion.version_of(name) == second_version
    assert champion.version_of(name, "previous_champion") == first_version

    scored = predict(spark, PENGUINS_CSV, tmp_path / "scored.csv", model_uri=f"models:/{name}@champion")
    assert (scored.rows, scored.unscored, scored.version) == (344, 2, second_version)

    season = tmp_path / "season.csv"
    drift.lean_season(pd.read_csv(PENGUINS_CSV)).to_csv(season, index=False)
    watched = monitor(spark, PENGUINS_CSV, season, model=f"models:/{name}@champion", experiment=name)
    assert (watched.drifted, watched.failure) == (True, None)
    kept = mlflow.get_run(watched.run_id).data
    assert kept.tags["drifted"] == "true"
    # Seven columns with five measures each, thirteen of quality, and three counts; the distances come last.
    assert (len(kept.metrics), kept.tags["metrics_left_out"]) == (50, "1 of 51")
    assert "js_prediction" in kept.metrics
    assert "js_confidence" not in kept.metrics
    assert dialect.artifacts(watched.run_id) == ["drift_report.html", "drift_report.png", "monitoring.json"]

    with serve.serving(f"models:/{name}@champion") as url:
        assert query.ask(url, LAB_BIRD)["species"].tolist() == ["Gentoo"]

    assert champion.roll_back(name) == (first_version, second_version)

    def move(_: int) -> bool:
        return champion.move(second_version, instead_of=first_version)

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(move, range(4))) == [False, False, False, True]
    assert champion.version_of(name) == second_version
    assert not [key for key in dialect.notes(name) if key.startswith(champion.CLAIM)]
    assert workspace.count("POST .*/logged-models$") == 0
