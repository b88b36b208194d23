"""Model versions: registering them, and copying one to another store."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pandas as pd
import pytest
import requests

from penguins import flavor, registry
from penguins.errors import ModelError, StoreError
from penguins.promote import promote
from penguins.registry import Version
from penguins.tracking import Tracking
from penguins.train import train_from_source
from tests.conftest import PENGUINS_CSV, point_at_nothing
from tests.servers import mlflow_server

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


def test_versions_count_up_and_keep_their_description_and_tags(spark: SparkSession, store: Path) -> None:
    trained = train_from_source(spark, PENGUINS_CSV)
    assert trained.version is None
    name = "main.antarctica.penguin_predictor"
    first = registry.register(trained.model_uri, name, description="the first", tags={"colour": "black"})
    second = registry.register(trained.model_uri, name, tags={"colour": "white"})
    assert (first, second) == (1, 2)
    client = mlflow.MlflowClient()
    assert client.get_model_version(name, "1").description == "the first"
    assert [client.get_model_version(name, version).tags["colour"] for version in ("1", "2")] == ["black", "white"]


def test_tags_are_cut_to_what_every_registry_takes(models: Path) -> None:
    version = registry.newest("penguin_predictor")
    registry.describe(version, {"short": "ice", "long": "x" * 251, "fits": "y" * 250})
    tags = mlflow.MlflowClient().get_model_version(version.name, str(version.number)).tags
    assert (tags["short"], tags["long"], tags["fits"]) == ("ice", f"{'x' * 247}...", "y" * 250)


def test_a_model_that_isnt_there_registers_nothing(store: Path) -> None:
    with pytest.raises(StoreError, match=r"^The model can't be registered as penguin_predictor: .*m-nothing"):
        registry.register("models:/m-nothing", "penguin_predictor")
    assert mlflow.MlflowClient().search_registered_models() == []


def test_a_version_is_copied_to_another_store_with_its_history(
    spark: SparkSession, store: Path, tmp_path: Path
) -> None:
    trained = train_from_source(spark, PENGUINS_CSV, register_as="penguin_predictor")
    here, there = Tracking.local(store), Tracking.local(tmp_path)
    version = registry.copy_version("penguin_predictor", 1, here, there, copy_as="flown_away")
    assert version == 1
    assert mlflow.get_tracking_uri() == here.tracking_uri, "the store in use stays as it was"

    copy = there.client().get_model_version("flown_away", "1")
    assert copy.tags["copied_from"] == "models:/penguin_predictor/1"
    assert copy.description == here.client().get_model_version("penguin_predictor", "1").description
    run = there.client().get_run(copy.run_id or "")
    assert run.data.params["maxIter"] == "100"
    assert run.data.metrics["accuracy"] == trained.metrics["accuracy"]
    assert copy.run_id != trained.run_id

    bird = pd.DataFrame([{"Island": "Biscoe", "CulmenLength": 48.7, "CulmenDepth": 14.1, "FlipperLength": 210.0}])
    bird["BodyMass"] = 4450.0
    there.activate()
    assert mlflow.pyfunc.load_model("models:/flown_away/1").predict(bird)["species"].item() == "Gentoo"
    assert flavor.load_spark("models:/flown_away/1").transform(spark.createDataFrame(bird)).first()["prediction"] == 1.0  # type: ignore[index]  # one row


def test_a_version_whose_files_are_gone_cant_be_copied(store: Path, models: Path, tmp_path: Path) -> None:
    point_at_nothing(models, version=2)
    here, source = Tracking.local(store), Tracking(f"sqlite:///{models}")
    here.activate()
    with pytest.raises(ModelError, match=r"^models:/penguin_predictor/2 can't be read from sqlite:.*MLmodel"):
        registry.copy_version("penguin_predictor", 2, source, here)
    assert mlflow.get_tracking_uri() == here.tracking_uri
    assert here.client().search_registered_models() == []


def test_a_version_that_isnt_there_cant_be_copied(store: Path, tmp_path: Path) -> None:
    here, there = Tracking.local(store), Tracking.local(tmp_path)
    with pytest.raises(ModelError, match=r"^models:/nobody/7 can't be read from sqlite:.*nobody"):
        registry.copy_version("nobody", 7, here, there)
    assert mlflow.get_tracking_uri() == here.tracking_uri
    assert there.client().search_registered_models() == []


NAME = "penguin_predictor"


def sentence_of(model: str) -> str:
    with pytest.raises(ModelError) as raised:
        registry.resolve(model)
    return str(raised.value)


def test_what_isnt_there_is_told_as_it_is(models: Path) -> None:
    client = mlflow.MlflowClient()
    rest = "`penguins train` makes a version, `penguins promote` the champion."
    assert sentence_of(f"models:/{NAME}@champion") == f"{NAME} doesn't have the alias champion: {rest}"
    assert sentence_of(f"models:/{NAME}/7") == f"{NAME} doesn't have a version 7: {rest}"
    for model in ("models:/emperors@champion", "models:/emperors/1"):
        assert sentence_of(model) == "There is no registered model emperors: `penguins train` makes one."
    client.delete_model_version(NAME, "2")
    # MLflow's own functions remove the aliases of a version with it; not every registry does.
    put_alias(models, "champion", 2)
    put_alias(models, "night", 2)
    assert sentence_of(f"models:/{NAME}@champion") == (
        f"The alias champion of {NAME} is that of version 2, which is deleted: "
        "`penguins promote --replace-broken-champion` makes another version champion."
    )
    assert sentence_of(f"models:/{NAME}@night") == (
        f"The alias night of {NAME} is that of version 2, which is deleted: give it to another one."
    )
    client.delete_registered_model(NAME)
    assert sentence_of(f"models:/{NAME}@champion") == (
        f"There is no registered model {NAME}: `penguins train` makes one."
    )
    with pytest.raises(ModelError, match=rf"^There is no version of {NAME}: `penguins train` makes one\.$"):
        registry.newest(NAME)


def test_a_version_that_isnt_ready_is_told_and_one_that_failed_isnt_the_newest(models: Path) -> None:
    change(models, "UPDATE model_versions SET status = 'PENDING_REGISTRATION' WHERE version = 2")
    change(
        models,
        "UPDATE model_versions SET status = 'FAILED_REGISTRATION', status_message = 'no space left' WHERE version = 3",
    )
    assert sentence_of(f"models:/{NAME}/2") == (
        f"Version 2 of {NAME} isn't there yet (PENDING_REGISTRATION): try again when the registry has all its files."
    )
    assert sentence_of(f"models:/{NAME}/3") == (
        f"Version 3 of {NAME} has no files (FAILED_REGISTRATION: no space left): register the model of its run again."
    )
    assert registry.newest(NAME).number == 2, "which is to be waited for"


def test_a_version_without_its_training_run_cant_be_judged_and_says_why(spark: SparkSession, models: Path) -> None:
    client = mlflow.MlflowClient()
    change(models, "UPDATE model_versions SET run_id = NULL WHERE version = 3")
    with pytest.raises(ModelError) as raised:
        promote(spark, Version(NAME, 3))
    assert str(raised.value) == f"models:/{NAME}/3 was registered without a training run, so it can't be judged."
    change(models, f"UPDATE model_versions SET run_id = '{'0' * 32}' WHERE version = 1")
    with pytest.raises(ModelError, match=rf"^The training run of models:/{NAME}/1 can't be found: .*0000"):
        promote(spark, Version(NAME, 1))
    run = mlflow.get_run(client.get_model_version(NAME, "2").run_id or "")
    client.delete_experiment(run.info.experiment_id)
    with pytest.raises(StoreError, match=r"^No run can be started: .*deleted"):
        promote(spark, Version(NAME, 2))


def put_alias(database: Path, alias: str, version: int) -> None:
    change(
        database, f"INSERT INTO registered_model_aliases (alias, version, name) VALUES ('{alias}', {version}, '{NAME}')"
    )


def change(database: Path, statement: str) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute(statement)
    connection.close()


class Lossy(BaseHTTPRequestHandler):
    """A way to a real MLflow server on which the answer to one request is lost."""

    server_uri = ""
    lost = ""
    reaches = True

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kept = {"Content-Type": self.headers.get("Content-Type", "application/json")}
        is_lost = bool(type(self).lost) and self.path.endswith(type(self).lost)
        if not is_lost or type(self).reaches:
            answer = requests.request(
                self.command, type(self).server_uri + self.path, data=body, headers=kept, timeout=60
            )
        status, content = (502, b"The gateway gave up") if is_lost else (answer.status_code, answer.content)
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    # The names are those of Python's server.
    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def behind_a_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracking]:
    """A real MLflow server behind a gateway that can lose answers."""
    with mlflow_server(tmp_path_factory.mktemp("behind")) as server:
        Lossy.server_uri = server.uri
        with ThreadingHTTPServer(("127.0.0.1", 0), Lossy) as gateway:
            threading.Thread(target=gateway.serve_forever, daemon=True).start()
            yield Tracking(f"http://127.0.0.1:{gateway.server_port}")
            gateway.shutdown()


@pytest.fixture
def gateway(behind_a_gateway: Tracking, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Lossy]]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    behind_a_gateway.activate()
    yield Lossy
    Lossy.lost, Lossy.reaches = "", True
    mlflow.set_tracking_uri("")
    mlflow.set_registry_uri("")


class Nothing:
    """A flavor without files."""

    @staticmethod
    def save_model(path: str, mlflow_model: mlflow.models.Model) -> None:
        """Write the file that says so."""
        mlflow_model.add_flavor("nothing")
        Path(path).mkdir()
        mlflow_model.save(str(Path(path, "MLmodel")))


def log_a_model() -> tuple[str, str]:
    """Log any model, and say under which run and which URI."""
    with mlflow.start_run() as run:
        model = mlflow.models.Model()
        logged = model.log(None, flavor=Nothing, name="model")
    return run.info.run_id, logged.model_uri


def numbers(name: str) -> list[int]:
    return sorted(int(found.version) for found in mlflow.MlflowClient().search_model_versions(f"name='{name}'"))


def test_a_version_whose_answer_was_lost_is_registered_once_and_told_as_registered(gateway: type[Lossy]) -> None:
    run_id, uri = log_a_model()
    gateway.lost = "model-versions/create"
    assert registry.register(uri, "lost") == 1
    assert numbers("lost") == [1]
    assert registry.register(uri, "lost") == 2, "asked for again it is a second one, and not the first again"
    assert registry.register(f"runs:/{run_id}/model", "lost") == 3
    assert numbers("lost") == [1, 2, 3]


def test_a_refused_registration_names_the_run_and_leaves_what_others_made(gateway: type[Lossy]) -> None:
    run_id, uri = log_a_model()
    gateway.lost, gateway.reaches = "model-versions/create", False
    for number in (1, 2):
        with pytest.raises(StoreError) as raised:
            registry.register(uri, "two words")
        assert "502" in str(raised.value)
        assert str(raised.value).endswith(
            f"; the run {run_id} has it, and `penguins register {run_id} --register-as 'two words'` registers it."
        )
        assert number in {1, 2}
    assert mlflow.MlflowClient().search_registered_models("name = 'two words'") == []
    gateway.lost = ""
    assert registry.register_run(run_id, "two words")[1].number == 1
