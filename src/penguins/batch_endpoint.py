"""A batch endpoint of an Azure Machine Learning workspace: make it, have it score a file, fetch what it wrote."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penguins import arm
from penguins.config import BatchServing

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import Environment

SUMMARY = "predictions.csv"
"""The file in which Azure says which files were scored; the script's own files lie beside it."""

RETRIES, PATIENCE = 3, 3600
"""How often Azure tries a few files again, and how many seconds it gives them; its own 30 are few for a large file."""


def read_state(client: MLClient, name: str) -> str | None:
    """How far Azure has got with the endpoint (`succeeded`, ...); None if there is none. Raises ServerError."""
    from azure.core.exceptions import ResourceNotFoundError

    with arm.told(name):
        try:
            return arm.word(client.batch_endpoints.get(name).provisioning_state).lower()
        except ResourceNotFoundError as error:
            if not arm.is_missing(error):
                raise
            return None


def create(client: MLClient, name: str, timeout: float) -> None:
    """Make an endpoint that has no deployment yet, and wait for it. Raises ServerError."""
    from azure.ai.ml.entities import BatchEndpoint

    with arm.told(name):
        poller = client.batch_endpoints.begin_create_or_update(BatchEndpoint(name=name, tags=dict(arm.MADE_BY)))
    arm.finish(poller, name, timeout)


def start(
    client: MLClient,
    name: str,
    deployment: str,
    model: str,
    settings: BatchServing,
    script: tuple[str, str, Environment],
) -> None:
    """Make a registered model, by its asset's id, the one that the endpoint scores with. Raises ServerError.

    `script` is a folder, the scoring script in it, and what it runs in. The script writes the answers itself.
    """
    from azure.ai.ml.constants import BatchDeploymentOutputAction
    from azure.ai.ml.entities import (
        BatchRetrySettings,
        CodeConfiguration,
        ModelBatchDeployment,
        ModelBatchDeploymentSettings,
    )

    folder, file, environment = script
    jobs = ModelBatchDeploymentSettings(
        mini_batch_size=10,
        instance_count=settings.instances,
        output_action=BatchDeploymentOutputAction.SUMMARY_ONLY,
        retry_settings=BatchRetrySettings(max_retries=RETRIES, timeout=PATIENCE),
        # Azure's own value is -1: a file that fails is left out, and the job ends well.
        error_threshold=0,
    )
    with arm.told(deployment):
        asked = ModelBatchDeployment(
            name=deployment,
            endpoint_name=name,
            model=model,
            code_configuration=CodeConfiguration(code=folder, scoring_script=file),
            environment=environment,
            compute=settings.compute,
            settings=jobs,
            tags=dict(arm.MADE_BY),
        )
        poller = client.batch_deployments.begin_create_or_update(asked)
    arm.finish(poller, deployment, settings.timeout)
    with arm.told(name):
        endpoint = client.batch_endpoints.get(name)
        endpoint.defaults = {"deployment_name": deployment}
        poller = client.batch_endpoints.begin_create_or_update(endpoint)
    arm.finish(poller, name, settings.timeout)


def invoke(client: MLClient, name: str, data: str) -> tuple[str, str]:
    """Have the endpoint score a file or a folder, which is uploaded, or data in Azure; the job, and where it writes.

    Where it writes is the address of a folder in the workspace's own storage. Raises DataError when there is no such
    file, ServerError.
    """
    from azure.ai.ml import Output

    given = arm.data(client, data)
    with arm.told(name):
        store = client.datastores.get_default().name
        place = f"azureml://datastores/{store}/paths/penguins-batch/{uuid.uuid4().hex}/"
        target = Output(type="uri_file", path=f"{place}{SUMMARY}")
        job = client.batch_endpoints.invoke(endpoint_name=name, inputs={"data": given}, outputs={"score": target})
    return str(job.name), place


def fetch(client: MLClient, place: str, suffix: str, folder: Path) -> list[Path]:
    """Download what a job has written to `place` in files that end in `suffix`, into `folder`; in order of their names.

    Raises ServerError, OSError when `folder` can't be written.
    """
    from azure.storage.blob import ContainerClient

    path = place.partition("/paths/")[2]
    with arm.told("The answers"):
        store: Any = client.datastores.get_default(include_secrets=True)
        secret = _secret(client, store)
        with ContainerClient(_account(store), str(store.container_name), credential=secret) as container:
            names = sorted(str(name) for name in container.list_blob_names(name_starts_with=path))
            fetched = []
            for name in [name for name in names if name.endswith(suffix)]:
                fetched.append(folder / name.rpartition("/")[2])
                with fetched[-1].open("wb") as file:
                    container.download_blob(name).readinto(file)
    return fetched


def delete(client: MLClient, name: str, timeout: float) -> bool:
    """Delete an endpoint with its deployments, and wait for it; False if there is none. Raises ServerError."""
    if read_state(client, name) is None:
        return False
    with arm.told(name):
        poller = client.batch_endpoints.begin_delete(name)
    arm.finish(poller, name, timeout)
    return True


def _account(store: Any) -> str:
    """The address of the storage account of a datastore for blobs."""
    return f"{store.protocol}://{store.account_name}.blob.{store.endpoint}"


def _secret(client: MLClient, store: Any) -> Any:
    """The storage's key or signature; where it has none, whoever asks must have a role on it."""
    secret = getattr(store.credentials, "account_key", None) or getattr(store.credentials, "sas_token", None)
    return secret or client._credential
