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

KINDS = ("schedule", "online endpoint", "batch endpoint", "model", "environment")
"""What is looked for, in the order in which it is taken away: what watches before what is watched."""


@dataclass(frozen=True)
class Found:
    """A thing of this package in a workspace."""

    kind: str
    name: str
    version: str | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" + (f" {self.version}" if self.version else "")


def find(client: MLClient) -> list[Found]:
    """All that carries this package's tag, in the order of KINDS. Raises ServerError."""
    with arm.told("The workspace"):
        found = [Found("schedule", one.name) for one in _ours(client.schedules.list(list_view_type="All"))]
        found += [Found("online endpoint", one.name) for one in _ours(client.online_endpoints.list())]
        found += [Found("batch endpoint", one.name) for one in _ours(client.batch_endpoints.list())]
        found += [Found("model", one.name, one.version) for one in _versions(client.models)]
        found += [Found("environment", one.name, one.version) for one in _versions(client.environments)]
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
                poller = operations.begin_delete(thing.name)
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
        "online endpoint": delete(client.online_endpoints),
        "batch endpoint": delete(client.batch_endpoints),
        "schedule": delete_schedule,
        "model": archive(client.models),
        "environment": archive(client.environments),
    }


def _ours(things: Iterable[Any]) -> Iterable[Any]:
    return (one for one in things if arm.is_ours(one.tags))


def _versions(operations: Any) -> Iterable[Any]:
    """The versions with the tag that aren't archived yet; without a name the client lists names alone."""
    return (one for name in operations.list() for one in _ours(operations.list(name=name.name)))
