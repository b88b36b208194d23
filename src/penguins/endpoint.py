"""A serving endpoint of a Databricks workspace: read it, configure it, wait for it, ask it, delete it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from penguins import __version__, query
from penguins.config import ServingParameters
from penguins.errors import ServerError, first_sentence
from penguins.redaction import without_secrets
from penguins.registry import Version

if TYPE_CHECKING:
    import pandas as pd
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.serving import (
        EndpointCoreConfigInput,
        EndpointCoreConfigOutput,
        ServedEntityInput,
        ServingEndpointDetailed,
    )

REACHABLE_WITHIN = 10.0
"""Seconds in which a workspace must answer at all; the SDK by itself tries for five minutes."""

REQUEST_TIMEOUT = 300
"""Seconds: Model Serving gives a request 297, and an endpoint that was scaled to zero needs some of them to wake."""

MADE_BY = "made_by"
"""The tag of what this package made, with the package's name as its value."""


def workspace(patience: int = 300, *, host: str | None = None) -> WorkspaceClient:
    """A client of the workspace at `host`, or that the environment names: DATABRICKS_HOST, a profile, the cluster's.

    The SDK goes on trying for `patience` seconds when the workspace throttles or is unavailable.
    Raises ServerError when no workspace is configured, or it doesn't answer.
    """
    import requests
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.config import Config

    host = host or os.environ.get("DATABRICKS_HOST")
    try:
        if host:
            requests.get(_with_scheme(host), timeout=REACHABLE_WITHIN, allow_redirects=False)
        config = Config(
            host=host,
            product="penguins",
            product_version=__version__,
            http_timeout_seconds=REQUEST_TIMEOUT,
            retry_timeout_seconds=patience,
        )
        return WorkspaceClient(config=config)
    except requests.RequestException as error:
        raise ServerError(
            f"The workspace {host} doesn't answer ({type(error).__name__}): check DATABRICKS_HOST."
        ) from error
    except ValueError as error:
        raise ServerError(
            f"No Databricks workspace is configured ({first_sentence(error)}): run `databricks auth login`, or set "
            "DATABRICKS_HOST and a credential such as DATABRICKS_TOKEN."
        ) from error


def read(client: WorkspaceClient, name: str) -> ServingEndpointDetailed | None:
    """The endpoint as it is now; None if there is none. Raises ServerError when the workspace doesn't tell."""
    from databricks.sdk.errors import NotFound

    with _told(client, name):
        try:
            return client.serving_endpoints.get(name)
        except NotFound:
            return None


def is_updating(endpoint: ServingEndpointDetailed) -> bool:
    """Whether a change of the endpoint's configuration is under way."""
    from databricks.sdk.service.serving import EndpointStateConfigUpdate

    return endpoint.state is not None and endpoint.state.config_update == EndpointStateConfigUpdate.IN_PROGRESS


def served(version: Version, settings: ServingParameters) -> ServedEntityInput:
    """What an endpoint is told to serve a version, under a name that says which."""
    from databricks.sdk.service.serving import ServedEntityInput

    return ServedEntityInput(
        name=f"{version.name.rpartition('.')[2]}-{version.number}",
        entity_name=version.name,
        entity_version=str(version.number),
        workload_size=settings.workload_size,
        scale_to_zero_enabled=settings.scale_to_zero,
    )


def configuration(name: str, *shares: tuple[ServedEntityInput, int]) -> EndpointCoreConfigInput:
    """The configuration in which each entity gets its share of the traffic, in percent."""
    from databricks.sdk.service.serving import EndpointCoreConfigInput, Route, TrafficConfig

    routes = [Route(served_model_name=str(entity.name), traffic_percentage=share) for entity, share in shares]
    entities = [entity for entity, _ in shares]
    return EndpointCoreConfigInput(name=name, served_entities=entities, traffic_config=TrafficConfig(routes=routes))


def shares(endpoint: ServingEndpointDetailed) -> list[tuple[ServedEntityInput, int]]:
    """What the endpoint serves at the moment, as it would be told again, with the traffic in percent of each."""
    from databricks.sdk.service.serving import ServedEntityInput

    config = endpoint.config
    if config is None or not config.served_entities:
        return []
    known = ServedEntityInput.__dataclass_fields__
    entities = [
        ServedEntityInput.from_dict({key: value for key, value in entity.as_dict().items() if key in known})
        for entity in config.served_entities
    ]
    traffic = _traffic(config)
    return [(entity, traffic.get(str(entity.name), 0 if traffic else 100)) for entity in entities]


