"""Azure on this machine, as far as Resource Manager goes: it keeps state, is strict, and fails when told to.

Workspaces, endpoints, deployments, models, environments, jobs, schedules and their blob storage, each by the routes
that the real clients take. Questions to an endpoint go to real scoring servers of the real models.
"""

from __future__ import annotations

import base64
import copy
import json
import re
import runpy
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest
import requests

from tests.azureml.tls import Authority, Handler, https_server

SUBSCRIPTION = "0f1e2d3c-0000-4000-8000-0123456789ab"
GROUP = "birds"
WORKSPACE = "antarctica"
REGION = "westeurope"
SECRET = "s3cret-of-the-principal"
KEY = "endpoint-key-f00d"
ACCOUNT_KEY = base64.b64encode(b"key of the storage account").decode()
SIGNATURE = "signature-f00d"
SECRETS = (SECRET, KEY, ACCOUNT_KEY, SIGNATURE)
"""What no output may ever have; tokens are made up anew, and begin with TOKEN."""

TOKEN = "token-f00d-"
ACCOUNT = "flock.blob.core.windows.net"
CONTAINER = "azureml-blobstore"
NEVER = 10**9
MAY_CHANGE = {"isArchived", "tags", "description", "properties", "stage"}
"""What of a version may be changed once it is there."""

DEPENDENTS = {
    "storageAccount": "Microsoft.Storage/storageAccounts/flock",
    "keyVault": "Microsoft.KeyVault/vaults/flock",
    "applicationInsights": "Microsoft.Insights/components/flock",
    "containerRegistry": "Microsoft.ContainerRegistry/registries/flock",
}
"""What is made for a workspace, by what the workspace calls it; and where Application Insights keeps its log."""

LOG = "Microsoft.OperationalInsights/workspaces/flock"

IN_GROUP = rf"/subscriptions/{SUBSCRIPTION}/resource[gG]roups/{GROUP}"
PROVIDERS = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers"
HOME = f"{PROVIDERS}/Microsoft.MachineLearningServices/workspaces/{WORKSPACE}"
NAME = r"([\w.-]+)"
KNOWN_KEYS = {"id", "name", "type", "location", "tags", "kind", "identity", "sku", "properties", "systemData"}

Json = dict[str, Any]

CLUSTER: Json = {
    "location": REGION,
    "properties": {
        "computeType": "AmlCompute",
        "provisioningState": "Succeeded",
        "properties": {
            "vmSize": "STANDARD_DS3_V2",
            "vmPriority": "Dedicated",
            "enableNodePublicIp": True,
            "scaleSettings": {"maxNodeCount": 2, "minNodeCount": 0, "nodeIdleTimeBeforeScaleDown": "PT120S"},
        },
    },
}
"""A compute cluster, as a workspace shows one."""


@dataclass
class Answer:
    status: int
    body: Json | list[Any] | bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)


def refused(status: int, code: str, message: str) -> Answer:
    return Answer(status, {"error": {"code": code, "message": message}})


def absent(what: str) -> Answer:
    return refused(404, "UserError", f"{what} can't be found.")


@dataclass
class Failure:
    """What to answer instead, so many times, to requests whose "METHOD /path" the pattern is found in."""

    pattern: str
    answer: Answer
    times: int


@dataclass
class Operation:
    """Something that takes long."""

    polls: int
    end: Callable[[], object]
    error: Json | None = None
    left: Callable[[], object] | None = None
    """What is called when it fails."""
    done: bool = False


