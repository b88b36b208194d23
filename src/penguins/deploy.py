"""Put a version on a Databricks serving endpoint; it becomes champion once the endpoint gives the right answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penguins import endpoint, flavor
from penguins.acceptance import accepted_against, make_champion, require_right
from penguins.config import DEFAULT_ENDPOINT, Report, ServingParameters, silent
from penguins.errors import ParameterError, PenguinsError, ServerError
from penguins.registry import Version

if TYPE_CHECKING:
    import pandas as pd
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.serving import ServedEntityInput, ServingEndpointDetailed

STEPS = (
    "Computing the answers to expect",
    "Starting the version",
    "Asking the version",
    "Moving the traffic",
    "Asking the endpoint",
)
"""What `deploy` reports, in order; PUTTING_BACK when it fails."""

PUTTING_BACK = "Putting the former configuration back"

Shares = list[tuple["ServedEntityInput", int]]
"""What an endpoint serves, each with its share of the traffic in percent."""


@dataclass(frozen=True)
class Deployed:
    """What a deployment led to."""

    version: Version
    endpoint: str | None
    """None where there was none and none was to be made."""
    traffic: int
    """The version's share of the endpoint's traffic, in percent."""
    changed: bool
    """Whether the endpoint was told anything new."""
    became_champion: bool


def deploy(
    version: Version,
    *,
    client: WorkspaceClient | None = None,
    name: str = DEFAULT_ENDPOINT,
    settings: ServingParameters | None = None,
    only_existing: bool = False,
    report: Report = silent,
) -> Deployed:
    """Serve `version` on the endpoint `name`, and make it champion if it gets all the traffic.

    The version must be the champion, or one that the gate accepted against the present champion
    (`promote(..., judge_only=True)`). It is started beside what is served, with no traffic; asked the rows of its own
    input example, and compared with what its JVM-free model answers here; then given its share of the traffic, and
    only then made champion. With a share below 100 percent the largest of the others gets the rest and the champion
    stays. On a wrong answer, a failure or a timeout the endpoint gets its former configuration back (a new one is
    deleted), and the alias stays. The same call again changes nothing. Without a `client`, the workspace is the one
    that the environment names.

    With `only_existing` no endpoint is made: where there is none, the version just becomes champion.
    Raises ModelError for a version that can't be served, ServerError when the endpoint didn't get there.
    """
    settings = settings or ServingParameters()
    reading = accepted_against(version)
    report(STEPS[0])
    known = flavor.known_answers(version.uri)
    client = client or endpoint.workspace()
    before = endpoint.read(client, name)
    if before is None and only_existing:
        return Deployed(version, None, 0, False, make_champion(version, reading))
    former = _settled(before, name)
    after = _shares(former, version, settings, name)
    with _put_back_on_failure(client, name, former, after, settings.timeout, report):
        changed = _roll_out(client, name, former, after, known, settings.timeout, report)
        report(STEPS[4])
        require_right(name, endpoint.ask(client, name, known[0]), known[1], exact=settings.traffic == 100)
        moved = settings.traffic == 100 and make_champion(version, reading)
    return Deployed(version, name, settings.traffic, changed, moved)


def undeploy(name: str = DEFAULT_ENDPOINT, *, client: WorkspaceClient | None = None) -> bool:
    """Delete the endpoint; False if there is none. The model and its aliases stay. Raises ServerError."""
    return endpoint.delete(client or endpoint.workspace(), name)


def _settled(before: ServingEndpointDetailed | None, name: str) -> Shares:
    """What the endpoint serves, once it is sure that nobody is changing it."""
    if before is None:
        return []
    if endpoint.is_updating(before):
        raise ServerError(f"{name} is being changed at the moment: wait until it is done, then deploy again.")
    return endpoint.shares(before)


def _shares(former: Shares, version: Version, settings: ServingParameters, name: str) -> Shares:
    """What the endpoint is to serve in the end."""
    mine = endpoint.served(version, settings)
    if settings.traffic == 100:
        return [(mine, 100)]
    others = [(entity, share) for entity, share in former if entity.name != mine.name]
    if not others:
        raise ParameterError(
            f"{name} serves no other version to share the traffic with: deploy version {version.number} with all of it."
        )
    main, _ = max(others, key=lambda other: other[1])
    return [(main, 100 - settings.traffic), (mine, settings.traffic)]


def _says(shares: Shares) -> list[tuple[object, ...]]:
    """What a configuration says of the things we set; a workspace adds others when it tells it back."""
    return [
        (one.name, one.entity_name, one.entity_version, one.workload_size, one.scale_to_zero_enabled, share)
        for one, share in shares
    ]


def _roll_out(
    client: WorkspaceClient,
    name: str,
    former: Shares,
    after: Shares,
    known: tuple[pd.DataFrame, pd.DataFrame],
    timeout: float,
    report: Report,
) -> bool:
    """Bring the endpoint from one configuration to the other; False where they are the same."""
    mine, _ = after[-1]
    report(STEPS[1])
    if not former:
        endpoint.create(client, endpoint.configuration(name, *after))
        endpoint.wait(client, name, timeout)
        return True
    if _says(former) == _says(after):
        return False
    if mine.name not in {entity.name for entity, _ in former}:
        endpoint.update(client, endpoint.configuration(name, *former, (mine, 0)))
        endpoint.wait(client, name, timeout)
        report(STEPS[2])
        require_right(f"{name} ({mine.name})", endpoint.ask(client, name, known[0], mine.name), known[1])
    report(STEPS[3])
    endpoint.update(client, endpoint.configuration(name, *after))
    endpoint.wait(client, name, timeout)
    return True


@contextmanager
def _put_back_on_failure(
    client: WorkspaceClient, name: str, former: Shares, after: Shares, timeout: float, report: Report
) -> Iterator[None]:
    """Give the endpoint its former configuration back when the block fails, and say so."""
    try:
        yield
    except (PenguinsError, KeyboardInterrupt) as error:
        if _says(former) == _says(after):
            raise
        report(PUTTING_BACK)
        outcome = _put_back(client, name, former, timeout)
        if isinstance(error, KeyboardInterrupt):
            raise
        raise type(error)(f"{error} {outcome} The champion is the one it was.") from error


def _put_back(client: WorkspaceClient, name: str, former: Shares, timeout: float) -> str:
    """Undo what was done, and say in a sentence how that went."""
    try:
        if not former:
            made = endpoint.delete(client, name)
            return f"The new endpoint {name} is deleted again." if made else "No endpoint was made."
        endpoint.update(client, endpoint.configuration(name, *former), timeout)
        endpoint.wait(client, name, timeout)
    except ServerError as error:
        return f"It could not be put back ({error}), so look at {name} in the workspace."
    return f"{name} has its former configuration again."