def create(client: WorkspaceClient, config: EndpointCoreConfigInput) -> None:
    """Make an endpoint; it isn't ready then. Raises ServerError."""
    from databricks.sdk.service.serving import EndpointTag

    with _told(client, str(config.name)):
        client.serving_endpoints.create(
            str(config.name), config=config, tags=[EndpointTag(key=MADE_BY, value="penguins")]
        )


def update(client: WorkspaceClient, config: EndpointCoreConfigInput, timeout: float = 0) -> None:
    """Tell an endpoint its new configuration, which it doesn't have then; it goes on with the one it has until then.

    While another change is under way the workspace refuses, which is tried again for `timeout` seconds.
    Raises ServerError.
    """
    from databricks.sdk.errors import ResourceConflict
    from databricks.sdk.retries import retried

    def put() -> None:
        client.serving_endpoints.update_config(
            str(config.name), served_entities=config.served_entities, traffic_config=config.traffic_config
        )

    with _told(client, str(config.name)):
        if timeout:
            retried(on=[ResourceConflict], timeout=timedelta(seconds=timeout))(put)()
        else:
            put()


def is_refusal(error: ServerError) -> bool:
    """Whether the workspace said no; False where the answer was lost, or the workspace failed on the way."""
    from databricks.sdk import errors

    # Where the SDK gave up trying, the last refusal stands behind that.
    cause = error.__cause__.__cause__ if isinstance(error.__cause__, TimeoutError) else error.__cause__
    kinds = (errors.BadRequest, errors.Unauthenticated, errors.PermissionDenied, errors.NotFound)
    return isinstance(cause, (*kinds, errors.ResourceConflict, errors.TooManyRequests))


def wait(client: WorkspaceClient, name: str, timeout: float) -> None:
    """Return when no change is under way any more and the endpoint is ready.

    Raises ServerError when the change failed, or `timeout` seconds have passed.
    """
    from databricks.sdk.errors import DeadlineExceeded, InternalError
    from databricks.sdk.errors.base import DatabricksError
    from databricks.sdk.retries import retried
    from databricks.sdk.service.serving import EndpointStateConfigUpdate, EndpointStateReady

    failures = (EndpointStateConfigUpdate.UPDATE_FAILED, EndpointStateConfigUpdate.UPDATE_CANCELED)

    def look() -> None:
        try:
            endpoint = client.serving_endpoints.get(name)
        except DatabricksError as error:
            # The SDK itself doesn't try again; one stumble of the workspace must not undo a good deployment.
            if isinstance(error, (InternalError, DeadlineExceeded)) or _is_bad_gateway(error):
                raise _NotReadyError(_said(error)) from error
            raise
        state = endpoint.state
        if state is not None and state.config_update in failures:
            said = "; ".join(_messages(endpoint)) or "the workspace doesn't say why"
            raise ServerError(f"The update of {name} failed: {said}.")
        # A configuration that is no longer being updated can still belong to an endpoint that isn't ready.
        if state is None or is_updating(endpoint) or state.ready != EndpointStateReady.READY:
            raise _NotReadyError("; ".join(_messages(endpoint)))

    with _told(client, name):
        try:
            retried(on=[_NotReadyError], timeout=timedelta(seconds=timeout))(look)()
        except TimeoutError as error:
            if not isinstance(error.__cause__, _NotReadyError):
                raise
            state = f" ({error.__cause__})" if str(error.__cause__) else ""
            raise ServerError(f"{name} was not ready within {timeout:g} seconds{state}.") from error


def ask(client: WorkspaceClient, name: str, rows: pd.DataFrame, entity: str | None = None) -> pd.DataFrame:
    """What the endpoint, or one of the entities it serves whatever its share of the traffic, answers to each row.

    The columns are those of `query.ask`. Raises ServerError, with the endpoint's own sentence where it has one.
    """
    place = f"/serving-endpoints/{name}" + (f"/served-models/{entity}" if entity else "")
    with _told(client, name, right="CAN QUERY on the endpoint"):
        answer = client.api_client.do("POST", f"{place}/invocations", body=query.body(rows))
    return query.answers(name, answer, rows)


