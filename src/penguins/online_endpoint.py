"""An online endpoint of an Azure Machine Learning workspace: make it, read it, give it traffic, ask it, delete it."""

from __future__ import annotations

import copy
import json
import re
from typing import TYPE_CHECKING, Any

from penguins import arm, azure_names, query
from penguins.config import AzureServing
from penguins.errors import ServerError
from penguins.redaction import without_secrets
from penguins.registry import Version

if TYPE_CHECKING:
    import pandas as pd
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import Environment, OnlineDeployment, OnlineEndpoint

LOG_LINES = 100
"""How many lines of a deployment's log are fetched."""

COLLECTIONS = INPUTS, OUTPUTS = "model_inputs", "model_outputs"
"""What a deployment collects: Azure makes a data asset `<endpoint>-<deployment>-<collection>` of each."""

MODEL_FAILED = 424
"""What Azure answers when the model's own server refused or failed; its words stand in the body."""


def read(client: MLClient, name: str) -> OnlineEndpoint | None:
    """The endpoint as it is now, with the traffic of each of its deployments; None if there is none.

    Raises ParameterError when no endpoint can have this name, ServerError when the workspace doesn't tell.
    """
    from azure.core.exceptions import ResourceNotFoundError

    azure_names.require("endpoint", name)
    with arm.told(name):
        try:
            found: OnlineEndpoint = client.online_endpoints.get(name)
        except ResourceNotFoundError as error:
            if not arm.is_missing(error):
                raise
            return None
    return found


def create(client: MLClient, name: str, settings: AzureServing) -> None:
    """Make an endpoint that has no deployment yet, and wait for it. Raises ServerError."""
    from azure.ai.ml.entities import KubernetesOnlineEndpoint, ManagedOnlineEndpoint

    given: dict[str, Any] = {"name": name, "auth_mode": settings.auth, "tags": dict(arm.MADE_BY)}
    endpoint: OnlineEndpoint
    if settings.kind == "kubernetes":
        endpoint = KubernetesOnlineEndpoint(compute=settings.compute, **given)
    else:
        endpoint = ManagedOnlineEndpoint(**given)
    with arm.told(name):
        poller = client.online_endpoints.begin_create_or_update(endpoint)
    arm.finish(poller, name, settings.timeout)


def deployment_name(version: Version) -> str:
    """What the deployment of a version is called: `penguin-predictor-3`, in at most 32 characters."""
    number = f"-{version.number}"
    model = re.sub(r"[^a-z0-9]+", "-", version.name.lower()).strip("-")
    if not model[:1].isalpha():
        # Azure wants a letter there.
        model = f"m-{model}"
    return f"{model[: azure_names.RULES['deployment'].longest - len(number)].strip('-')}{number}"


def state(one: OnlineEndpoint | OnlineDeployment) -> str:
    """How far Azure has got with an endpoint or a deployment: `succeeded`, `failed`, `updating`, ..."""
    return arm.word(one.provisioning_state).lower()


def made_with(endpoint: OnlineEndpoint) -> dict[str, str]:
    """The options of `penguins deploy` that an endpoint was made with, and that Azure changes no more."""
    from azure.ai.ml.entities import KubernetesOnlineEndpoint

    # The client gives its own word where it knows Azure's, and Azure's otherwise: aad_token, AADToken, aadToken.
    auth = arm.word(endpoint.auth_mode).lower().replace("_", "").replace("token", "_token")
    if isinstance(endpoint, KubernetesOnlineEndpoint):
        return {"--auth": auth, "--kind": "kubernetes", "--compute": str(endpoint.compute).rpartition("/")[2]}
    return {"--auth": auth, "--kind": "managed"}


def deployments(client: MLClient, name: str) -> dict[str, OnlineDeployment]:
    """The deployments of an endpoint by their names. Raises ServerError."""
    with arm.told(name):
        return {str(one.name): one for one in client.online_deployments.list(name)}


def made_here(client: MLClient, name: str) -> set[str]:
    """The deployments of an endpoint that this package has made, by its tag. Raises ServerError."""
    return {deployment for deployment, one in deployments(client, name).items() if arm.is_ours(one.tags)}