@dataclass
class Azure:
    """What this Azure holds, and what it was asked."""

    scorers: dict[str, str] = field(default_factory=dict)
    """The address of the scoring server of each version, by its number."""
    polls: int = 1
    """How often an operation is looked at before it is done."""
    failing: dict[str, Json] = field(default_factory=dict)
    """The errors with which the operations of things end whose "kind name" begins like the key."""
    workspaces: dict[str, Json] = field(default_factory=dict)
    dependents: set[str] = field(default_factory=lambda: {*DEPENDENTS.values(), LOG})
    """What is there of DEPENDENTS and LOG."""
    databricks: dict[str, Json] = field(default_factory=dict)
    things: dict[str, Json] = field(default_factory=dict)
    """Everything in the workspace, by its path there: `onlineEndpoints/…`, `models/…/versions/…`."""
    blobs: dict[str, bytes] = field(default_factory=dict)
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    logs: dict[str, list[str]] = field(default_factory=dict)
    """The logs of jobs, by name, a part for each look."""
    ends: dict[str, str] = field(default_factory=dict)
    """How jobs end, by experiment; `Completed` where nothing is said."""
    asked: list[str] = field(default_factory=list)
    bodies: list[tuple[str, Json]] = field(default_factory=list)
    """What was put and posted, by "METHOD /path"."""
    invoked: list[str | None] = field(default_factory=list)
    """The deployment that each question to an endpoint named."""
    failures: list[Failure] = field(default_factory=list)
    operations: dict[str, Operation] = field(default_factory=dict)
    tokens: dict[str, float] = field(default_factory=dict)
    """What it takes, and until when it was said to."""
    key: str = KEY
    """What endpoints take; what the workspace says of them is KEY."""
    questions: int = 0
    url: str = ""

    def __post_init__(self) -> None:
        self.workspaces[WORKSPACE] = {"location": REGION, "tags": {}, "properties": {}}

    def fail(self, pattern: str, answer: Answer, *, times: int = NEVER) -> None:
        self.failures.append(Failure(pattern, answer, times))

    def changes(self) -> list[str]:
        """What was asked for that changes something, without the storage and the sign-in."""
        kept = (line.replace(HOME, "") for line in self.asked if line.split()[0] in {"PUT", "PATCH", "DELETE"})
        return [line for line in kept if ACCOUNT not in line]

    def traffic(self, endpoint: str) -> dict[str, int]:
        found: dict[str, int] = self.things[f"onlineEndpoints/{endpoint}"]["properties"]["traffic"]
        return found

    def of_kind(self, kind: str) -> list[str]:
        """The names of all things of a kind that lie directly in the workspace."""
        return [path.partition("/")[2] for path in self.things if re.fullmatch(rf"{kind}/[^/]+", path)]

    def respond(self, method: str, path: str, query: dict[str, str], headers: Any, sent: bytes) -> Answer:
        line = f"{method} {path}"
        if method in {"GET", "POST"} and path in OPEN:
            return OPEN[path](self, sent)
        for pattern, route in DATA_ROUTES.items():
            if found := re.fullmatch(pattern, line):
                return route(self, query, headers, sent, *found.groups())
        if headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            return refused(401, "InvalidAuthenticationToken", "The access token is missing or invalid.")
        failure = next((one for one in self.failures if re.search(one.pattern, line) and one.times), None)
        if failure is not None:
            failure.times -= 1
            return failure.answer
        if "/operations/" not in path and "/history/" not in path and "api-version" not in query:
            return refused(
                400, "MissingApiVersionParameter", "The api-version query parameter (?api-version=) is required."
            )
        body: Json = json.loads(sent) if sent else {}
        if method in {"PUT", "PATCH", "POST"}:
            self.bodies.append((line.replace(HOME, ""), body))
        if unknown := set(body) - KNOWN_KEYS if method == "PUT" else set():
            return refused(400, "InvalidRequestContent", f"Could not find member {sorted(unknown)} on the resource.")
        for pattern, handle in ARM_ROUTES.items():
            if found := re.fullmatch(pattern, line):
                return handle(self, body, query, *found.groups())
        return refused(404, "NotFound", f"No HTTP resource was found that matches the request '{line}'.")

    def begin(
        self,
        status: int,
        body: Json | None,
        what: str,
        end: Callable[[], object],
        left: Callable[[], object] | None = None,
    ) -> Answer:
        """Answer that an operation has begun; `end` is called when it succeeds, `left` when it fails."""
        name = uuid.uuid4().hex
        error = next((error for key, error in self.failing.items() if what.startswith(key)), None)
        self.operations[name] = Operation(self.polls, end, error, left)
        place = f"{self.url}/subscriptions/{SUBSCRIPTION}/operations/{name}?api-version=2023-04-01"
        return Answer(status, body, {"Azure-AsyncOperation": place, "Location": place, "x-ms-retry-after-ms": "50"})

    def begin_put(self, body: Json, what: str, path: str, wanted: Json) -> Answer:
        """Answer that a thing is being made or changed, which makes it `wanted`, or leaves it failed."""

        def fail() -> None:
            self.things[path]["properties"]["provisioningState"] = "Failed"

        return self.begin(201, body, what, lambda: self.things.__setitem__(path, wanted), fail)


def metadata(azure: Azure, _: bytes) -> Answer:
    cloud = {
        "name": "Loopback",
        "portal": "https://portal.azure.com",
        "resourceManager": azure.url,
        "authentication": {"loginEndpoint": azure.url, "audiences": [azure.url], "tenant": "common"},
        "suffixes": {"storage": "core.windows.net"},
    }
    return Answer(200, [cloud])


def openid(azure: Azure, _: bytes) -> Answer:
    base = f"{azure.url}/adfs"
    return Answer(200, {
        "issuer": base, "authorization_endpoint": f"{base}/oauth2/authorize", "token_endpoint": f"{base}/oauth2/token",
    })  # fmt: skip


def sign_in(azure: Azure, sent: bytes) -> Answer:
    said = parse_qs(sent.decode())
    if said.get("client_secret") != [SECRET]:
        return Answer(401, {"error": "invalid_client", "error_description": "The secret isn't the right one."})
    token = f"{TOKEN}{uuid.uuid4().hex}"
    azure.tokens[token] = time.monotonic() + 3600
    return Answer(200, {"access_token": token, "expires_in": 3600, "token_type": "Bearer"})


OPEN: dict[str, Callable[[Azure, bytes], Answer]] = {
    "/metadata/endpoints": metadata,
    "/adfs/.well-known/openid-configuration": openid,
    "/adfs/oauth2/token": sign_in,
}


def go_on(operation: Operation) -> None:
    """Let some time pass for an operation, which may end by that."""
    operation.polls -= 1
    if operation.polls > 0 or operation.done:
        return
    operation.done = True
    if operation.error is None:
        operation.end()
    elif operation.left is not None:
        operation.left()


def operation(azure: Azure, body: Json, query: dict[str, str], name: str) -> Answer:
    if (found := azure.operations.get(name)) is None:
        return absent(f"Operation {name}")
    go_on(found)
    if not found.done:
        return Answer(200, {"status": "InProgress"}, {"x-ms-retry-after-ms": "50"})
    return Answer(200, {"status": "Succeeded"} if found.error is None else {"status": "Failed", "error": found.error})


