"""The cluster's init script, run by bash in a root folder of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

SCRIPT = ROOT / "resources" / "azureml_link.sh"
SETTINGS = "databricks/spark/conf/spark-env.sh"
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


SECRETS = {
    "a newline at its end": f"{SECRET}\n",
    "two lines": "one\ntwo",
    "blanks": "  ",
    "a blank before": " s",
    "a tab": "a\tb",
}


@pytest.mark.parametrize("value", SECRETS.values(), ids=SECRETS)
def test_a_secret_with_blanks_around_it_or_several_lines_is_refused(root: Path, value: str) -> None:
    before = files(root)
    done = run(root, AZURE_CLIENT_SECRET=value)
    what = "the service principal's secret, one line without blanks around it"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"azureml_link: AZURE_CLIENT_SECRET is malformed: it must be {what}.\n"
    assert files(root) == before


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_the_settings_of_spark_keep_their_mode(root: Path, mode: int) -> None:
    settings = root / SETTINGS
    settings.chmod(mode)
    owner = (settings.stat().st_uid, settings.stat().st_gid)
    if os.geteuid() == 0:
        os.chown(settings, *(owner := (1234, 4321)))
    assert run(root).returncode == 0
    after = settings.stat()
    assert (after.st_mode & 0o7777, (after.st_uid, after.st_gid)) == (mode, owner)
    assert "MLFLOW_TRACKING_URI" in settings.read_text()


def test_new_files_are_for_their_owner_alone(root: Path) -> None:
    (root / SETTINGS).unlink()
    assert run(root).returncode == 0
    made = [root / SETTINGS, root / "databricks/driver/.azureml/config.json"]
    assert [path.stat().st_mode & 0o7777 for path in made] == [0o600, 0o600]
    assert exported(root)["MLFLOW_TRACKING_URI"] == URI


def test_a_link_to_the_settings_stays_a_link(root: Path) -> None:
    elsewhere = root / "etc" / "settings"
    elsewhere.parent.mkdir()
    (root / SETTINGS).rename(elsewhere)
    (root / SETTINGS).symlink_to("../../../etc/settings")
    assert run(root).returncode == 0
    assert (root / SETTINGS).readlink() == Path("../../../etc/settings")
    assert not elsewhere.is_symlink()
    assert elsewhere.read_text().startswith("export SPARK_SCALA=2.13\n# >>> penguins")
    assert sorted(path.name for path in elsewhere.parent.iterdir()) == ["settings"]


def test_a_block_that_begins_and_does_not_end_takes_nothing_with_it(root: Path) -> None:
    begin, end = "# >>> penguins: Azure Machine Learning >>>\n", "# <<< penguins: Azure Machine Learning <<<\n"
    settings = root / SETTINGS
    settings.write_text(f"export A=1\n{begin}export B=2\n{begin}export OLD=3\n{end}export C=4\n{begin}export D=5")
    assert run(root).returncode == 0
    environment = exported(root)
    assert [environment.get(name) for name in ("A", "B", "OLD", "C", "D")] == ["1", "2", None, "4", "5"]
    once = settings.read_text()
    assert (once.count(begin), once.count(end)) == (1, 1)
    assert run(root).returncode == 0
    assert settings.read_text() == once


def test_a_plugin_that_cannot_be_installed_leaves_everything(root: Path) -> None:
    (root / "databricks/python/bin/pip").write_text("#!/bin/sh\nexit 3\n")
    before = files(root)
    done = run(root)
    assert done.returncode == 1
    assert "azureml-mlflow==1.62.0.post6 and mlflow==3.15.0 could not be installed" in done.stderr
    assert files(root) == before


@pytest.mark.skipif(shutil.which("git") is None and "CI" not in os.environ, reason="there is no git here")
def test_a_clone_on_windows_has_the_files_as_they_are(tmp_path: Path) -> None:
    """Where git is told to write line ends in the way of Windows: scripts must run, and data be the same bytes."""
    original = tmp_path / "original"
    original.mkdir()
    shutil.copy(ROOT / ".gitattributes", original)
    ours = [
        SCRIPT,
        ROOT / ".ci" / "run",
        ROOT / "databricks.yml",
        *(ROOT / "notebooks").glob("*.py"),
        ROOT / "Makefile",
    ]
    for path in ours:
        shutil.copy(path, original)
    (original / "mixed.csv").write_bytes(b"a,b\r\n1,2\n")
    me = [("user.name", "somebody"), ("user.email", "somebody@example.org"), ("core.autocrlf", "false")]
    git = ["git", *(word for name, value in me for word in ("-c", f"{name}={value}"))]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "all"]):
        subprocess.run([*git, *command], cwd=original, check=True)
    there = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", "-c", "core.autocrlf=true", original, there], check=True)
    for name in [*(path.name for path in ours), "mixed.csv"]:
        assert (there / name).read_bytes() == (original / name).read_bytes(), name
    done = subprocess.run(["bash", there / SCRIPT.name], env={"AZUREML_LINK": "off", "PATH": os.environ["PATH"]})
    assert done.returncode == 0


def test_shellcheck_finds_nothing() -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    subprocess.run([shellcheck, SCRIPT, ROOT / ".ci" / "run"], check=True)
