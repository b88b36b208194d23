"""What the tests for Azure Machine Learning share; without the extra they are left out, and say so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from tests.azureml.tls import Authority

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
