"""The jobs of the bundle, run task by task as Databricks runs them: parameters pushed down, task values, conditions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
import pytest

from penguins import registry
from penguins.cli import main
from penguins.drift import lean_season
from tests import bundle
from tests.conftest import PENGUINS_CSV, ROOT
from tests.test_notebooks import run_notebook
from tests.workspace import TOKEN, Workspace, running

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.slow]

MODEL = "main.penguins.penguin_predictor"


def run_job(name: str, spark: SparkSession, **passed: str) -> list[str]:
    """Run a job of the target prod with its own parameters, but for those passed; the tasks that ran, in order."""
    job = bundle.resolved(bundle.read(), "prod")["jobs"][name]
    parameters = {one["name"]: one["default"] for one in job["parameters"]}
    assert set(passed) <= set(parameters)
    parameters |= passed
    values: dict[str, dict[str, Any]] = {}
    answers: dict[str, str] = {}

    def given(text: str) -> str:
        text = re.sub(r"\{\{job\.parameters\.(\w+)\}\}", lambda found: parameters[found[1]], text)
        return re.sub(r"\{\{tasks\.(\w+)\.values\.(\w+)\}\}", lambda found: str(values[found[1]][found[2]]), text)

    ran = []
    for task in job["tasks"]:
        key = task["task_key"]
        before = task.get("depends_on", [])
        if not all(answers.get(one["task_key"]) == one.get("outcome", "done") for one in before):
            continue
        ran.append(key)
        answers[key] = "done"
        if "condition_task" in task:
            condition = task["condition_task"]
            is_equal = given(condition["left"]) == condition["right"]
            answers[key] = str(is_equal == (condition["op"] == "EQUAL_TO")).lower()
        elif "python_wheel_task" in task:
            main([given(text) for text in task["python_wheel_task"]["parameters"]], standalone_mode=False)
        elif "notebook_task" in task:
            notebook = ROOT / "resources" / task["notebook_task"]["notebook_path"]
            own = {name: given(value) for name, value in task["notebook_task"]["base_parameters"].items()}
            widgets = set(re.findall(r'widgets\.text\("(\w+)"', notebook.read_text()))
            pushed = {name: value for name, value in parameters.items() if name in widgets}
            values[key] = {}
            run_notebook(notebook, spark, {**own, **pushed}, values[key])
    return ran


@pytest.fixture
def workspace(store: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    with running(Workspace()) as running_workspace:
        monkeypatch.setenv("DATABRICKS_HOST", running_workspace.host)
        monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store / 'mlflow.db'}")
        yield running_workspace


def test_the_jobs_from_the_first_training_to_the_advice_to_retrain(
    spark: SparkSession, workspace: Workspace, store: Path, tmp_path: Path
) -> None:
    birds = str(PENGUINS_CSV)
    assert run_job("training", spark, data=birds) == ["check", "train", "promote", "accepted", "deploy"]
    # The bundle makes the endpoint; before it did, the version just becomes champion.
    assert registry.resolve(f"models:/{MODEL}@champion").number == 1
    assert workspace.endpoints == {}
    runs = mlflow.search_runs(experiment_names=["/Deployments/penguins/prod/runs"], output_format="list")
    assert len(runs) == 2, "one of the training, one of the gate"

    scored = str(tmp_path / "scored.csv")
    assert run_job("prediction", spark, output=scored) == ["new_data"], "there is none unless somebody names it"
    assert run_job("prediction", spark, data=birds, output=scored) == ["new_data", "predict"]
    assert len(pd.read_csv(scored)) == 344

    lean = tmp_path / "lean.csv"
    lean_season(pd.read_csv(PENGUINS_CSV)).to_csv(lean, index=False)
    assert run_job("monitoring", spark, reference=birds) == ["new_data"]
    calm = run_job("monitoring", spark, reference=birds, current=birds)
    assert calm == ["new_data", "monitor", "advised"]
    drifted = run_job("monitoring", spark, reference=birds, current=str(lean), timestamp="MeasuredAt")
    assert drifted == ["new_data", "monitor", "advised", "retrain"]

    # The same birds again give no better model, so the gate says no, and nothing is deployed.
    assert run_job("training", spark, data=birds) == ["check", "train", "promote", "accepted"]
    assert registry.resolve(f"models:/{MODEL}@champion").number == 1
