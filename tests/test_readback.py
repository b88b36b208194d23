"""A model that can't be served is never logged: each flavor is loaded from what was written, and asked."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import mlflow
import numpy as np
import onnx
import pandas as pd
import pytest
import requests
from mlflow.models import Model, ModelSignature
from mlflow.pyfunc.model import PythonModel
from mlflow.types import ColSpec, Schema
from pyspark.ml import PipelineModel
from sklearn.datasets import load_digits, make_classification

from penguins import flavor, integrity, outcome, readback, registry, serve
from penguins.config import Policy, TrainingParameters
from penguins.errors import ModelError, PenguinsError
from penguins.promote import promote
from penguins.registry import Version
from penguins.spec import Numeric, Spec
from penguins.tracking import Tracking
from penguins.train import TrainedModel, train_from_source
from tests.conftest import LAB_BIRD, PENGUINS_CSV

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.slow]


class Wide(NamedTuple):
    """A table with many columns and classes, as a file, and what it looks like."""

    file: Path
    spec: Spec


def wide_table(name: str, folder: Path) -> Wide:
    if name == "digits":
        table = load_digits(as_frame=True)
        values, labels = table.data[:800], table.target[:800]
    else:
        made, labels = make_classification(
            400, 100, n_informative=40, n_classes=20, n_clusters_per_class=1, class_sep=4, random_state=1
        )
        values = pd.DataFrame(made, columns=[f"column {number}" for number in range(100)])
    numeric = tuple(Numeric(str(column), "", -1000, 1000) for column in values)
    spec = Spec((), numeric, "Kind", tuple(f"kind {number}" for number in sorted(set(labels))))
    file = folder / f"{name}.csv"
    values.assign(Kind=labels).astype(float).to_csv(file, index=False)
    return Wide(file, spec)


@pytest.fixture(scope="module")
def trained(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> TrainedModel:
    """A model of the penguins in a store of this module, version 1 of `penguin_predictor`."""
    folder = tmp_path_factory.mktemp("readback")
    shutil.copy(empty_store, folder)
    Tracking.local(folder).activate()
    return train_from_source(spark, PENGUINS_CSV, experiment="birds", register_as="penguin_predictor")


@pytest.fixture(scope="module")
def whole(trained: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that model, saved."""
    folder = tmp_path_factory.mktemp("whole") / "model"
    flavor.save(trained.model, folder, trained.input_example, trained.spec)
    return folder


def elsewhere(folder: Path) -> None:
    """Move the graph's numbers into a file of their own, as MLflow does with large ones, and leave it out."""
    graph = onnx.load(folder / "model.onnx")
    onnx.save_model(graph, folder / "model.onnx", save_as_external_data=True, location="numbers", size_threshold=0)
    (folder / "numbers").unlink()


def shifted(folder: Path) -> None:
    """Give the graph other intercepts than the Spark model has."""
    graph = onnx.load(folder / "model.onnx")
    [intercepts] = [tensor for tensor in graph.graph.initializer if tensor.name == "intercepts"]
    moved = onnx.numpy_helper.to_array(intercepts) + np.array([1e-6, 0, 0])
    intercepts.CopyFrom(onnx.numpy_helper.from_array(moved, "intercepts"))
    onnx.save_model(graph, folder / "model.onnx")


def half_a_spark_model(folder: Path) -> None:
    shutil.rmtree(next((folder / "sparkml" / "stages").glob("*LogisticRegression*")) / "data")


def no_example(folder: Path) -> None:
    (folder / "input_example.json").unlink()


def another_kind_of_number(folder: Path) -> None:
    """A signature written by hand that refuses the model's own example."""
    model = Model.load(str(folder))
    model.signature = ModelSignature(Schema([ColSpec("boolean", str(name)) for name in LAB_BIRD]))
    model.save(str(folder / "MLmodel"))


@pytest.mark.parametrize("name", ["digits", "twenty classes"])
def test_a_champion_of_many_columns_and_classes_can_be_served(
    spark: SparkSession, store: Path, tmp_path: Path, name: str
) -> None:
    table = wide_table(name, tmp_path)
    trained = train_from_source(spark, table.file, TrainingParameters(10), spec=table.spec, register_as="wide")
    rows = trained.input_example
    expected = [row["prediction"] for row in trained.model.transform(spark.createDataFrame(rows)).collect()]
    assert list(flavor.load_scorer("models:/wide/1").predict(rows)["prediction"]) == expected
    assert list(mlflow.pyfunc.load_model("models:/wide/1").predict(rows)["prediction"]) == expected
    if name == "digits":
        promotion = promote(spark, Version("wide", 1), policy=Policy(0.5, 0, 1), spec=table.spec)
        assert promotion.moved, promotion.verdict.reasons
        with serve.serving("models:/wide@champion") as url:
            body = {"dataframe_split": rows.to_dict("split", index=False)}
            answer = requests.post(f"{url}/invocations", json=body, timeout=60).json()
        assert [row["prediction"] for row in answer["predictions"]] == expected


