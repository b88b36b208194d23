"""Which workspace, and who asks for it: arguments, environment, config.json; never a browser."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from azure.ai.ml import MLClient
from azure.identity import (
    AzureCliCredential,
    EnvironmentCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)
from click.testing import CliRunner

from penguins import azureml
from penguins.azureml import Workspace, workspace
from penguins.cli import main
from penguins.errors import StoreError
from penguins.tracking import Tracking
from tests import test_azureml_link as link
from tests.azureml.mlflow_workspace import ASSERTION, MlflowWorkspace
from tests.azureml.tls import Authority
from tests.test_cli import PENGUINS

pytestmark = pytest.mark.azureml

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
ONE = Workspace(SUBSCRIPTION, "birds(west)", "penguins-ws")
URI = (
    "azureml://westeurope.api.azureml.ms/mlflow/v2.0/subscriptions/11111111-2222-3333-4444-555555555555"
    "/resourceGroups/birds(west)/providers/Microsoft.MachineLearningServices/workspaces/penguins-ws"
)
FILE = {"subscription_id": SUBSCRIPTION, "resource_group": "birds(west)", "workspace_name": "penguins-ws"}


@pytest.fixture(autouse=True)
def here(trusted: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder three levels deep to look for config.json from."""
    folder = tmp_path / "one" / "two" / "three"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def test_arguments_say_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZUREML_ARM_WORKSPACE_NAME", "another")
    assert workspace(SUBSCRIPTION, "birds(west)", "penguins-ws") == ONE
    assert workspace(SUBSCRIPTION, "birds(west)", "penguins-ws", region="westeurope").tracking_uri == URI


@pytest.mark.parametrize(
    "names",
    [
        ("AZUREML_ARM_SUBSCRIPTION", "AZUREML_ARM_RESOURCEGROUP", "AZUREML_ARM_WORKSPACE_NAME"),
        ("AZUREML_ARM_SUBSCRIPTION_ID", "AZUREML_ARM_RESOURCEGROUP", "AZUREML_ARM_WORKSPACE_NAME"),
        ("AZUREML_SUBSCRIPTION_ID", "AZUREML_RESOURCE_GROUP", "AZUREML_WORKSPACE_NAME"),
        ("AZURE_SUBSCRIPTION_ID", "AZURE_RESOURCE_GROUP", "AZUREML_WORKSPACE_NAME"),
    ],
)
def test_the_environment_says_it(monkeypatch: pytest.MonkeyPatch, here: Path, names: tuple[str, ...]) -> None:
    (here / "config.json").write_text("{}")  # not looked at: a workspace comes from one place
    for name, value in zip(names, (SUBSCRIPTION, "birds(west)", "penguins-ws"), strict=True):
        monkeypatch.setenv(name, value)
    assert workspace() == ONE
    monkeypatch.setenv("AZUREML_REGION", "westeurope")
    assert workspace().tracking_uri == URI
    assert workspace(name="another", region="northeurope") == Workspace(
        SUBSCRIPTION, "birds(west)", "another", "northeurope.api.azureml.ms"
    )


@pytest.mark.parametrize("version", ["v1.0", "v2.0"])
def test_a_tracking_uri_in_the_environment_says_it(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", URI.replace("v2.0", version))
    assert workspace() == Workspace(SUBSCRIPTION, "birds(west)", "penguins-ws", "westeurope.api.azureml.ms")
    assert workspace().tracking_uri == URI


def test_a_name_as_an_argument_completes_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZUREML_SUBSCRIPTION_ID", SUBSCRIPTION)
    assert workspace(resource_group="birds(west)", name="penguins-ws") == ONE
    with pytest.raises(StoreError, match=r"is meant: resource_group is missing\. "):
        workspace(name="penguins-ws")
    monkeypatch.setenv("AZUREML_RESOURCE_GROUP", "birds(west)")
    assert workspace(name="penguins-ws") == ONE


def test_another_name_than_the_tracking_uris_has_not_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", URI)
    assert workspace(name="another") == Workspace(SUBSCRIPTION, "birds(west)", "another")
    assert workspace(name="penguins-ws").host == "westeurope.api.azureml.ms"
    with pytest.raises(StoreError, match=r"^The region of the workspace another isn't known: set AZUREML_REGION\.$"):
        _ = workspace(name="another").tracking_uri


def test_a_subscription_alone_in_the_environment_is_none_of_a_workspace(
    monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    monkeypatch.setenv("AZURE_SUBSCRIPTION_ID", "somebody-else")
    (here / "config.json").write_text(json.dumps(FILE))
    assert workspace() == ONE


@pytest.mark.parametrize(
    "place",
    ["config.json", ".azureml/config.json", "../config.json", "../.azureml/config.json", "../../../config.json"],
)
def test_the_file_is_found_where_azures_client_finds_it(here: Path, place: str) -> None:
    path = here / place
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(FILE))
    theirs = MLClient.from_config(AzureCliCredential())
    assert workspace() == ONE
    assert (theirs.subscription_id, theirs.resource_group_name, theirs.workspace_name) == (
        *(SUBSCRIPTION, "birds(west)", "penguins-ws"),
    )


def test_of_several_files_the_one_that_azures_client_takes(here: Path) -> None:
    for number, place in enumerate(
        ["config.json", ".azureml/config.json", "../config.json", "../.azureml/config.json"]
    ):
        path = here / place
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({**FILE, "workspace_name": f"number{number}"}))
    for _ in range(4):
        taken = workspace().name
        assert taken == MLClient.from_config(AzureCliCredential()).workspace_name
        [path] = [path for path in here.parent.rglob("config.json") if taken in path.read_text()]
        path.unlink()


