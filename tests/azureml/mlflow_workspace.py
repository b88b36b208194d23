"""An Azure Machine Learning workspace on this machine, as far as MLflow and signing in go: TLS, tokens, a real server.

What MLflow asks for goes to a real MLflow server, but for what Azure's doesn't know: that is a 404 without a body.
Files go through run history to blobs, whose addresses are signed. Every other request needs a token that Entra ID, a
part of this server as well, has given for the right secret. It fails when told to.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import requests

from tests.azureml.tls import Authority, Handler, https_server

SUBSCRIPTION, GROUP, NAME = "11111111-2222-3333-4444-555555555555", "birds(west)", "penguins-ws"
PROVIDER = "Microsoft.MachineLearningServices"
ID = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/{PROVIDER}/workspaces/{NAME}"
CLIENT, SECRET = "bbbbbbbb-2222-3333-4444-555555555555", "s3cr3t~of.the-service_principal"
"""Who may sign in; no output may ever have the secret, a token or a signature."""

ASSERTION = "a.platforms.token"
"""What stands for the secret where a platform answers for who asks."""

TENANT = "adfs"
"""The one tenant whose sign-in page Microsoft's library asks without looking it up on the internet."""

CONTAINER = "/devaccount.blob.core.windows.net/azureml"
"""Where the blobs are; the plugin takes no address that doesn't look like a blob's."""

NEVER = 10**9

MOST_METRICS = 50
"""How many metrics a run may have, by their names."""


@dataclass
class Answer:
    status: int
    content: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def as_json(status: int, value: Any, **headers: str) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})


def refused(status: int, code: str, message: str) -> Answer:
    """As Azure's services answer, which isn't MLflow's way."""
    return as_json(status, {"error": {"code": code, "message": message}})


HANG_UP = Answer(0)
"""No answer at all: the connection ends."""


@dataclass
class Failure:
    """What to answer instead, so many times, to requests whose "METHOD path" the pattern is found in."""

    pattern: str
    answer: Answer
    times: int
    after: int


@dataclass
class Request:
    line: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        value = json.loads(self.body)
        assert isinstance(value, dict)
        return value


@dataclass
class MlflowWorkspace:
    """What the workspace holds beside what the MLflow server does, what it was asked, and what it is told to do."""

    mlflow: str
    files: Path
    has_aliases: bool = True
    has_inputs: bool = True
    token_life: float = 3600.0
    """Seconds for which a token is taken."""
    told_life: int = 3600
    """Seconds for which a token is said to be taken."""
    custom: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """The versions of each custom model."""
    metrics: dict[str, set[str]] = field(default_factory=dict)
    """The names of the metrics of each run."""
    tokens: dict[str, float] = field(default_factory=dict)
    """Until when each token is taken."""
    signature: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    delay: float = 0.0
    """Seconds before each answer."""
    asked: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    url: str = ""

    @property
    def outputs(self) -> Path:
        """What jobs have kept as outputs with names, in a folder for each job."""
        return self.files.with_name("outputs")

    @property
    def uri(self) -> str:
        return f"azureml://{self.url.removeprefix('https://')}/mlflow/v2.0{ID}"

    def environment(self) -> dict[str, str]:
        """The variables of somebody who may use the workspace."""
        return {
            "AZURE_AUTHORITY_HOST": self.url,
            "AZURE_TENANT_ID": TENANT,
            "AZURE_CLIENT_ID": CLIENT,
            "AZURE_CLIENT_SECRET": SECRET,
            "AZUREML_CURRENT_CLOUD": "AzureCloud",
        }

    def fail(self, pattern: str, answer: Answer, *, times: int = NEVER, after: int = 0) -> None:
        """Answer so instead, `times` times, after letting the first `after` such requests pass."""
        self.failures.append(Failure(pattern, answer, times, after))

    def blob(self, run: str, path: str) -> str:
        """The signed address of a file."""
        return f"{self.url}{CONTAINER}/{quote(f'{run}/{path}')}?sv=2024-01-01&sig={self.signature}"

    def job_token(self) -> str:
        """A token of the kind that a job gets, which says itself when it ends."""
        import jwt  # the extra brings it

        said = {"exp": int(time.time()) + 86400}
        token: str = jwt.encode(said, "only the service has to know this", algorithm="HS256")
        self.tokens[token] = time.monotonic() + 86400
        return token

    def secrets(self) -> list[str]:
        return [SECRET, ASSERTION, self.signature, *self.tokens]

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, line)) for line in self.asked)

    def told_to_fail(self, line: str) -> Answer | None:
        for failure in self.failures:
            if re.search(failure.pattern, line) and failure.times:
                if failure.after:
                    failure.after -= 1
                    continue
                failure.times -= 1
                return failure.answer
        return None

    def is_signed_in(self, request: Request) -> bool:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        return self.tokens.get(token, 0.0) > time.monotonic()

    def answer(self, request: Request) -> Answer:
        if failure := self.told_to_fail(request.line):
            return failure
        for pattern, respond in OPEN_ROUTES.items():
            if found := re.fullmatch(pattern, request.line):
                return respond(self, request, *found.groups())
        if not self.is_signed_in(request):
            return refused(401, "UserError", "Bearer token not provided, or not valid.")
        for pattern, respond in ROUTES.items():
            if found := re.fullmatch(pattern, request.line):
                return respond(self, request, *found.groups())
        if re.search("/workspaces/(?!penguins-ws)", request.line):
            return refused(404, "ResourceNotFound", "The workspace was not found.")
        return Answer(404)