def says(one: OnlineDeployment) -> tuple[object, ...]:
    """What a deployment says of the things we set; Azure tells more back, and sizes in any case."""
    size = str(one.instance_type or "").lower()
    has_script = one.code_configuration is not None
    return size, one.instance_count, bool(one.app_insights_enabled), has_script, collects(one)


def collects(one: OnlineDeployment) -> bool:
    """Whether Azure keeps what a deployment is asked and what it answers."""
    kept = one.data_collector.collections if one.data_collector else {}
    return all(name in kept and str(kept[name].enabled).lower() == "true" for name in COLLECTIONS)


def fits(one: OnlineDeployment, settings: AzureServing) -> bool:
    """Whether a deployment runs as the settings ask; where they leave its size to Azure, any does."""
    size = str(settings.instance_type or one.instance_type or "").lower()
    return says(one) == (size, settings.instances, settings.app_insights, settings.own_script, settings.collect)


def start(
    client: MLClient,
    name: str,
    deployment: str,
    model: str,
    settings: AzureServing,
    *,
    script: tuple[str, str, Environment] | None = None,
    former: OnlineDeployment | None = None,
) -> None:
    """Start a registered model, by its asset's id, as a deployment without traffic, and wait until it is healthy.

    `script` is a folder, the scoring script in it and what it runs in; without it Azure's own script serves the
    model's `python_function`. A `former` deployment of the name is changed in place, and keeps its traffic, and what
    only the studio sets. Raises ServerError, with Azure's reason, when it doesn't get there.
    """
    with arm.told(deployment):
        asked = _deployment(name, deployment, model, settings, script)
    send(client, asked if former is None else _changed(former, asked), settings.timeout)


def send(client: MLClient, deployment: OnlineDeployment, timeout: float) -> None:
    """Have a deployment be as it is given, and wait until it is healthy. Raises ServerError."""
    what = str(deployment.name)
    with arm.told(what):
        poller = client.online_deployments.begin_create_or_update(_sendable(client, deployment))
    arm.finish(poller, what, timeout)


def _deployment(
    name: str, deployment: str, model: str, settings: AzureServing, script: tuple[str, str, Environment] | None
) -> OnlineDeployment:
    from azure.ai.ml.entities import (
        CodeConfiguration,
        DataCollector,
        DeploymentCollection,
        KubernetesOnlineDeployment,
        ManagedOnlineDeployment,
    )

    kept = {name: DeploymentCollection(enabled="true") for name in COLLECTIONS}
    kind = KubernetesOnlineDeployment if settings.kind == "kubernetes" else ManagedOnlineDeployment
    folder, file, image = script or (None, None, None)
    return kind(
        code_configuration=CodeConfiguration(code=folder, scoring_script=file) if script else None,
        environment=image,
        name=deployment,
        endpoint_name=name,
        model=model,
        instance_type=settings.instance_type,
        instance_count=settings.instances,
        app_insights_enabled=settings.app_insights,
        data_collector=DataCollector(collections=kept) if settings.collect else None,
        tags=dict(arm.MADE_BY),
    )


def _changed(former: OnlineDeployment, asked: OnlineDeployment) -> OnlineDeployment:
    """The former deployment with what we set as it is asked for."""
    changed = copy.copy(former)
    for name in ("model", "code_configuration", "environment", "instance_count", "app_insights_enabled"):
        setattr(changed, name, getattr(asked, name))
    changed.instance_type = asked.instance_type or former.instance_type
    changed.data_collector = _collector(former, asked)
    return changed


def _collector(former: OnlineDeployment, asked: OnlineDeployment) -> Any:
    """What a deployment is to collect: what it collects already stays as it was set, where it is to collect at all."""
    if asked.data_collector is None or former.data_collector is None:
        return asked.data_collector
    kept = copy.copy(former.data_collector)
    enabled = {name: one for name, one in kept.collections.items() if str(one.enabled).lower() == "true"}
    kept.collections = {**kept.collections, **asked.data_collector.collections, **enabled}
    return kept


def _sendable(client: MLClient, deployment: OnlineDeployment) -> OnlineDeployment:
    """A copy that the client can send: it changes what it sends, and can't send a data collector as it has read it."""
    sent = copy.deepcopy(deployment)
    for collection in sent.data_collector.collections.values() if sent.data_collector else ():
        # Read as an id, and then asked for its name, its version and its path.
        if found := re.search(r"/data/([^/]+)/versions/([^/]+)$", str(collection.data)):
            collection.data = client.data.get(found[1], version=found[2])
    return sent


