"""The logged model: three flavors of one fit, and what each door answers."""

from __future__ import annotations

import json
import re
import shutil
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import mlflow.onnx
import numpy as np
import onnxruntime
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server

from penguins import data, flavor
from penguins.data import PENGUINS
from penguins.errors import ModelError
from penguins.train import TrainedModel, train_from_source
from tests.conftest import PENGUINS_CSV

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

LAB = {"Island": "Biscoe", "CulmenLength": 48.7, "CulmenDepth": 14.1, "FlipperLength": 210, "BodyMass": 4450}


@pytest.fixture(scope="module")
def trained(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    from penguins.tracking import Tracking

    Tracking.local(tmp_path_factory.mktemp("flavor")).activate()
    return train_from_source(spark, PENGUINS_CSV, register_as="penguin_predictor")


@pytest.fixture(scope="module")
def folder(trained: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model saved to a path, as the lab does it."""
    target = tmp_path_factory.mktemp("saved") / "deep" / "model"
    flavor.save(trained.model, target, trained.input_example)
    return target


def test_a_model_has_three_flavors_and_no_pickle(folder: Path) -> None:
    model = mlflow.models.Model.load(str(folder))
    assert set(model.flavors) == {"spark", "onnx", "python_function"}
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert {"MLmodel", "model.onnx", "requirements.txt", "python_env.yaml", "conda.yaml"} <= set(files)
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".joblib", ".cloudpickle"))]
    # What a pickle of any protocol since Python 2.3 begins with, whatever it is called.
    assert not [name for name in files if (folder / name).read_bytes().startswith(b"\x80")]
    assert "sparkml/metadata/_SUCCESS" in files


def test_serving_needs_no_spark(folder: Path) -> None:
    names = [line.partition("==")[0] for line in (folder / "requirements.txt").read_text().splitlines()]
    assert names == ["mlflow", "numpy", "onnxruntime", "pandas"]
    assert "spark" not in (folder / "conda.yaml").read_text()


def test_the_signature_is_that_of_the_data(folder: Path) -> None:
    signature = mlflow.models.Model.load(str(folder)).signature
    assert signature is not None
    assert [(column.name, column.type.name) for column in signature.inputs] == [
        ("Island", "string"),
        ("CulmenLength", "double"),
        ("CulmenDepth", "double"),
        ("FlipperLength", "double"),
        ("BodyMass", "double"),
    ]
    assert [(column.name, column.type.name) for column in signature.outputs] == [
        ("prediction", "long"),
        ("species", "string"),
        ("probability_Adelie", "double"),
        ("probability_Gentoo", "double"),
        ("probability_Chinstrap", "double"),
    ]


def test_every_flavor_answers_alike_from_run_path_and_registry(
    spark: SparkSession, trained: TrainedModel, folder: Path
) -> None:
    accepted, _ = data.check(data.read(spark, PENGUINS_CSV))
    birds = accepted.toPandas()
    features = birds[list(PENGUINS.features)]
    uris = [f"runs:/{trained.run_id}/model", trained.model_uri, "models:/penguin_predictor/1", str(folder)]
    for uri in uris:
        on_spark = mlflow.spark.load_model(uri).transform(accepted).toPandas()
        expected = np.stack([vector.toArray() for vector in on_spark["probability"]])

        answer = mlflow.pyfunc.load_model(uri).predict(features)
        np.testing.assert_allclose(answer.filter(like="probability_"), expected, atol=1e-9, rtol=0)
        assert list(answer["prediction"]) == list(on_spark["prediction"].astype(int))

        session = onnxruntime.InferenceSession(mlflow.onnx.load_model(uri).SerializeToString())
        columns = {name: features[[name]].to_numpy() for name in features}
        [probabilities] = session.run(["probabilities"], columns)
        np.testing.assert_allclose(probabilities, expected, atol=1e-9, rtol=0)


def test_the_labs_request_is_a_gentoo_in_every_format_of_the_scoring_server(folder: Path) -> None:
    """The functions here are the scoring server's own: it answers through them, whole numbers included."""
    model = mlflow.pyfunc.load_model(str(folder))
    schema = model.metadata.get_input_schema()
    split = {"columns": list(LAB), "data": [list(LAB.values())]}
    bodies: list[dict[str, Any]] = [
        {"dataframe_records": [LAB]},
        {"dataframe_records": [dict(reversed(LAB.items()))]},
        {"dataframe_split": split},
        {"instances": [LAB]},
        {"inputs": {name: [value] for name, value in LAB.items()}},
    ]
    for body in bodies:
        answer = scoring_server.invocations(json.dumps(body).encode(), "application/json", model, schema)
        [bird] = json.loads(answer.response)["predictions"]
        assert bird["species"] == "Gentoo", body
        assert bird["prediction"] == 1
    csv = StringIO()
    pd.DataFrame([LAB]).to_csv(csv, index=False)
    answer = scoring_server.invocations(csv.getvalue().encode(), "text/csv", model, schema)
    assert json.loads(answer.response)["predictions"][0]["species"] == "Gentoo"


def test_the_scorers_own_door_takes_the_whole_numbers_that_mlflow_refuses(folder: Path) -> None:
    bird = pd.DataFrame([LAB])
    assert list(flavor.load_scorer(str(folder)).predict(bird)["species"]) == ["Gentoo"]
    with pytest.raises(MlflowException, match="Can not safely convert int64 to float64") as raised:
        mlflow.pyfunc.load_model(str(folder)).predict(bird)
    assert raised.value.error_code == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"Island": "Atlantis"}, "Island in row 2 of 2 is 'Atlantis': it must be one of Biscoe, Dream, Torgersen."),
        ({"Island": None}, "Island in row 2 of 2 is null: it must be one of Biscoe, Dream, Torgersen."),
        ({"BodyMass": None}, "BodyMass in row 2 of 2 is nan: it must be a finite number."),
        ({"BodyMass": float("inf")}, "BodyMass in row 2 of 2 is inf: it must be a finite number."),
        ({"CulmenLength": float("nan")}, "CulmenLength in row 2 of 2 is nan: it must be a finite number."),
    ],
)
def test_a_bad_value_through_the_scoring_server_names_column_row_and_what_is_allowed(
    folder: Path, change: dict[str, Any], sentence: str
) -> None:
    model = mlflow.pyfunc.load_model(str(folder))
    body = json.dumps({"dataframe_records": [LAB, {**LAB, **change}]}).encode()
    with pytest.raises(MlflowException) as raised:
        scoring_server.invocations(body, "application/json", model, model.metadata.get_input_schema())
    assert raised.value.get_http_status_code() == 400
    assert raised.value.message.endswith(f"\nError: {sentence}")


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({name: LAB[name] for name in LAB if name != "Island"}, "Model is missing inputs ['Island']"),
        ({**LAB, "BodyMass": "heavy"}, "could not convert string to float: 'heavy'"),
    ],
)
def test_what_the_signature_forbids_is_refused_before_the_model_is_asked(
    folder: Path, record: dict[str, Any], told: str
) -> None:
    model = mlflow.pyfunc.load_model(str(folder))
    body = json.dumps({"dataframe_records": [record]}).encode()
    with pytest.raises(MlflowException) as raised:
        scoring_server.invocations(body, "application/json", model, model.metadata.get_input_schema())
    assert raised.value.get_http_status_code() == 400
    assert told in raised.value.message


