"""Model versions: registering them, and copying one to another store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pandas as pd
import pytest

from penguins import flavor, registry
from penguins.errors import ModelError, StoreError
from penguins.tracking import Tracking
from penguins.train import train_from_source
from tests.conftest import PENGUINS_CSV, point_at_nothing

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
