"""What is known of the bundle only when it is deployed: which version the endpoint serves, which jobs have work to do.

`databricks bundle validate` and `deploy` call `load_resources`, and then `pause_without_arrivals` for each job, with
the Python of `python.venv_path` in databricks.yml.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from databricks.bundles.core import Bundle, Resources, Variable, job_mutator, variables
from databricks.bundles.jobs import CronSchedule, Job, PauseStatus
from databricks.bundles.model_serving_endpoints import ModelServingEndpoint
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import NotFound
from databricks.sdk.errors.base import DatabricksError

from penguins import endpoint
from penguins.config import CHAMPION, WORKLOAD_SIZES, ServingParameters
from penguins.errors import ModelError, PenguinsError
from penguins.registry import Version

PATIENCE = 20
"""Seconds in which a busy workspace is asked again; one request alone may take `endpoint.REQUEST_TIMEOUT`."""


NO_ARRIVALS = "none"
"""What the variable `arrivals` is while there is no new data; the jobs' tasks `new_data` compare with it, too."""


@variables
class Variables:
    """The variables of databricks.yml that the code here depends on."""

    arrivals: Variable[str]

    host: Variable[str]
    catalog: Variable[str]
    schema: Variable[str]
    model_name: Variable[str]
    model_version: Variable[str]
    endpoint_name: Variable[str]
    endpoint_size: Variable[str]
    prefix: Variable[str]
    readers: Variable[str]


def load_resources(bundle: Bundle) -> Resources:
    """The serving endpoint with the champion, or with the version that the variable `model_version` pins.

    Without a champion the endpoint goes on with the version it serves; where there is none either, it is left out, so
    that a first deployment works. When the workspace can't tell, that is an error: an endpoint left out is deleted.
    """
    resources = Resources()  # type: ignore[no-untyped-call]  # the library leaves its constructor untyped
    if _value(bundle, Variables.arrivals) == NO_ARRIVALS:
        resources.add_diagnostic_warning(
            "The schedules of the prediction and the monitoring job are paused: "
            "the variable arrivals names no new data."
        )
    catalog, prefix = _value(bundle, Variables.catalog), _value(bundle, Variables.prefix)
    schema = f"{prefix}{_value(bundle, Variables.schema)}"
    model = f"{catalog}.{schema}.{prefix}{_value(bundle, Variables.model_name)}"
    # Without the prefix, which the target's mode puts in front of it.
    name = _value(bundle, Variables.endpoint_name)
    size, wanted = _value(bundle, Variables.endpoint_size), _value(bundle, Variables.model_version)
    if size not in WORKLOAD_SIZES:
        resources.add_diagnostic_error(f"endpoint_size is {size!r}: it must be one of {', '.join(WORKLOAD_SIZES)}.")
        return resources
    if wanted != CHAMPION and not re.fullmatch("[1-9][0-9]*", wanted):
        resources.add_diagnostic_error(
            f"model_version is {wanted!r}: it must be {CHAMPION}, or the number of a version, from 1."
        )
        return resources
    try:
        number = _version(wanted, model, f"{prefix}{name}", _value(bundle, Variables.host))
    except (PenguinsError, DatabricksError, TimeoutError, ValueError) as error:
        resources.add_diagnostic_error(f"It isn't known which version of {model} the endpoint is to serve: {error}")
        return resources
    if number is None:
        resources.add_diagnostic_warning(
            f"The endpoint {prefix}{name} is left out: {model} has no champion yet. "
            "Run `databricks bundle run training`, then deploy again."
        )
        return resources
    entity = endpoint.served(Version(model, number), ServingParameters(size))
    # Checked when it is made: an unknown field or a value that isn't allowed raises.
    described: Any = {
        "name": name,
        "config": {
            "served_entities": [entity.as_dict()],
            "traffic_config": {"routes": [{"served_model_name": str(entity.name), "traffic_percentage": 100}]},
        },
        "ai_gateway": {
            "inference_table_config": {
                "enabled": True,
                "catalog_name": catalog,
                "schema_name": schema,
                "table_name_prefix": "predict_penguin",
            }
        },
        "permissions": [{"group_name": _value(bundle, Variables.readers), "level": "CAN_QUERY"}],
        "tags": [{"key": endpoint.MADE_BY, "value": "penguins"}],
    }
    resources.add_model_serving_endpoint("predict_penguin", ModelServingEndpoint.from_dict(described))
    return resources


@job_mutator
def pause_without_arrivals(bundle: Bundle, job: Job) -> Job:
    """Pause a job's schedule, whatever the target says, while there is no new data to score and to watch."""
    schedule = job.schedule
    if not isinstance(schedule, CronSchedule) or _value(bundle, Variables.arrivals) != NO_ARRIVALS:
        return job
    return replace(job, schedule=replace(schedule, pause_status=PauseStatus.PAUSED))


def _value(bundle: Bundle, variable: Variable[str]) -> str:
    """What a variable is for the target."""
    # The library's own annotation doesn't take its own Variable.
    return bundle.resolve_variable(variable)  # type: ignore[arg-type]


def _version(wanted: str, model: str, name: str, host: str) -> int | None:
    """The number that is pinned, or that the champion has, or that the endpoint serves; None where there is none."""
    if wanted != CHAMPION:
        return int(wanted)
    client = endpoint.workspace(PATIENCE, host=host or None)
    return _champion(client, model) or _served(client, model, name)


def _champion(client: WorkspaceClient, model: str) -> int | None:
    try:
        return client.model_versions.get_by_alias(model, CHAMPION).version
    except NotFound:
        return None


def _served(client: WorkspaceClient, model: str, name: str) -> int | None:
    """The version of the model that has most of the endpoint's traffic.

    Raises ModelError when the endpoint serves only another model.
    """
    found = endpoint.read(client, name)
    shares = endpoint.shares(found) if found else []
    ours = [(share, entity) for entity, share in shares if entity.entity_name == model]
    if shares and not ours:
        raise ModelError(
            f"{name} serves {shares[0][0].entity_name}, and this model has no champion yet: deploy with the former "
            f"names, or delete the endpoint first (`penguins undeploy --to databricks --endpoint {name}`)."
        )
    return int(str(max(ours, key=lambda one: one[0])[1].entity_version)) if ours else None
