"""A Databricks workspace on this machine, as far as serving goes: it keeps state, is strict, and fails when told to.

Questions to an endpoint go to real scoring servers of the real models.
"""

from __future__ import annotations

import copy
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

import requests
from databricks.sdk.service.serving import ServedEntityInput

TOKEN = "dapi-loopback-f00d"
"""The one token that the workspace takes; no output may ever have it."""

NEVER = 10**9

Answer = tuple[int, dict[str, Any]]
Headers = dict[str, str]


def refused(status: int, code: str, message: str) -> Answer:
    return status, {"error_code": code, "message": message}


@dataclass
class Failure:
    """What to answer instead, so many times, to requests whose "METHOD /path" the pattern is found in."""

    pattern: str
    answer: Answer
    times: int
    headers: Headers


@dataclass
class Workspace:
    """What the workspace holds, and what it was asked."""

    scorers: dict[str, str] = field(default_factory=dict)
    """The address of the scoring server of each version, by its number."""
    polls: int = 1
    """How often a change is looked at before it is done."""
    update_fails: bool = False
    aliases: dict[str, str] = field(default_factory=dict)
    endpoints: dict[str, dict[str, Any]] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    questions: int = 0
    host: str = ""

    def fail(self, pattern: str, answer: Answer, *, times: int = NEVER, headers: Headers | None = None) -> None:
        self.failures.append(Failure(pattern, answer, times, headers or {}))

    def changes(self) -> list[str]:
        """What was asked for that changes something."""
        return [line for line in self.asked if not line.startswith("GET") and not line.endswith("/invocations")]

    def shares(self, name: str) -> dict[str, int]:
        """The traffic of each version that the endpoint serves."""
        config = self.endpoints[name]["config"]
        versions = {entity["name"]: entity["entity_version"] for entity in config["served_entities"]}
        routes = config["traffic_config"]["routes"]
        return {versions[route["served_model_name"]]: route["traffic_percentage"] for route in routes}

    def answer(self, line: str, body: dict[str, Any]) -> Answer:
        for pattern, respond in ROUTES.items():
            if found := re.fullmatch(pattern, line):
                return respond(self, body, *found.groups())
        return refused(404, "ENDPOINT_NOT_FOUND", f"No API found for '{line}'")


def create(workspace: Workspace, body: dict[str, Any]) -> Answer:
    name = body["name"]
    if name in workspace.endpoints:
        return refused(400, "RESOURCE_ALREADY_EXISTS", f"Endpoint with name '{name}' already exists.")
    endpoint = {"name": name, "tags": body.get("tags", []), "state": {"ready": "NOT_READY"}}
    workspace.endpoints[name] = endpoint
    return start(workspace, endpoint, body["config"])


def update(workspace: Workspace, body: dict[str, Any], name: str) -> Answer:
    if (endpoint := workspace.endpoints.get(name)) is None:
        return absent(name)
    go_on(workspace, endpoint)
    if endpoint["state"]["config_update"] == "IN_PROGRESS":
        return refused(409, "RESOURCE_CONFLICT", f"Endpoint '{name}' is currently being updated.")
    return start(workspace, endpoint, body)


def start(workspace: Workspace, endpoint: dict[str, Any], config: dict[str, Any]) -> Answer:
    entities = config["served_entities"]
    for entity in entities:
        if unknown := set(entity) - set(ServedEntityInput.__dataclass_fields__):
            return refused(400, "INVALID_PARAMETER_VALUE", f"Unknown fields {unknown}.")
        if not isinstance(entity["entity_version"], str):
            return refused(400, "INVALID_PARAMETER_VALUE", "entity_version must be a string.")
    routes = config["traffic_config"]["routes"]
    if {route["served_model_name"] for route in routes} != {entity["name"] for entity in entities}:
        return refused(400, "INVALID_PARAMETER_VALUE", "The routes must name the served entities.")
    if len(routes) != len(entities) or sum(route["traffic_percentage"] for route in routes) != 100:
        return refused(400, "INVALID_PARAMETER_VALUE", "The traffic must add up to 100.")
    # The real one tells more back than it was told, and promises no order.
    told_back = [{**entity, "workload_type": "CPU", "creator": "somebody"} for entity in reversed(entities)]
    pending = {"served_entities": told_back, "traffic_config": config["traffic_config"]}
    endpoint["pending_config"] = pending
    endpoint["state"]["config_update"] = "IN_PROGRESS"
    endpoint["polls"] = workspace.polls
    return 200, shown(endpoint)


def read(workspace: Workspace, _: dict[str, Any], name: str) -> Answer:
    if (endpoint := workspace.endpoints.get(name)) is None:
        return absent(name)
    answer = shown(endpoint)
    go_on(workspace, endpoint)
    return 200, answer