def cloud(workspace: MlflowWorkspace, request: Request) -> Answer:
    """Which addresses the cloud has; `resourceManager` and so on are what Azure's own document has."""
    url = workspace.url
    return as_json(
        200,
        [
            {
                "name": "Loopback",
                "portal": url,
                "authentication": {"loginEndpoint": url, "audiences": [url], "tenant": TENANT},
                "resourceManager": url,
                "mlResourceId": url,
                "suffixes": {"storage": "core.windows.net"},
            }
        ],
    )


def sign_in_page(workspace: MlflowWorkspace, request: Request) -> Answer:
    """What Entra ID says of itself."""
    place = f"{workspace.url}/{TENANT}"
    return as_json(
        200,
        {
            "issuer": place,
            "authorization_endpoint": f"{place}/oauth2/authorize",
            "token_endpoint": f"{place}/oauth2/token",
            "device_authorization_endpoint": f"{place}/oauth2/devicecode",
        },
    )


def give_token(workspace: MlflowWorkspace, request: Request) -> Answer:
    sent = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
    if sent.get("grant_type") != "client_credentials" or not sent.get("scope"):
        return as_json(400, {"error": "invalid_request", "error_description": "AADSTS900144: the body is wrong."})
    proof = sent.get("client_secret"), sent.get("client_assertion")
    if sent.get("client_id") != CLIENT or proof not in {(SECRET, None), (None, ASSERTION)}:
        said = "AADSTS7000215: Invalid client secret provided."
        return as_json(401, {"error": "invalid_client", "error_description": said})
    token = secrets.token_urlsafe(32)
    workspace.tokens[token] = time.monotonic() + workspace.token_life
    return as_json(200, {"token_type": "Bearer", "access_token": token, "expires_in": workspace.told_life})


def describe(workspace: MlflowWorkspace, request: Request) -> Answer:
    """What the Resource Manager says of the workspace."""
    if "api-version" not in request.query:
        return refused(400, "MissingApiVersionParameter", "The api-version query parameter is required.")
    properties = {
        "workspaceId": "cccccccc-2222-3333-4444-555555555555",
        "mlFlowTrackingUri": workspace.uri.replace("/mlflow/v2.0/", "/mlflow/v1.0/"),
        "discoveryUrl": f"{workspace.url}/discovery",
        "provisioningState": "Succeeded",
    }
    return as_json(200, {"id": ID, "name": NAME, "location": "westeurope", "properties": properties})


def forward(workspace: MlflowWorkspace, request: Request, path: str) -> Answer:
    """Ask the MLflow server, unless Azure's doesn't know the request."""
    unknown = [r"mlflow/logged-models.*", r"mlflow/registered-models/(set|delete)-tag"]
    unknown += [] if workspace.has_aliases else [r"mlflow/registered-models/alias"]
    unknown += [] if workspace.has_inputs else [r"mlflow/runs/log-inputs"]
    if any(re.fullmatch(pattern, path) for pattern in unknown):
        return Answer(404)
    logs_metrics = path in {"mlflow/runs/log-metric", "mlflow/runs/log-batch"}
    if logs_metrics and (refusal := _too_many(workspace, request.json())):
        return refusal
    answer = requests.request(
        request.line.split(" ")[0],
        f"{workspace.mlflow}/api/2.0/{path}",
        params=request.query,
        data=request.body,
        headers={"Content-Type": "application/json"},
        timeout=60,
    )
    return as_json(answer.status_code, _as_azures(answer.json(), workspace))


