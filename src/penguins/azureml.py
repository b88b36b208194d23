"""An Azure Machine Learning workspace: which one, who asks, whether it answers, and where its pages are."""

from __future__ import annotations

import itertools
import json
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from penguins import arm
from penguins.errors import PenguinsError, StoreError, first_sentence

if TYPE_CHECKING:
    import requests
    from azure.ai.ml import MLClient
    from azure.core.credentials import TokenCredential
    from azure.mgmt.databricks import AzureDatabricksManagementClient

SCHEME = "azureml://"
"""How the tracking URI of a workspace begins."""

FORMER_SCHEME = "adbazureml://"
"""How it began in a Databricks workspace that the portal had linked, when the plugin was made for MLflow 1."""

SCOPE = "https://management.azure.com/.default"
"""What a token is asked for."""

PATIENCE = 10.0
"""Seconds in which there must be a token, and in which the workspace must answer at all."""

THROTTLED = 60.0
"""Seconds for which a workspace that is asked too often, and says when to ask again, is waited for."""

PLACES: dict[str, tuple[str, ...]] = {
    "subscription": ("AZUREML_ARM_SUBSCRIPTION", "AZUREML_ARM_SUBSCRIPTION_ID", "AZUREML_SUBSCRIPTION_ID",
                     "AZURE_SUBSCRIPTION_ID"),
    "resource_group": ("AZUREML_ARM_RESOURCEGROUP", "AZUREML_RESOURCE_GROUP", "AZURE_RESOURCE_GROUP"),
    "name": ("AZUREML_ARM_WORKSPACE_NAME", "AZUREML_WORKSPACE_NAME"),
    "region": ("AZUREML_REGION",),
}  # fmt: skip
"""The variables that say which workspace; a job has the first of each."""

FILE_KEYS = {"subscription": "subscription_id", "resource_group": "resource_group", "name": "workspace_name"}
"""What they are called in config.json."""

FILE_SCOPE = "scope"
"""What the workspace's id is called in a file that the SDK of before has written."""

FILES = ("config.json", "project.json")
"""What such a file may be called, as for MLClient."""

ID = re.compile(
    r"/subscriptions/(?P<subscription>[^/]+)/resourceGroups/(?P<resource_group>[^/]+)/providers/"
    r"Microsoft\.MachineLearningServices/workspaces/(?P<name>[^/?]+)",
    re.IGNORECASE,
)
"""A workspace's id in Azure."""

SERVICE_PRINCIPAL = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID")
PROOFS = ("AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH")
FEDERATED = "AZURE_FEDERATED_TOKEN_FILE"
"""How a service principal shows that it is one: by something of its own, or by a token that a platform gave it."""

MANAGED_IDENTITY = ("MSI_ENDPOINT", "IDENTITY_ENDPOINT", "DEFAULT_IDENTITY_CLIENT_ID")
ON_BEHALF_OF = "OBO_ENDPOINT"
JOB_TOKEN = "MLFLOW_TRACKING_TOKEN"
"""A job's own token, which the plugin renews by itself."""


@dataclass(frozen=True)
class Workspace:
    """A workspace by its names; `host` is where its API answers, None where that isn't known."""

    subscription: str
    resource_group: str
    name: str
    host: str | None = None

    @classmethod
    def of(cls, uri: str) -> Workspace:
        """The workspace that a tracking URI names. Raises StoreError for any other URI."""
        parts = re.fullmatch(rf"(?-i:{SCHEME})(?P<host>[^/]+)/mlflow/v[\d.]+{ID.pattern}\??", uri, re.IGNORECASE)
        if parts is None:
            raise StoreError(f"{uri} is no tracking URI of a workspace: it must be {_like(uri)}.")
        return cls(parts["subscription"], parts["resource_group"], parts["name"], parts["host"])

    @property
    def id(self) -> str:
        """The workspace's id in Azure, `/subscriptions/…`."""
        group = f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}"
        return f"{group}/providers/Microsoft.MachineLearningServices/workspaces/{self.name}"

    @property
    def tracking_uri(self) -> str:
        """MLflow's URI of the workspace, as MLflow 2 and 3 need it. Raises StoreError where the host isn't known."""
        if self.host is None:
            raise StoreError(f"The region of the workspace {self.name} isn't known: set AZUREML_REGION.")
        return f"{SCHEME}{self.host}/mlflow/v2.0{self.id}"

    @property
    def page(self) -> str:
        """The page of the workspace in the studio."""
        return f"https://ml.azure.com/experiments?wsid={self.id}"

    def run_page(self, run_id: str) -> str:
        """The page of a run in the studio."""
        return f"https://ml.azure.com/runs/{run_id}?wsid={self.id}"

    def __str__(self) -> str:
        return f"{self.name} (resource group {self.resource_group}, subscription {self.subscription})"