ID = ONE.id


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    "content",
    [FILE, {"Scope": ID, "Id": None}, {"Scope": f"{ID}/"}, {**FILE, "Scope": None}, {**FILE, "extra": [1]}],
    ids=["portal", "scope", "scope with a slash", "no scope", "more"],
)
def test_the_file_may_be_of_any_kind_that_azures_tools_write(
    here: Path, content: dict[str, Any], encoding: str
) -> None:
    (here / "config.json").write_text(json.dumps(content, indent=4), encoding=encoding)
    assert workspace() == ONE
    if encoding != "utf-16":
        theirs = MLClient.from_config(AzureCliCredential())
        assert (theirs.subscription_id, theirs.resource_group_name, theirs.workspace_name) == (
            *(SUBSCRIPTION, "birds(west)", "penguins-ws"),
        )


def test_capitals_blanks_and_another_name_of_the_file_are_no_matter(here: Path) -> None:
    other = {"Subscription_Id": f" {SUBSCRIPTION}", "RESOURCE_GROUP": "birds(west)", "workspace_name": "penguins-ws\n"}
    (here / "project.json").write_text(json.dumps(other))
    assert workspace() == ONE
    (here / "project.json").write_text(json.dumps({"scope": ID.replace("resourceGroups", "resourcegroups")}))
    assert workspace() == ONE
    (here.parent / "config.json").write_text(json.dumps({**FILE, "workspace_name": "another"}))
    assert workspace().name == MLClient.from_config(AzureCliCredential()).workspace_name == "another"


def test_azures_client_reads_what_the_init_script_writes(tmp_path: Path, here: Path) -> None:
    root = tmp_path / "root of a cluster"
    for folder in ("databricks/spark/conf", "databricks/python/bin"):
        (root / folder).mkdir(parents=True)
    pip = root / "databricks/python/bin/pip"
    pip.write_text("#!/bin/sh\n")
    pip.chmod(0o755)
    done = link.run(root)
    assert (done.returncode, done.stderr) == (0, "")
    # A notebook's process on the driver runs in this folder.
    os.chdir(root / "databricks/driver")
    theirs = MLClient.from_config(AzureCliCredential())
    assert (theirs.subscription_id, theirs.resource_group_name, theirs.workspace_name) == (
        *(SUBSCRIPTION, "birds(west)", "penguins-ws"),
    )
    assert workspace() == ONE
    assert Workspace.of(link.exported(root)["MLFLOW_TRACKING_URI"]).tracking_uri == URI


def test_nothing_says_it() -> None:
    with pytest.raises(StoreError) as raised:
        workspace(resource_group="birds(west)")
    assert str(raised.value) == (
        "It isn't known which Azure Machine Learning workspace is meant: subscription_id, workspace_name is missing. "
        "Set AZUREML_SUBSCRIPTION_ID, AZUREML_RESOURCE_GROUP and AZUREML_WORKSPACE_NAME, or put the workspace's "
        "config.json into this folder."
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}", "subscription_id"),
        ("[1]", "indices"),
        ("no json", "Expecting value"),
        (
            json.dumps({**FILE, "resource_group": None, "workspace_name": " "}),
            "resource_group, workspace_name says nothing",
        ),
    ],
)
def test_a_file_that_says_nothing_is_named(here: Path, text: str, reason: str) -> None:
    (here / "config.json").write_text(text)
    with pytest.raises(
        StoreError, match=rf"^{here}/config\.json names no workspace \(.*{reason}.*\): it must be a JSON "
    ):
        workspace()


@pytest.mark.parametrize("uri", ["azureml://somewhere", URI.replace("/workspaces/", "/registries/"), f"{URI}/more"])
def test_another_uri_is_told(uri: str) -> None:
    with pytest.raises(StoreError, match=r" is no tracking URI of a workspace: it must be like azureml://<region>"):
        Workspace.of(uri)