def _too_many(workspace: MlflowWorkspace, sent: dict[str, Any]) -> Answer | None:
    """What Azure answers to more metrics than a run takes, of which it keeps none; None where it takes them."""
    run = sent.get("run_id") or sent["run_uuid"]
    names = {one["key"] for one in sent.get("metrics", [sent] if "key" in sent else [])}
    names |= workspace.metrics.get(run, set())
    if len(names) <= MOST_METRICS:
        workspace.metrics[run] = names
        return None
    said = f"A field of the entity is over the size limit. FieldName=Metrics, Limit={MOST_METRICS}, Size={len(names)}."
    limits = "See https://aka.ms/azure-machine-learning-limits for service limits documentation."
    inner: dict[str, Any] = {"Code": "ValidationError", "Severity": None, "Message": f"{said} {limits}", "Details": []}
    where = {"Environment": "westeurope", "ComponentName": "mlflow", "statusCode": 400}
    return as_json(400, {"Error": inner, **where, "error_code": "INVALID_PARAMETER_VALUE"})


def _as_azures(value: Any, workspace: MlflowWorkspace) -> Any:
    """The MLflow server's answer with the addresses of artifacts that Azure's would give."""
    if isinstance(value, list):
        return [_as_azures(one, workspace) for one in value]
    if not isinstance(value, dict):
        return value
    value = {key: _as_azures(one, workspace) for key, one in value.items()}
    if "artifact_uri" in value and "run_id" in value:
        run = f"experiments/{value['experiment_id']}/runs/{value['run_id']}"
        value["artifact_uri"] = f"{workspace.uri}/{run}/artifacts"
    if "artifact_location" in value:
        value["artifact_location"] = ""
    return value


def custom_versions(workspace: MlflowWorkspace, request: Request, name: str) -> Answer:
    return as_json(200, {"value": workspace.custom.get(name, [])})


def custom_model(workspace: MlflowWorkspace, request: Request, name: str) -> Answer:
    if name not in workspace.custom:
        return refused(404, "ResourceNotFound", f"The model container {name} was not found.")
    number = len(workspace.custom[name]) + 1
    return as_json(200, {"id": f"{ID}/models/{name}", "name": name, "properties": {"nextVersion": str(number)}})


def put_custom_version(workspace: MlflowWorkspace, request: Request, name: str, number: str) -> Answer:
    """A version of files that a run keeps, which must be there."""
    there = workspace.custom.setdefault(name, [])
    if int(number) != len(there) + 1:
        return refused(409, "Conflict", f"Version {number} of {name} exists already.")
    properties = request.json()["properties"]
    place = re.fullmatch(r"azureml://jobs/([^/]+)/outputs/([^/]+)/paths/(.*)", properties["modelUri"])
    if properties["modelType"] not in {"custom_model", "mlflow_model"} or place is None:
        return refused(400, "UserError", "The model's type or its place is wrong.")
    job, output, path = place.groups()
    folder = (workspace.files / job if output == "artifacts" else workspace.outputs / job / output) / path
    if not folder.is_dir():
        return refused(404, "UserError", f"There is nothing at {properties['modelUri']}.")
    if properties["modelType"] == "mlflow_model" and not (folder / "MLmodel").is_file():
        return refused(400, "UserError", f"There is no MLmodel at {properties['modelUri']}.")
    # The real one tells more back than it was told.
    told_back = {"flavors": {}, "isArchived": False, **properties}
    version = {"id": f"{ID}/models/{name}/versions/{number}", "name": number, "properties": told_back}
    there.append(version)
    return as_json(201, version)


def list_files(workspace: MlflowWorkspace, request: Request, run: str) -> Answer:
    """All files of a run, whatever folder the client would like to see."""
    folder = workspace.files / run
    paths = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    found = [{"artifactId": f"{run}/{path}", "container": run, "path": path} for path in paths]
    return as_json(200, {"value": found, "continuationToken": None})