def busy(azure: Azure, endpoint: str) -> Answer | None:
    """What Azure answers to a change of an endpoint or of its deployments while another one goes on."""
    parts = [one for path, one in azure.things.items() if path == endpoint or path.startswith(f"{endpoint}/")]
    if all(one["properties"].get("provisioningState") in {"Succeeded", "Failed"} for one in parts):
        return None
    return refused(409, "Conflict", f"Already running method on endpoint '{endpoint.partition('/')[2]}'.")


def workspace_shown(azure: Azure, name: str) -> Json:
    held = azure.workspaces[name]
    properties = {
        "workspaceId": str(uuid.uuid5(uuid.NAMESPACE_DNS, name)),
        "friendlyName": name,
        "provisioningState": "Succeeded",
        "discoveryUrl": f"{azure.url}/discovery",
        "mlFlowTrackingUri": f"azureml://{azure.url.removeprefix('https://')}/mlflow/v1.0{HOME}",
        **{kind: f"{PROVIDERS}/{one}" for kind, one in DEPENDENTS.items()},
        **held["properties"],
    }
    return {"id": HOME.replace(WORKSPACE, name), "name": name, "type": "Microsoft.MachineLearningServices/workspaces",
            "location": held["location"], "tags": held["tags"], "properties": properties}  # fmt: skip


def workspace(azure: Azure, body: Json, query: dict[str, str], name: str) -> Answer:
    if name not in azure.workspaces:
        return refused(404, "ResourceNotFound", f"The Resource 'Microsoft.MachineLearningServices/workspaces/{name}' "
                                                f"under resource group '{GROUP}' was not found.")  # fmt: skip
    return Answer(200, workspace_shown(azure, name))


def delete_workspace(azure: Azure, body: Json, query: dict[str, str], name: str) -> Answer:
    if name not in azure.workspaces:
        return Answer(204)
    return azure.begin(202, None, f"workspace {name}", lambda: azure.workspaces.pop(name))


def dependent(azure: Azure, body: Json, query: dict[str, str], one: str) -> Answer:
    if one not in azure.dependents:
        return refused(404, "ResourceNotFound", f"The Resource '{one}' under resource group '{GROUP}' was not found.")
    properties = {"WorkspaceResourceId": f"{PROVIDERS}/{LOG}"} if one == DEPENDENTS["applicationInsights"] else {}
    place = {"id": f"{PROVIDERS}/{one}", "name": "flock", "location": REGION}
    return Answer(200, {**place, "type": one.rpartition("/")[0], "properties": properties})


def delete_dependent(azure: Azure, body: Json, query: dict[str, str], one: str) -> Answer:
    if one not in azure.dependents:
        return Answer(204)
    return azure.begin(202, None, f"delete {one}", lambda: azure.dependents.discard(one))


def shown(azure: Azure, path: str) -> Json:
    return {"id": f"{HOME}/{path}", "name": path.rpartition("/")[2], "type": "x", **azure.things[path]}


def read(azure: Azure, body: Json, query: dict[str, str], path: str) -> Answer:
    # Changes go on whether or not somebody waits for them.
    for begun in azure.operations.values():
        go_on(begun)
    if path not in azure.things:
        kind, _, name = path.partition("/")
        return absent(f"{kind.removesuffix('s')} {name}")
    thing = azure.things[path]["properties"]
    if thing.get("status") == "Finalizing":
        answer = Answer(200, copy.deepcopy(shown(azure, path)))
        thing["status"] = "Completed"
        return answer
    return Answer(200, shown(azure, path))


def listed(azure: Azure, body: Json, query: dict[str, str], path: str) -> Answer:
    found = [shown(azure, one) for one in azure.things if re.fullmatch(rf"{re.escape(path)}/[^/]+", one)]
    if query.get("listViewType", "ActiveOnly") == "ActiveOnly":
        found = [one for one in found if not one["properties"].get("isArchived")]
    return Answer(200, {"value": found})


def names(azure: Azure, body: Json, query: dict[str, str], kind: str) -> Answer:
    """The containers of versions: only those that have a version."""
    found = dict.fromkeys(path.split("/")[1] for path in azure.things if path.startswith(f"{kind}/"))
    return Answer(
        200, {"value": [{"id": f"{HOME}/{kind}/{name}", "name": name, "properties": {"tags": {}}} for name in found]}
    )


def put_compute(azure: Azure, body: Json, query: dict[str, str], path: str) -> Answer:
    properties = body["properties"]
    if properties["computeType"] not in {"AmlCompute", "Kubernetes"}:
        return refused(400, "BadRequest", f"computeType {properties['computeType']}.")
    wanted = {**body, "properties": {**properties, "provisioningState": "Succeeded"}}
    azure.things[path] = {**body, "properties": {**properties, "provisioningState": "Creating"}}
    return azure.begin_put(shown(azure, path), path.replace("s/", " "), path, wanted)


