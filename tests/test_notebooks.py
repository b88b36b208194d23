"""The notebooks: thin, in Databricks source format, and run from the first cell to the last."""

from __future__ import annotations

import ast
import json
import os
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
import pytest
from matplotlib.figure import Figure
from pyspark.sql import DataFrame

from penguins import registry
from penguins.drift import lean_season
from penguins.serve import serving
from penguins.train import train_from_source
from tests.conftest import PENGUINS_CSV, ROOT
from tests.workspace import TOKEN, Workspace, running

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))


class NotebookExit(Exception):  # noqa: N818  # it is no error
    """What `dbutils.notebook.exit` ends a notebook with."""


class Widgets:
    """As strict as the real ones: values are text, values passed beat defaults, an unknown name is an error."""

    def __init__(self, passed: dict[str, str]) -> None:
        self.passed = passed
        self.values: dict[str, str] = {}

    def text(self, name: str, default: str, label: str = "") -> None:
        assert isinstance(default, str)
        assert label, f"the widget {name} needs a label"
        self.values[name] = self.passed.get(name, default)

    def get(self, name: str) -> str:
        if name not in self.values:
            raise KeyError(f"No input widget named {name} is defined")
        return self.values[name]


class TaskValues:
    """As strict as the real ones: a value must be JSON, and a task may be asked only for what it set."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def set(self, key: str, value: Any) -> None:
        json.dumps(value)
        self.values[key] = value


class Jobs:
    def __init__(self) -> None:
        self.taskValues = TaskValues()


class Notebook:
    def exit(self, value: str) -> None:
        raise NotebookExit(value)


class Dbutils:
    def __init__(self, passed: dict[str, str]) -> None:
        self.widgets = Widgets(passed)
        self.notebook = Notebook()
        self.jobs = Jobs()


def run_notebook(
    path: Path, spark: SparkSession, passed: dict[str, str], values: dict[str, Any] | None = None
) -> tuple[str, list[Any]]:
    """Run a notebook in its own folder, as Databricks does; return what it exits with and what it displays.

    The task values that it sets are put into `values`.
    """
    dbutils = Dbutils(passed)
    displayed: list[Any] = []

    def display(shown: Any) -> None:
        """As strict as the real one, which shows tables and figures, and of a pandas table no index."""
        if isinstance(shown, pd.DataFrame):
            assert shown.index.name is None, f"the index {shown.index.name} is not shown"
            assert shown.index.dtype.kind == "i", "an index of words is not shown"
        else:
            assert isinstance(shown, DataFrame | Figure), f"{type(shown)} can't be displayed"
        displayed.append(shown)

    before = Path.cwd()
    os.chdir(path.parent)
    try:
        runpy.run_path(str(path), init_globals={"dbutils": dbutils, "spark": spark, "display": display})
    except NotebookExit as stop:
        assert set(passed) <= set(dbutils.widgets.values), "a value was passed for a widget that isn't there"
        if values is not None:
            values |= dbutils.jobs.taskValues.values
        return str(stop), displayed
    finally:
        os.chdir(before)
    raise AssertionError(f"{path.name} ended without dbutils.notebook.exit")


def test_there_are_notebooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["check", "deploy", "monitor", "predict", "promote", "train", "tune"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_thin_and_teach(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# Databricks notebook source\n# MAGIC %md\n# MAGIC # "), "it opens with a title"
    tree = ast.parse(text)
    loops_or_logic = (ast.FunctionDef, ast.ClassDef, ast.For, ast.While, ast.If, ast.Try, ast.Lambda)
    assert not [node for node in ast.walk(tree) if isinstance(node, loops_or_logic)]
    assert "sys.path" not in text
    cells = text.split("# COMMAND ----------")
    explained = [cell for cell in cells if "# MAGIC %md" in cell]
    assert len(explained) >= len(cells) // 3
    code = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert len(code) <= 45


@pytest.mark.spark
def test_train_with_its_defaults(spark: SparkSession, store: Path) -> None:
    values: dict[str, Any] = {}
    exited, displayed = run_notebook(ROOT / "notebooks" / "train.py", spark, {}, values)
    assert (exited, values) == ("models:/penguin_predictor/1", {"version": "1"})
    sample, quarantined, figure, metrics = displayed
    assert sample.count() == 20
    assert quarantined.count() == 2
    assert figure.axes[0].get_title() == "116 test rows"
    assert isinstance(metrics, pd.DataFrame)
    assert metrics.set_index("measure")["value"]["accuracy"] > 0.95


@pytest.mark.spark
def test_train_with_the_labs_values_on_another_model(spark: SparkSession, store: Path) -> None:
    passed = {"data": str(PENGUINS_CSV), "max_iter": "10", "reg_param": "0.2", "register_as": "main.lab.penguins"}
    passed |= {"experiment": "/Shared/birds"}
    exited, _ = run_notebook(ROOT / "notebooks" / "train.py", spark, passed)
    assert exited == "models:/main.lab.penguins/1"
    version = mlflow.MlflowClient().get_model_version("main.lab.penguins", "1")
    run = mlflow.get_run(version.run_id or "")
    assert run.data.params["maxIter"] == "10"
    assert mlflow.get_experiment(run.info.experiment_id).name == "/Shared/birds"


@pytest.mark.spark
def test_check_shows_what_there_is(spark: SparkSession) -> None:
    exited, displayed = run_notebook(ROOT / "notebooks" / "check.py", spark, {})
    assert exited == "342 rows accepted, 2 set aside"
    sample, quarantined, reasons, islands, summary = displayed
    assert sample.count() == 20
    assert quarantined.count() == 2
    assert reasons.set_index("reason")["rows"].to_dict() == {
        f"{name} is missing": 2 for name in ("BodyMass", "CulmenDepth", "CulmenLength", "FlipperLength")
    }
    assert [tuple(row) for row in islands.collect()] == [
        ("Biscoe", 44, 123, None),
        ("Dream", 56, None, 68),
        ("Torgersen", 51, None, None),
    ]
    assert {row["summary"]: row["BodyMass"] for row in summary.collect()}["max"] == "6300.0"


@pytest.mark.spark
@pytest.mark.slow
def test_the_story_of_a_job_from_the_gate_to_the_endpoint(
    spark: SparkSession, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = {"version": "3", "judge_only": "yes"}
    assert run_notebook(ROOT / "notebooks" / "promote.py", spark, passed)[0] == "accepted"
    with serving("models:/penguin_predictor/3") as url, running(Workspace(scorers={"3": url})) as workspace:
        monkeypatch.setenv("DATABRICKS_HOST", workspace.host)
        monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
        exited, displayed = run_notebook(ROOT / "notebooks" / "deploy.py", spark, {"version": "3"})
        assert exited == "models:/penguin_predictor/3 with 100 percent of predict-penguin"
        (answer,) = displayed
        assert answer["species"].tolist() == ["Adelie", "Adelie", "Adelie", "Adelie", "Adelie"]
        assert workspace.shares("predict-penguin") == {"3": 100}
    assert registry.resolve("models:/penguin_predictor@champion").number == 3


@pytest.mark.spark
@pytest.mark.slow
def test_promote_makes_a_champion_and_then_refuses_a_worse_model(spark: SparkSession, models: Path) -> None:
    notebook = ROOT / "notebooks" / "promote.py"
    values: dict[str, Any] = {}
    exited, displayed = run_notebook(notebook, spark, {}, values)
    assert (exited, values) == ("accepted", {"verdict": "yes"})
    assert registry.resolve("models:/penguin_predictor@champion").number == 3
    metrics, reasons = displayed
    assert metrics.set_index("measure")["challenger"]["accuracy"] == pytest.approx(115 / 116)
    assert len(reasons) == 1
    passed = {"version": "2", "min_accuracy": "0.9", "min_recall": "0.7"}
    exited, displayed = run_notebook(notebook, spark, passed, values)
    assert (exited, values) == ("refused", {"verdict": "no"})
    assert displayed[1]["reason"].tolist() == [
        "its accuracy of 0.931 is not higher than the champion's 0.991",
        "its recall of Chinstrap, 0.714, is lower than the champion's 0.964 by more than 0.05",
    ]


@pytest.mark.spark
def test_predict_follows_the_champion(spark: SparkSession, store: Path, tmp_path: Path) -> None:
    trained = train_from_source(spark, PENGUINS_CSV, register_as="penguin_predictor")
    mlflow.MlflowClient().set_registered_model_alias("penguin_predictor", "champion", str(trained.version))
    passed = {"output": str(tmp_path / "scored.parquet")}
    exited, displayed = run_notebook(ROOT / "notebooks" / "predict.py", spark, passed)
    assert exited == "344 rows by models:/penguin_predictor/1: 342 scored, 2 not"
    classes, reasons, rows = displayed
    assert classes.set_index("class")["rows"].to_dict() == {"Adelie": 153, "Gentoo": 123, "Chinstrap": 66}
    assert reasons.set_index("reason")["rows"].to_dict() == {
        f"{name} is missing": 2 for name in ("BodyMass", "CulmenDepth", "CulmenLength", "FlipperLength")
    }
    assert rows.count() == 20


@pytest.mark.spark
@pytest.mark.slow
def test_tune_with_few_trials(spark: SparkSession, store: Path) -> None:
    exited, displayed = run_notebook(ROOT / "notebooks" / "tune.py", spark, {"trials": "2"})
    assert exited == "models:/penguin_predictor/1"
    trials, history, confusion = displayed
    assert sorted(trials["trial"]) == [0, 1]
    assert trials["validation_balancedLogLoss"].is_monotonic_increasing
    assert history.axes[0].get_title() == "2 trials"
    assert confusion.axes[0].get_title() == "116 test rows"


@pytest.mark.spark
@pytest.mark.slow
def test_monitor_advises_a_retraining_in_the_lean_season(spark: SparkSession, store: Path, tmp_path: Path) -> None:
    lean_season(pd.read_csv(PENGUINS_CSV)).to_csv(tmp_path / "lean.csv", index=False)
    passed = {"current": str(tmp_path / "lean.csv"), "model": "", "timestamp": "MeasuredAt"}
    exited, displayed = run_notebook(ROOT / "notebooks" / "monitor.py", spark, passed)
    answer = json.loads(exited)
    assert (answer["drifted"], answer["retrain"], answer["failure"]) == (True, True, None)
    assert answer["breaches"][0].startswith("BodyMass has drifted: its PSI is ")
    columns, windows, figure = displayed
    assert list(columns["verdict"]) == ["stable", "stable", "stable", "stable", "drift"]
    assert list(windows["from"]) == [f"2026-11-0{day} 00:00" for day in range(1, 7)]
    assert figure.axes[4].get_title().endswith(", drift")


@pytest.mark.spark
def test_the_stand_in_for_dbutils_is_strict(spark: SparkSession, store: Path, tmp_path: Path) -> None:
    asks = tmp_path / "asks.py"
    asks.write_text("dbutils.widgets.get('never_made')\n")
    with pytest.raises(KeyError, match="No input widget named never_made is defined"):
        run_notebook(asks, spark, {})
    ends = tmp_path / "ends.py"
    ends.write_text("dbutils.notebook.exit('done')\n")
    with pytest.raises(AssertionError, match="a value was passed for a widget that isn't there"):
        run_notebook(ends, spark, {"stray": "1"})