def announce_files(workspace: MlflowWorkspace, request: Request, run: str) -> Answer:
    """Where to put new files; none that is there already."""
    paths = [one["path"] for one in request.json()["paths"]]
    if not 0 < len(paths) <= 50:
        return refused(400, "UserError", "The number of artifacts must be from 1 to 50.")
    there = [path for path in paths if (workspace.files / run / path).exists()]
    said = "Resource Conflict: ArtifactId {}/{} already exists."
    return as_json(
        200,
        {
            "artifacts": {path: {"container": run, "path": path} for path in paths if path not in there},
            "artifactContentInformation": {
                path: {"container": run, "path": path, "contentUri": workspace.blob(run, path)}
                for path in paths
                if path not in there
            },
            "errors": {path: {"error": {"code": "UserError", "message": said.format(run, path)}} for path in there},
        },
    )


def where_file_is(workspace: MlflowWorkspace, request: Request, run: str) -> Answer:
    path = request.query["path"]
    if not (workspace.files / run / path).is_file():
        return refused(404, "UserError", f"Artifact {path} not found.")
    return as_json(200, {"container": run, "path": path, "contentUri": workspace.blob(run, path)})


def put_blob(workspace: MlflowWorkspace, request: Request, path: str) -> Answer:
    if request.query.get("sig") != workspace.signature:
        return Answer(403)
    if request.headers.get("x-ms-blob-type") != "BlockBlob" or request.headers.get("if-none-match") != "*":
        return Answer(400)
    place = workspace.files / unquote(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(request.body)
    return Answer(201, headers={"ETag": '"1"', "Last-Modified": DATE, "x-ms-request-server-encrypted": "true"})


def get_blob(workspace: MlflowWorkspace, request: Request, path: str) -> Answer:
    if request.query.get("sig") != workspace.signature:
        return Answer(403)
    content = (workspace.files / unquote(path)).read_bytes()
    headers = {"ETag": '"1"', "Last-Modified": DATE, "x-ms-blob-type": "BlockBlob"}
    if not content and "x-ms-range" in request.headers:
        # As for every range beyond the end; the client then asks again for the whole.
        return Answer(416, headers={**headers, "Content-Range": "bytes */0", "x-ms-error-code": "InvalidRange"})
    if (asked := re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("x-ms-range", ""))) is None:
        return Answer(200, content, headers)
    first, last = int(asked[1]), min(int(asked[2]), len(content) - 1)
    headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
    return Answer(206, content[first : last + 1], headers)


DATE = "Sat, 21 Nov 2026 12:00:00 GMT"
RUN = rf"/history/v1\.0{re.escape(ID)}/experiments/\d+/runs/([^/]+)"

OPEN_ROUTES: dict[str, Callable[..., Answer]] = {
    r"GET /metadata/endpoints": cloud,
    rf"GET /{TENANT}/\.well-known/openid-configuration": sign_in_page,
    rf"POST /{TENANT}/oauth2(?:/v2\.0)?/token": give_token,
    rf"PUT {re.escape(CONTAINER)}/(.+)": put_blob,
    rf"GET {re.escape(CONTAINER)}/(.+)": get_blob,
}
"""What needs no token; blobs need a signature."""

ROUTES: dict[str, Callable[..., Answer]] = {
    rf"GET {re.escape(ID)}": describe,
    rf"GET {re.escape(ID)}/models/([^/]+)/versions": custom_versions,
    rf"GET {re.escape(ID)}/models/([^/]+)": custom_model,
    rf"PUT {re.escape(ID)}/models/([^/]+)/versions/(\d+)": put_custom_version,
    rf"[A-Z]+ /mlflow/v2\.0{re.escape(ID)}/api/2\.0/(.+)": forward,
    rf"GET {RUN}/artifacts": list_files,
    rf"GET {RUN}/artifacts/contentinfo": where_file_is,
    rf"POST {RUN}/artifacts/batch/metadata": announce_files,
}


@contextmanager
def running(workspace: MlflowWorkspace, authority: Authority) -> Iterator[MlflowWorkspace]:
    """Serve the workspace on a free port for the block."""
    lock = threading.Lock()

    class Service(Handler):
        def answer_any(self) -> None:
            time.sleep(workspace.delay)
            parts = urlsplit(self.path)
            request = Request(
                f"{self.command} {unquote(parts.path)}",
                {name: values[0] for name, values in parse_qs(parts.query).items()},
                {name.lower(): value for name, value in self.headers.items()},
                self.body(),
            )
            with lock:
                workspace.asked.append(request.line)
                answer = workspace.answer(request)
            if answer is HANG_UP:
                self.hang_up()
            else:
                self.answer(answer.status, answer.content, **answer.headers)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = answer_any  # noqa: N815  # http.server's own names

    with https_server(Service, authority) as url:
        workspace.url = url
        yield workspace