def put_endpoint(azure: Azure, body: Json, query: dict[str, str], path: str) -> Answer:
    kind, name = path.split("/")
    properties = body["properties"]
    if body["location"] != REGION:
        return refused(400, "InvalidLocation", f"The location {body['location']} isn't the workspace's.")
    if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9-]{2,31}", name):
        return refused(400, "InvalidEndpointName", f"{name} is no name for an endpoint.")
    before = azure.things.get(path)
    if refusal := busy(azure, path):
        return refusal
    if kind == "onlineEndpoints":
        if properties["authMode"] not in {"Key", "AADToken", "key", "aad_token", "aadToken"}:
            return refused(400, "BadRequest", f"authMode {properties['authMode']}.")
        traffic = properties.get("traffic") or {}
        if strangers := [one for one in traffic if f"{path}/deployments/{one}" not in azure.things]:
            return refused(400, "BadRequest", f"The traffic names deployments that aren't there: {strangers}.")
        if traffic and sum(traffic.values()) != 100:
            return refused(400, "BadRequest", "The traffic must add up to 0 or 100.")
        properties["traffic"] = traffic
        compute = properties.get("compute")
        if compute is not None and compute.removeprefix(f"{HOME}/") not in azure.things:
            return absent(f"Compute {compute}")
        properties["scoringUri"] = f"{azure.url}/score/{name}"
    else:
        properties["scoringUri"] = f"{azure.url}/batch/{name}/jobs"
    properties["provisioningState"] = "Updating" if before else "Creating"
    wanted = {**body, "properties": {**properties, "provisioningState": "Succeeded"}}
    if before is None:
        azure.things[path] = body
    else:
        before["properties"]["provisioningState"] = "Updating"
    return azure.begin_put({**shown(azure, path)}, f"endpoint {name}", path, wanted)


def delete_endpoint(azure: Azure, body: Json, query: dict[str, str], path: str) -> Answer:
    if path not in azure.things:
        return Answer(204)
    if refusal := busy(azure, path):
        return refusal

    def end() -> None:
        for one in [one for one in azure.things if one == path or one.startswith(f"{path}/")]:
            del azure.things[one]

    return azure.begin(202, None, f"delete {path}", end)


def put_deployment(azure: Azure, body: Json, query: dict[str, str], path: str) -> Answer:
    endpoint, _, name = path.rpartition("/deployments/")
    properties = body["properties"]
    if endpoint not in azure.things:
        return absent(f"Endpoint {endpoint}")
    if refusal := busy(azure, endpoint):
        return refusal
    if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9-]{2,31}", name):
        return refused(400, "InvalidDeploymentName", f"{name} is no name for a deployment.")
    model = properties.get("model", "")
    asset = str(model["assetId"] if isinstance(model, dict) else model).removeprefix(f"{HOME}/")
    if asset not in azure.things:
        return refused(400, "BadArgument", f"The model {asset!r} isn't registered.")
    for field_, kind in (("environmentId", "environments"), ("codeConfiguration", "codes")):
        named = properties.get(field_)
        named = named["codeId"] if isinstance(named, dict) else named
        if named is not None and (kind not in named or named.removeprefix(f"{HOME}/") not in azure.things):
            return refused(400, "BadArgument", f"The {kind} {named!r} aren't registered.")
    if endpoint.startswith("onlineEndpoints") and not body["sku"]["capacity"] >= 1:
        return refused(400, "BadArgument", "A deployment needs an instance.")
    if endpoint.startswith("onlineEndpoints"):
        managed = "compute" not in azure.things[endpoint]["properties"]
        if properties["endpointComputeType"] != ("Managed" if managed else "Kubernetes"):
            return refused(400, "BadArgument", "The deployment isn't of the endpoint's kind.")
    for collection in (properties.get("dataCollector") or {"collections": {}})["collections"].values():
        # The client sends it in small letters, and reads it in Azure's.
        collection["dataCollectionMode"] = collection["dataCollectionMode"].capitalize()
    # What isn't said is told back with Azure's own values.
    properties.setdefault("scaleSettings", {"scaleType": "Default"})
    if properties.get("endpointComputeType") == "Kubernetes":
        needs = {"cpu": "0.1", "memory": "0.5Gi"}
        requirements = {"containerResourceRequests": needs, "containerResourceLimits": needs}
        properties.setdefault("containerResourceRequirements", requirements)
    azure.things[path] = {**body, "properties": {**properties, "provisioningState": "Creating"}}
    wanted = {**body, "properties": {**properties, "provisioningState": "Succeeded"}}
    return azure.begin_put(shown(azure, path), f"deployment {name}", path, wanted)


def delete_deployment(azure: Azure, body: Json, query: dict[str, str], path: str) -> Answer:
    endpoint, _, name = path.rpartition("/deployments/")
    if path not in azure.things:
        return Answer(204)
    if refusal := busy(azure, endpoint):
        return refusal
    if azure.things[endpoint]["properties"].get("traffic", {}).get(name):
        return refused(400, "BadRequest", f"The deployment {name} has traffic: set it to 0 first.")
    return azure.begin(202, None, f"delete {path}", lambda: azure.things.pop(path))


def deployment_logs(azure: Azure, body: Json, query: dict[str, str], path: str) -> Answer:
    if path not in azure.things:
        return absent(f"Deployment {path}")
    lines = azure.logs.get(path.rpartition("/")[2], ["Instance status:", "a first line", "a last line"])
    return Answer(200, {"content": "\n".join(lines[-body["tail"] :])})


def endpoint_keys(azure: Azure, body: Json, query: dict[str, str], path: str) -> Answer:
    if path not in azure.things:
        return absent(f"Endpoint {path}")
    return Answer(200, {"primaryKey": KEY, "secondaryKey": f"{KEY}-2"})


def put_version(azure: Azure, body: Json, query: dict[str, str], path: str) -> Answer:
    kind, name, _, version = path.split("/")
    if not re.fullmatch(r"[a-zA-Z0-9][\w.-]{0,254}", name):
        return refused(400, "BadRequest", f"{name} is no name for one of the {kind}.")
    if (before := azure.things.get(path)) is not None:
        changed = {key for key in body["properties"] if key not in MAY_CHANGE
                   and body["properties"][key] != before["properties"].get(key)}  # fmt: skip
        if changed:
            return refused(
                409, "Conflict", f"{name} {version} is there already, and {sorted(changed)} can't be changed."
            )
    if kind == "models":
        body["properties"].setdefault("flavors", {})
    azure.things[path] = body
    return Answer(200 if before else 201, shown(azure, path))


