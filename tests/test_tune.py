"""Tuning: what a search leaves in MLflow, that it never looks at the test rows, and how it ends early."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
import pytest
from mlflow.entities import Run
from pyspark.sql import functions as F

from penguins import data, flavor, search, show, tune
from penguins.config import SearchParameters, SearchSpace, TrainingParameters
from penguins.errors import DataError, ModelError, ParameterError, StoppedError
from penguins.search import Trial
from penguins.tracking import Tracking
from penguins.train import train_from_source
from penguins.tune import TunedModel, tune_from_source, tune_model
from tests.conftest import PENGUINS_CSV
from tests.test_cli import here

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.slow]

QUICK = SearchSpace(max_iter=(2, 6))


@pytest.fixture(scope="module")
def birds(spark: SparkSession) -> Iterator[tuple[DataFrame, DataFrame]]:
    """Training rows and test rows, as `tune_from_source` makes them."""
    with data.cached(data.read(spark, PENGUINS_CSV)) as observations:
        accepted, _ = data.check(observations)
        yield data.split(accepted)


@pytest.fixture(scope="module")
def searched(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, empty_store: Path
) -> tuple[TunedModel, Path, list[Any]]:
    """A search from the CSV file and the folder of its store, with what was reported; and a plain training run."""
    folder = tmp_path_factory.mktemp("tuned")
    shutil.copy(empty_store, folder)
    Tracking.local(folder).activate()
    told: list[Any] = []
    result = tune_from_source(
        spark,
        PENGUINS_CSV,
        SearchParameters(trials=4, space=QUICK),
        experiment="birds",
        run_name="search",
        register_as="penguin_predictor",
        tags={"team": "ice"},
        report=told.append,
        on_trial=lambda trial, best: told.append((trial, best)),
    )
    train_from_source(
        spark, PENGUINS_CSV, TrainingParameters(max_iter=5), experiment="birds", register_as="penguin_predictor"
    )
    return result, folder, told


@pytest.fixture
def tuned(searched: tuple[TunedModel, Path, list[Any]]) -> Iterator[TunedModel]:
    Tracking.local(searched[1]).activate()
    yield searched[0]
    mlflow.set_tracking_uri("")
    mlflow.set_registry_uri("")


def children(run_id: str) -> dict[str, Run]:
    """The nested runs by their names."""
    client = mlflow.MlflowClient()
    where = client.get_run(run_id).info.experiment_id
    found = client.search_runs([where], f"tags.`mlflow.parentRunId` = '{run_id}'")
    return {run.info.run_name or "": run for run in found}


def only_parent() -> Run:
    client = mlflow.MlflowClient()
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    [parent] = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    return parent


def test_every_trial_is_a_nested_run_with_parameters_and_measures(tuned: TunedModel) -> None:
    nested = children(tuned.run_id)
    assert sorted(nested) == ["best", "trial 0", "trial 1", "trial 2", "trial 3"]
    for trial in tuned.trials:
        run = nested[f"trial {trial.number}"]
        assert run.info.status == "FINISHED"
        assert run.data.params == {name: str(value) for name, value in trial.params.items()}
        assert set(run.data.params) == {"maxIter", "regParam", "elasticNetParam"}
        assert run.data.metrics == trial.metrics
        assert run.info.end_time - run.info.start_time == pytest.approx(trial.seconds * 1e3, abs=2)
    measured = {name.removeprefix("validation_") for name in nested["trial 0"].data.metrics}
    assert measured == {"balancedLogLoss", *(name for name in tuned.trained.metrics if name != "parityMaxDifference")}


def test_the_parent_run_says_what_was_searched_and_found(tuned: TunedModel) -> None:
    run = mlflow.get_run(tuned.run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "search")
    assert mlflow.get_experiment(run.info.experiment_id).name == "birds"
    assert run.data.params == {
        "trials": "4",
        "timeout": "none",
        "parallelism": "1",
        "seed": "42",
        "testFraction": "0.3",
        "folds": "none",
        "maxIterRange": "2 to 6",
        "regParamRange": "1e-05 to 1",
        "elasticNetParamRange": "0 to 1",
    }
    assert run.data.metrics == {**tuned.best.metrics, "trials_finished": 4, "trials_failed": 0}
    assert run.data.tags["team"] == "ice"
    assert run.data.tags["search_ended"] == tuned.ended == "finished"
    assert run.data.tags["search_best_trial"] == str(tuned.best.number)
    assert run.inputs is not None
    [rows] = run.inputs.dataset_inputs
    assert rows.dataset.name == "training", "the test rows are no input of a search"


def test_the_best_is_the_smallest_of_different_losses(tuned: TunedModel) -> None:
    losses = [trial.value for trial in tuned.trials if trial.value is not None]
    assert len(set(losses)) == 4
    assert tuned.value == min(losses) == tuned.best.value
    assert tuned.params == tuned.trials[losses.index(min(losses))].params


def test_the_parent_run_has_pictures_and_a_table_of_the_trials(tuned: TunedModel) -> None:
    run = mlflow.get_run(tuned.run_id)
    artifacts = {item.path for item in mlflow.MlflowClient().list_artifacts(tuned.run_id)}
    assert artifacts == {"search_history.png", "search_slices.png", "trials.csv"}
    file = mlflow.artifacts.download_artifacts(f"{run.info.artifact_uri}/trials.csv")
    table = pd.read_csv(file)
    assert list(table["trial"]) == [0, 1, 2, 3]
    assert list(table["regParam"]) == pytest.approx([trial.params["regParam"] for trial in tuned.trials])
    assert list(table["validation_balancedLogLoss"]) == pytest.approx([trial.value for trial in tuned.trials])
    assert list(tuned.table().columns) == list(table.columns)


def test_the_registered_version_is_as_one_of_train_and_names_its_search(tuned: TunedModel) -> None:
    client = mlflow.MlflowClient()
    ours, trains = (client.get_model_version("penguin_predictor", number) for number in ("1", "2"))
    assert ours.run_id == tuned.trained.run_id == children(tuned.run_id)["best"].info.run_id
    added = set(ours.tags) - set(trains.tags)
    search_tags = {"search_run_id", "search_trial", "search_trials", "search_validation_balancedLogLoss"}
    assert added == {"team", *search_tags}
    assert set(trains.tags) <= set(ours.tags)
    assert ours.tags["search_run_id"] == tuned.run_id
    same = ("digest_training", "digest_test", "penguins_version")
    assert [ours.tags[name] for name in same] == [trains.tags[name] for name in same]
    assert (ours.description or "").startswith("Logistic regression of Species, trained on 226 rows: accuracy ")
    our_run, trains_run = (client.get_run(version.run_id or "") for version in (ours, trains))
    assert set(our_run.data.params) == set(trains_run.data.params)
    assert our_run.data.params["maxIter"] == str(tuned.params["maxIter"])
    assert (our_run.data.params["seed"], our_run.data.params["testFraction"]) == ("42", "0.3")
    assert set(our_run.data.metrics) == set(trains_run.data.metrics)
    assert our_run.inputs is not None
    assert trains_run.inputs is not None
    described = [
        [(item.dataset.name, item.dataset.digest, item.dataset.source) for item in run.inputs.dataset_inputs]
        for run in (our_run, trains_run)
        if run.inputs is not None
    ]
    assert sorted(described[0]) == sorted(described[1])
    assert set(mlflow.models.get_model_info("models:/penguin_predictor/1").flavors) == {
        *("spark", "onnx", "python_function")
    }
    bird = pd.DataFrame([["Biscoe", 48.7, 14.1, 210, 4450]], columns=list(data.PENGUINS.features))
    assert list(flavor.load_scorer("models:/penguin_predictor/1").predict(bird)["species"]) == ["Gentoo"]


def test_progress_is_told_step_by_step_and_trial_by_trial(searched: tuple[TunedModel, Path, list[Any]]) -> None:
    result, _, told = searched
    assert [item for item in told if isinstance(item, str)] == [
        "Reading and checking the data",
        "Splitting into training and test rows",
        "Preparing the search",
        "Searching",
        "Counting the rows",
        "Fitting the features",
        "Fitting the regression",
        "Evaluating on the test rows",
        "Logging",
    ]
    trials = [item for item in told if not isinstance(item, str)]
    assert [trial for trial, _ in trials] == list(result.trials)
    assert trials[0][1] == result.trials[0]
    assert trials[-1][1] == result.best


def test_a_person_reads_how_it_ended_the_best_trials_and_the_model(
    tuned: TunedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    show.tuned(tuned)
    text = capsys.readouterr().out
    assert "The search did all its trials: 4 trials, 0 of which failed." in text
    lines = text.splitlines()
    [first] = [index for index, line in enumerate(lines) if "maxIter" in line]
    assert lines[first + 2].split()[1] == str(tuned.best.number), "the best one stands first"
    assert f"{tuned.value:.4f}" in lines[first + 2]
    assert f"Search   {tuned.run_id}" in text
    assert "Version  models:/penguin_predictor/1" in text


def test_the_test_rows_change_nothing_in_the_choice(
    tuned: TunedModel, birds: tuple[DataFrame, DataFrame], store: Path
) -> None:
    training, test = birds
    poisoned = test.withColumn("Species", (F.col("Species") + 1) % 3).withColumn("BodyMass", F.col("BodyMass") * 9)
    again = tune_model(training, poisoned, trials=4, space=QUICK, test_fraction=0.3)
    assert again.trained.metrics["accuracy"] < 0.5 < tuned.trained.metrics["accuracy"], "the poison works"
    assert [trial.params for trial in again.trials] == [trial.params for trial in tuned.trials]
    assert [trial.metrics for trial in again.trials] == [trial.metrics for trial in tuned.trials]
    assert again.best.number == tuned.best.number
    assert again.trained.version is None
    assert mlflow.MlflowClient().search_registered_models() == []


def test_folds_predict_every_training_row_once_by_a_model_that_has_not_seen_it(
    birds: tuple[DataFrame, DataFrame],
) -> None:
    from penguins import pipeline

    training, _ = birds
    folded = data.with_folds(training, folds=3, measured=3)
    assembled = pipeline.assemble(pipeline.fit_features(training), folded, data.PENGUINS, "_fold")
    with data.cached(assembled):
        measures = tune.measure(assembled, TrainingParameters(max_iter=5), data.PENGUINS, 3)
        # Each fold gets other labels than the rest, so only a model that saw its rows could be right about them.
        strange = assembled.withColumn(
            "Species", F.when(F.col("_fold") == 0, 0).otherwise(F.lit(1) + F.col("_fold") % 2)
        )
        blind = tune.measure(strange, TrainingParameters(max_iter=5), data.PENGUINS, 3)
    assert measures["validation_accuracy"] > 0.9
    assert blind["validation_accuracy"] == 0
    assert measures["validation_weightedRecall"] == pytest.approx(measures["validation_accuracy"])


def test_a_fold_depends_on_the_row_and_the_seed_and_not_as_the_split_does(birds: tuple[DataFrame, DataFrame]) -> None:
    training, _ = birds
    folds = {row[:-1]: row[-1] for row in data.with_folds(training, 4, 1).collect()}
    fewer = {row[:-1]: row[-1] for row in data.with_folds(training.where("BodyMass > 4000"), 4, 1).collect()}
    other = {row[:-1]: row[-1] for row in data.with_folds(training, 4, 1, seed=7).collect()}
    assert set(folds.values()) == {0, 1, 2, 3}, "of training rows, which all have the same side of the split"
    assert fewer.items() < folds.items()
    assert other != folds
    assert 30 < list(folds.values()).count(0) < 80


def test_a_fold_without_a_class_is_told_with_the_counts(spark: SparkSession) -> None:
    rows = [("Dream", 40.0 + place, 18.0, 190.0, 3700.0, place % 3) for place in range(9)]
    schema = (
        "Island string, CulmenLength double, CulmenDepth double, FlipperLength double, BodyMass double, Species int"
    )
    nine = spark.createDataFrame(rows, schema)
    with pytest.raises(DataError) as raised:
        data.with_folds(nine, folds=9, measured=9)
    assert re.fullmatch(
        r"Fold 1 of 9 leaves a class without rows on one side: \d Adelie, \d Gentoo, \d Chinstrap to fit and "
        r"\d Adelie, \d Gentoo, \d Chinstrap to validate; give more rows, fewer folds, or another seed\.",
        str(raised.value),
    )


@pytest.mark.parametrize("parallelism", [1, 2])
def test_ctrl_c_keeps_the_best_so_far_and_registers_it(
    parallelism: int, birds: tuple[DataFrame, DataFrame], store: Path
) -> None:
    def interrupt(trial: Trial, best: Trial | None) -> None:
        if trial.number == 1:
            signal.raise_signal(signal.SIGINT)

    tuned = tune_model(*birds, trials=30, parallelism=parallelism, space=QUICK, register_as="birds", on_trial=interrupt)
    assert tuned.ended == "interrupted"
    assert 2 <= len(tuned.trials) <= 4
    assert tuned.trained.version == 1
    parent = mlflow.get_run(tuned.run_id)
    assert (parent.info.status, parent.data.tags["search_ended"]) == ("FINISHED", "interrupted")
    nested = children(tuned.run_id)
    assert nested["best"].info.status == "FINISHED"
    assert {run.info.status for run in nested.values()} <= {"FINISHED", "FAILED", "KILLED"}
    assert mlflow.MlflowClient().get_model_version("birds", "1").tags["search_trials"] == str(len(tuned.trials))


def test_ctrl_c_when_the_search_is_just_over_keeps_its_trials(
    birds: tuple[DataFrame, DataFrame], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def search_and_interrupt(*args: Any, **options: Any) -> None:
        search.search(*args, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(tune, "search", search_and_interrupt)
    tuned = tune_model(*birds, trials=2, space=QUICK)
    assert (tuned.ended, [trial.number for trial in tuned.trials]) == ("interrupted", [0, 1])
    assert sorted(children(tuned.run_id)) == ["best", "trial 0", "trial 1"]


def test_a_timeout_in_which_no_trial_began_is_told(birds: tuple[DataFrame, DataFrame], store: Path) -> None:
    with pytest.raises(ModelError) as raised:
        tune_model(*birds, timeout=1e-6, space=QUICK)
    assert str(raised.value) == "No trial began within 1e-06 seconds: give a longer timeout."
    assert only_parent().info.status == "FAILED"


def test_ctrl_c_before_the_first_trial_leaves_a_killed_run_and_no_model(
    birds: tuple[DataFrame, DataFrame], store: Path
) -> None:
    def interrupt(step: str) -> None:
        if step == "Searching":
            raise KeyboardInterrupt

    with pytest.raises(StoppedError) as raised:
        tune_model(*birds, register_as="birds", report=interrupt)
    assert str(raised.value) == "The search was interrupted before a trial had finished: there is nothing to keep."
    parent = only_parent()
    assert parent.info.status == "KILLED"
    assert parent.data.tags["failure"] == str(raised.value)
    assert mlflow.active_run() is None
    assert mlflow.MlflowClient().search_registered_models() == []


def test_a_trial_that_fails_is_a_failed_run_and_when_all_do_the_search_fails(
    spark: SparkSession, birds: tuple[DataFrame, DataFrame], store: Path, tmp_path: Path
) -> None:
    rows, away = tmp_path / "rows", tmp_path / "away"
    birds[0].coalesce(1).write.parquet(str(rows))
    training = spark.read.parquet(str(rows))

    def take_away(step: str) -> None:
        if step == "Searching":
            rows.rename(away)

    def put_back(trial: Trial, best: Trial | None) -> None:
        if trial.number == 0:
            assert best is None
            away.rename(rows)

    tuned = tune_model(training, birds[1], trials=2, space=QUICK, report=take_away, on_trial=put_back)
    first, second = tuned.trials
    assert (first.value, second.failure) == (None, None)
    assert first.failure is not None
    assert "rows" in first.failure
    assert tuned.best == second
    nested = children(tuned.run_id)
    assert (nested["trial 0"].info.status, nested["trial 1"].info.status) == ("FAILED", "FINISHED")
    assert nested["trial 0"].data.tags["failure"] == first.failure
    assert mlflow.get_run(tuned.run_id).data.metrics["trials_failed"] == 1

    with pytest.raises(ModelError) as raised:
        tune_model(training, birds[1], trials=2, space=QUICK, experiment="none", report=take_away)
    assert str(raised.value).startswith("Every trial failed (2), the first one with: ")
    experiment = mlflow.get_experiment_by_name("none")
    assert experiment is not None
    runs = mlflow.MlflowClient().search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["FAILED"] * 3


def test_what_cannot_be_searched_on_makes_no_run(birds: tuple[DataFrame, DataFrame], store: Path) -> None:
    training, test = birds
    with pytest.raises(ParameterError, match=r"^trials is 0: it must be a whole number from 1 to 1000000\.$"):
        tune_model(training, test, trials=0)
    with pytest.raises(DataError, match=r"^The test set is empty: it needs rows of every class\.$"):
        tune_model(training, test.limit(0))
    few = training.where("Species = 2").limit(1).union(training.where("Species != 2"))
    with pytest.raises(DataError) as raised:
        tune_model(few, test, folds=2)
    assert str(raised.value).endswith("; give more rows, fewer folds, or another seed.")
    assert mlflow.MlflowClient().search_runs(["0"]) == []


def test_the_callers_run_is_used_and_stays_open(birds: tuple[DataFrame, DataFrame], store: Path) -> None:
    with mlflow.start_run() as active:
        tuned = tune_model(*birds, trials=1, timeout=600, space=QUICK)
        assert mlflow.active_run() is not None
        assert mlflow.active_run().info.run_id == active.info.run_id  # type: ignore[union-attr]  # there is one
    assert tuned.run_id == active.info.run_id
    assert sorted(children(tuned.run_id)) == ["best", "trial 0"]
    assert "testFraction" not in mlflow.get_run(tuned.run_id).data.params


def test_the_commands_options_are_the_settings_of_the_search(spark: SparkSession, store: Path) -> None:
    options = ["--trials", "1", "--timeout", "600", "--parallelism", "2", "--folds", "3", "--no-register"]
    place = f"sqlite:///{store / 'mlflow.db'}"
    result = here("tune", "--data", str(PENGUINS_CSV), *options, "--json", "--tracking-uri", place)
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    assert (answer["version"], len(answer["search"]["trials"])) == (None, 1)
    params = Tracking(place).client().get_run(answer["search"]["run_id"]).data.params
    given = {name: params[name] for name in ("trials", "timeout", "parallelism", "folds")}
    assert given == {"trials": "1", "timeout": "600.0", "parallelism": "2", "folds": "3"}