def test_a_model_of_another_table_is_refused_by_its_columns(spark: SparkSession, trained: TrainedModel) -> None:
    other = Spec((), tuple(Numeric(f"pixel {n}", "", 0, 16) for n in range(64)), "Digit", ("0", "1"))
    with pytest.raises(ModelError) as refused:
        promote(spark, Version("penguin_predictor", 1), spec=other)
    assert str(refused.value) == (
        "models:/penguin_predictor/1 was trained on Island, CulmenLength, CulmenDepth, FlipperLength, BodyMass, "
        "but the spec has pixel 0, pixel 1, pixel 2, pixel 3, pixel 4 and 59 more columns: "
        "judge it with the spec that it was trained with (`spec=` of `promote.promote`)."
    )
    assert mlflow.search_runs(search_all_experiments=True, filter_string="tags.step = 'promote'").empty


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (elsewhere, " can't be served as python_function: "),
        (
            shifted,
            " can't be served: its flavor spark doesn't answer as its flavor python_function does: of 5 test rows 0",
        ),
        (half_a_spark_model, " can't be served as spark: "),
        (no_example, " can't be served as python_function: its input example can't be read."),
        (another_kind_of_number, " can't be served as python_function: Island in row 1 of 5 is True (and 4 more): "),
    ],
)
def test_what_cant_be_loaded_or_answers_otherwise_is_not_registered(
    spark: SparkSession, store: Path, whole: Path, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    damage(folder)
    with pytest.raises(ModelError) as refused:
        registry.register_folder(folder, "refused")
    assert str(refused.value).startswith(f"{folder}{said}"), str(refused.value)
    assert "\n" not in str(refused.value)
    assert mlflow.MlflowClient().search_registered_models() == []
    assert mlflow.search_runs(search_all_experiments=True).empty


def test_every_way_into_a_registry_and_out_of_it_asks_first(
    spark: SparkSession, store: Path, whole: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    elsewhere(folder)
    with mlflow.start_run() as run:
        registry.log_folder(str(folder))
    kept = tmp_path / "kept"
    kept.mkdir()
    summary = outcome.Summary("birds", None, {}, {}, None, {}, {}, "refused", "", {})
    (kept / outcome.SUMMARY).write_text(json.dumps(summary.__dict__))
    shutil.copytree(folder, kept / outcome.MODEL)
    # As whoever doesn't use this package would register it.
    mlflow.register_model(f"runs:/{run.info.run_id}/model", "unasked")
    here, there = Tracking.local(store), Tracking.local(tmp_path / "there")
    (tmp_path / "there").mkdir()
    ways: dict[str, Callable[[], Any]] = {
        f"runs:/{run.info.run_id}/model": lambda: registry.register_run(run.info.run_id, "refused"),
        str(kept / outcome.MODEL): lambda: outcome.log_kept(kept),
        "models:/unasked/1": lambda: registry.copy_version("unasked", 1, here, there, copy_as="refused"),
        "The copy of models:/unasked/1 without Spark": lambda: flavor.save_without_spark(
            "models:/unasked/1", tmp_path / "copy"
        ),
    }
    for what, way in ways.items():
        with pytest.raises(PenguinsError) as refused:
            way()
        assert str(refused.value).startswith(f"{what} can't be served as python_function: "), str(refused.value)
    assert [model.name for model in mlflow.MlflowClient().search_registered_models()] == ["unasked"]
    assert len(mlflow.search_runs(search_all_experiments=True)) == 1
    assert there.client().search_registered_models() == []
    assert not (tmp_path / "copy").exists()


def test_other_flavors_are_registered_and_asked_too(store: Path, tmp_path: Path) -> None:
    class Answering(PythonModel):
        def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> list[float]:
            return [1 / value for value in model_input["weight"]]

    for name, example in (("good", 2.0), ("bad", "heavy")):
        rows = pd.DataFrame({"weight": [example]})
        mlflow.pyfunc.save_model(str(tmp_path / name), python_model=Answering(), pip_requirements=["mlflow"])
        description = Model.load(str(tmp_path / name))
        mlflow.models.utils._save_example(description, rows, str(tmp_path / name))
        description.save(str(tmp_path / name / "MLmodel"))
    _, version = registry.register_folder(tmp_path / "good", "anything")
    assert flavor.load_python_function(version.uri).predict(pd.DataFrame({"weight": [4.0]})) == [0.25]
    with pytest.raises(ModelError) as refused:
        registry.register_folder(tmp_path / "bad", "anything")
    assert str(refused.value) == (
        f"{tmp_path / 'bad'} can't be served as python_function: unsupported operand type(s) for /: 'int' and 'str'."
    )
    # Nobody knows how to ask such a one: it is registered as it is.
    (tmp_path / "unknown").mkdir()
    (tmp_path / "unknown" / "MLmodel").write_text("flavors:\n  fortran:\n    data: model.f90\n")
    _, version = registry.register_folder(tmp_path / "unknown", "anything")
    assert version.number == 2


def test_nothing_is_left_behind_and_the_folder_stays_as_it_was(whole: Path) -> None:
    before = sorted(path.relative_to(whole).as_posix() for path in whole.rglob("*"))
    assert not [name for name in before if "__pycache__" in name]
    digest = integrity.digest(whole)
    readback.require_answers(whole)
    assert sorted(path.relative_to(whole).as_posix() for path in whole.rglob("*")) == before
    assert integrity.digest(whole) == digest


class Noted(PipelineModel):
    """A pipeline that notes where it is told to save itself."""

    def save(self, path: str) -> None:
        self.saved_to = Path(path)
        super().save(path)


def test_spark_saves_a_model_where_nobody_else_does(
    trained: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_DFS_TMP", raising=False)
    pipeline = Noted(trained.model.stages)
    flavor.save(pipeline, tmp_path / "model [1] 50%", trained.input_example)
    first = pipeline.saved_to
    assert first.parent.parent.parent == Path(tempfile.gettempdir())
    assert not first.parent.parent.exists()
    assert flavor.load_scorer(str(tmp_path / "model [1] 50%")).predict(LAB_BIRD)["species"].item() == "Gentoo"

    monkeypatch.setenv("MLFLOW_DFS_TMP", str(tmp_path / "named"))
    flavor.save(pipeline, tmp_path / "again", trained.input_example)
    assert pipeline.saved_to.parent == tmp_path / "named"
