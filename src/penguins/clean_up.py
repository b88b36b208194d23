"""Find what this package made in an Azure Machine Learning workspace, by its tag, and take it away."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penguins import arm, monitor_schedule
from penguins.config import Report, silent

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

TIMEOUT = 1800.0
"""Seconds for one thing to be deleted."""

KINDS = (
    "schedule", "online deployment", "online endpoint", "batch deployment", "batch endpoint", "model", "environment",
    "data",
)  # fmt: skip
"""What is looked for, in the order in which it is taken away: what watches before what is watched."""


@dataclass(frozen=True)
class Found:
    """A thing of this package in a workspace."""

    kind: str
    name: str
    """Of a deployment, `<endpoint>/<deployment>`."""
    version: str | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" + (f" {self.version}" if self.version else "")


def find(client: MLClient) -> list[Found]:
    """All that carries this package's tag, in the order of KINDS. Raises ServerError.

    An endpoint that is another's, or on which another has a deployment, isn't listed, but our deployments on it are.
    """
    with arm.told("The workspace"):
        found = [Found("schedule", one.name) for one in _ours(client.schedules.list(list_view_type="All"))]
        found += _serving("online", client.online_endpoints, client.online_deployments)
        found += _serving("batch", client.batch_endpoints, client.batch_deployments)
        found += [Found("model", one.name, one.version) for one in _versions(client.models)]
        found += [Found("environment", one.name, one.version) for one in _versions(client.environments)]
        found += [Found("data", one.name, one.version) for one in _versions(client.data)]
    return found


def remove(client: MLClient, things: Sequence[Found], *, report: Report = silent) -> None:
    """Delete each thing, or archive it where Azure deletes none. Raises ServerError at the first that it can't."""
    for thing in things:
        report(f"Removing {thing}")
        _removers(client)[thing.kind](thing)


def _removers(client: MLClient) -> dict[str, Callable[[Found], None]]:
    def delete(operations: Any) -> Callable[[Found], None]:
        def one(thing: Found) -> None:
            with arm.told(str(thing)):
                # A deployment's own name comes before its endpoint's.
                poller = operations.begin_delete(*reversed(thing.name.split("/")))
            arm.finish(poller, str(thing), TIMEOUT)

        return one

    def delete_schedule(thing: Found) -> None:
        monitor_schedule.delete(client, thing.name)

    def archive(operations: Any) -> Callable[[Found], None]:
        def one(thing: Found) -> None:
            with arm.told(str(thing)):
                operations.archive(thing.name, version=thing.version)

        return one

    return {
        "online deployment": delete(client.online_deployments),
        "online endpoint": delete(client.online_endpoints),
        "batch deployment": delete(client.batch_deployments),
        "batch endpoint": delete(client.batch_endpoints),
        "schedule": delete_schedule,
        "model": archive(client.models),
        "environment": archive(client.environments),
        "data": archive(client.data),
    }


def _ours(things: Iterable[Any]) -> Iterable[Any]:
    return (one for one in things if arm.is_ours(one.tags))


def _serving(kind: str, endpoints: Any, deployments: Any) -> list[Found]:
    """The endpoints of one kind that are ours with all that is on them, and our deployments on the others."""
    whole, parts = [], []
    for endpoint in endpoints.list():
        there = list(deployments.list(endpoint.name))
        if arm.is_ours(endpoint.tags) and all(arm.is_ours(one.tags) for one in there):
            whole.append(Found(f"{kind} endpoint", endpoint.name))
        else:
            parts += [Found(f"{kind} deployment", f"{endpoint.name}/{one.name}") for one in _ours(there)]
    return parts + whole


def _versions(operations: Any) -> Iterable[Any]:
    """The versions with the tag that aren't archived yet; without a name the client lists names alone."""
    return (one for name in operations.list() for one in _ours(operations.list(name=name.name)))