def start_upload(azure: Azure, body: Json, query: dict[str, str], asset: str) -> Answer:
    place = f"{azure.url}/{ACCOUNT}/{CONTAINER}"
    credential = {"credentialType": "SAS", "sasUri": f"{place}?sv=2024-01-01&sr=c&sig={SIGNATURE}"}
    reference = {"blobUri": place, "storageAccountArmId": "x", "credential": credential}
    return Answer(
        200,
        {
            "blobReferenceForConsumption": reference,
            "pendingUploadId": "1",
            "pendingUploadType": "TemporaryBlobReference",
        },
    )


def datastore(azure: Azure, body: Json, query: dict[str, str], *_: str) -> Answer:
    host = azure.url.removeprefix("https://")
    properties = {
        "datastoreType": "AzureBlob",
        "isDefault": True,
        # Clients put https:// before the account, and the service's name behind it.
        "accountName": f"{host}/{ACCOUNT.partition('.')[0]}",
        "containerName": CONTAINER,
        "endpoint": "core.windows.net",
        "protocol": "https",
        "credentials": {"credentialsType": "AccountKey"},
    }
    one = {"id": f"{HOME}/datastores/workspaceblobstore", "name": "workspaceblobstore", "properties": properties}
    return Answer(200, {"value": [one]} if not _ else one)


def datastore_secrets(azure: Azure, body: Json, query: dict[str, str], name: str) -> Answer:
    return Answer(200, {"secretsType": "AccountKey", "key": ACCOUNT_KEY})


def put_job(azure: Azure, body: Json, query: dict[str, str], name: str) -> Answer:
    path, properties = f"jobs/{name}", body["properties"]
    if properties["jobType"] == "Command":
        compute = properties["computeId"].removeprefix(f"{HOME}/")
        if compute not in azure.things:
            return absent(f"Compute {compute}")
        for field_ in ("environmentId", "codeId"):
            if properties[field_].removeprefix(f"{HOME}/") not in azure.things:
                return refused(400, "UserError", f"{field_} {properties[field_]} isn't registered.")
    page = {"jobServiceType": "Studio", "endpoint": f"https://ml.azure.com/runs/{name}?wsid={HOME}"}
    properties |= {"status": "Running", "services": {"Studio": page}}
    azure.things[path] = body
    azure.logs[name] = ["344 rows read", "Accuracy 0.991"]
    return Answer(201, shown(azure, path))


def cancel_job(azure: Azure, body: Json, query: dict[str, str], name: str) -> Answer:
    def end() -> None:
        azure.things[f"jobs/{name}"]["properties"]["status"] = "Canceled"

    return azure.begin(202, None, f"cancel {name}", end)


def run_details(azure: Azure, body: Json, query: dict[str, str], name: str) -> Answer:
    properties = azure.things[f"jobs/{name}"]["properties"]
    shown_before = properties.setdefault("shown", 0)
    parts = azure.logs[name]
    error = None
    if properties["status"] == "Finalizing":
        properties["status"] = "Completed"
    if shown_before >= len(parts) and properties["status"] == "Running":
        properties["status"] = azure.ends.get(properties["experimentName"], "Completed")
        if properties["status"] == "Completed":
            # The client looks no longer then, though the job goes on.
            properties["status"] = "Finalizing"
            parts = azure.logs[name] = [*parts, "The activity completed successfully. Finalizing run..."]
    if properties["status"] == "Failed":
        error = {"error": {"code": "UserError", "message": "The command ended with exit code 1."}}
    properties["shown"] = min(shown_before + 1, len(parts))
    return Answer(200, {
        "runId": name, "status": properties["status"], "error": error,
        "logFiles": {"user_logs/std_log.txt": f"{azure.url}/joblogs/{name}"},
    })  # fmt: skip


def discovery(azure: Azure, query: dict[str, str], headers: Any, sent: bytes) -> Answer:
    services = ("api", "history", "modelmanagement", "experimentation", "studio")
    return Answer(200, dict.fromkeys(services, azure.url))


def job_log(azure: Azure, query: dict[str, str], headers: Any, sent: bytes, name: str) -> Answer:
    parts = azure.logs[name][: azure.things[f"jobs/{name}"]["properties"]["shown"]]
    return Answer(200, "\n".join(parts).encode())


def put_schedule(azure: Azure, body: Json, query: dict[str, str], name: str) -> Answer:
    path = f"schedules/{name}"
    wanted = {**body, "properties": {**body["properties"], "provisioningState": "Succeeded"}}
    if body["properties"]["action"]["actionType"] == "CreateMonitor":
        signals = body["properties"]["action"]["monitorDefinition"]["signals"]
        if not signals:
            return refused(400, "UserError", "A monitor needs a signal.")
    status = 200 if path in azure.things else 201
    azure.things.setdefault(path, body)
    return azure.begin(status, shown(azure, path), f"schedule {name}", lambda: azure.things.__setitem__(path, wanted))