def workspace(
    subscription: str | None = None,
    resource_group: str | None = None,
    name: str | None = None,
    *,
    region: str | None = None,
    folder: str | Path = ".",
) -> Workspace:
    """The workspace that the arguments name; what they leave out comes from one other place, whole.

    That is the environment, if it names a workspace: by the variables in PLACES, or by an MLFLOW_TRACKING_URI of one.
    Otherwise it is `config.json`, in `folder` or one above it, as MLClient finds it, or else what the variables say.
    Raises StoreError that says what is missing, or that the file can't be read.
    """
    arguments = {"subscription": subscription, "resource_group": resource_group, "name": name, "region": region}
    given = {what: value for what, value in arguments.items() if value}
    elsewhere = {} if {*FILE_KEYS} <= {*given} else _environment() or _file(Path(folder)) or _variables()
    if given.get("name", elsewhere.get("name")) != elsewhere.get("name"):
        # A workspace of another name may be in another region.
        elsewhere.pop("host", None)
    found = {**elsewhere, **given}
    if missing := [FILE_KEYS[what] for what in FILE_KEYS if not found.get(what)]:
        raise StoreError(
            f"It isn't known which Azure Machine Learning workspace is meant: {', '.join(missing)} is missing. "
            "Set AZUREML_SUBSCRIPTION_ID, AZUREML_RESOURCE_GROUP and AZUREML_WORKSPACE_NAME, or put the workspace's "
            "config.json into this folder."
        )
    known = Workspace(found["subscription"], found["resource_group"], found["name"], found.get("host"))
    return replace(known, host=f"{found['region']}.api.azureml.ms") if found.get("region") else known


def refuse_former_scheme(uri: str) -> None:
    """Raise StoreError for an address of the scheme `adbazureml`, which the plugin no longer has, with today's."""
    if uri.startswith(FORMER_SCHEME):
        raise StoreError(
            f"{FORMER_SCHEME} is no scheme of MLflow's plugin for Azure Machine Learning any more: give {_like(uri)}, "
            "or azureml, which finds the workspace by itself."
        )


def _like(uri: str) -> str:
    """The tracking URI of the workspace that an address of another form names, or what one looks like."""
    host = re.match(r"(?:adb)?azureml://([a-z0-9]+)\.", uri)
    named = re.search(rf"{ID.pattern}\??$", uri, re.IGNORECASE)
    if host is None or named is None:
        return f"like {Workspace('<id>', '<group>', '<name>', '<region>.api.azureml.ms').tracking_uri}"
    return Workspace(**named.groupdict(), host=f"{host[1]}.api.azureml.ms").tracking_uri


def credential() -> TokenCredential:
    """Who asks: the service principal in the environment, a job's user or identity, or whoever the Azure CLI knows.

    The first of them that is configured, never a browser and never a code to type in: a job would wait for a human.
    Raises PenguinsError when the extra isn't installed, StoreError when the service principal is incomplete.
    """
    with _installed():
        from azure import identity
    if all(os.environ.get(name) for name in SERVICE_PRINCIPAL):
        chosen = _service_principal()
    elif os.environ.get(ON_BEHALF_OF):
        from azure.ai.ml.identity import AzureMLOnBehalfOfCredential

        chosen = AzureMLOnBehalfOfCredential()
    elif any(os.environ.get(name) for name in MANAGED_IDENTITY):
        chosen = identity.ManagedIdentityCredential(client_id=os.environ.get("DEFAULT_IDENTITY_CLIENT_ID"))
    else:
        chosen = identity.AzureCliCredential(process_timeout=int(PATIENCE))
    return chosen


def _service_principal() -> TokenCredential:
    from azure import identity

    chosen: TokenCredential
    if any(os.environ.get(name) for name in PROOFS):
        chosen = identity.EnvironmentCredential()
    elif os.environ.get(FEDERATED):
        chosen = identity.WorkloadIdentityCredential()
    else:
        raise StoreError(
            "AZURE_TENANT_ID and AZURE_CLIENT_ID name a service principal, but there is none of "
            f"{', '.join((*PROOFS, FEDERATED))}: set one of them."
        )
    return chosen


def client(of: Workspace) -> MLClient:
    """Azure's own client of the workspace. Raises StoreError when there is no credential."""
    with _installed():
        from azure.ai.ml import MLClient
    quiet = {"show_progress": False, "enable_telemetry": False}
    return MLClient(signed_in(), of.subscription, of.resource_group, of.name, **quiet)


