"""Make and delete workspaces: Azure Machine Learning's and Databricks', in the first region that has room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penguins import arm, azure_names, dependents
from penguins.azureml import Workspace as Place
from penguins.config import Report, silent
from penguins.errors import ParameterError, ServerError

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.mgmt.databricks import AzureDatabricksManagementClient

REGIONS = (
    *("westeurope", "northeurope", "swedencentral", "francecentral", "uksouth", "germanywestcentral"),
    *("eastus", "eastus2", "centralus", "westus2", "westus3", "canadacentral"),
    *("southeastasia", "australiaeast", "japaneast", "centralindia"),
)
"""Regions in which both kinds of workspace are offered; the first that wasn't tried is what a message names."""

TIMEOUT = 3600.0
"""Seconds for a workspace to be made or deleted; it takes minutes."""

FAILED = "Failed"
"""The state of a workspace that Azure began to make and couldn't."""


@dataclass(frozen=True)
class Provisioned:
    """A workspace, and what it took to get it."""

    name: str
    region: str
    created: bool
    """False where it was there already."""
    tried: tuple[str, ...]
    """The regions that had no room, in order."""


@dataclass(frozen=True)
class Found:
    """A workspace that is there, as Azure tells it."""

    region: str
    state: str
    ours: bool


def create_azureml(
    client: MLClient, resource_group: str, name: str, regions: Sequence[str], *, report: Report = silent
) -> Provisioned:
    """Make an Azure Machine Learning workspace, with its storage, key vault and Application Insights.

    `client` is one of the subscription and the resource group. The first of `regions` that has room is taken; a
    workspace that is there already is left as it is, but what a failed attempt of this package left is deleted first.
    Raises ServerError when none has, somebody else's attempt is in the way, or Azure refuses otherwise, and
    ParameterError for a name that no workspace can have.
    """
    from azure.ai.ml.entities import Workspace

    azure_names.require("workspace", name)

    def look() -> Found:
        # The client's own workspace doesn't tell the state.
        found = client.workspaces._operation.get(resource_group, name)
        return Found(found.location, arm.word(found.provisioning_state), arm.is_ours(found.tags))

    def create(region: str) -> None:
        asked = Workspace(name=name, location=region, resource_group=resource_group, tags=dict(arm.MADE_BY))
        arm.finish(client.workspaces.begin_create(asked), f"{name} in {region}", TIMEOUT)

    def delete() -> None:
        # One that can be recovered would keep the name.
        with arm.told(name):
            poller = client.workspaces.begin_delete(name, delete_dependent_resources=False, permanently_delete=True)
        arm.finish(poller, name, TIMEOUT)

    return _provision(name, regions, look, create, delete, report)


def delete_azureml(client: MLClient, name: str, *, with_dependents: bool) -> bool:
    """Delete a workspace with all that is in it, and wait for it; False if there is none.

    `with_dependents` then deletes its storage, key vault, Application Insights with its log, and container registry;
    those that are gone already are no hindrance. The workspace can be recovered for a while. Raises ServerError; where
    the workspace is deleted and some of the others aren't, it names them.
    """
    from azure.core.exceptions import ResourceNotFoundError

    with arm.told(name):
        try:
            found = client.workspaces.get(name)
        except ResourceNotFoundError as error:
            if not arm.is_in_group(error):
                raise
            return False
    belongings = dependents.find(client, name, found) if with_dependents else {}
    with arm.told(name):
        # The client's own way to the others takes one that is gone for the workspace, and waits for none.
        poller = client.workspaces.begin_delete(name, delete_dependent_resources=False)
    arm.finish(poller, name, TIMEOUT)
    dependents.delete(client, name, belongings, TIMEOUT)
    return True


def create_databricks(
    client: AzureDatabricksManagementClient, place: Place, regions: Sequence[str], *, report: Report = silent
) -> Provisioned:
    """Make a Premium Databricks workspace, which serving and Unity Catalog need; `regions` as in `create_azureml`."""
    from azure.mgmt.databricks.models import Sku, Workspace, WorkspaceProperties

    resource_group, name = place.resource_group, place.name
    azure_names.require("databricks-workspace", name)
    managed = f"/subscriptions/{place.subscription}/resourceGroups/databricks-rg-{name}"

    def look() -> Found:
        found = client.workspaces.get(resource_group, name)
        return Found(found.location, arm.word(found.properties.provisioning_state), arm.is_ours(found.tags))

    def create(region: str) -> None:
        asked = Workspace(
            location=region,
            sku=Sku(name="premium"),
            properties=WorkspaceProperties(managed_resource_group_id=managed, compute_mode="Hybrid"),
            tags=dict(arm.MADE_BY),
        )
        poller = client.workspaces.begin_create_or_update(resource_group, name, asked)
        arm.finish(poller, f"{name} in {region}", TIMEOUT)

    def delete() -> None:
        delete_databricks(client, place)

    return _provision(name, regions, look, create, delete, report)


def delete_databricks(client: AzureDatabricksManagementClient, place: Place) -> bool:
    """Delete a Databricks workspace with all that is in it, and wait for it; False if there is none.

    Its managed resource group goes with it. Raises ServerError.
    """
    from azure.core.exceptions import ResourceNotFoundError

    resource_group, name = place.resource_group, place.name
    with arm.told(name):
        try:
            client.workspaces.get(resource_group, name)
        except ResourceNotFoundError as error:
            if not arm.is_in_group(error):
                raise
            return False
        poller = client.workspaces.begin_delete(resource_group, name)
    arm.finish(poller, name, TIMEOUT)
    return True


def _provision(
    name: str,
    regions: Sequence[str],
    look: Callable[[], Found],
    create: Callable[[str], None],
    delete: Callable[[], None],
    report: Report,
) -> Provisioned:
    if not regions:
        raise ParameterError("There is no region to try: name one, such as westeurope (--region).")
    found = _there(name, look)
    if found is not None and found.state != FAILED:
        return Provisioned(name, found.region, False, ())
    _clear(name, found, delete)
    for place, region in enumerate(regions):
        report(f"Making {name} in {region}")
        try:
            with arm.told(f"{name} in {region}"):
                create(region)
        except ServerError as error:
            if not arm.is_about_region(error.__cause__):
                raise
            # What Azure accepted first and then failed to make is still there, and holds the name in its region.
            _clear(name, _there(name, look), delete)
            if place == len(regions) - 1:
                raise ServerError(_no_room(error, regions)) from error
        else:
            made = _there(name, look)
            return Provisioned(name, made.region if made else region, True, tuple(regions[:place]))
    raise AssertionError("the last region either had room or raised")


def _there(name: str, look: Callable[[], Found]) -> Found | None:
    from azure.core.exceptions import ResourceNotFoundError

    with arm.told(name):
        try:
            return look()
        except ResourceNotFoundError as error:
            if not arm.is_in_group(error):
                raise
            return None


def _clear(name: str, found: Found | None, delete: Callable[[], None]) -> None:
    """Delete what a failed attempt of this package left; what isn't ours is refused."""
    if found is None or found.state != FAILED:
        return
    if not found.ours:
        raise ServerError(
            f"{name} is there in {found.region}, but somebody else's attempt to make it failed: delete it, or give "
            "another name."
        )
    delete()


def _no_room(error: ServerError, tried: Sequence[str]) -> str:
    another = next((region for region in REGIONS if region not in tried), None)
    also = f" Tried: {', '.join(tried)}." if len(tried) > 1 else ""
    return f"{error}{also} The next region to try is {another} (--region {another})." if another else f"{error}{also}"