def delete_schedule(azure: Azure, body: Json, query: dict[str, str], name: str) -> Answer:
    path = f"schedules/{name}"
    if path not in azure.things:
        return Answer(204)
    if azure.things[path]["properties"].get("isEnabled", True):
        return refused(400, "UserError", f"The schedule {name} is enabled: disable it first.")
    return azure.begin(202, None, f"delete {path}", lambda: azure.things.pop(path))


def put_template(azure: Azure, body: Json, query: dict[str, str], name: str) -> Answer:
    """A deployment of resources by a template; this Azure knows those of the client for workspaces."""
    parameters = {key: given["value"] for key, given in body["properties"]["parameters"].items() if "value" in given}
    made, region = parameters["workspaceName"], parameters["location"]

    def end(**properties: str) -> None:
        azure.workspaces[made] = {"location": region, "tags": parameters["tagValues"], "properties": properties}

    def left() -> None:
        end(provisioningState="Failed")

    properties = {"provisioningState": "Running", "duration": "PT2S"}
    azure.things[f"templates/{name}"] = {"properties": {**properties, "provisioningState": "Succeeded"}}
    return azure.begin(201, {"id": name, "name": name, "properties": properties}, f"template {region}", end, left)


def template(azure: Azure, body: Json, query: dict[str, str], name: str) -> Answer:
    return Answer(200, {"id": name, "name": name, **azure.things[f"templates/{name}"]})


def template_operations(azure: Azure, body: Json, query: dict[str, str], name: str) -> Answer:
    return Answer(200, {"value": []})


def databricks(azure: Azure, body: Json, query: dict[str, str], name: str) -> Answer:
    if name not in azure.databricks:
        return refused(404, "ResourceNotFound", f"The Resource 'Microsoft.Databricks/workspaces/{name}' "
                                                f"under resource group '{GROUP}' was not found.")  # fmt: skip
    return Answer(200, azure.databricks[name])


def put_databricks(azure: Azure, body: Json, query: dict[str, str], name: str) -> Answer:
    if not body["properties"].get("managedResourceGroupId"):
        return refused(400, "InvalidRequestContent", "managedResourceGroupId is missing.")
    if name in azure.databricks and (there := azure.databricks[name]["location"]) != body["location"]:
        return refused(409, "InvalidResourceLocation", f"The resource '{name}' already exists in location '{there}' in "
                                                       f"resource group '{GROUP}'.")  # fmt: skip
    place = f"{PROVIDERS}/Microsoft.Databricks/workspaces/{name}"
    wanted = {**body, "id": place, "name": name}
    wanted["properties"] = {
        **body["properties"],
        "provisioningState": "Succeeded",
        "workspaceUrl": "adb-1.azuredatabricks.net",
    }
    what = f"databricks {body['location']}"
    failed = {**wanted, "properties": {**wanted["properties"], "provisioningState": "Failed"}}

    def left() -> None:
        azure.databricks[name] = failed

    return azure.begin(201, wanted, what, lambda: azure.databricks.__setitem__(name, wanted), left)


def delete_databricks(azure: Azure, body: Json, query: dict[str, str], name: str) -> Answer:
    if name not in azure.databricks:
        return Answer(204)
    return azure.begin(202, None, f"delete databricks {name}", lambda: azure.databricks.pop(name))


def score(azure: Azure, query: dict[str, str], headers: Any, sent: bytes, name: str) -> Answer:
    """Let a deployment answer: the one that is named, or each as often as its share says."""
    path = f"onlineEndpoints/{name}"
    said = headers.get("Authorization", "").removeprefix("Bearer ")
    if said not in ({azure.key} if azure.things[path]["properties"]["authMode"].lower() == "key" else azure.tokens):
        return Answer(401, {"message": f"The key {said} isn't the endpoint's."})
    deployment = headers.get("azureml-model-deployment")
    azure.invoked.append(deployment)
    traffic = azure.traffic(name)
    if deployment is None:
        turns = [one for one, share in traffic.items() for _ in range(share)]
        if not turns:
            return Answer(404, {"message": "There is no deployment with traffic."})
        deployment = turns[azure.questions % 100]
        azure.questions += 1
    if (running := azure.things.get(f"{path}/deployments/{deployment}")) is None:
        return Answer(404, {"message": f"There is no deployment {deployment}."})
    asked = json.loads(sent)["input_data"]
    split = {"columns": asked["columns"], "data": asked["data"]}
    version = running["properties"]["model"].rpartition("/")[2]
    answer = requests.post(f"{azure.scorers[version]}/invocations", json={"dataframe_split": split}, timeout=60)
    if answer.status_code == 200:
        return Answer(200, answer.json()["predictions"])
    # What the container refuses is the gateway's own status, with the container's words.
    return Answer(424, answer.json(), {"ms-azureml-model-error-statuscode": str(answer.status_code)})