def databricks_client(of: Workspace) -> AzureDatabricksManagementClient:
    """Azure's own client of the Databricks workspaces of a subscription. Raises StoreError as `client` does."""
    with _installed():
        from azure.mgmt.databricks import AzureDatabricksManagementClient
    # Its address depends on the cloud, which the other client knows how to find.
    manager = str(client(of)._base_url).rstrip("/")
    return AzureDatabricksManagementClient(
        credential(), of.subscription, base_url=manager, credential_scopes=[f"{manager}/.default"]
    )


def located(of: Workspace) -> Workspace:
    """The workspace with its host, which Azure is asked for where it isn't known. Raises StoreError."""
    if of.host is not None:
        return of
    with told(of):
        found = client(of).workspaces.get(of.name)
    return replace(Workspace.of(found.mlflow_tracking_uri), subscription=of.subscription)


def signed_in(patience: float = PATIENCE) -> TokenCredential:
    """The credential, once it has given a token. Raises StoreError when there is none within `patience` seconds."""
    asking = credential()
    _token(asking, patience)
    return asking


def connect(uri: str) -> str:
    """Let MLflow's plugin ask for the workspace with our credential; the URI that MLflow is to use for it then.

    By itself the plugin would end at a browser or at a code to type in. A job's own token is left to the plugin.
    Raises StoreError when there is no credential.
    """
    of = Workspace.of(uri)
    if "ARM_CLOUD_METADATA_URL" not in os.environ:
        # Otherwise the plugin looks up which clouds there are, for half a minute where it can't reach Azure's list.
        os.environ.setdefault("AZUREML_CURRENT_CLOUD", "AzureCloud")
    if _is_job():
        # One form of the address for runs and for models: the plugin knows the job's token by it. For another one it
        # would look for a credential, up to a browser, once MLflow has taken MLFLOW_RUN_ID out of the environment.
        return of.tracking_uri
    with _installed():
        from azureml.mlflow import get_mlflow_tracking_uri_v2
    context = {
        "subscription_id": of.subscription,
        "resource_group_name": of.resource_group,
        "workspace_name": of.name,
        "auth": credential(),
        "host_url": f"https://{of.host}",
    }
    return str(get_mlflow_tracking_uri_v2(SimpleNamespace(ml_flow_tracking_uri=of.tracking_uri), context))


def require(uri: str, patience: float = PATIENCE) -> None:
    """Raise StoreError if there is no credential, or if the workspace refuses it, isn't there or doesn't answer."""
    import requests

    of = Workspace.of(uri)
    token = os.environ[JOB_TOKEN] if _is_job() else _token(credential(), patience)
    try:
        answer = _ask(of, token, patience)
    except requests.RequestException as error:
        raise StoreError(
            f"The workspace {of} doesn't answer at {of.host} ({type(error).__name__}): check region and network."
        ) from error
    if not answer.ok:
        raise StoreError(refusal(of, answer.status_code))


def _ask(of: Workspace, token: str, patience: float) -> requests.Response:
    """What the workspace answers to a small question; where it says when to be asked again, then, within THROTTLED."""
    import requests
    from urllib3.util import Retry

    until = time.monotonic() + THROTTLED
    while True:
        answer = requests.post(
            f"https://{of.host}/mlflow/v2.0{of.id}/api/2.0/mlflow/experiments/search",
            json={"max_results": 1},
            headers={"Authorization": f"Bearer {token}"},
            timeout=patience,
        )
        pause = Retry().get_retry_after(answer.raw) if answer.status_code in Retry.RETRY_AFTER_STATUS_CODES else None
        if pause is None or time.monotonic() + pause > until:
            return answer
        # As a person would: not at once, whatever the workspace says.
        time.sleep(max(pause, 0.1))


def register_output(
    of: Workspace,
    place: str,
    name: str,
    *,
    kind: str = "mlflow_model",
    description: str = "",
    tags: Mapping[str, str] | None = None,
) -> int:
    """Make an output of a job, `azureml://jobs/…`, the next version of `name`, and return the version's number.

    `kind` is `mlflow_model`, or `custom_model` for files of which MLflow knows nothing. Raises StoreError without a
    credential, ServerError when the workspace refuses.
    """
    asking = client(of)
    with arm.told(place):
        from azure.ai.ml.entities import Model

        tagged = {**(tags or {}), **arm.MADE_BY}
        model = Model(name=name, path=place, type=kind, description=description or None, tags=tagged)
        return int(asking.models.create_or_update(model).version)