def set_traffic(client: MLClient, name: str, traffic: dict[str, int], timeout: float) -> None:
    """Give each deployment its share of the requests, in percent, and wait for it. Raises ServerError."""
    with arm.told(name):
        endpoint = client.online_endpoints.get(name)
        endpoint.traffic = dict(traffic)
        poller = client.online_endpoints.begin_create_or_update(endpoint)
    arm.finish(poller, name, timeout)


def ask(client: MLClient, name: str, rows: pd.DataFrame, deployment: str | None = None) -> pd.DataFrame:
    """What the endpoint, or one of its deployments whatever its share of the traffic, answers to each row.

    The columns are those of `query.ask`. Raises ServerError, with the model's own sentence where it has one, and
    ParameterError when no endpoint can have this name.
    """
    azure_names.require("endpoint", name)
    # Not the client's `invoke`: it goes on asking the deployment that it was last told, for all endpoints.
    with arm.told(name):
        address = client.online_endpoints.get(name).scoring_uri
        secret = client.online_endpoints.get_keys(name)
    key = getattr(secret, "primary_key", None) or getattr(secret, "access_token", "")
    headers = {"Authorization": f"Bearer {key}"}
    if deployment:
        headers["azureml-model-deployment"] = deployment
    status, text = query.post(str(address), json.dumps(body(rows)), headers=headers)
    if status != 200:
        raise ServerError(_refusal(name, status, text.replace(key, "***") if key else text))
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    # Azure's own scoring script answers with the bare list.
    return query.answers(name, {"predictions": answer} if isinstance(answer, list) else answer, rows)


def body(rows: pd.DataFrame) -> dict[str, Any]:
    """What an Azure Machine Learning endpoint is sent to be asked about the rows."""
    split = query.body(rows)["dataframe_split"]
    return {"input_data": {"columns": split["columns"], "index": list(range(len(rows))), "data": split["data"]}}


def _refusal(name: str, status: int, text: str) -> str:
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if isinstance(answer, dict):
        inner = answer.get("error")
        text = str(answer.get("message") or (inner.get("message") if isinstance(inner, dict) else inner) or text)
    words = without_secrets(query.without_input(text))[:500].rstrip(".") or "it says nothing"
    advice = {
        401: "its key or token isn't taken: try again, or make the key anew",
        403: "ask for the right to score on the endpoint",
        404: "it has no deployment with traffic: deploy a version",
        429: "it is busy: try again, or give it more instances",
    }
    what = advice.get(status, "look at the rows, and at the deployment's log" if status in {400, MODEL_FAILED} else
                      "look at the deployment's log")  # fmt: skip
    return f"{name} answered {status}: {words}; {what}."


def log_tail(client: MLClient, name: str, deployment: str, lines: int = 15) -> str | None:
    """The last lines of a deployment's log, or why there are none; None if there is no deployment."""
    from azure.core.exceptions import ResourceNotFoundError

    try:
        with arm.told(deployment):
            log = client.online_deployments.get_logs(deployment, name, LOG_LINES)
    except ServerError as error:
        if isinstance(error.__cause__, ResourceNotFoundError):
            return None
        return f"(its log can't be read: {error})"
    kept = [line.rstrip() for line in log.splitlines() if line.strip()][-lines:]
    return without_secrets("\n".join(kept)) or "(its log is empty)"


def remove(client: MLClient, name: str, deployment: str, timeout: float) -> None:
    """Delete a deployment, which must have no traffic, and wait for it. Raises ServerError."""
    with arm.told(deployment):
        poller = client.online_deployments.begin_delete(deployment, name)
    arm.finish(poller, deployment, timeout)


def delete(client: MLClient, name: str, timeout: float) -> bool:
    """Delete an endpoint with its deployments, and wait for it; False if there is none. Raises ServerError."""
    if read(client, name) is None:
        return False
    with arm.told(name):
        poller = client.online_endpoints.begin_delete(name)
    arm.finish(poller, name, timeout)
    return True
