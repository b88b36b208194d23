"""Put a version on an Azure Machine Learning online endpoint; it becomes champion once the endpoint answers right."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from penguins import arm, azure_names, flavor, online_endpoint, serving_copy
from penguins.acceptance import accepted_against, make_champion, require_right
from penguins.config import DEFAULT_ENDPOINT, AzureServing, Report, silent
from penguins.deploy import Deployed
from penguins.errors import ParameterError, PenguinsError, ServerError
from penguins.registry import Version

if TYPE_CHECKING:
    import pandas as pd
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import OnlineDeployment, OnlineEndpoint

STEPS = (
    "Computing the answers to expect",
    "Registering the copy without Spark",
    "Making the endpoint",
    "Starting the version",
    "Asking the version",
    "Moving the traffic",
    "Asking the endpoint",
    "Removing what has no traffic any more",
)
"""What `deploy` reports, in order; PUTTING_BACK when it fails."""

PUTTING_BACK = "Giving the traffic back"

SETTLED = {"succeeded", "failed", "canceled"}
"""The states of a deployment that nobody is changing."""

Traffic = dict[str, int]
"""The share of each deployment, in percent."""


@dataclass(frozen=True)
class Before:
    """What an endpoint was before a deployment."""

    exists: bool
    traffic: Traffic
    deployments: dict[str, OnlineDeployment]
    """Each as it was, by its name."""

    def running(self, deployment: str) -> OnlineDeployment | None:
        """The deployment of this name, if it ran."""
        found = self.deployments.get(deployment)
        return found if found is not None and online_endpoint.state(found) == "succeeded" else None


def deploy(
    version: Version,
    *,
    client: MLClient,
    name: str = DEFAULT_ENDPOINT,
    settings: AzureServing | None = None,
    report: Report = silent,
) -> Deployed:
    """Serve `version` on the online endpoint `name` of a workspace, and make it champion if it gets all the traffic.

    The version must be the champion, or one that the gate accepted against the present champion
    (`promote(..., judge_only=True)`). A copy of it without Spark is registered in the workspace and started as a
    deployment of its own, with no traffic; asked the rows of its input example, and compared with what its JVM-free
    model answers here; then given its share of the traffic, and only then made champion. What has no traffic any more
    is removed after that. With a share below 100 percent the largest of the others gets the rest and the champion
    stays. On a wrong answer, a failure, a timeout or Ctrl-C the traffic goes back, the new deployment (or the new
    endpoint) is deleted, and the alias stays; the error ends with the last lines of the deployment's log. The same call
    again changes nothing; with other settings it changes the version's deployment in place, and a failure puts the
    former ones back.

    Raises ModelError for a version that can't be served, ParameterError for settings that the endpoint can't get any
    more or a name that it can't have, ServerError when the endpoint didn't get there.
    """
    settings = settings or AzureServing()
    azure_names.require("endpoint", name)
    reading = accepted_against(version)
    report(STEPS[0])
    known = flavor.known_answers(version.uri)
    before = _settled(client, name, settings)
    mine = online_endpoint.deployment_name(version)
    settings = _sized(settings, before, mine)
    after = _shares(before.traffic, mine, settings, name)
    with _put_back_on_failure(client, name, before, after, mine, settings, report):
        changed = _roll_out(client, name, version, before, after, known, settings, report)
        report(STEPS[6])
        answers = online_endpoint.ask(client, name, known[0])
        require_right(name, answers, known[1], exact=settings.traffic == 100)
        moved = settings.traffic == 100 and make_champion(version, reading)
    report(STEPS[7])
    _remove_idle(client, name, before, after, settings)
    return Deployed(version, name, settings.traffic, changed, moved)


def undeploy(name: str = DEFAULT_ENDPOINT, *, client: MLClient, timeout: float = AzureServing().timeout) -> bool:
    """Delete the endpoint; False if there is none. The model and its aliases stay. Raises ServerError."""
    return online_endpoint.delete(client, name, timeout)


def _settled(client: MLClient, name: str, settings: AzureServing) -> Before:
    """What the endpoint is, once it is sure that nobody is changing it, and that it can be what is asked for."""
    endpoint = online_endpoint.read(client, name)
    if endpoint is None:
        return Before(False, {}, {})
    deployments = online_endpoint.deployments(client, name)
    if changing := _changing(endpoint, deployments):
        raise ServerError(
            f"{name} is being changed at the moment ({', '.join(changing)}): wait until it is done, then deploy again."
        )
    _require_made_so(endpoint, name, settings)
    return Before(True, _traffic(endpoint), deployments)


def _traffic(endpoint: OnlineEndpoint) -> Traffic:
    """The shares of the deployments that have any."""
    return {one: share for one, share in endpoint.traffic.items() if share}


def _changing(endpoint: OnlineEndpoint, deployments: Mapping[str, OnlineDeployment]) -> list[str]:
    """The names of what Azure is at work on."""
    return [str(one.name) for one in (endpoint, *deployments.values()) if online_endpoint.state(one) not in SETTLED]


def _require_made_so(endpoint: OnlineEndpoint, name: str, settings: AzureServing) -> None:
    compute = (settings.compute or "").rpartition("/")[2]
    asked = {"--auth": settings.auth, "--kind": settings.kind, "--compute": compute}
    made = online_endpoint.made_with(endpoint)
    if others := [f"{option} {value}" for option, value in made.items() if value.lower() != asked[option].lower()]:
        raise ParameterError(
            f"{name} was made with {' '.join(others)}, which can't be changed: give that, or undeploy it first."
        )


def _sized(settings: AzureServing, before: Before, mine: str) -> AzureServing:
    """The settings with a number of instances: what they say, or what serves now."""
    if settings.instances is not None:
        return settings
    busiest = max(before.traffic, key=lambda one: before.traffic[one], default=mine)
    now = before.running(mine) or before.running(busiest)
    return replace(settings, instances=now.instance_count if now is not None else 1)


def _shares(former: Traffic, mine: str, settings: AzureServing, name: str) -> Traffic:
    """The traffic that the endpoint is to have in the end."""
    if settings.traffic == 100:
        return {mine: 100}
    others = {one: share for one, share in former.items() if one != mine}
    if not others:
        raise ParameterError(f"{name} serves no other version to share the traffic with: deploy {mine} with all of it.")
    return {max(others, key=lambda one: others[one]): 100 - settings.traffic, mine: settings.traffic}


def _roll_out(
    client: MLClient,
    name: str,
    version: Version,
    before: Before,
    after: Traffic,
    known: tuple[pd.DataFrame, pd.DataFrame],
    settings: AzureServing,
    report: Report,
) -> bool:
    """Bring the endpoint to the settings and the traffic that it is to have; False where it has them."""
    mine = online_endpoint.deployment_name(version)
    former = before.running(mine)
    fits = former is not None and online_endpoint.fits(former, settings)
    if fits and before.traffic == after:
        return False
    if not fits:
        report(STEPS[1])
        model = serving_copy.register(client, version)
        report(STEPS[2])
        if not before.exists:
            online_endpoint.create(client, name, settings)
        report(STEPS[3])
        _start(client, name, version, model, settings, former)
    report(STEPS[4])
    answers = online_endpoint.ask(client, name, known[0], mine)
    require_right(f"{name} ({mine})", answers, known[1])
    report(STEPS[5])
    online_endpoint.set_traffic(client, name, after, settings.timeout)
    return True


def _start(
    client: MLClient,
    name: str,
    version: Version,
    model: str,
    settings: AzureServing,
    former: OnlineDeployment | None,
) -> None:
    mine = online_endpoint.deployment_name(version)
    if not settings.own_script:
        online_endpoint.start(client, name, mine, model, settings, former=former)
        return
    environment = serving_copy.environment(version)
    with serving_copy.script_folder(serving_copy.SCRIPT) as code:
        script = (str(code), serving_copy.SCRIPT, environment)
        online_endpoint.start(client, name, mine, model, settings, script=script, former=former)


def _remove_idle(client: MLClient, name: str, before: Before, after: Traffic, settings: AzureServing) -> None:
    """Remove the deployments of this package that had traffic and have none now: each keeps a machine busy."""
    idle_now = [one for one in before.traffic if one not in after]
    ours = online_endpoint.made_here(client, name) if idle_now else set()
    for idle in [one for one in idle_now if one in ours]:
        try:
            online_endpoint.remove(client, name, idle, settings.timeout)
        except ServerError as error:
            raise ServerError(
                f"{name} serves the version, but {idle}, which has no traffic any more, can't be removed ({error}): "
                "it costs until you delete it in the studio."
            ) from error


@contextmanager
def _put_back_on_failure(
    client: MLClient,
    name: str,
    before: Before,
    after: Traffic,
    mine: str,
    settings: AzureServing,
    report: Report,
) -> Iterator[None]:
    """Give the traffic back when the block fails, remove what was started, and say so, with the log's last lines."""
    try:
        yield
    except BaseException as error:
        report(PUTTING_BACK)
        log = online_endpoint.log_tail(client, name, mine) if isinstance(error, ServerError) else None
        outcome = _put_back(client, name, before, after, mine, settings.timeout)
        if not isinstance(error, PenguinsError):
            raise
        shown = f"\nThe end of the log of {mine}:\n{log}" if log else ""
        raise type(error)(f"{error} {outcome} The champion is the one it was.{shown}") from error