OLD = {
    f"adbazureml://westeurope.experiments.azureml.net/history/v1.0{ID}": URI,
    f"adbazureml://westeurope.api.azureml.ms/mlflow/v1.0{ID}?": URI,
    "adbazureml://somewhere": (
        "like azureml://<region>.api.azureml.ms/mlflow/v2.0/subscriptions/<id>/resourceGroups/<group>/providers/"
        "Microsoft.MachineLearningServices/workspaces/<name>"
    ),
}


@pytest.mark.parametrize(("old", "new"), OLD.items())
def test_the_scheme_of_before_is_named_with_todays_address(
    here: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    sentence = (
        f"adbazureml:// is no scheme of MLflow's plugin for Azure Machine Learning any more: give {new}, or azureml, "
        "which finds the workspace by itself."
    )
    for make in (lambda: Tracking(old), lambda: Tracking("sqlite:///mlflow.db", old)):
        with pytest.raises(StoreError) as raised:
            make()
        assert str(raised.value) == sentence
    done = CliRunner().invoke(main, ["promote", "--tracking-uri", old])
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", f"Error: {sentence}\n")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", old)
    with pytest.raises(StoreError) as raised:
        workspace()
    assert str(raised.value) == sentence
    assert list(here.iterdir()) == []


def test_an_address_of_run_history_is_told_with_todays() -> None:
    with pytest.raises(StoreError, match=f"it must be {re.escape(URI)}\\.$"):
        Workspace.of(f"azureml://westeurope.experiments.azureml.net/history/v1.0{ID}")


def test_the_first_credential_that_is_configured_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(azureml.credential(), AzureCliCredential)
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:9/token")
    assert isinstance(azureml.credential(), ManagedIdentityCredential)
    monkeypatch.setenv("OBO_ENDPOINT", "http://127.0.0.1:9/token")
    assert type(azureml.credential()).__name__ == "AzureMLOnBehalfOfCredential"
    monkeypatch.setenv("AZURE_TENANT_ID", "adfs")
    monkeypatch.setenv("AZURE_CLIENT_ID", "somebody")
    with pytest.raises(StoreError) as raised:
        azureml.credential()
    assert str(raised.value) == (
        "AZURE_TENANT_ID and AZURE_CLIENT_ID name a service principal, but there is none of AZURE_CLIENT_SECRET, "
        "AZURE_CLIENT_CERTIFICATE_PATH, AZURE_FEDERATED_TOKEN_FILE: set one of them."
    )
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", "token")
    assert isinstance(azureml.credential(), WorkloadIdentityCredential)
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "something")
    assert isinstance(azureml.credential(), EnvironmentCredential)


def test_a_platforms_token_stands_for_a_secret(
    workspace: MlflowWorkspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_CLIENT_SECRET")
    (tmp_path / "token").write_text(ASSERTION)
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    azureml.require(workspace.uri)
    (tmp_path / "token").write_text("another")
    with pytest.raises(StoreError, match=r"^There is no token for Azure \(") as raised:
        azureml.require(workspace.uri)
    assert "another" not in str(raised.value)


@pytest.mark.parametrize("configured", ["nothing", "managed identity", "service principal"])
def test_without_a_token_it_is_one_sentence_within_ten_seconds(
    here: Path, monkeypatch: pytest.MonkeyPatch, configured: str
) -> None:
    """The first step of every command, before Spark starts."""
    if configured == "managed identity":
        monkeypatch.setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:9/token")
        monkeypatch.setenv("IDENTITY_HEADER", "something")
    elif configured == "service principal":
        monkeypatch.setenv("AZURE_TENANT_ID", "adfs")
        monkeypatch.setenv("AZURE_CLIENT_ID", "somebody")
        monkeypatch.setenv("AZURE_CLIENT_SECRET", "s3cr3t")
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(StoreError) as raised:
        azureml.require(URI.replace("westeurope.api.azureml.ms", "127.0.0.1:9"))
    assert time.monotonic() - began < azureml.PATIENCE + 1
    assert "\n" not in str(raised.value)
    assert "s3cr3t" not in str(raised.value)


def test_the_command_line_says_it_too(here: Path) -> None:
    done = subprocess.run(
        [PENGUINS, "train", "--tracking-uri", URI], cwd=here, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert (done.returncode, done.stdout) == (1, "")
    [sentence] = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert sentence.startswith("Error: There is no token for Azure (")
    assert "run `az login`, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET" in sentence
    assert "Traceback" not in done.stderr


def test_looking_for_a_workspace_loads_none_of_azures_clients() -> None:
    code = (
        "import sys, penguins.azureml as a\n"
        "a.workspace('s', 'g', 'n', region='westeurope').tracking_uri\n"
        "assert not {'azure', 'azureml', 'mlflow'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
