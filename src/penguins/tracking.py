"""Where runs and models are kept: a value with one constructor per kind of store."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from penguins import azure_names, azureml, local_store, remote_store
from penguins.errors import StoreError, first_sentence
from penguins.redaction import without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient

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
        object.__setattr__(self, "tracking_uri", local_store.absolute(self.tracking_uri))
        if self.registry_uri is not None:
            object.__setattr__(self, "registry_uri", local_store.absolute(self.registry_uri))

    @classmethod
    def local(cls, folder: str | Path = ".") -> Tracking:
        """An SQLite file `mlflow.db` in `folder`, which a plain `mlflow ui` run there shows."""
        return cls(local_store.uri_of(Path(folder, "mlflow.db").resolve()))

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

        self.make()
        return MlflowClient(*self._usable())

    def make(self) -> None:
        """Make what isn't there yet of a local store; MLflow would by itself, but not for two who begin together."""
        for file in filter(None, map(local_store.file_of, self._uris)):
            local_store.make(file)

    def require_reachable(self, patience: float = 10.0) -> None:
        """Raise StoreError for a store that can't be worked with, or that doesn't answer within `patience` seconds.

        MLflow itself would go on trying for minutes. A local store that was moved, or that an older MLflow made, is
        brought to here and now (`local_store.prepare`).
        """
        for uri in self._uris:
            _require_form(uri)
            if uri.startswith(remote_store.SCHEMES):
                remote_store.require_server(uri, patience)
            elif uri.startswith(azureml.SCHEME):
                azureml.require(uri, patience)
            elif uri.startswith(remote_store.DATABASES):
                remote_store.require_database(uri, patience)
            elif (file := local_store.file_of(uri)) is not None:
                local_store.require_usable(file)
                local_store.prepare(file)

    def require(self) -> None:
        """Raise StoreError when this is a local store in which nothing was ever kept; asking it would make one."""
        if (file := local_store.file_of(self.tracking_uri)) is not None and not file.exists():
            raise StoreError(f"There is no {file.name} in {file.parent}: run `penguins train` first.")

    def _usable(self) -> tuple[str, str]:
        """Both URIs as MLflow can use them: local stores are prepared, and a workspace of Azure gets a credential."""
        usable = {uri: azureml.connect(uri) if uri.startswith(azureml.SCHEME) else uri for uri in self._uris}
        for file in filter(None, map(local_store.file_of, self._uris)):
            local_store.prepare(file)
        return usable[self.tracking_uri], usable[self.registry_uri or self.tracking_uri]

    @property
    def _uris(self) -> list[str]:
        """Both URIs, or the one that stands for both."""
        return list(dict.fromkeys((self.tracking_uri, self.registry_uri or self.tracking_uri)))

    @property
    def page(self) -> str | None:
        """Where a person looks at a server's runs; None for a file, a folder, a database, and Databricks."""
        if self.tracking_uri.startswith(azureml.SCHEME):
            return azureml.Workspace.of(self.tracking_uri).page
        return without_secrets(self.tracking_uri) if self.tracking_uri.startswith(("http://", "https://")) else None

    @property
    def folder(self) -> Path | None:
        """The folder of a local store; None for a server."""
        file = local_store.file_of(self.tracking_uri)
        return None if file is None else file.parent


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


def _require_form(uri: str) -> None:
    """Raise StoreError for what names no store, with what was probably meant."""
    scheme = re.match(r"([a-z][\w+.-]*):(//)?", uri, re.IGNORECASE)
    if re.match(r"(localhost|[\w-]+(\.[\w-]+)*:\d+)(/|:\d|$)", uri):
        raise StoreError(f"{uri} has no scheme: give http://{uri}, or https://{uri}.")
    if uri in {"databricks", "databricks-uc", "uc"}:
        return
    if scheme is None or scheme[1].lower() == "file":
        if os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() not in {"true", "1"}:
            raise StoreError(
                f"{uri} is a folder, in which MLflow no longer keeps stores: give a file such as sqlite:///mlflow.db, "
                "or a server's http://…; `mlflow migrate-filestore` makes such a file of an old folder, and "
                "MLFLOW_ALLOW_FILE_STORE=true allows the folder."
            )
        return
    kind = scheme[1].partition("+")[0]
    if kind == "sqlite":
        if local_store.file_of(uri) is None:
            raise StoreError(f"{uri} names no file, so nothing would be kept: give one, such as sqlite:///mlflow.db.")
        return
    known = {"http", "https", "databricks", "databricks-uc", "uc", "azureml", "sqlite", *remote_store.DATABASES}
    known |= {plugin.name for plugin in entry_points(group="mlflow.tracking_store")}
    if kind not in known:
        raise StoreError(
            f"MLflow knows no store of the kind {scheme[0]} in {uri}: it knows {', '.join(sorted(known))}."
        )


def run_page(run_id: str) -> str | None:
    """The page of a run of the active store in Azure Machine Learning's studio; None for any other store."""
    import mlflow

    uri = mlflow.get_tracking_uri()
    return azureml.Workspace.of(uri).run_page(run_id) if uri.startswith(azureml.SCHEME) else None


def experiment_id(name: str) -> str:
    """The id of the experiment in the active store, which is made if it isn't there.

    Raises ParameterError for a name that Azure Machine Learning would make an experiment of and not find again, and
    StoreError as `require_experiment` does.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    if mlflow.get_tracking_uri().startswith(azureml.SCHEME):
        azure_names.require("experiment", name)
    store = Tracking(mlflow.get_tracking_uri())
    if (found := require_experiment(name)) is not None:
        return found
    # A local store would otherwise keep artifacts in whatever folder the process happens to run in.
    location = (store.folder / local_store.ARTIFACTS).as_uri() if store.folder is not None else None
    try:
        return str(mlflow.MlflowClient().create_experiment(name, artifact_location=location))
    except MlflowException as error:
        # Somebody else may have made it since.
        if error.error_code == "RESOURCE_ALREADY_EXISTS" and (found := require_experiment(name)) is not None:
            return found
        raise StoreError(f"The experiment {name} can't be made: {first_sentence(error)}") from error


def require_experiment(name: str | None) -> str | None:
    """The id of the experiment in the active store, None when it isn't there yet.

    Without a name it is the one that MLFLOW_EXPERIMENT_ID names, or MLflow's own default. Raises StoreError when it is
    deleted, when there is none of that id, and when the store can't be asked.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    number = os.environ.get("MLFLOW_EXPERIMENT_ID")
    if name is None and not number:
        return None
    # A thread that warms up may be making the store at this moment, and MLflow can't make it in two threads at once.
    Tracking(mlflow.get_tracking_uri()).make()
    client = mlflow.MlflowClient()
    try:
        experiment = client.get_experiment(str(number)) if name is None else client.get_experiment_by_name(name)
    except MlflowException as error:
        if name is None and error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise StoreError(
                f"MLFLOW_EXPERIMENT_ID is {number}, and there is no such experiment in {mlflow.get_tracking_uri()}: "
                "unset it, or name one (--experiment)."
            ) from error
        raise StoreError(f"{mlflow.get_tracking_uri()} can't be asked: {first_sentence(error)}") from error
    if experiment is None:
        return None
    if experiment.lifecycle_stage == "deleted":
        raise StoreError(
            f"The experiment {experiment.name} is deleted: `mlflow experiments restore --experiment-id "
            f"{experiment.experiment_id}` brings it back (with MLFLOW_TRACKING_URI={mlflow.get_tracking_uri()}), or "
            "name another one (--experiment)."
        )
    return str(experiment.experiment_id)