def delete(client: WorkspaceClient, name: str) -> bool:
    """Delete an endpoint; False if there is none. Raises ServerError."""
    from databricks.sdk.errors import NotFound

    with _told(client, name):
        try:
            client.serving_endpoints.delete(name)
        except NotFound:
            return False
    return True


class _NotReadyError(Exception):
    """The endpoint isn't ready; the text is what its entities say, or the workspace that failed to tell."""


def _traffic(config: EndpointCoreConfigOutput) -> dict[str, int]:
    routes = (config.traffic_config and config.traffic_config.routes) or []
    return {str(route.served_model_name or route.served_entity_name): route.traffic_percentage for route in routes}


def _messages(endpoint: ServingEndpointDetailed) -> list[str]:
    """What the entities that are being deployed say of it."""
    config = endpoint.pending_config or endpoint.config
    states = [(entity.name, entity.state) for entity in (config and config.served_entities) or []]
    return [
        f"{name}: {state.deployment_state_message}"
        for name, state in states
        if state and state.deployment_state_message
    ]


@contextmanager
def _told(
    client: WorkspaceClient, name: str, *, right: str = "CAN MANAGE on the endpoint and EXECUTE on the model"
) -> Iterator[None]:
    """Turn what the SDK raises within the block into one sentence about the endpoint `name`.

    `right` is what somebody needs for it.
    """
    import requests
    from databricks.sdk.errors.base import DatabricksError

    try:
        yield
    except DatabricksError as error:
        raise ServerError(_sentence(name, error, right)) from error
    except TimeoutError as error:
        # The SDK gave up; what it tried to get past stands behind it.
        cause = error.__cause__
        if isinstance(cause, DatabricksError):
            raise ServerError(_sentence(name, cause, right)) from error
        raise ServerError(_unreachable(client, cause or error)) from error
    except (requests.RequestException, ValueError) as error:
        raise ServerError(_unreachable(client, error)) from error


def _unreachable(client: WorkspaceClient, error: BaseException) -> str:
    return f"The workspace {client.config.host} can't be asked ({type(error).__name__}): check the network, try again."


def _said(error: Any) -> str:
    """What the workspace said, without the full stop."""
    # The SDK puts its whole configuration behind a refusal.
    message = str(error).partition(". Config: ")[0]
    return without_secrets(query.without_input(message)).rstrip(".") or type(error).__name__


def _is_bad_gateway(error: Any) -> bool:
    """Whether it is a 502, for which the SDK has no class."""
    return bool(re.search(r"\b502\b|bad.?gateway", f"{error.error_code} {error}", re.IGNORECASE))


def _sentence(name: str, error: Any, right: str) -> str:
    """What the workspace said, and what to do."""
    from databricks.sdk import errors

    said = _said(error)
    # A rate limit isn't one that an endpoint less would help against.
    is_rate = isinstance(error, errors.TooManyRequests)
    if re.search("quota" if is_rate else r"quota|exceed\w*.*\blimit", said, re.IGNORECASE):
        return f"The workspace is at a limit ({said}): delete an endpoint that nobody needs, or ask for a higher quota."
    failed = "the workspace failed: try again, and look at the platform's status page"
    # What is a kind of another stands before it.
    advice: list[tuple[type[Exception], str]] = [
        (errors.Unauthenticated, "sign in again (`databricks auth login`), or renew the token"),
        (errors.PermissionDenied, f"ask for {right}"),
        (errors.NotFound, "check the names; `penguins deploy` makes an endpoint"),
        (errors.AlreadyExists, "somebody else has made it meanwhile: try again"),
        (errors.ResourceAlreadyExists, "somebody else has made it meanwhile: try again"),
        (errors.ResourceConflict, "another change of the endpoint is under way: wait until it is done, then try again"),
        (errors.TooManyRequests, "the workspace is busy: try again in some minutes"),
        (errors.InternalError, failed),
        (errors.DeadlineExceeded, failed),
        (errors.NotImplemented, failed),
        (errors.TemporarilyUnavailable, "the workspace is unavailable at the moment: try again in some minutes"),
        (errors.BadRequest, "look at what was asked for"),
    ]
    otherwise = failed if _is_bad_gateway(error) else "look at the workspace"
    what = next((advised for kind, advised in advice if isinstance(error, kind)), otherwise)
    return f"{name}: {said} ({type(error).__name__}); {what}."


def _with_scheme(host: str) -> str:
    return host if "://" in host else f"https://{host}"