def batch(azure: Azure, query: dict[str, str], headers: Any, sent: bytes, name: str) -> Answer:
    """Start a job that scores what is sent with the default deployment's own script, as Azure's workers call it."""
    path = f"batchEndpoints/{name}"
    if headers.get("Authorization", "").removeprefix("Bearer ") not in azure.tokens:
        return refused(401, "Unauthorized", "The token isn't valid.")
    properties = json.loads(sent)["properties"]
    default = azure.things[path]["properties"]["defaults"]["deploymentName"]
    deployment = azure.things[f"{path}/deployments/{default}"]["properties"]
    [given] = properties["inputData"].values()
    target, _, summary = properties["outputData"]["score"]["uri"].rpartition("/paths/")[2].rpartition("/")
    job = f"batchjob-{uuid.uuid4().hex[:8]}"
    page = {"jobServiceType": "Studio", "endpoint": f"https://ml.azure.com/runs/{job}?wsid={HOME}"}
    state = {"jobType": "Pipeline", "status": "Running", "experimentName": name, "services": {"Studio": page}}
    azure.things[f"jobs/{job}"] = {"properties": {**state, "properties": {}, "tags": {}, "jobs": {}}}
    with tempfile.TemporaryDirectory() as folder:
        log, failed, written = work(azure, deployment, given["uri"], Path(folder))
    for file, content in {**written, summary: "\n".join(log).encode()}.items():
        azure.blobs[f"{target}/{file}"] = content
    # Below 0, what failed is left out and nothing else happens.
    azure.ends[name] = "Failed" if failed > deployment["errorThreshold"] >= 0 else "Completed"
    azure.logs[job] = log
    shown_job = {"id": f"{HOME}/jobs/{job}", "name": job, "properties": properties}
    return Answer(201, shown_job)


def work(azure: Azure, deployment: Json, source: str, folder: Path) -> tuple[list[str], int, dict[str, bytes]]:
    """What a batch job's worker does: its log, how many files failed, and what the script wrote."""
    code = deployment["codeConfiguration"]
    script = put_files(azure, of_version(azure, code["codeId"])["codeUri"], folder / "code") / code["scoringScript"]
    model = put_files(azure, of_version(azure, deployment["model"]["assetId"])["modelUri"], folder / "model" / "model")
    files = sorted(path for path in put_files(azure, source, folder / "input").rglob("*") if path.is_file())
    (output := folder / "output").mkdir()
    log: list[str] = []
    failed = 0
    with pytest.MonkeyPatch.context() as variables:
        variables.setenv("AZUREML_MODEL_DIR", str(model.parent))
        variables.setenv("AZUREML_BI_OUTPUT_PATH", str(output))
        worker = runpy.run_path(str(script))
        worker["init"]()
        for start in range(0, len(files), deployment["miniBatchSize"]):
            mini_batch = [str(path) for path in files[start : start + deployment["miniBatchSize"]]]
            try:
                log += worker["run"](mini_batch)
            except Exception as error:
                failed += len(mini_batch)
                log.append(f"{type(error).__name__}: {error}")
    return log, failed, {path.name: path.read_bytes() for path in output.iterdir()}


def of_version(azure: Azure, asset: str) -> Json:
    properties: Json = azure.things[asset.removeprefix(f"{HOME}/")]["properties"]
    return properties


def put_files(azure: Azure, uri: str, folder: Path) -> Path:
    """Put the blobs at an address, a folder's or a file's, into a folder here."""
    place = re.split(rf"/paths/|/{CONTAINER}/", uri)[-1].rstrip("/")
    for name, content in azure.blobs.items():
        if name == place or name.startswith(f"{place}/"):
            path = folder / (name.removeprefix(f"{place}/") if name != place else name.rpartition("/")[2])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return folder


def blob(azure: Azure, query: dict[str, str], headers: Any, sent: bytes, method: str, place: str) -> Answer:
    if query.get("sig") != SIGNATURE and not headers.get("Authorization", "").startswith("SharedKey "):
        return Answer(403, b"<Error><Code>AuthenticationFailed</Code></Error>", {"Content-Type": "application/xml"})
    stamp = {"ETag": '"1"', "Last-Modified": "Sat, 21 Nov 2026 10:00:00 GMT", "x-ms-version": "2024-01-01"}
    name = unquote(place.partition("/")[2])
    if method == "GET" and query.get("comp") == "list":
        found = [one for one in azure.blobs if one.startswith(query.get("prefix", ""))]
        items = "".join(
            f"<Blob><Name>{escape(one)}</Name><Properties><Content-Length>{len(azure.blobs[one])}</Content-Length>"
            "<BlobType>BlockBlob</BlobType></Properties><Metadata/></Blob>"
            for one in found
        )
        xml = f'<?xml version="1.0"?><EnumerationResults><Blobs>{items}</Blobs><NextMarker/></EnumerationResults>'
        return Answer(200, xml.encode(), {**stamp, "Content-Type": "application/xml"})
    if method == "PUT" and query.get("comp") == "metadata":
        given = {key.lower().removeprefix("x-ms-meta-"): value for key, value in headers.items()
                 if key.lower().startswith("x-ms-meta-")}  # fmt: skip
        azure.metadata[name] = given
        return Answer(200, None, stamp)
    if method == "PUT":
        azure.blobs[name] = sent
        return Answer(201, None, stamp)
    if name not in azure.blobs:
        return Answer(404, None, {"x-ms-error-code": "BlobNotFound"})
    kept = {f"x-ms-meta-{key}": value for key, value in azure.metadata.get(name, {}).items()}
    size = len(azure.blobs[name])
    headers = {**stamp, **kept, "x-ms-blob-type": "BlockBlob", "Content-Range": f"bytes 0-{max(size - 1, 0)}/{size}"}
    return Answer(206 if method == "GET" else 200, azure.blobs[name], headers)