def variables(uri: str) -> dict[str, str]:
    """The variables by which a job knows the workspace of a tracking URI; none for a store of another kind."""
    if not uri.startswith(SCHEME):
        return {}
    of = Workspace.of(uri)
    return {PLACES[what][0]: getattr(of, what) for what in FILE_KEYS}


def refusal(of: Workspace, status: int) -> str:
    """What an HTTP status of the workspace means, and what to do, in one sentence."""
    if status == 401:
        return f"The workspace {of} doesn't accept the credential (401): sign in again, or renew the secret."
    if status == 403:
        return f"The workspace {of} doesn't allow this (403): ask for the role AzureML Data Scientist on it."
    if status == 404:
        return f"There is no workspace {of} (404): check the names, the subscription and the region."
    if status == 409:
        return f"The workspace {of} is changing the same thing already (409): try again when that is done."
    if status == 429:
        return f"The workspace {of} is asked too often (429): try again in some minutes."
    return f"The workspace {of} failed ({status}): try again, and look at Azure's status page."


@contextmanager
def told(of: Workspace) -> Iterator[None]:
    """Turn what Azure's clients raise within the block into one sentence about the workspace."""
    with _installed():
        from azure.core.exceptions import AzureError, HttpResponseError

    try:
        yield
    except HttpResponseError as error:
        if error.status_code is None:
            raise StoreError(_no_token(error)) from error
        raise StoreError(refusal(of, error.status_code)) from error
    except AzureError as error:
        raise StoreError(
            f"Azure can't be asked for the workspace {of} ({type(error).__name__}): check the network, and try again."
        ) from error


def _variables() -> dict[str, str]:
    """What the variables in PLACES say, be it less than a workspace."""
    return {what: next((os.environ[n] for n in names if os.environ.get(n)), "") for what, names in PLACES.items()}


def _environment() -> dict[str, str] | None:
    """What the environment says of a workspace, if it names one."""
    if (values := _variables())["name"]:
        return values
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    refuse_former_scheme(uri)
    return {**vars(Workspace.of(uri))} if uri.startswith(SCHEME) else None


def _file(folder: Path) -> dict[str, str]:
    """What config.json says of a workspace; one in `.azureml` counts more than a nearer one outside of it."""
    for within, name in itertools.product((".azureml", "aml_config", ""), FILES):
        for place in (folder.resolve(), *folder.resolve().parents):
            if (path := place / within / name).is_file():
                return _read(path)
    return {}


def _read(path: Path) -> dict[str, str]:
    try:
        # Bytes: editors on Windows put a mark before the text, or write two bytes for each character.
        read: dict[str, Any] = json.loads(path.read_bytes())
        values = {key.lower(): read[key] for key in map(str, read)}
        if isinstance(scope := values.get(FILE_SCOPE), str) and (named := ID.fullmatch(scope.rstrip("/"))):
            return named.groupdict()
        found = {what: values[key] for what, key in FILE_KEYS.items()}
        if empty := [
            FILE_KEYS[what] for what, value in found.items() if not isinstance(value, str) or not value.strip()
        ]:
            raise ValueError(f"{', '.join(empty)} says nothing")
        return {what: value.strip() for what, value in found.items()}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StoreError(
            f"{path} names no workspace ({first_sentence(error)}): it must be a JSON object with "
            f"{', '.join(FILE_KEYS.values())}; the workspace's page in the portal has it to download."
        ) from error


def _is_job() -> bool:
    """Whether this is a job with a token of its own for the run that it is."""
    # MLflow takes MLFLOW_RUN_ID out of the environment once it has gone on with that run.
    return bool(os.environ.get(JOB_TOKEN) and (os.environ.get("MLFLOW_RUN_ID") or os.environ.get("AZUREML_RUN_ID")))


def _token(of: TokenCredential, patience: float) -> str:
    """A token. Azure's libraries can take minutes to find that they get none, so nobody waits for them longer."""
    answers: list[str | Exception] = []

    def ask() -> None:
        try:
            answers.append(of.get_token(SCOPE).token)
        except Exception as error:
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(patience)
    if not answers:
        raise StoreError(
            f"Nobody gave a token for Azure within {patience:g} seconds: check the network, and try again."
        )
    [answer] = answers
    if isinstance(answer, Exception):
        raise StoreError(_no_token(answer)) from answer
    return answer


def _no_token(error: Exception) -> str:
    return (
        f"There is no token for Azure ({first_sentence(error).rstrip('.')}): run `az login`, or set AZURE_TENANT_ID, "
        "AZURE_CLIENT_ID and AZURE_CLIENT_SECRET to a service principal's."
    )


@contextmanager
def _installed() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise PenguinsError('Azure\'s clients are not installed: run `pip install "penguins[azureml]"`.') from error
