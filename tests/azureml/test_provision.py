"""Workspaces: made and deleted by the real clients, on an Azure on this machine whose regions can be full."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

from penguins.cli import main
from tests.azureml.arm import (
    DEPENDENTS,
    GROUP,
    LOG,
    PROVIDERS,
    SECRETS,
    SUBSCRIPTION,
    TOKEN,
    WORKSPACE,
    Azure,
    configure,
    refused,
    running,
)
from tests.azureml.tls import Authority

pytestmark = pytest.mark.azureml

FULL = {
    "code": "DeploymentFailed",
    "message": "At least one resource deployment operation failed.",
    "details": [
        {"code": "QuotaExceeded", "message": "The subscription's quota of 1 workspace in this region is used."}
    ],
}
NOT_OFFERED = {
    "code": "LocationNotAvailableForResourceType",
    "message": "The provided location 'uksouth' is not available for resource type 'Microsoft.Databricks/workspaces'.",
}


@pytest.fixture
def azure(trusted: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Azure]:
    with running(Azure(), trusted) as azure:
        configure(azure, monkeypatch)
        yield azure


def command(*arguments: str, answer: str = "") -> Result:
    return CliRunner().invoke(main, [*arguments], input=answer)


def test_a_workspace_is_made_once(azure: Azure, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    create = ("azureml", "workspace", "create", "--name", "ross-sea", "--region", "northeurope")
    result = command(*create)
    assert (result.exit_code, result.stdout) == (0, "ross-sea is made, in northeurope.\n"), result.output
    made = azure.workspaces["ross-sea"]
    assert made["location"] == "northeurope"
    assert made["tags"]["made_by"] == "penguins"
    result = command(*create, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"name": "ross-sea", "region": "northeurope", "created": False, "tried": []}
    for secret in (*SECRETS, TOKEN):
        assert secret not in result.output + caplog.text


def test_a_full_region_names_the_next_one(azure: Azure) -> None:
    azure.failing["template westeurope"] = FULL
    result = command("azureml", "workspace", "create", "--name", "ross-sea", "--region", "westeurope")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        "Error: ross-sea in westeurope: The subscription's quota of 1 workspace in this region is used; free some of "
        "the quota, ask for more, or take another size or region. The next region to try is northeurope (--region "
        "northeurope)."
    )
    assert "ross-sea" not in azure.workspaces


def test_regions_are_tried_in_order(azure: Azure) -> None:
    azure.failing |= {"databricks westeurope": FULL, "databricks uksouth": NOT_OFFERED}
    create = ("databricks-workspace", "create", "--name", "weddell-sea", "--try-regions")
    result = command(*create, "westeurope, uksouth,francecentral")
    assert (result.exit_code, result.stdout.splitlines()) == (0, [
        "There was no room in westeurope.", "There was no room in uksouth.", "weddell-sea is made, in francecentral.",
    ]), result.output  # fmt: skip
    made = azure.databricks["weddell-sea"]
    assert made["sku"] == {"name": "premium"}
    assert made["tags"] == {"made_by": "penguins"}
    assert made["properties"]["managedResourceGroupId"] == (
        f"/subscriptions/{SUBSCRIPTION}/resourceGroups/databricks-rg-weddell-sea"
    )


def test_the_first_workspace_needs_no_other(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZUREML_WORKSPACE_NAME")
    monkeypatch.delenv("AZUREML_RESOURCE_GROUP")
    result = command(
        *("azureml", "workspace", "create", "--name", "ross-sea", "--resource-group", GROUP, "--region", "westeurope")
    )
    assert (result.exit_code, result.stdout) == (0, "ross-sea is made, in westeurope.\n"), result.output


def test_what_a_full_region_leaves_is_in_nobodys_way(azure: Azure) -> None:
    azure.failing["template westeurope"] = FULL
    result = command(
        *("azureml", "workspace", "create", "--name", "ross-sea", "--try-regions", "westeurope,northeurope", "--json")
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "name": "ross-sea", "region": "northeurope", "created": True, "tried": ["westeurope"],
    }  # fmt: skip
    assert azure.workspaces["ross-sea"]["location"] == "northeurope"
    assert azure.workspaces["ross-sea"]["properties"] == {}


@pytest.mark.parametrize(
    ("group", "key", "name"),
    [("azureml workspace", "template westeurope", "ross-sea"),
     ("databricks-workspace", "databricks westeurope", "weddell-sea")],
)  # fmt: skip
def test_a_failed_workspace_is_not_one_that_is_there(azure: Azure, group: str, key: str, name: str) -> None:
    held = azure.workspaces if group.startswith("azureml") else azure.databricks
    create = (*group.split(), "create", "--name", name, "--region", "westeurope")
    azure.failing[key] = {"code": "InternalError", "message": "Something went wrong."}
    assert command(*create).exit_code == 1
    assert held[name]["properties"]["provisioningState"] == "Failed"
    azure.failing.clear()
    held[name]["tags"] = {"made_by": "somebody"}
    result = command(*create)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (1, (
        f"Error: {name} is there in westeurope, but somebody else's attempt to make it failed: delete it, or give "
        "another name."
    )), result.output  # fmt: skip
    held[name]["tags"] = {"made_by": "penguins"}
    result = command(*create)
    assert (result.exit_code, result.stdout) == (0, f"{name} is made, in westeurope.\n"), result.output
    assert held[name]["properties"].get("provisioningState") != "Failed"
    assert command(*create).stdout == f"{name} was there already, in westeurope.\n"


def test_what_exists_elsewhere_is_no_lack_of_room() -> None:
    from azure.core.exceptions import HttpResponseError

    from penguins import arm

    assert arm.is_about_region(HttpResponseError("It is not available in the location uksouth."))
    assert not arm.is_about_region(HttpResponseError("The resource 'x' already exists in location 'uksouth'."))


def test_when_no_region_has_room_all_are_named(azure: Azure) -> None:
    azure.failing |= {"databricks westeurope": FULL, "databricks uksouth": NOT_OFFERED}
    result = command("databricks-workspace", "create", "--name", "weddell-sea", "--try-regions", "westeurope,uksouth")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].endswith(
        "Tried: westeurope, uksouth. The next region to try is northeurope (--region northeurope)."
    )
    assert azure.databricks == {}


def test_another_refusal_is_no_reason_to_go_elsewhere(azure: Azure) -> None:
    azure.fail("PUT .*/Microsoft.Databricks/", refused(403, "AuthorizationFailed", "You may not make workspaces."))
    result = command("databricks-workspace", "create", "--name", "weddell-sea", "--try-regions", "westeurope,uksouth")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(
        "Error: weddell-sea in westeurope: You may not make workspaces; ask for a role that allows it"
    )
    assert len([line for line in azure.changes() if line.startswith("PUT")]) == 1


def test_deleting_asks_first_and_says_what_goes_with_it(azure: Azure) -> None:
    delete = ("azureml", "workspace", "delete", "--name", WORKSPACE)
    result = command(*delete, answer="n\n")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[0] == (
        f"{WORKSPACE} (resource group {GROUP}, subscription {SUBSCRIPTION}) is deleted with all its runs, models, "
        "endpoints, computes and schedules. Its storage, key vault, Application Insights and container registry stay, "
        "and may cost."
    )
    assert WORKSPACE in azure.workspaces
    result = command(*delete, answer="y\n")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"{WORKSPACE} is deleted."
    assert azure.workspaces == {}
    result = command(*delete, "--yes")
    assert (result.exit_code, result.stdout) == (0, f"There is no {WORKSPACE}: nothing to delete.\n"), result.output


def test_what_belongs_to_a_workspace_goes_with_it_where_that_is_asked_for(azure: Azure) -> None:
    delete = ("azureml", "workspace", "delete", "--name", WORKSPACE, "--yes")
    there = set(azure.dependents)
    assert command(*delete).stdout == f"{WORKSPACE} is deleted.\n"
    assert azure.dependents == there
    azure.workspaces[WORKSPACE] = {"location": "westeurope", "tags": {}, "properties": {}}
    assert command(*delete, "--with-dependents").stdout == f"{WORKSPACE} is deleted.\n"
    assert (azure.workspaces, azure.dependents) == ({}, set())


@pytest.mark.parametrize("gone", list(DEPENDENTS.values()))
def test_what_is_gone_already_does_not_keep_the_rest(azure: Azure, gone: str) -> None:
    azure.dependents.remove(gone)
    result = command("azureml", "workspace", "delete", "--name", WORKSPACE, "--yes", "--with-dependents")
    assert (result.exit_code, result.stdout) == (0, f"{WORKSPACE} is deleted.\n"), result.output
    assert azure.workspaces == {}
    # Without Application Insights nobody knows any more where its log was.
    assert azure.dependents == ({LOG} if gone == DEPENDENTS["applicationInsights"] else set())


def test_what_of_a_workspace_is_left_is_named(azure: Azure) -> None:
    azure.fail("DELETE .*/Microsoft.KeyVault/", refused(403, "AuthorizationFailed", "You may not delete vaults."))
    azure.failing[f"delete {DEPENDENTS['storageAccount']}"] = {"code": "InUse", "message": "The account is in use."}
    result = command("azureml", "workspace", "delete", "--name", WORKSPACE, "--yes", "--with-dependents")
    assert (result.exit_code, azure.workspaces) == (1, {})
    assert azure.dependents == {DEPENDENTS["storageAccount"], DEPENDENTS["keyVault"]}
    said = result.stderr.splitlines()[-1]
    places = [f"{PROVIDERS}/{DEPENDENTS[kind]}" for kind in ("storageAccount", "keyVault")]
    assert said.startswith(f"Error: {WORKSPACE} is deleted, but not {', '.join(places)} (flock: The account is in use;")
    assert said.endswith("): delete that in the portal, or it costs.")


def test_a_workspace_that_can_not_be_deleted_keeps_what_belongs_to_it(azure: Azure) -> None:
    there = set(azure.dependents)
    azure.fail("DELETE .*/Microsoft.MachineLearningServices/", refused(409, "ScopeLocked", "The workspace is locked."))
    result = command("azureml", "workspace", "delete", "--name", WORKSPACE, "--yes", "--with-dependents")
    assert (result.exit_code, list(azure.workspaces), azure.dependents) == (1, [WORKSPACE], there)
    assert "The workspace is locked" in result.stderr


def test_a_databricks_workspace_is_deleted(azure: Azure) -> None:
    command("databricks-workspace", "create", "--name", "weddell-sea", "--region", "westeurope")
    assert list(azure.databricks) == ["weddell-sea"]
    result = command("databricks-workspace", "delete", "--name", "weddell-sea", answer="y\n")
    assert result.exit_code == 0, result.output
    assert "The managed resource group goes with it, and what is in its storage." in result.stdout
    assert azure.databricks == {}
    result = command("databricks-workspace", "delete", "--name", "weddell-sea", "--yes", "--json")
    assert json.loads(result.stdout) == {"workspace": "weddell-sea", "deleted": False}


def test_a_resource_group_that_is_not_there_is_told(azure: Azure) -> None:
    gone = refused(404, "ResourceGroupNotFound", "Resource group 'birds' could not be found.")
    azure.fail("/Microsoft.Databricks/", gone)
    result = command("databricks-workspace", "create", "--name", "weddell-sea", "--region", "westeurope")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        "Error: weddell-sea: Resource group 'birds' could not be found; check the subscription, the resource group, "
        "the workspace and the name."
    )


def test_json_asks_nothing() -> None:
    result = command("azureml", "workspace", "delete", "--name", WORKSPACE, "--json")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, "Error: --json asks nothing: add --yes.")
    result = command("azureml", "workspace", "create", "--name", WORKSPACE)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, "Error: Give --region, or --try-regions.")