def _put_back(client: MLClient, name: str, before: Before, after: Traffic, mine: str, timeout: float) -> str:
    """Undo what was done here, and nothing that others did meanwhile, and say in a sentence how that went."""
    try:
        endpoint = online_endpoint.read(client, name)
        # Somebody else may have made one of this name meanwhile.
        if not before.exists and (endpoint is None or not arm.is_ours(endpoint.tags)):
            return "No endpoint was made."
        traffic = _traffic_once_settled(client, name, timeout)
        if not before.exists:
            online_endpoint.delete(client, name, timeout)
            return f"The new endpoint {name} is deleted again."
        if traffic == after != before.traffic:
            online_endpoint.set_traffic(client, name, before.traffic, timeout)
        now, former = online_endpoint.deployments(client, name).get(mine), before.running(mine)
        # One that had failed before is as good as none.
        if now is not None and former is None and mine not in before.traffic:
            online_endpoint.remove(client, name, mine, timeout)
        if now is not None and former is not None and _differs(now, former):
            online_endpoint.send(client, former, timeout)
            return f"{name} has its former traffic and settings again."
    except ServerError as error:
        return f"It could not be put back ({error}), so look at {name} in the studio."
    if traffic not in (before.traffic, after):
        return f"{name} has the traffic that somebody else has given it meanwhile."
    return f"{name} has its former traffic again."


def _traffic_once_settled(client: MLClient, name: str, timeout: float) -> Traffic:
    """The endpoint's traffic when nothing of it is being changed, or after `timeout` seconds. Raises ServerError.

    Azure goes on with a change that nobody waits for any more, and refuses another one until that ends.
    """
    deadline = time.monotonic() + timeout
    while (endpoint := online_endpoint.read(client, name)) is not None:
        if not _changing(endpoint, online_endpoint.deployments(client, name)) or time.monotonic() > deadline:
            return _traffic(endpoint)
        time.sleep(arm.ASK_EVERY)
    return {}


def _differs(now: OnlineDeployment, former: OnlineDeployment) -> bool:
    """Whether a change of a deployment that ran has begun; one that Azure refused leaves nothing to put back."""
    return online_endpoint.state(now) != "succeeded" or online_endpoint.says(now) != online_endpoint.says(former)
