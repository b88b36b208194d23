"""A monitoring run: what MLflow keeps of it, the report it writes, and what the command answers."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from penguins import cli
from penguins.drift import lean_season
from penguins.errors import DataError, ModelError, ParameterError
from penguins.findings import Settings
from penguins.monitor import Monitoring, monitor
from penguins.page import windows_table
from penguins.spec import Numeric, Spec
from penguins.tracking import Tracking
from penguins.train import train_from_source
from tests.conftest import PENGUINS_CSV
from tests.test_cli import penguins

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

CHAMPION = "models:/penguin_predictor@champion"
ARTIFACTS = ["drift_report.html", "drift_report.png", "monitoring.json"]


@pytest.fixture(scope="module")
def champion(spark: SparkSession, empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose registered model has a version 1, the champion; and beside it `lean.csv`."""
    folder = tmp_path_factory.mktemp("champion")
    shutil.copy(empty_store, folder)
    Tracking.local(folder).activate()
    train_from_source(spark, PENGUINS_CSV, experiment="birds", register_as="penguin_predictor")
    mlflow.MlflowClient().set_registered_model_alias("penguin_predictor", "champion", "1")
    lean_season(pd.read_csv(PENGUINS_CSV)).to_csv(folder / "lean.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def watched(spark: SparkSession, champion: Path) -> Monitoring:
    """The lean season, by day, with the champion's answers and a report."""
    Tracking.local(champion).activate()
    steps: list[str] = []
    result = monitor(
        spark,
        PENGUINS_CSV,
        champion / "lean.csv",
        model=CHAMPION,
        settings=Settings.of(timestamp="MeasuredAt"),
        output=champion / "out" / "report",
        experiment="watch",
        report=steps.append,
    )
    assert steps == ["Reading the data", "Loading the model", "Comparing", "Logging"]
    return result


@pytest.fixture
def run(champion: Path, watched: Monitoring) -> mlflow.entities.Run:
    Tracking.local(champion).activate()
    return mlflow.get_run(watched.run_id)


@pytest.mark.spark
def test_the_run_can_be_found_by_the_version_it_watched(run: mlflow.entities.Run, watched: Monitoring) -> None:
    query = "tags.model_name = 'penguin_predictor' and tags.model_version = '1' and tags.`penguins.step` = 'monitor'"
    [found] = mlflow.MlflowClient().search_runs([run.info.experiment_id], query)
    assert found.info.run_id == watched.run_id
    assert (run.data.tags["drifted"], run.data.tags["retrain"]) == ("true", "true")
    assert watched.model_uri == "models:/penguin_predictor/1", "the alias was resolved once"


@pytest.mark.spark
def test_the_run_has_what_was_measured(run: mlflow.entities.Run, watched: Monitoring) -> None:
    metrics = run.data.metrics
    columns = [*("Island", "CulmenLength", "CulmenDepth", "FlipperLength", "BodyMass"), "prediction", "confidence"]
    for kind in ("psi", "js", "missing", "out_of_range", "new"):
        assert {name for name in metrics if name.startswith(f"{kind}_")} == {f"{kind}_{name}" for name in columns}
    assert metrics["psi_BodyMass"] > 0.25 > metrics["psi_FlipperLength"] == 0
    assert metrics["missing_BodyMass"] == pytest.approx(2 / 344)
    assert (metrics["rows_reference"], metrics["rows_current"]) == (344, 344)
    assert metrics["breaches"] == len(watched.findings.breaches) > 0
    assert metrics["accuracy"] == watched.findings.whole.metrics["accuracy"]
    assert set(metrics) >= {"recall_Adelie", "recall_Gentoo", "recall_Chinstrap", "window_recall_Chinstrap"}
    history = mlflow.MlflowClient().get_metric_history(watched.run_id, "window_psi_BodyMass")
    assert [point.step for point in history] == [0, 1, 2, 3, 4, 5]
    assert [point.value > 0.7 for point in history] == [False] * 3 + [True] * 3
    assert run.data.params["psi_drift"] == "0.25"
    assert run.data.params["retrain_rule"] == "2 of 3"
    assert run.data.params["window"] == "1 day, 0:00:00"


@pytest.mark.spark
def test_the_run_says_which_rows_it_looked_at(run: mlflow.entities.Run, champion: Path) -> None:
    assert run.inputs is not None
    inputs = {item.dataset.name: item.dataset for item in run.inputs.dataset_inputs}
    assert {name: json.loads(dataset.source)["path"] for name, dataset in inputs.items()} == {
        "reference": str(PENGUINS_CSV),
        "current": str(champion / "lean.csv"),
    }
    assert inputs["reference"].digest != inputs["current"].digest


@pytest.mark.spark
def test_the_report_is_whole_and_needs_nothing_from_elsewhere(
    run: mlflow.entities.Run, watched: Monitoring, champion: Path
) -> None:
    logged = sorted(item.path for item in mlflow.MlflowClient().list_artifacts(run.info.run_id))
    report = champion / "out" / "report"
    assert logged == sorted(path.name for path in report.iterdir()) == ARTIFACTS
    assert [path.name for path in report.parent.iterdir()] == ["report"]
    assert report.stat().st_mode & 0o055 == 0o055 & ~current_umask()
    html = (report / "drift_report.html").read_text()
    assert html.count("data:image/png;base64,") == 1
    assert not re.findall(r"(?:src|href)=\"(?!data:)|@import|<script|https?://", html)
    for sentence in watched.findings.breaches:
        assert f"<li>{sentence}</li>" in html
    assert "2026-11-06 00:00" in html
    assert "models:/penguin_predictor/1" in html
    assert (report / "drift_report.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((report / "monitoring.json").read_text()) == json.loads(json.dumps(watched.as_dict()))


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.spark
def test_without_a_model_and_with_the_page_alone(spark: SparkSession, store: Path, tmp_path: Path) -> None:
    unlabelled = tmp_path / "birds.csv"
    pd.read_csv(PENGUINS_CSV).drop(columns="Species").to_csv(unlabelled, index=False)
    page = tmp_path / "page.html"
    result = monitor(spark, PENGUINS_CSV, unlabelled, output=page)
    assert windows_table(result.findings)["from"].tolist() == [""]
    assert (result.model_uri, result.drifted, result.retrain) == (None, False, False)
    assert "<h1>No threshold is broken</h1>" in page.read_text()
    tags = mlflow.get_run(result.run_id).data.tags
    assert tags["penguins.step"] == "monitor"
    assert not {"model_name", "model_version"} & set(tags)
    assert "accuracy" not in mlflow.get_run(result.run_id).data.metrics


@pytest.mark.spark
def test_what_cant_be_watched_is_one_sentence_and_no_run(spark: SparkSession, store: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.csv"
    empty.write_text(PENGUINS_CSV.read_text().splitlines()[0] + "\n")
    with pytest.raises(DataError) as data_error:
        monitor(spark, empty, PENGUINS_CSV)
    assert str(data_error.value) == (
        "The reference is empty: give the rows that the model was trained on, or others to compare to."
    )
    with pytest.raises(DataError) as data_error:
        monitor(spark, PENGUINS_CSV, PENGUINS_CSV, settings=Settings.of(timestamp="When"))
    assert str(data_error.value) == (
        "The current data lacks the column When; it has Island, CulmenLength, CulmenDepth, FlipperLength, BodyMass, "
        "Species, _corrupt_record."
    )
    with pytest.raises(ParameterError) as parameter_error:
        monitor(spark, PENGUINS_CSV, PENGUINS_CSV, output=tmp_path)
    assert str(parameter_error.value) == (
        f"{tmp_path} exists already: give another path for the report, or remove it first."
    )
    with pytest.raises(DataError) as data_error:
        monitor(spark, PENGUINS_CSV, PENGUINS_CSV, output=empty / "report")
    assert str(data_error.value) == (
        f"{empty}/report can't be written (File exists): give another path for the report."
    )
    with pytest.raises(ModelError) as model_error:
        monitor(spark, PENGUINS_CSV, PENGUINS_CSV, model=CHAMPION)
    assert str(model_error.value) == "There is no registered model penguin_predictor: `penguins train` makes one."
    assert mlflow.MlflowClient().search_runs(["0"]) == []


@pytest.mark.spark
@pytest.mark.parametrize("name", ["report", "page.html"])
def test_a_report_that_cant_be_put_in_place_any_more_is_in_the_run_that_is_named(
    spark: SparkSession, store: Path, tmp_path: Path, name: str
) -> None:
    output = tmp_path / name

    def taken(step: str) -> None:
        if step == "Logging":
            (output / "other").mkdir(parents=True)

    with pytest.raises(DataError) as told:
        monitor(spark, PENGUINS_CSV, PENGUINS_CSV, output=output, report=taken)
    [run] = mlflow.MlflowClient().search_runs(["0"])
    assert run.info.status == "FINISHED"
    assert sorted(item.path for item in mlflow.MlflowClient().list_artifacts(run.info.run_id)) == ARTIFACTS
    assert str(told.value) == f"{output} can't be written (File exists): the report is kept in run {run.info.run_id}."
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "store"])


def command(*args: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    """Run the command in this process, on its Spark session."""
    for name in ("MLFLOW_LOGGING_LEVEL", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "GIT_PYTHON_REFRESH"):
        monkeypatch.setenv(name, os.environ.get(name, "quiet" if name.startswith("GIT") else "ERROR"))
    # MLflow puts the store of an earlier test there.
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(folder)
    return CliRunner().invoke(cli.main, ["monitor", *args])


@pytest.mark.spark
def test_the_command_answers_yes_with_0_and_no_with_3(champion: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    same = command(
        *("--reference", str(PENGUINS_CSV), "--current", str(PENGUINS_CSV), "--json"),
        folder=champion,
        monkeypatch=monkeypatch,
    )
    assert (same.exit_code, len(same.stdout.splitlines())) == (0, 1), same.output
    answer = json.loads(same.stdout)
    assert (answer["drifted"], answer["model_uri"]) == (False, "models:/penguin_predictor/1")
    lean = command(
        *("--reference", str(PENGUINS_CSV), "--current", "lean.csv", "--no-model", "--json"),
        folder=champion,
        monkeypatch=monkeypatch,
    )
    assert lean.exit_code == 3
    answer = json.loads(lean.stdout)
    assert (answer["drifted"], answer["retrain"], answer["model_uri"]) == (True, True, None)
    assert list(answer["columns"]) == ["Island", "CulmenLength", "CulmenDepth", "FlipperLength", "BodyMass"]


@pytest.mark.spark
def test_names_that_mlflow_and_matplotlib_take_for_something_else(
    spark: SparkSession, store: Path, tmp_path: Path
) -> None:
    flowers = Spec(("kind of $oil",), (Numeric("sepal length (cm)", "cm", 0, 10),), "species", ("no", "yes"))
    rows = pd.DataFrame({"kind of $oil": ["a$b_{c$", "[red]"] * 20, "sepal length (cm)": [5.0, 6.0] * 20})
    rows.to_csv(tmp_path / "flowers.csv", index=False)
    result = monitor(spark, tmp_path / "flowers.csv", tmp_path / "flowers.csv", spec=flowers)
    assert (result.failure, result.drifted) == (None, False)
    metrics = mlflow.get_run(result.run_id).data.metrics
    assert metrics["psi_sepal length _cm_"] == metrics["psi_kind of _oil"] == 0


@pytest.fixture
def without_artifacts(champion: Path) -> Iterator[Path]:
    """The folder of the store, whose artifacts can't be written, as on a disk that is full."""
    artifacts = champion / "mlruns"
    artifacts.rename(champion / "kept")
    artifacts.write_text("a file")
    yield champion
    artifacts.unlink()
    (champion / "kept").rename(artifacts)


@pytest.mark.spark
@pytest.mark.parametrize(("current", "code"), [("lean.csv", 3), (str(PENGUINS_CSV), 1)])
def test_the_verdict_and_the_report_survive_a_store_that_fails(
    without_artifacts: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, current: str, code: int
) -> None:
    args = ("--reference", str(PENGUINS_CSV), "--current", current, "--no-model", "--experiment", "birds")
    told = command(*args, "--json", folder=without_artifacts, monkeypatch=monkeypatch)
    assert told.exit_code == code, told.output
    answer = json.loads(told.stdout)
    assert answer["drifted"] == (code == 3)
    [place] = without_artifacts.glob("penguins-report-*")
    assert answer["failure"].startswith("The run can't be logged: ")
    assert answer["failure"].endswith(f"; the report is in {place.name}.")
    assert told.stderr.splitlines()[-1] == f"Error: {answer['failure']}"
    assert sorted(path.name for path in place.iterdir()) == ARTIFACTS
    assert json.loads((place / "monitoring.json").read_text()) == answer
    assert mlflow.get_run(answer["run_id"]).info.status == "FAILED"
    shutil.rmtree(place)
    named = command(*args, "--output", str(tmp_path / "report"), folder=without_artifacts, monkeypatch=monkeypatch)
    assert named.exit_code == code
    assert "Retraining is" in named.stdout
    assert named.stderr.splitlines()[-1].endswith(f"; the report is in {tmp_path / 'report'}.")
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ARTIFACTS
    assert list(without_artifacts.glob("penguins-report-*")) == []


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (
            ["--retrain-rule", "3 of 2"],
            "The retrain rule is '3 of 2': it must be like '2 of 3', the first number from 1 to the second.",
        ),
        (["--psi", "-1"], "psi_drift is -1.0: it must be a number at least 0."),
        (["--window", "1 day"], "A window of 1 day needs times: name the column that has them as the timestamp."),
        (["--output", "."], ". exists already: give another path for the report, or remove it first."),
    ],
)
def test_a_bad_value_is_told_before_anything_starts(args: list[str], sentence: str, tmp_path: Path) -> None:
    result = penguins("monitor", "--current", "birds.csv", *args, cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", f"Error: {sentence}\n")
    assert list(tmp_path.iterdir()) == []
