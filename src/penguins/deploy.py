"""Put a version on a Databricks serving endpoint; it becomes champion once the endpoint gives the right answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
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
    Raises ModelError for a version that can't be served, ParameterError for a share that can't be given, ServerError
    when the endpoint didn't get there.
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
    if settings.traffic < 100 and version == reading:
        raise ParameterError(
            f"Version {version.number} of {version.name} is the champion: a share is for a challenger, name it "
            "(--version)."
        )
    report(STEPS[1])
    if before is None:
        # Not within the block: what could not be made must not be undone, it may be somebody else's by now.
        endpoint.create(client, endpoint.configuration(name, *after))
    change = _Change(client, name, before is None, former, after, settings.timeout, report)
    with change.put_back_on_failure():
        change.make(known)
        report(STEPS[4])
        require_right(name, endpoint.ask(client, name, known[0]), known[1], exact=settings.traffic == 100)
        moved = settings.traffic == 100 and make_champion(version, reading)
    return Deployed(version, name, settings.traffic, change.is_needed, moved)


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


@dataclass
class _Change:
    """A change of an endpoint from one configuration to another."""

    client: WorkspaceClient
    name: str
    is_new: bool
    former: Shares
    after: Shares
    """The version to deploy stands last."""
    timeout: float
    report: Report
    begun: bool = field(default=False, init=False)
    """Whether the endpoint may have been changed; while it isn't, what it has may be somebody else's by now."""

    @property
    def is_needed(self) -> bool:
        """Whether the endpoint doesn't serve already what it is to serve."""
        return _says(self.former) != _says(self.after)

    def make(self, known: tuple[pd.DataFrame, pd.DataFrame]) -> None:
        """Start the version (a new endpoint starts it already), ask it beside the others, and give it its share."""
        if self.is_new:
            endpoint.wait(self.client, self.name, self.timeout)
        if self.is_new or not self.is_needed:
            return
        mine, _ = self.after[-1]
        if self.former:
            if mine.name not in {entity.name for entity, _ in self.former}:
                self._configure([*self.former, (mine, 0)])
            self.report(STEPS[2])
            answers = endpoint.ask(self.client, self.name, known[0], mine.name)
            require_right(f"{self.name} ({mine.name})", answers, known[1])
        self.report(STEPS[3])
        self._configure(self.after)

    @contextmanager
    def put_back_on_failure(self) -> Iterator[None]:
        """Give the endpoint its former configuration back when the block fails, and say so."""
        try:
            yield
        except BaseException as error:
            if not self.is_new and not self.begun:
                raise
            self.report(PUTTING_BACK)
            outcome = self._put_back()
            if not isinstance(error, PenguinsError):
                raise
            raise type(error)(f"{error} {outcome} The champion is the one it was.") from error

    def _put_back(self) -> str:
        """Undo what was done, and say in a sentence how that went."""
        try:
            if self.is_new:
                endpoint.delete(self.client, self.name)
                return f"The new endpoint {self.name} is deleted again."
            if not self.former:
                return f"{self.name} served nothing before."
            self._configure(self.former, patience=self.timeout)
        except ServerError as error:
            return f"It could not be put back: {error} Look at {self.name} in the workspace."
        return f"{self.name} has its former configuration again."

    def _configure(self, shares: Shares, patience: float = 0) -> None:
        before, self.begun = self.begun, True
        try:
            endpoint.update(self.client, endpoint.configuration(self.name, *shares), patience)
        except ServerError as error:
            self.begun = before or not endpoint.is_refusal(error)
            raise
        endpoint.wait(self.client, self.name, self.timeout)


def _says(shares: Shares) -> list[tuple[object, ...]]:
    """What a configuration says of the things we set; a workspace tells more back, and in any order."""
    said = [
        (one.name, one.entity_name, one.entity_version, one.workload_size, one.scale_to_zero_enabled, share)
        for one, share in shares
    ]
    return sorted(said, key=str)
