"""Score files on a batch endpoint of Azure Machine Learning: put a version there, send a file, fetch the answers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from penguins import azure_names, batch_endpoint, online_endpoint, serving_copy, submit
from penguins.acceptance import accepted_against
from penguins.config import DEFAULT_BATCH_ENDPOINT, BatchServing, Report, silent
from penguins.errors import DataError, ServerError, StoppedError
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
    azure_names.require("endpoint", name)
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
    there is something at `output`, it can't be written, or there is nothing at `data`; ServerError and StoppedError as
    `submit.follow` does. When the answers can't be fetched or written, the error says where in Azure they are.
    """
    azure_names.require("endpoint", name)
    with _beside(output) as whole:
        job, place = batch_endpoint.invoke(client, name, data)
        there = f"Look for the answers in the workspace's storage: {place}"
        try:
            submit.follow(client, job)
        except KeyboardInterrupt as error:
            raise StoppedError(f"The job {job} goes on, and costs, until it is done or cancelled. {there}") from error
        try:
            batch_endpoint.fetch(client, place, whole)
            _require_free(output)
            whole.rename(output)
        except OSError as error:
            raise DataError(f"{output} can't be written: {error.strerror or error}. {there}") from error
        except (DataError, ServerError) as error:
            raise type(error)(f"{error} {there}") from error
    return job


@contextmanager
def _beside(output: Path) -> Iterator[Path]:
    """A place for a file in the folder of `output`, which is made; what is there after the block is removed.

    Made before a job, because a job costs money. Raises DataError when there is something at `output`, or can't be.
    """
    _require_free(output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.", ignore_cleanup_errors=True)
    except OSError as error:
        raise DataError(
            f"{output} can't be written ({output.parent}: {error.strerror or error}): give another --output."
        ) from error
    with folder:
        yield Path(folder.name, output.name)


def _require_free(output: Path) -> None:
    if output.exists():
        raise DataError(f"{output} exists already: give a path that doesn't, or remove it first.")


def undeploy(name: str = DEFAULT_BATCH_ENDPOINT, *, client: MLClient, timeout: float = BatchServing.timeout) -> bool:
    """Delete the endpoint; False if there is none. The model and what was written stay. Raises ServerError."""
    azure_names.require("endpoint", name)
    return batch_endpoint.delete(client, name, timeout)
