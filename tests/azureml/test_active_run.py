"""A job's run is gone on with, and the command line finds the workspace by itself: each in a process of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import mlflow
import pytest
from click.testing import CliRunner

from penguins import dialect
from penguins.cli import main
from penguins.tracking import Tracking
from tests.azureml.mlflow_workspace import GROUP, ID, NAME, SUBSCRIPTION, MlflowWorkspace, refused
from tests.conftest import PENGUINS_CSV
from tests.test_cli import PENGUINS

pytestmark = [pytest.mark.azureml, pytest.mark.spark, pytest.mark.slow]

JOB = {
    "AZUREML_ARM_SUBSCRIPTION": SUBSCRIPTION,
    "AZUREML_ARM_RESOURCEGROUP": GROUP,
    "AZUREML_ARM_WORKSPACE_NAME": NAME,
    "AZUREML_ARM_PROJECT_NAME": "a job",
}
"""What every job has in its environment."""


def penguins(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith("COLUMNS")}
    return subprocess.run([PENGUINS, *arguments], cwd=cwd, env={**own, **environment}, capture_output=True, text=True)


def parsed(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


@pytest.mark.parametrize("who", ["the job's token", "a service principal"])
def test_a_jobs_run_is_gone_on_with(workspace: MlflowWorkspace, tmp_path: Path, who: str) -> None:
    Tracking(workspace.uri).activate()
    client = mlflow.MlflowClient()
    experiment = client.create_experiment(f"a job with {who}")
    run_id = client.create_run(experiment, run_name="brave_cat").info.run_id
    job = {**JOB, "MLFLOW_TRACKING_URI": workspace.uri.replace("v2.0", "v1.0"), "MLFLOW_RUN_ID": run_id}
    job |= {"AZUREML_RUN_ID": run_id, "MLFLOW_EXPERIMENT_ID": experiment, "MLFLOW_EXPERIMENT_NAME": f"a job with {who}"}
    if who == "the job's token":
        # No other credential: in a job there is none.
        job |= {"MLFLOW_TRACKING_TOKEN": workspace.job_token(), "AZURE_CLIENT_SECRET": "", "AZURE_TENANT_ID": ""}
    signed_in = len(workspace.tokens)
    answer = parsed(
        penguins("train", "--data", str(PENGUINS_CSV), "--register-as", "by_a_job", "--json", cwd=tmp_path, **job)
    )
    assert answer["run_id"] == run_id
    assert answer["run_page"] == f"https://ml.azure.com/runs/{run_id}?wsid={ID}"
    [run] = mlflow.search_runs(experiment_ids=[experiment], output_format="list")
    assert run.info.run_id == run_id
    assert run.info.status == "RUNNING", "the job ends its run itself"
    assert run.data.metrics["accuracy"] == pytest.approx(115 / 116)
    assert "model/MLmodel" in dialect.artifacts(run_id)
    assert client.get_model_version("by_a_job", str(answer["version"])).run_id == run_id
    if who == "the job's token":
        assert len(workspace.tokens) == signed_in, "nobody signed in"


def test_the_command_line_finds_the_workspace_and_shows_the_studio(workspace: MlflowWorkspace, tmp_path: Path) -> None:
    """With config.json and no region: the Resource Manager says where the workspace is."""
    named = {"subscription_id": SUBSCRIPTION, "resource_group": GROUP, "workspace_name": NAME}
    (tmp_path / "config.json").write_text(json.dumps(named))
    cloud = {"AZUREML_CURRENT_CLOUD": "Loopback", "ARM_CLOUD_METADATA_URL": f"{workspace.url}/metadata/endpoints"}
    options = ["--tracking", "azureml"]
    done = penguins("train", "--data", str(PENGUINS_CSV), "--register-as", "found", *options, cwd=tmp_path, **cloud)
    assert done.returncode == 0, done.stderr
    [run] = mlflow_runs(workspace, "penguins", "found")
    page = f"https://ml.azure.com/runs/{run}?wsid={ID}"
    assert done.stdout.splitlines()[-4:] == [
        f"Run      {run}",
        f"Model    runs:/{run}/model",
        "Version  models:/found/1",
        f"Studio   {page}",
    ]
    cloud["MLFLOW_TRACKING_URI"] = "azureml"
    promoted = penguins("promote", "--model", "found", "--json", cwd=tmp_path, **cloud)
    assert parsed(promoted)["moved"] is True
    assert mlflow.MlflowClient().get_model_version_by_alias("found", "champion").version == "1"
    inputs = mlflow.get_run(run).inputs
    assert inputs is not None
    assert len(inputs.dataset_inputs) == 2, "the training and the test rows"
    shown = penguins("ui", cwd=tmp_path, **cloud)
    url = f"https://ml.azure.com/experiments?wsid={ID}"
    assert shown.stdout == f"The runs are at {url} already: a server has its own page.\n"
    for text in (done, promoted, shown):
        assert not [secret for secret in workspace.secrets() if secret in f"{text.stdout}{text.stderr}"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blobs", "config.json"]


def test_files_that_are_no_mlflow_model_become_a_custom_one(
    workspace: MlflowWorkspace, tmp_path: Path, empty_store: Path
) -> None:
    """Through the Resource Manager, since MLflow knows no such models."""
    cloud = {"AZUREML_CURRENT_CLOUD": "Loopback", "ARM_CLOUD_METADATA_URL": f"{workspace.url}/metadata/endpoints"}
    files = tmp_path / "thing"
    (files / "deep").mkdir(parents=True)
    (files / "weights.txt").write_text("3.1")
    (files / "deep" / "words.txt").write_text("ice\nfloe\n")
    command = ["register", str(files), "--custom", "--register-as", "thing", "--tag", "a=b", "--json"]
    command += ["--description", "any files", "--tracking-uri", workspace.uri]
    first, second = (parsed(penguins(*command, cwd=tmp_path, **cloud)) for _ in range(2))
    assert [one["version"] for one in (first, second)] == [1, 2]
    made = workspace.custom["thing"][0]["properties"]
    assert (made["description"], made["tags"]) == ("any files", {"a": "b", "made_by": "penguins"})
    assert made["modelUri"] == f"azureml://jobs/{first['run_id']}/outputs/artifacts/paths/model"
    Tracking(workspace.uri).activate()
    assert dialect.artifacts(first["run_id"]) == ["model/deep/words.txt", "model/weights.txt"]

    workspace.fail("PUT .*/models/thing/versions", refused(403, "AuthorizationFailed", "You may not."))
    refusal = penguins(*command, cwd=tmp_path, **cloud)
    assert (refusal.returncode, refusal.stdout) == (1, "")
    assert re.fullmatch(
        r"Error: azureml://jobs/[0-9a-f]{32}/outputs/artifacts/paths/model: You may not; ask for a role that allows "
        r"it, such as AzureML Data Scientist on the workspace\.\n",
        refusal.stderr,
    )
    store = f"sqlite:///{shutil.copy(empty_store, tmp_path)}"
    elsewhere = CliRunner().invoke(main, ["register", str(files), "--custom", "--tracking-uri", store])
    assert (elsewhere.exit_code, elsewhere.stderr) == (
        1,
        "Error: Only Azure Machine Learning registers files that are no MLflow model: use such a workspace.\n",
    )


def test_outputs_of_a_job_become_versions(workspace: MlflowWorkspace, tmp_path: Path, empty_store: Path) -> None:
    cloud = {"AZUREML_CURRENT_CLOUD": "Loopback", "ARM_CLOUD_METADATA_URL": f"{workspace.url}/metadata/endpoints"}
    trained = workspace.outputs / "salty_beak" / "trained" / "best"
    trained.mkdir(parents=True)
    (trained / "MLmodel").write_text("flavors: {}\n")
    jobs = "azureml://jobs/salty_beak/outputs"

    def register(place: str, *options: str) -> subprocess.CompletedProcess[str]:
        command = ["register", place, "--register-as", "beaks", "--tracking-uri", workspace.uri]
        return penguins(*command, *options, cwd=tmp_path, **cloud)

    answer = {"run_id": "salty_beak", "registered_model": "beaks"}
    assert parsed(register(f"{jobs}/trained/paths/best/", "--json", "--tag", "a=b")) == {**answer, "version": 1}
    assert parsed(register(f"{jobs}/trained", "--custom", "--json")) == {**answer, "version": 2}
    assert [
        (one["properties"]["modelType"], one["properties"]["modelUri"], one["properties"]["tags"])
        for one in workspace.custom["beaks"]
    ] == [
        ("mlflow_model", f"{jobs}/trained/paths/best", {"a": "b", "made_by": "penguins"}),
        ("custom_model", f"{jobs}/trained/paths/", {"made_by": "penguins"}),
    ]
    absent = register(f"{jobs}/trained/paths/worst")
    assert (absent.returncode, absent.stdout) == (1, "")
    assert absent.stderr == (
        f"Error: {jobs}/trained/paths/worst: There is nothing at {jobs}/trained/paths/worst; check the subscription, "
        "the resource group, the workspace and the name.\n"
    )
    store = f"sqlite:///{shutil.copy(empty_store, tmp_path)}"
    for place, said in (
        (f"{jobs}/trained", f"Only Azure Machine Learning knows {jobs}/trained: name such a workspace "),
        ("azureml://jobs/salty_beak", "azureml://jobs/salty_beak is no output of a job: give azureml://jobs/<job>/out"),
    ):
        elsewhere = CliRunner().invoke(main, ["register", place, "--tracking-uri", store])
        assert elsewhere.exit_code == 1
        assert elsewhere.stderr.startswith(f"Error: {said}")


def mlflow_runs(workspace: MlflowWorkspace, experiment: str, model: str) -> list[str]:
    """The runs of the experiment that registered the model."""
    Tracking(workspace.uri).activate()
    found = mlflow.MlflowClient().search_model_versions(f"name='{model}'")
    here = {run.info.run_id for run in mlflow.search_runs(experiment_names=[experiment], output_format="list")}
    return [str(one.run_id) for one in found if one.run_id in here]
