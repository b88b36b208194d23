"""Where runs and models are kept: a value with one constructor per kind of store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from penguins import azure_names, azureml
from penguins.errors import StoreError
from penguins.redaction import without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///"

AZUREML = "azureml"
"""What to give for a tracking URI that is to be found out: the workspace that the environment or config.json names."""


@dataclass(frozen=True)
class Tracking:
    """A tracking server and a model registry, by MLflow's URIs; `registry_uri` None means the same as tracking.

    An SQLite file that is named by a relative path is the one in the folder in which the value is made.
    """

    tracking_uri: str
    registry_uri: str | None = None

    def __post_init__(self) -> None:
        for uri in (self.tracking_uri, self.registry_uri or ""):
            azureml.refuse_former_scheme(uri)
        object.__setattr__(self, "tracking_uri", _absolute(self.tracking_uri))
        if self.registry_uri is not None:
            object.__setattr__(self, "registry_uri", _absolute(self.registry_uri))

    @classmethod
    def local(cls, folder: str | Path = ".") -> Tracking:
        """An SQLite file `mlflow.db` in `folder`, which a plain `mlflow ui` run there shows."""
        return cls(f"{SQLITE}{Path(folder, 'mlflow.db')}")

    @classmethod
    def databricks(cls, profile: str | None = None) -> Tracking:
        """A Databricks workspace with models in Unity Catalog; `profile` is one of ~/.databrickscfg."""
        suffix = f"://{profile}" if profile else ""
        return cls(f"databricks{suffix}", f"databricks-uc{suffix}")

    @classmethod
    def azureml(
        cls,
        subscription: str | None = None,
        resource_group: str | None = None,
        workspace: str | None = None,
        *,
        region: str | None = None,
    ) -> Tracking:
        """A workspace of Azure Machine Learning, for runs and models; `azureml.workspace` finds what isn't given.

        Where the region isn't known, Azure is asked for it. Raises StoreError when the workspace can't be found.
        """
        found = azureml.located(azureml.workspace(subscription, resource_group, workspace, region=region))
        return cls(found.tracking_uri, found.tracking_uri)

    @classmethod
    def from_environment(cls, tracking_uri: str | None = None) -> Tracking:
        """`tracking_uri`, or what MLflow's own variables name, or the local store in the current folder.

        On a Databricks cluster that names none, the workspace. A workspace's models are in Unity Catalog unless
        MLFLOW_REGISTRY_URI says otherwise. `azureml` stands for the URI of `Tracking.azureml()`, which can raise
        StoreError.
        """
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            uri = "databricks" if "DATABRICKS_RUNTIME_VERSION" in os.environ else cls.local().tracking_uri
        registry = os.environ.get("MLFLOW_REGISTRY_URI") or None
        if uri == "databricks" or uri.startswith("databricks://"):
            workspace = cls.databricks(uri.removeprefix("databricks").removeprefix("://") or None)
            return cls(uri, registry or workspace.registry_uri)
        if uri == AZUREML:
            uri = cls.azureml().tracking_uri
        return cls(uri, registry)

    def activate(self) -> None:
        """Make MLflow use this store from now on."""
        import mlflow

        tracking_uri, registry_uri = self._usable()
        mlflow.set_tracking_uri(tracking_uri)
        mlflow.set_registry_uri(registry_uri)

    def client(self) -> MlflowClient:
        """A client of this store, whichever one MLflow uses at the moment."""
        from mlflow import MlflowClient

        return MlflowClient(*self._usable())

    def require_reachable(self, patience: float = 10.0) -> None:
        """Raise StoreError if the server doesn't answer within `patience` seconds, or a local store has no place.

        MLflow itself would go on trying for minutes.
        """
        for uri in dict.fromkeys((self.tracking_uri, self.registry_uri or self.tracking_uri)):
            if uri.startswith(("http://", "https://")):
                _require_answer(uri, patience)
            elif uri.startswith(azureml.SCHEME):
                azureml.require(uri, patience)
        if self.folder is not None and not os.access(self.folder, os.W_OK):
            raise StoreError(f"{self.folder} is no folder that can be written to: name another place (--tracking-uri).")

    def require(self) -> None:
        """Raise StoreError when this is a local store in which nothing was ever kept; asking it would make one."""
        if self.folder is not None and not (file := Path(self.tracking_uri.removeprefix(SQLITE))).exists():
            raise StoreError(f"There is no {file.name} in {self.folder}: run `penguins train` first.")

    def _usable(self) -> tuple[str, str]:
        """Both URIs as MLflow can use them, with a credential behind those of a workspace of Azure Machine Learning."""
        uris = (self.tracking_uri, self.registry_uri or self.tracking_uri)
        usable = {uri: azureml.connect(uri) if uri.startswith(azureml.SCHEME) else uri for uri in dict.fromkeys(uris)}
        return usable[uris[0]], usable[uris[1]]

    @property
    def page(self) -> str | None:
        """Where a person looks at a server's runs; None for a file, a folder, a database, and Databricks."""
        if self.tracking_uri.startswith(azureml.SCHEME):
            return azureml.Workspace.of(self.tracking_uri).page
        return without_secrets(self.tracking_uri) if self.tracking_uri.startswith(("http://", "https://")) else None

    @property
    def folder(self) -> Path | None:
        """The folder of a local store; None for a server."""
        return Path(self.tracking_uri.removeprefix(SQLITE)).parent if self.tracking_uri.startswith(SQLITE) else None


@contextmanager
def impatient() -> Iterator[None]:
    """Within the block MLflow asks a server once, and doesn't try again for minutes."""
    name = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _absolute(uri: str) -> str:
    """The URI, which means the same file in whatever folder a process runs."""
    return f"{SQLITE}{Path(uri.removeprefix(SQLITE)).resolve()}" if uri.startswith(SQLITE) else uri


def _require_answer(uri: str, patience: float) -> None:
    import requests

    insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in {"true", "1"}
    try:
        # Whatever it answers: a server that wants to know who asks is there.
        requests.get(f"{uri.rstrip('/')}/health", timeout=patience, verify=not insecure)
    except requests.RequestException as error:
        raise StoreError(
            f"The MLflow server {uri} doesn't answer ({type(error).__name__}): "
            "start it, or name another one (--tracking-uri, MLFLOW_TRACKING_URI)."
        ) from error


def run_page(run_id: str) -> str | None:
    """The page of a run of the active store in Azure Machine Learning's studio; None for any other store."""
    import mlflow

    uri = mlflow.get_tracking_uri()
    return azureml.Workspace.of(uri).run_page(run_id) if uri.startswith(azureml.SCHEME) else None


def experiment_id(name: str) -> str:
    """The id of the experiment in the active store, which is made if it isn't there.

    Raises ParameterError for a name that Azure Machine Learning would make an experiment of and not find again.
    """
    import mlflow

    if mlflow.get_tracking_uri().startswith(azureml.SCHEME):
        azure_names.require("experiment", name)
    client = mlflow.MlflowClient()
    if (experiment := client.get_experiment_by_name(name)) is not None:
        return str(experiment.experiment_id)
    folder = Tracking(mlflow.get_tracking_uri()).folder
    # A local store would otherwise keep artifacts in whatever folder the process happens to run in.
    location = (folder / "mlruns").as_uri() if folder is not None else None
    return str(client.create_experiment(name, artifact_location=location))