def test_two_versions_of_the_scorer_load_in_one_process(folder: Path, tmp_path: Path) -> None:
    """The scorer's module is named after its content, so another model's scorer can't take its place."""
    import shutil

    other = tmp_path / "other"
    shutil.copytree(folder, other)
    [code] = (other / "code").glob("penguins_scorer_*.py")
    code.write_text(code.read_text().replace('"prediction": prediction', '"prediction": prediction + 100'))
    renamed = code.rename(code.with_name("penguins_scorer_another.py"))
    (other / "MLmodel").write_text((other / "MLmodel").read_text().replace(code.stem, renamed.stem))
    bird = pd.DataFrame([LAB]).astype({"FlipperLength": float, "BodyMass": float})
    assert mlflow.pyfunc.load_model(str(other)).predict(bird)["prediction"].item() == 101
    assert mlflow.pyfunc.load_model(str(folder)).predict(bird)["prediction"].item() == 1


def test_saving_refuses_to_overwrite(trained: TrainedModel, folder: Path) -> None:
    before = (folder / "MLmodel").read_bytes()
    with pytest.raises(ModelError) as raised:
        flavor.save(trained.model, folder, trained.input_example)
    assert str(raised.value) == f"{folder} exists already: give a path that doesn't, or remove it first."
    assert (folder / "MLmodel").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"], "nothing half-written lies beside it"


def test_a_model_that_isnt_there_is_told_in_one_sentence(spark: SparkSession, store: Path) -> None:
    for load in (flavor.load_spark, flavor.load_scorer):
        with pytest.raises(ModelError, match=r"^models:/nobody/1 can't be loaded: .*nobody.* not found"):
            load("models:/nobody/1")


def test_a_package_that_is_missing_is_told_with_the_extra_that_has_it(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "code")
    described = tmp_path / "model" / "MLmodel"
    described.write_text(re.sub("loader_module: .*", "loader_module: nowhere.to_be_found", described.read_text()))
    with pytest.raises(ModelError) as caught:
        flavor.load_python_function(str(tmp_path / "model"))
    assert str(caught.value).endswith(
        "can't be loaded (No module named 'nowhere'): install what is missing; for models in Unity Catalog that is "
        '`pip install "penguins[databricks]"`.'
    )


def test_a_twin_that_answers_otherwise_is_refused(spark: SparkSession, trained: TrainedModel) -> None:
    import onnx

    from penguins.export import to_onnx

    twin = to_onnx(trained.model)
    [intercepts] = [tensor for tensor in twin.graph.initializer if tensor.name == "intercepts"]
    shifted = onnx.numpy_helper.to_array(intercepts) + np.array([1e-6, 0, 0])
    intercepts.CopyFrom(onnx.numpy_helper.from_array(shifted, "intercepts"))
    accepted, _ = data.check(data.read(spark, PENGUINS_CSV))
    sample = flavor.collect_sample(trained.model.transform(accepted))
    with pytest.raises(
        ModelError, match=r"of 342 test rows 0 get another prediction, and probabilities differ by up to"
    ):
        flavor.largest_difference(sample, twin)
