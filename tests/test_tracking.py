"""Which store: what the arguments, MLflow's variables and the place say."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlflow
import pytest

from penguins.tracking import Tracking, experiment_id


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "DATABRICKS_RUNTIME_VERSION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_by_itself_it_is_a_file_in_this_folder(tmp_path: Path) -> None:
    assert Tracking.from_environment() == Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}", None)


def test_a_file_is_the_same_one_in_whatever_folder_a_process_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """MLflow's own usual spelling of it is relative."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "sqlite:///models.db")
    assert Tracking.from_environment() == Tracking(f"sqlite:///{tmp_path}/mlflow.db", f"sqlite:///{tmp_path}/models.db")


def test_an_experiment_of_a_relative_store_keeps_its_files_beside_it(tmp_path: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, tmp_path)
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    try:
        experiment = mlflow.MlflowClient().get_experiment(experiment_id("birds"))
    finally:
        mlflow.set_tracking_uri("")
    assert experiment.artifact_location.startswith((tmp_path / "mlruns").as_uri())


def test_only_a_server_has_a_page_of_its_own() -> None:
    assert Tracking("https://me:token@one/path").page == "https://***@one/path"
    for uri in ("sqlite:///mlflow.db", "postgresql://u:p@h/runs", "mlruns", "databricks"):
        assert Tracking(uri).page is None


def test_an_empty_variable_says_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "")
    assert Tracking.from_environment() == Tracking.local(tmp_path)
    assert Tracking.from_environment("databricks") == Tracking.databricks()


def test_an_argument_beats_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://one")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://two")
    assert Tracking.from_environment() == Tracking("http://one", "http://two")
    assert Tracking.from_environment("http://three") == Tracking("http://three", "http://two")


def test_on_a_databricks_cluster_it_is_the_workspace_with_unity_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
    assert Tracking.from_environment() == Tracking.databricks() == Tracking("databricks", "databricks-uc")
    # What the init script writes for a link to Azure Machine Learning.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "azureml://somewhere")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "azureml://somewhere")
    assert Tracking.from_environment() == Tracking("azureml://somewhere", "azureml://somewhere")


def test_a_workspaces_models_are_in_unity_catalog_unless_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Tracking.from_environment("databricks://birds") == Tracking("databricks://birds", "databricks-uc://birds")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "databricks")
    assert Tracking.from_environment("databricks") == Tracking("databricks", "databricks")
