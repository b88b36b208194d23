"""What the tests for Azure Machine Learning share; without the extra they are left out, and say so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from tests.azureml.mlflow_workspace import MlflowWorkspace, running
from tests.azureml.tls import Authority
from tests.servers import mlflow_server

CLOUD = (
    *("ARM_", "AZURE_", "AZUREML_", "DEFAULT_IDENTITY_", "IDENTITY_", "IMDS_", "MSI_", "OBO_"),
    *("MLFLOW_TRACKING_", "MLFLOW_REGISTRY_", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_"),
)
"""How the variables begin that say which cloud, which workspace, and who asks."""


class LeftOut(pytest.Module):
    """A module of tests that can't be imported here."""

    def collect(self) -> Iterator[pytest.Item]:
        pytest.skip("the extra azureml isn't installed here: `make test-azureml` runs it", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    try:
        distribution("azure-ai-ml")
    except PackageNotFoundError:
        left_out: pytest.Module = LeftOut.from_parent(parent, path=module_path)
        return left_out
    return None


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority that vouches for the servers of these tests."""
    return Authority.new(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def trusted(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """The authority, trusted by every client; no other variable says anything about a cloud or a workspace."""
    for name in list(os.environ):
        if name.startswith(CLOUD):
            monkeypatch.delenv(name)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.bundle))
    return authority


@pytest.fixture(scope="session")
def mlflow_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The MLflow server that stands behind all workspaces of these tests; each test has names of its own there."""
    with mlflow_server(tmp_path_factory.mktemp("behind")) as server:
        yield server.uri


@pytest.fixture
def workspace(
    mlflow_behind: str, trusted: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MlflowWorkspace]:
    """A workspace that a service principal in the environment may use."""
    import mlflow

    files = tmp_path / "blobs"
    files.mkdir()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with running(MlflowWorkspace(mlflow_behind, files), trusted) as served:
        for name, value in served.environment().items():
            monkeypatch.setenv(name, value)
        yield served
        while mlflow.active_run() is not None:
            mlflow.end_run()
        mlflow.set_tracking_uri("")
        mlflow.set_registry_uri("")
