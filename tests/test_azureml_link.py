"""The cluster's init script, run by bash in a root folder of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

SCRIPT = ROOT / "resources" / "azureml_link.sh"
SECRET = "s3cr3t~with'quotes\"and $(spaces)"
LINK = {
    "AZUREML_LINK": "on",
    "AZUREML_SUBSCRIPTION_ID": "11111111-2222-3333-4444-555555555555",
    "AZUREML_RESOURCE_GROUP": "birds(west)",
    "AZUREML_WORKSPACE_NAME": "penguins-ws",
    "AZUREML_REGION": "westeurope",
    "AZURE_TENANT_ID": "aaaaaaaa-2222-3333-4444-555555555555",
    "AZURE_CLIENT_ID": "bbbbbbbb-2222-3333-4444-555555555555",
    "AZURE_CLIENT_SECRET": SECRET,
}
URI = (
    "azureml://westeurope.api.azureml.ms/mlflow/v1.0/subscriptions/11111111-2222-3333-4444-555555555555"
    "/resourceGroups/birds(west)/providers/Microsoft.MachineLearningServices/workspaces/penguins-ws"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What the script finds on a cluster: a spark-env.sh, and a pip, which here only writes down what it is told."""
    root = tmp_path / "root of a cluster"
    for folder in ("databricks/spark/conf", "databricks/python/bin"):
        (root / folder).mkdir(parents=True)
    (root / "databricks/spark/conf/spark-env.sh").write_text("export SPARK_SCALA=2.13\n")
    pip = root / "databricks/python/bin/pip"
    # It also writes down the process list, in which a secret on a command line would stand.
    pip.write_text('#!/bin/sh\necho "$@" >> "$PENGUINS_ROOT/pip.log"\nps -ef >> "$PENGUINS_ROOT/pip.log"\n')
    pip.chmod(0o755)
    return root


def run(root: Path, **changed: str | None) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in {**LINK, **changed}.items() if value is not None}
    environment = {"PATH": os.environ["PATH"], "PENGUINS_ROOT": str(root), **variables}
    return subprocess.run(["bash", SCRIPT], env=environment, capture_output=True, text=True)


def files(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


def exported(root: Path) -> dict[str, str]:
    """What a shell has in its environment after it has read spark-env.sh."""
    sourced = f'. "{root}/databricks/spark/conf/spark-env.sh"; env -0'
    said = subprocess.run(["env", "-i", "bash", "-c", sourced], capture_output=True, text=True, check=True).stdout
    return dict(line.split("=", 1) for line in said.split("\0") if line)


def test_a_link(root: Path) -> None:
    done = run(root)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "azureml_link: MLflow tracks and registers in the workspace penguins-ws.\n"
    environment = exported(root)
    assert environment["SPARK_SCALA"] == "2.13"
    assert environment["MLFLOW_TRACKING_URI"] == environment["MLFLOW_REGISTRY_URI"] == URI
    assert environment["AZURE_TOKEN_CREDENTIALS"] == "EnvironmentCredential"
    assert environment["AZUREML_CURRENT_CLOUD"] == "AzureCloud"
    assert json.loads((root / "databricks/driver/.azureml/config.json").read_text()) == {
        "subscription_id": "11111111-2222-3333-4444-555555555555",
        "resource_group": "birds(west)",
        "workspace_name": "penguins-ws",
    }
    assert (root / "pip.log").read_text().startswith("install --quiet azureml-mlflow==1.62.0.post6 mlflow==3.15.0\n")


def test_a_second_start_leaves_the_same_files_and_another_workspace_replaces_the_first(root: Path) -> None:
    run(root)
    once = {name: text for name, text in files(root).items() if name != "pip.log"}
    run(root)
    assert {name: text for name, text in files(root).items() if name != "pip.log"} == once
    run(root, AZUREML_WORKSPACE_NAME="another")
    assert exported(root)["MLFLOW_TRACKING_URI"] == URI.replace("penguins-ws", "another")
    text = (root / "databricks/spark/conf/spark-env.sh").read_text()
    assert text.count("MLFLOW_TRACKING_URI") == 1
    assert text.startswith("export SPARK_SCALA=2.13\n")


def test_no_secret_in_files_output_or_process_list(root: Path) -> None:
    done = run(root)
    everything = "\n".join([done.stdout, done.stderr, *files(root).values()])
    assert "UID" in everything, "the process list was looked at"
    assert "s3cr3t" not in everything


def test_switched_off_it_changes_nothing_and_says_so(root: Path) -> None:
    before = files(root)
    done = run(root, AZUREML_LINK="off", AZURE_CLIENT_SECRET="{{secrets/penguins/azureml-client-secret}}")
    assert done.returncode == 0
    assert done.stdout == "azureml_link: AZUREML_LINK is off, so MLflow on this cluster stays as it is.\n"
    assert files(root) == before


@pytest.mark.parametrize("switch", [None, "", "yes", "ON"])
def test_the_switch_must_be_explicit(root: Path, switch: str | None) -> None:
    done = run(root, AZUREML_LINK=switch)
    assert done.returncode == 1
    assert done.stderr == "azureml_link: AZUREML_LINK is neither on nor off: set one of them.\n"


MALFORMED = {
    "AZUREML_SUBSCRIPTION_ID": "not-a-guid",
    "AZUREML_RESOURCE_GROUP": 'quote"group',
    "AZUREML_WORKSPACE_NAME": "work space",
    "AZUREML_REGION": "West Europe",
    "AZURE_TENANT_ID": "aaaaaaaa-2222-3333-4444-55555555555",
    "AZURE_CLIENT_ID": "$(id)",
}


def test_every_variable_but_the_switch_is_refused_when_missing() -> None:
    assert set(MALFORMED) | {"AZURE_CLIENT_SECRET", "AZUREML_LINK"} == set(LINK)


@pytest.mark.parametrize("name", [name for name in LINK if name != "AZUREML_LINK"])
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_variable_is_named(root: Path, name: str, value: str | None) -> None:
    before = files(root)
    done = run(root, **{name: value})
    assert done.returncode == 1
    assert re.fullmatch(rf"azureml_link: {name} is not set: .+ is missing\.\n", done.stderr)
    assert files(root) == before


@pytest.mark.parametrize(("name", "value"), MALFORMED.items())
def test_a_malformed_variable_is_named_and_its_value_not_shown(root: Path, name: str, value: str) -> None:
    before = files(root)
    done = run(root, **{name: value})
    assert done.returncode == 1
    assert re.fullmatch(rf"azureml_link: {name} is malformed: it must be .+\.\n", done.stderr)
    assert value not in done.stderr
    assert files(root) == before


@pytest.mark.parametrize("name", ["AZURE_CLIENT_SECRET", "AZURE_TENANT_ID"])
def test_an_unresolved_secret_is_named(root: Path, name: str) -> None:
    done = run(root, **{name: "{{secrets/penguins/gone}}"})
    assert done.returncode == 1
    sentence = f"{name} is a reference to a secret that was not resolved: check the scope and the key."
    assert done.stderr == f"azureml_link: {sentence}\n"


def test_a_plugin_that_cannot_be_installed_leaves_everything(root: Path) -> None:
    (root / "databricks/python/bin/pip").write_text("#!/bin/sh\nexit 3\n")
    before = files(root)
    done = run(root)
    assert done.returncode == 1
    assert "azureml-mlflow==1.62.0.post6 and mlflow==3.15.0 could not be installed" in done.stderr
    assert files(root) == before


def test_shellcheck_finds_nothing() -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    subprocess.run([shellcheck, SCRIPT, ROOT / ".ci" / "run"], check=True)
