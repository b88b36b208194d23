"""Score files on a batch endpoint of Azure Machine Learning: put a version there, send a file, fetch the answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from penguins import batch_endpoint, online_endpoint, serving_copy, submit
from penguins.acceptance import accepted_against
from penguins.config import DEFAULT_BATCH_ENDPOINT, BatchServing, Report, silent
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
    settings: BatchServing,
    name: str = DEFAULT_BATCH_ENDPOINT,
    report: Report = silent,
) -> None:
    """Make `version` the one that the batch endpoint `name` scores with, on a compute cluster of the workspace.

    The version must be the champion, or one that the gate accepted against the present champion. The endpoint is made
    if there is none. Deployments of other versions stay, and cost nothing while no job runs.
    Raises ModelError for a version that can't be deployed, ParameterError without the compute, ServerError otherwise.
    """
    accepted_against(version)
    submit.require_compute(client, settings.compute)
    report(STEPS[0])
    model = serving_copy.register(client, version)
    report(STEPS[1])
    if batch_endpoint.read_state(client, name) is None:
        batch_endpoint.create(client, name, settings.timeout)
    report(STEPS[2])
    batch_endpoint.start(client, name, online_endpoint.deployment_name(version), model, settings)


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


def undeploy(name: str = DEFAULT_BATCH_ENDPOINT, *, client: MLClient, timeout: float = BatchServing.timeout) -> bool:
    """Delete the endpoint; False if there is none. The model and what was written stay. Raises ServerError."""
    return batch_endpoint.delete(client, name, timeout)
