"""The page of single steps: its Python runs, in its order, against the workspace on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from penguins import dialect
from penguins.tracking import Tracking
from tests.azureml import arm
from tests.azureml.mlflow_workspace import GROUP, NAME, SUBSCRIPTION, MlflowWorkspace
from tests.azureml.tls import Authority
from tests.conftest import PENGUINS_CSV, ROOT
from tests.test_docs import blocks

pytestmark = [pytest.mark.azureml, pytest.mark.slow]

PAGE = (ROOT / "docs" / "azureml-steps.md").read_text()
WITH_MLFLOW, _, WITH_CLIENT = PAGE.partition("## A script of your own as a job")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a user of the page has: the data, the script of the job, and a saved model's graph."""
    folder = tmp_path / "here"
    for name in ("data", "src", "model"):
        (folder / name).mkdir(parents=True)
    shutil.copy(PENGUINS_CSV, folder / "data" / "penguins.csv")
    [script], [conda] = blocks(WITH_CLIENT, "python"), blocks(WITH_CLIENT, "yaml")
    (folder / "src" / "count_birds.py").write_text(script)
    (folder / "src" / "conda.yml").write_text(conda)
    (folder / "model" / "model.onnx").write_bytes(b"a graph")
    monkeypatch.chdir(folder)
    return folder


def test_what_needs_mlflow_alone(workspace: MlflowWorkspace, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace.has_aliases = workspace.has_inputs = False
    monkeypatch.setenv("MLFLOW_TRACKING_URI", workspace.uri)
    python = blocks(WITH_MLFLOW, "py")
    assert len(python) == 4
    seen: dict[str, Any] = {}
    exec(python[0], seen)
    first = mlflow.get_run(seen["run"].info.run_id)
    assert (first.data.params, first.data.metrics) == ({"season": "2026"}, {"birds": 344})
    assert dialect.artifacts(first.info.run_id) == ["notes.txt"]
    for block in python[1:]:
        exec(block, seen)
    assert seen["number"] == 1
    assert (seen["again"].number, seen["run_id"]) == (2, seen["run"].info.run_id)
    assert (seen["flavors"], seen["takes"]) == (["python_function", "sklearn"], ["CulmenLength", "CulmenDepth"])
    assert np.asarray(seen["answers"]).tolist() == [0, 0]
    logged = mlflow.get_run(seen["run_id"])
    assert logged.data.params["max_iter"] == "1000"
    assert "model/MLmodel" in dialect.artifacts(seen["run_id"])
    # What the page says doesn't work.
    with mlflow.start_run(), pytest.raises(mlflow.MlflowException, match="404"):
        mlflow.sklearn.log_model(seen["model"], name="model", pip_requirements=["mlflow"])


def test_the_script_goes_on_with_the_jobs_run(workspace: MlflowWorkspace, folder: Path) -> None:
    Tracking(workspace.uri).activate()
    client = mlflow.MlflowClient()
    experiment = client.create_experiment("counting")
    run_id = client.create_run(experiment).info.run_id
    job = {"MLFLOW_TRACKING_URI": workspace.uri, "MLFLOW_RUN_ID": run_id, "MLFLOW_EXPERIMENT_ID": experiment}
    job |= {"MLFLOW_TRACKING_TOKEN": workspace.job_token(), "AZUREML_RUN_ID": run_id}
    job |= {"AZUREML_ARM_SUBSCRIPTION": SUBSCRIPTION, "AZUREML_ARM_RESOURCEGROUP": GROUP}
    job |= {"AZUREML_ARM_WORKSPACE_NAME": NAME, "AZUREML_ARM_PROJECT_NAME": "counting"}
    command = [sys.executable, "src/count_birds.py", "--data", "data/penguins.csv"]
    done = subprocess.run(command, env={**os.environ, **job}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert client.get_run(run_id).data.metrics == {"birds": 344}


def test_what_needs_azures_client(trusted: Authority, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    azure = arm.Azure()
    azure.things["computes/cpu-cluster"] = arm.CLUSTER
    with arm.running(azure, trusted):
        arm.configure(azure, monkeypatch)
        python = blocks(WITH_CLIENT, "py")
        assert len(python) == 3
        seen: dict[str, Any] = {}
        for block in python:
            exec(block, seen)
    properties = azure.things[f"jobs/{seen['job'].name}"]["properties"]
    assert properties["command"] == "python count_birds.py --data ${{inputs.birds}}"
    assert properties["experimentName"] == "by-hand"
    sent = {name.rpartition("/")[2] for name in azure.blobs}
    assert {"count_birds.py", "conda.yml", "penguins.csv", "model.onnx"} <= sent
    assert azure.things["computes/gpu-cluster"]["properties"]["properties"]["vmSize"] == "Standard_NC4as_T4_v3"
    assert azure.things["computes/flock"]["properties"]["computeType"] == "Kubernetes"
    assert azure.things["models/birds-triton/versions/1"]["properties"]["modelType"] == "triton_model"