def go_on(workspace: Workspace, endpoint: dict[str, Any]) -> None:
    """A step nearer to the end of the change that is under way."""
    endpoint["polls"] -= 1
    if endpoint["polls"] == 0 and workspace.update_fails and not endpoint.get("failed_once"):
        endpoint["failed_once"] = True
        endpoint["state"]["config_update"] = "UPDATE_FAILED"
        for entity in endpoint["pending_config"]["served_entities"]:
            entity["state"] = {"deployment": "DEPLOYMENT_FAILED", "deployment_state_message": "no image was built"}
    elif endpoint["polls"] == 0:
        endpoint["config"] = endpoint.pop("pending_config")
        # The configuration is settled a moment before the endpoint is ready.
        endpoint["state"]["config_update"] = "NOT_UPDATING"
    elif endpoint["polls"] < 0 and "config" in endpoint:
        endpoint["state"]["ready"] = "READY"


def shown(endpoint: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy({key: value for key, value in endpoint.items() if key not in {"polls", "failed_once"}})


def delete(workspace: Workspace, _: dict[str, Any], name: str) -> Answer:
    return (200, {}) if workspace.endpoints.pop(name, None) else absent(name)


def absent(name: str) -> Answer:
    return refused(404, "RESOURCE_DOES_NOT_EXIST", f"Endpoint with name '{name}' does not exist.")


def ask(workspace: Workspace, body: dict[str, Any], name: str, entity: str | None = None) -> Answer:
    """Let a version answer: the one that is named, or each as often as its share says."""
    if (endpoint := workspace.endpoints.get(name)) is None:
        return absent(name)
    if endpoint["state"]["ready"] != "READY":
        return refused(400, "INVALID_STATE", f"Endpoint '{name}' is not ready.")
    config = endpoint["config"]
    if entity is None:
        place = workspace.questions % 100
        workspace.questions += 1
        turns = [route["served_model_name"] for route in config["traffic_config"]["routes"]
                 for _ in range(route["traffic_percentage"])]  # fmt: skip
        entity = turns[place]
    versions = {one["name"]: one["entity_version"] for one in config["served_entities"]}
    if entity not in versions:
        return refused(404, "RESOURCE_DOES_NOT_EXIST", f"There is no served model '{entity}'.")
    answer = requests.post(f"{workspace.scorers[versions[entity]]}/invocations", json=body, timeout=60)
    return answer.status_code, answer.json()


def version_of_alias(workspace: Workspace, _: dict[str, Any], model: str, alias: str) -> Answer:
    if (version := workspace.aliases.get(f"{model}@{alias}")) is None:
        return refused(404, "RESOURCE_DOES_NOT_EXIST", f"Alias '{alias}' does not exist.")
    catalog, schema, name = model.split(".")
    return 200, {"catalog_name": catalog, "schema_name": schema, "model_name": name, "version": int(version)}


def me(workspace: Workspace, _: dict[str, Any]) -> Answer:
    return 200, {"id": "1", "userName": "ada@example.com", "displayName": "Ada", "active": True}


def make_folder(workspace: Workspace, body: dict[str, Any]) -> Answer:
    workspace.folders.add(body["path"])
    return 200, {}


def status_of(workspace: Workspace, body: dict[str, Any]) -> Answer:
    if (path := body["path"]) not in workspace.folders:
        return refused(404, "RESOURCE_DOES_NOT_EXIST", f"Path ({path}) doesn't exist.")
    return 200, {"path": path, "object_type": "DIRECTORY", "object_id": 1}


ROUTES: dict[str, Callable[..., Answer]] = {
    r"GET /\.well-known/databricks-config": lambda workspace, body: (404, {}),
    r"GET /api/2\.0/preview/scim/v2/Me": me,
    r"POST /api/2\.0/workspace/mkdirs": make_folder,
    r"GET /api/2\.0/workspace/get-status": status_of,
    r"POST /api/2\.0/serving-endpoints": create,
    r"GET /api/2\.0/serving-endpoints/([^/]+)": read,
    r"PUT /api/2\.0/serving-endpoints/([^/]+)/config": update,
    r"DELETE /api/2\.0/serving-endpoints/([^/]+)": delete,
    r"POST /serving-endpoints/([^/]+)/invocations": ask,
    r"POST /serving-endpoints/([^/]+)/served-models/([^/]+)/invocations": ask,
    r"GET /api/2\.1/unity-catalog/models/([^/]+)/aliases/([^/]+)": version_of_alias,
}


@contextmanager
def running(workspace: Workspace) -> Iterator[Workspace]:
    """Serve the workspace on a free port for the block."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            path, _, query = self.path.partition("?")
            line = f"{self.command} {path}"
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with lock:
                workspace.asked.append(line)
                failure = next((one for one in workspace.failures if re.search(one.pattern, line) and one.times), None)
                headers: Headers = {}
                if self.headers.get("Authorization") != f"Bearer {TOKEN}" and "well-known" not in path:
                    status, answer = refused(401, "UNAUTHENTICATED", "Invalid access token.")
                elif failure is not None:
                    failure.times -= 1
                    (status, answer), headers = failure.answer, failure.headers
                else:
                    status, answer = workspace.answer(line, json.loads(sent) if sent else dict(parse_qsl(query)))
            payload = json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_any  # noqa: N815  # http.server's own names

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    workspace.host = f"http://127.0.0.1:{server.server_port}"
    try:
        yield workspace
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
