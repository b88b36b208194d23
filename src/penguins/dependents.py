"""What was made for an Azure Machine Learning workspace: storage, key vault, Application Insights, registry."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from penguins import arm
from penguins.errors import ServerError

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import Workspace


def find(client: MLClient, name: str, workspace: Workspace) -> dict[str, str]:
    """The ids of what belongs to a workspace, each with the version of the interface by which Azure deletes it."""
    from azure.ai.ml.constants._common import ArmConstants, WorkspaceKind
    from azure.core.exceptions import ResourceNotFoundError

    found = {workspace.application_insights: ArmConstants.AZURE_MGMT_APPINSIGHT_API_VERSION}
    # A project's other resources are its hub's.
    if workspace._kind != WorkspaceKind.PROJECT:
        found |= {
            workspace.storage_account: ArmConstants.AZURE_MGMT_STORAGE_API_VERSION,
            workspace.key_vault: ArmConstants.AZURE_MGMT_KEYVAULT_API_VERSION,
            workspace.container_registry: ArmConstants.AZURE_MGMT_CONTAINER_REG_API_VERSION,
        }
    ids = {str(one): version for one, version in found.items() if one}
    if insights := workspace.application_insights:
        with arm.told(name), suppress(ResourceNotFoundError):
            of_insights = _resources(client).get_by_id(insights, ids[insights]).properties or {}
            if log := of_insights.get("WorkspaceResourceId"):
                ids[str(log)] = ArmConstants.AZURE_MGMT_LOGANALYTICS_API_VERSION
    return ids


def delete(client: MLClient, name: str, dependents: dict[str, str], timeout: float) -> None:
    """Delete what `find` found, and wait for each; what is gone already is no hindrance.

    Raises ServerError that names what is left, once all the others are deleted.
    """
    from azure.core.exceptions import ResourceNotFoundError

    left, reasons = [], []
    for one, version in dependents.items():
        try:
            with arm.told(one.rpartition("/")[2]):
                poller = _resources(client).begin_delete_by_id(one, version)
            arm.finish(poller, one.rpartition("/")[2], timeout)
        except ServerError as error:
            if not isinstance(error.__cause__, ResourceNotFoundError):
                left.append(one)
                reasons.append(str(error).rstrip("."))
    if left:
        raise ServerError(
            f"{name} is deleted, but not {', '.join(left)} ({'; '.join(reasons)}): delete that in the portal, or it "
            "costs."
        )


def _resources(client: MLClient) -> Any:
    """Azure's client for a resource of any kind by its id; the only one that is installed is the one in MLClient's."""
    from azure.ai.ml._vendor.azure_resources._resource_management_client import ResourceManagementClient

    manager = str(client._base_url).rstrip("/")
    scopes = [f"{manager}/.default"]
    return ResourceManagementClient(
        client._credential, client.subscription_id, base_url=manager, credential_scopes=scopes
    ).resources
