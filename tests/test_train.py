"""Training: what one MLflow run holds, where it goes, and what a failure leaves behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import mlflow.pyspark.ml
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from mlflow.utils.autologging_utils import autologging_is_disabled
from py4j.protocol import Py4JJavaError
from pyspark.sql import functions as F
from sklearn.datasets import load_breast_cancer

from penguins import data, flavor
from penguins.config import TrainingParameters
from penguins.data import PENGUINS, Numeric, Spec
from penguins.errors import DataError, ParameterError
from penguins.train import TrainedModel, train_from_source, train_model
from tests.conftest import PENGUINS_CSV

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.spark

ROWS = [
    ("Torgersen", 39.1, 18.7, 181.0, 3750.0, 0),
    ("Torgersen", 38.6, 21.2, 191.0, 3800.0, 0),
    ("Biscoe", 46.1, 13.2, 211.0, 4500.0, 1),
    ("Biscoe", 50.0, 16.3, 230.0, 5700.0, 1),
    ("Dream", 46.5, 17.9, 192.0, 3500.0, 2),
    ("Dream", 51.3, 19.2, 193.0, 3650.0, 2),
]


@pytest.fixture
def tiny(spark: SparkSession) -> DataFrame:
    schema = (
        "Island string, CulmenLength double, CulmenDepth double, FlipperLength double, BodyMass double, Species int"
    )
    return spark.createDataFrame(ROWS, schema)


@pytest.fixture
def no_caches(spark: SparkSession) -> Iterator[None]:
    yield
    assert cached_rdds(spark) == 0


def cached_rdds(spark: SparkSession) -> int:
    return int(spark.sparkContext._jsc.getPersistentRDDs().size())


def dataset_inputs(run: mlflow.entities.Run) -> dict[str, mlflow.entities.DatasetInput]:
    assert run.inputs is not None
    return {item.dataset.name: item for item in run.inputs.dataset_inputs}


def all_runs() -> list[mlflow.entities.Run]:
    client = mlflow.MlflowClient()
    return list(client.search_runs([experiment.experiment_id for experiment in client.search_experiments()]))


@pytest.fixture(scope="module")
def trained(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainedModel, Path]:
    """One full run from the CSV file, registered, and the folder of its store."""
    from penguins.tracking import Tracking

    folder = tmp_path_factory.mktemp("trained")
    Tracking.local(folder).activate()
    steps: list[str] = []
    result = train_from_source(
        spark,
        PENGUINS_CSV,
        experiment="birds",
        register_as="penguin_predictor",
        report=steps.append,
        tags={"team": "ice"},
    )
    assert steps[0] == "Reading and checking the data"
    return result, folder


@pytest.fixture
def run(trained: tuple[TrainedModel, Path]) -> mlflow.entities.Run:
    from penguins.tracking import Tracking

    result, folder = trained
    Tracking.local(folder).activate()
    return mlflow.get_run(result.run_id)


def test_a_run_has_the_parameters_under_mllibs_names(run: mlflow.entities.Run) -> None:
    assert run.info.status == "FINISHED"
    assert run.data.params == {
        "maxIter": "100",
        "regParam": "0.001",
        "elasticNetParam": "0.0",
        "seed": "42",
        "testFraction": "0.3",
    }


def test_a_run_has_the_metrics_and_row_counts(run: mlflow.entities.Run, trained: tuple[TrainedModel, Path]) -> None:
    result, _ = trained
    per_class = {f"{m}_{c}" for m in ("precision", "recall", "fMeasure") for c in ("Adelie", "Gentoo", "Chinstrap")}
    weighted = {"accuracy", "weightedPrecision", "weightedRecall", "weightedFMeasure", "parityMaxDifference"}
    assert set(result.metrics) == per_class | weighted
    assert run.data.metrics.items() >= result.metrics.items()
    assert result.rows == {"read": 344, "training": 226, "test": 116, "quarantined": 2}
    assert {name: run.data.metrics[f"rows_{name}"] for name in result.rows} == result.rows
    assert result.metrics["parityMaxDifference"] <= 1e-12


def test_a_run_says_what_made_it(run: mlflow.entities.Run, trained: tuple[TrainedModel, Path]) -> None:
    from penguins import __version__

    assert run.data.tags["penguins.version"] == __version__
    assert run.data.tags["team"] == "ice"
    inputs = dataset_inputs(run)
    assert set(inputs) == {"training", "test"}
    for name, item in inputs.items():
        assert json.loads(item.dataset.source)["path"] == str(PENGUINS_CSV)
        assert {tag.key: tag.value for tag in item.tags}["mlflow.data.context"] == name
    assert inputs["training"].dataset.digest != inputs["test"].dataset.digest


def test_a_run_has_pictures_a_report_and_the_reasons(run: mlflow.entities.Run) -> None:
    artifacts = {item.path for item in mlflow.MlflowClient().list_artifacts(run.info.run_id)}
    assert artifacts >= {"confusion_matrix.png", "coefficients.png", "report.txt", "quarantined.json"}
    report = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/report.txt")
    assert "Chinstrap" in report
    reasons = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/quarantined.json")
    assert reasons["BodyMass is missing"] == 2


def test_the_version_tells_where_it_comes_from(run: mlflow.entities.Run, trained: tuple[TrainedModel, Path]) -> None:
    result, _ = trained
    version = mlflow.MlflowClient().get_model_version("penguin_predictor", str(result.version))
    assert version.run_id == result.run_id
    assert (version.description or "").startswith(
        "Logistic regression of Species, trained on 226 rows: accuracy 0.991 on 116"
    )
    assert {"penguins_version", "digest_training", "digest_test", "accuracy", "team"} <= set(version.tags)


def test_an_active_run_is_used(tiny: DataFrame, store: Path) -> None:
    with mlflow.start_run() as active:
        result = train_model(tiny, tiny)
        assert mlflow.active_run() is not None, "the caller's run stays open"
    assert result.run_id == active.info.run_id
    assert [run.info.run_id for run in all_runs()] == [result.run_id]


def test_a_jobs_run_is_picked_up(tiny: DataFrame, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = mlflow.MlflowClient().create_run("0", run_name="job")
    monkeypatch.setenv("MLFLOW_RUN_ID", job.info.run_id)
    result = train_model(tiny, tiny, experiment="another")
    assert result.run_id == job.info.run_id
    assert len(all_runs()) == 1


def test_a_failure_ends_the_run_and_leaves_nothing_else(tiny: DataFrame, store: Path, no_caches: None) -> None:
    unchecked = tiny.withColumn("CulmenDepth", F.nullif("CulmenDepth", F.lit(18.7)))
    with pytest.raises(Py4JJavaError, match="Encountered null"):
        train_model(unchecked, tiny, register_as="penguin_predictor")
    [run] = all_runs()
    assert run.info.status == "FAILED"
    # What the JVM's innermost cause says, and not that an error occurred while calling something.
    assert run.data.tags["failure"].startswith("Encountered null while assembling a row")
    assert mlflow.MlflowClient().search_registered_models() == []


@pytest.mark.parametrize("name", ["", " ", "no/such:name"])
def test_a_name_that_no_registry_takes_is_refused_at_once(tiny: DataFrame, store: Path, name: str) -> None:
    with pytest.raises(ParameterError) as raised:
        train_model(tiny, tiny, register_as=name)
    assert str(raised.value) == (
        f"The registered model's name is {name!r}: give a name without / : @ ? ' or line breaks, not . or .., "
        "and no more than 250 characters."
    )
    assert all_runs() == []


def test_data_that_cant_be_trained_on_makes_no_run(tiny: DataFrame, store: Path) -> None:
    cases = {
        "The training set is empty: it needs rows of every class.": (tiny.limit(0), tiny),
        "The test set is empty: it needs rows of every class.": (tiny, tiny.limit(0)),
        "The training set has no Gentoo, Chinstrap: it needs rows of every class, but has 2 Adelie, 0 Gentoo, "
        "0 Chinstrap.": (tiny.where("Species = 0"), tiny),
        "The training set lacks the columns Island, BodyMass; it has CulmenLength, CulmenDepth, FlipperLength, "
        "Species.": (tiny.drop("Island", "BodyMass"), tiny),
        "Island is Torgersen in the test set, but only Biscoe, Dream in the training set: give more rows, another "
        "seed, or a smaller test fraction.": (tiny.replace("Torgersen", "Biscoe"), tiny),
        "The test set lacks the column Species; it has Island, CulmenLength, CulmenDepth, FlipperLength, BodyMass.": (
            tiny,
            tiny.drop("Species"),
        ),
    }
    for sentence, (training, test) in cases.items():
        with pytest.raises(DataError) as raised:
            train_model(training, test)
        assert str(raised.value) == sentence
    with pytest.raises(ParameterError, match=r"^max_iter is 0: it must be a whole number from 1 to 2147483647\.$"):
        train_model(tiny, tiny, max_iter=0)
    assert all_runs() == []


def test_names_that_the_pipeline_needs_make_no_run(spark: SparkSession, store: Path) -> None:
    spec = Spec(("Probability", "a"), (Numeric("aidx", "", 0, 1),), "y", ("n", "p"))
    rows = spark.createDataFrame(
        [("u", "v", 0.5, 0), ("u", "v", 0.7, 1)], "Probability string, a string, aidx double, y int"
    )
    with pytest.raises(ParameterError) as raised:
        train_model(rows, rows, spec=spec)
    assert str(raised.value) == (
        "The pipeline adds the columns Features, ProbabilityIdx, aIdx, normalizedFeatures, numericFeatures, "
        "prediction, probability, rawPrediction: give Probability, aidx another name."
    )
    assert all_runs() == []


def test_autologging_adds_without_doubling(tiny: DataFrame, store: Path) -> None:
    plain = mlflow.get_run(train_model(tiny, tiny).run_id)
    autologged = mlflow.get_run(train_model(tiny, tiny, autolog=True).run_id)
    assert plain.data.params.items() <= autologged.data.params.items()
    assert autologged.data.params["family"] == "auto", "what only autologging records"
    assert set(autologged.data.metrics) == set(plain.data.metrics)
    assert set(dataset_inputs(autologged)) == set(dataset_inputs(plain)) == {"training", "test"}
    assert autologged.outputs is not None
    assert len(autologged.outputs.model_outputs) == 1


def test_what_the_caller_lets_mlflow_log_stays_so_and_adds_no_model(tiny: DataFrame, store: Path) -> None:
    mlflow.pyspark.ml.autolog(silent=True)
    try:
        plain = mlflow.get_run(train_model(tiny, tiny).run_id)
        autologged = mlflow.get_run(train_model(tiny, tiny, reg_param=0, autolog=True).run_id)
        assert not autologging_is_disabled("pyspark.ml")
    finally:
        mlflow.pyspark.ml.autolog(disable=True, silent=True)
    for run in (plain, autologged):
        assert run.outputs is not None
        assert len(run.outputs.model_outputs) == 1
    assert "family" not in plain.data.params
    assert (autologged.data.params["family"], autologged.data.params["regParam"]) == ("auto", "0.0")


def test_a_signature_written_by_hand_is_kept(tiny: DataFrame, store: Path) -> None:
    numbers = [ColSpec("double", numeric.name) for numeric in PENGUINS.numeric]
    by_hand = ModelSignature(Schema([ColSpec("string", "Island"), *numbers]), Schema([ColSpec("long", "prediction")]))
    result = train_model(tiny, tiny, signature=by_hand)
    assert mlflow.models.get_model_info(result.model_uri).signature == by_hand


def test_quarantined_rows_are_written_whole_or_not_at_all(spark: SparkSession, tmp_path: Path, store: Path) -> None:
    target = tmp_path / "aside" / "bad.csv"
    train_from_source(spark, PENGUINS_CSV, quarantine=target)
    lines = target.read_text().splitlines()
    assert lines[0] == "Island,CulmenLength,CulmenDepth,FlipperLength,BodyMass,Species,_corrupt_record,reasons"
    assert sorted(line.split(",")[0] for line in lines[1:]) == ["Biscoe", "Torgersen"]
    assert "CulmenLength is missing; CulmenDepth is missing" in lines[1]
    before = target.read_bytes()
    with pytest.raises(
        DataError, match="exists already: give another path for the quarantined rows, or remove it first"
    ):
        train_from_source(spark, PENGUINS_CSV, quarantine=target)
    assert target.read_bytes() == before
    assert [path.name for path in target.parent.iterdir()] == ["bad.csv"]
    assert cached_rdds(spark) == 0


def test_another_table_with_two_classes_and_no_category(spark: SparkSession, tmp_path: Path, store: Path) -> None:
    table = load_breast_cancer(as_frame=True).frame
    table = table[["worst radius", "worst texture", "worst smoothness", "target"]].set_axis(
        ["radius", "texture", "smoothness", "Diagnosis"], axis=1
    )
    spec = Spec(
        categorical=(),
        numeric=(Numeric("radius", "mm", 0, 100), Numeric("texture", "", 0, 100), Numeric("smoothness", "", 0, 1)),
        label="Diagnosis",
        classes=("malignant", "benign"),
    )
    file = tmp_path / "tumours.csv"
    table.to_csv(file, index=False)
    parameters = TrainingParameters(reg_param=0.0001)
    result = train_from_source(spark, file, parameters, spec=spec, register_as="main.clinic.tumours")
    assert result.metrics["accuracy"] > 0.9
    assert result.params["regParam"] == 0.0001
    answer = flavor.load_scorer(f"models:/main.clinic.tumours/{result.version}").predict(table.head(2))
    assert list(answer.columns) == ["prediction", "diagnosis", "probability_malignant", "probability_benign"]
    assert list(answer["diagnosis"]) == ["malignant", "malignant"]


def test_rows_can_be_made_again_from_what_the_run_says(
    spark: SparkSession, run: mlflow.entities.Run, trained: tuple[TrainedModel, Path]
) -> None:
    inputs = {name: item.dataset for name, item in dataset_inputs(run).items()}
    accepted, _ = data.check(data.read(spark, json.loads(inputs["test"].source)["path"]))
    _, test = data.split(accepted, float(run.data.params["testFraction"]), int(run.data.params["seed"]))
    assert data.profile(test).digest == inputs["test"].digest
