"""Score files on a batch endpoint of Azure Machine Learning: put a version there, send a file, fetch the answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from penguins import batch_endpoint, online_endpoint, registry, serving_copy, submit
from penguins.config import Report, silent
from penguins.errors import DataError
from penguins.registry import Version

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

STEPS = ("Registering the copy without Spark", "Making the endpoint", "Starting the version")
"""What `deploy` reports, in order."""


def deploy(
    version: Version,
    *,
    client: MLClient,
    compute: str,
    name: str = batch_endpoint.DEFAULT_NAME,
    instances: int = 1,
    report: Report = silent,
) -> None:
    """Make `version` the one that the batch endpoint `name` scores with, on a compute cluster of the workspace.

    The endpoint is made if there is none. Deployments of other versions stay, and cost nothing while no job runs.
    Raises ModelError for a version that isn't there, ParameterError without such a compute, ServerError otherwise.
    """
    registry.resolve(version.uri)
    submit.require_compute(client, compute)
    report(STEPS[0])
    model = serving_copy.register(client, version)
    report(STEPS[1])
    if batch_endpoint.read_state(client, name) is None:
        batch_endpoint.create(client, name)
    report(STEPS[2])
    batch_endpoint.start(client, name, online_endpoint.deployment_name(version), model, compute, instances)


def score(client: MLClient, name: str, data: str, output: Path) -> str:
    """Have the endpoint score `data`, wait, and put its answers into the file `output`; the job's name.

    The log of the job is printed. The answers are as Azure's own scoring script writes them. Raises DataError when
    there is something at `output`, or nothing at `data`; ServerError and StoppedError as `submit.follow` does.
    """
    if output.exists():
        raise DataError(f"{output} exists already: give a path that doesn't, or remove it first.")
    job, place = batch_endpoint.invoke(client, name, data)
    submit.follow(client, job)
    batch_endpoint.fetch(client, place, output)
    return job