ML = re.escape(HOME)
VERSIONED = r"((?:models|environments|codes|data|components)/[\w.-]+/versions/[\w.-]+)"
MADE_FOR_IT = "|".join(map(re.escape, [*DEPENDENTS.values(), LOG]))
ARM_ROUTES: dict[str, Callable[..., Answer]] = {
    rf"GET /subscriptions/{SUBSCRIPTION}/operations/{NAME}": operation,
    rf"GET {IN_GROUP}/providers/Microsoft.MachineLearningServices/workspaces/{NAME}": workspace,
    rf"DELETE {IN_GROUP}/providers/Microsoft.MachineLearningServices/workspaces/{NAME}": delete_workspace,
    rf"GET {IN_GROUP}/providers/({MADE_FOR_IT})": dependent,
    rf"DELETE {IN_GROUP}/providers/({MADE_FOR_IT})": delete_dependent,
    rf"PUT {ML}/((?:onlineEndpoints|batchEndpoints)/[^/]+)": put_endpoint,
    rf"DELETE {ML}/((?:onlineEndpoints|batchEndpoints)/[^/]+)": delete_endpoint,
    rf"PUT {ML}/(computes/[^/]+)": put_compute,
    rf"POST {ML}/(onlineEndpoints/[^/]+)/listKeys": endpoint_keys,
    rf"PUT {ML}/((?:onlineEndpoints|batchEndpoints)/[^/]+/deployments/[^/]+)": put_deployment,
    rf"DELETE {ML}/((?:onlineEndpoints|batchEndpoints)/[^/]+/deployments/[^/]+)": delete_deployment,
    rf"POST {ML}/(onlineEndpoints/[^/]+/deployments/[^/]+)/getLogs": deployment_logs,
    rf"POST {ML}/{VERSIONED}/startPendingUpload": start_upload,
    rf"PUT {ML}/{VERSIONED}": put_version,
    rf"GET {ML}/(models|environments|data)": names,
    rf"GET {ML}/datastores": datastore,
    rf"GET {ML}/datastores/(workspaceblobstore)": datastore,
    rf"POST {ML}/datastores/(workspaceblobstore)/listSecrets": datastore_secrets,
    rf"PUT {ML}/jobs/{NAME}": put_job,
    rf"POST {ML}/jobs/{NAME}/cancel": cancel_job,
    rf"GET /history/v1.0{ML}/runs/{NAME}/details": run_details,
    rf"PUT {ML}/schedules/{NAME}": put_schedule,
    rf"DELETE {ML}/schedules/{NAME}": delete_schedule,
    rf"PUT {IN_GROUP}/providers/Microsoft.Resources/deployments/{NAME}": put_template,
    rf"GET {IN_GROUP}/providers/Microsoft.Resources/deployments/{NAME}": template,
    rf"GET {IN_GROUP}/deployments/{NAME}/operations": template_operations,
    rf"GET {IN_GROUP}/providers/Microsoft.Databricks/workspaces/{NAME}": databricks,
    rf"PUT {IN_GROUP}/providers/Microsoft.Databricks/workspaces/{NAME}": put_databricks,
    rf"DELETE {IN_GROUP}/providers/Microsoft.Databricks/workspaces/{NAME}": delete_databricks,
    # What is left: one thing by its path, or all in a folder.
    rf"GET {ML}/((?:onlineEndpoints|batchEndpoints|computes|jobs|schedules)(?:/[^/]+/deployments)?)": listed,
    rf"GET {ML}/((?:models|environments|codes|data)/[\w.-]+/versions)": listed,
    rf"GET {ML}/((?:onlineEndpoints|batchEndpoints|computes|jobs|schedules)/[^/]+(?:/deployments/[^/]+)?)": read,
    rf"GET {ML}/{VERSIONED}": read,
}  # fmt: skip

DATA_ROUTES: dict[str, Callable[..., Answer]] = {
    r"GET /discovery": discovery,
    r"POST /score/([\w-]+)": score,
    r"POST /batch/([\w-]+)/jobs": batch,
    r"GET /joblogs/([\w-]+)": job_log,
    rf"(GET|HEAD|PUT) /{ACCOUNT}/({CONTAINER}(?:/.*)?)": blob,
}
"""What isn't Resource Manager: it has other keys, or none."""


@contextmanager
def running(azure: Azure, authority: Authority) -> Iterator[Azure]:
    """Serve it on a free port for the block, over TLS."""
    lock = threading.RLock()

    class Answering(Handler):
        def handle_any(self) -> None:
            sent = self.body()
            address = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(address.query).items()}
            with lock:
                azure.asked.append(f"{self.command} {address.path}")
                answer = azure.respond(self.command, address.path, query, self.headers, sent)
            content, headers = answer.body, dict(answer.headers)
            if not isinstance(content, bytes):
                headers.setdefault("Content-Type", "application/json")
                content = b"" if content is None else json.dumps(content).encode()
            self.answer(answer.status, content, **headers)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815  # http.server's own names

    with https_server(Answering, authority) as url:
        azure.url = url
        yield azure


def configure(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment say that this is the cloud, which workspace is meant, and who asks."""
    for name, value in {
        "ARM_CLOUD_METADATA_URL": f"{azure.url}/metadata/endpoints",
        "AZUREML_CURRENT_CLOUD": "Loopback",
        "AZURE_AUTHORITY_HOST": azure.url,
        "AZURE_TENANT_ID": "adfs",
        "AZURE_CLIENT_ID": "1c0ffee0-0000-4000-8000-000000000000",
        "AZURE_CLIENT_SECRET": SECRET,
        "AZUREML_SUBSCRIPTION_ID": SUBSCRIPTION,
        "AZUREML_RESOURCE_GROUP": GROUP,
        "AZUREML_WORKSPACE_NAME": WORKSPACE,
    }.items():
        monkeypatch.setenv(name, value)
