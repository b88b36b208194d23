"""What training leaves when the store fails: a folder that is named, and that can be logged later."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pytest

from penguins import flavor, outcome
from penguins.config import SearchParameters
from penguins.errors import ModelError, StoreError
from penguins.tracking import Tracking
from penguins.train import train_from_source
from penguins.tune import tune_from_source
from tests.conftest import LAB_BIRD, PENGUINS_CSV
from tests.servers import mlflow_server, stop
from tests.test_cli import PENGUINS

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.slow]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, where outcomes are kept."""
    folder = tmp_path / "here and now"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def at_the_step(wanted: str, act: Callable[[], None]) -> Callable[[str], None]:
    def report(step: str) -> None:
        if step == wanted:
            act()

    return report


def kept_in(error: StoreError, folder: Path) -> Path:
    found = re.fullmatch(
        r"(.+); the fitted model is kept in (.+), and `penguins log (.+)` logs it\.", str(error), re.DOTALL
    )
    assert found is not None, str(error)
    assert "\n" not in found[1]
    kept = Path(found[2])
    assert shlex.split(found[3])[0] == str(kept)
    assert [kept] == list(folder.iterdir())
    assert sorted(path.name for path in kept.iterdir()) == ["artifacts", "model", "run.json"]
    return kept


def test_a_full_disk_loses_nothing(spark: SparkSession, store: Path, here: Path) -> None:
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # Pages of the database lie beyond the limit, whereas every file of a model is smaller.
    database = (store / "mlflow.db").stat().st_size // 2

    def fill_the_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (database, unlimited[1]))

    report, one = at_the_step("Logging", fill_the_disk), SearchParameters(trials=1)
    try:
        with pytest.raises(StoreError, match="kept in") as raised:
            tune_from_source(spark, PENGUINS_CSV, one, experiment="birds", register_as="full", report=report)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        signal.signal(signal.SIGXFSZ, before)
    kept = kept_in(raised.value, here)
    assert mlflow.MlflowClient().search_registered_models() == []
    logged = outcome.log_kept(kept)
    assert (logged.registered_model, logged.version) == ("full", 1)
    assert flavor.load_scorer("models:/full/1").predict(LAB_BIRD)["species"].tolist() == ["Gentoo"]
    run = mlflow.get_run(logged.run_id)
    assert mlflow.get_experiment(run.info.experiment_id).name == "birds"
    assert run.data.params["maxIter"] == "100"
    assert run.data.metrics["accuracy"] == pytest.approx(115 / 116)
    assert run.inputs is not None
    assert [item.dataset.name for item in run.inputs.dataset_inputs] == ["training", "test"]
    assert "confusion_matrix.png" in {item.path for item in mlflow.MlflowClient().list_artifacts(logged.run_id)}


def test_artifacts_that_cant_be_written_lose_nothing(spark: SparkSession, store: Path, here: Path) -> None:
    mlflow.MlflowClient().create_experiment("read-only", artifact_location="file:///proc/artifacts")
    with pytest.raises(StoreError, match="kept in") as raised:
        train_from_source(spark, PENGUINS_CSV, experiment="read-only", register_as="unwritten")
    kept = kept_in(raised.value, here)
    [run] = mlflow.search_runs(experiment_names=["read-only"], output_format="list")
    assert run.info.status == "FAILED"
    assert "/proc/artifacts" in run.data.tags["failure"]
    with pytest.raises(StoreError, match=rf"^{kept} can't be logged: .*/proc/artifacts"):
        outcome.log_kept(kept)
    assert kept.exists()


def test_a_server_killed_in_the_middle_loses_nothing(
    spark: SparkSession, tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with mlflow_server(tmp_path) as server:
        address = server.uri
        Tracking(address).activate()
        report = at_the_step("Logging", lambda: stop(server.process, signal.SIGKILL))
        with pytest.raises(StoreError, match="kept in") as raised:
            train_from_source(spark, PENGUINS_CSV, experiment="interrupted", register_as="kept", report=report)
        assert mlflow.active_run() is None
    kept = kept_in(raised.value, here)
    with mlflow_server(tmp_path) as server:
        Tracking(server.uri).activate()
        [run] = mlflow.search_runs(experiment_names=["interrupted"], output_format="list")
        assert run.info.status == "RUNNING", "what is half-finished can be recognised"
        # The message's own command, in the shell of somebody whose environment names no store.
        [_, command, _] = str(raised.value).split("`")
        assert command == f"penguins log '{kept}' --tracking-uri {address}"
        command = command.replace(address, server.uri)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        environment["PATH"] = f"{Path(PENGUINS).parent}:{environment['PATH']}"
        done = subprocess.run(f"{command} --json", shell=True, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        logged = json.loads(done.stdout)
        assert (logged["registered_model"], logged["version"]) == ("kept", 1)
        assert flavor.load_scorer("models:/kept/1").predict(LAB_BIRD)["species"].tolist() == ["Gentoo"]
    mlflow.set_tracking_uri("")
    mlflow.set_registry_uri("")


def test_half_a_model_isnt_kept(spark: SparkSession, store: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where exactly a full disk hits can't be chosen: here between the Spark flavor, which has an MLmodel, and its twin.
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mlflow.onnx.save_model", full)
    with pytest.raises(OSError, match="No space left"):
        train_from_source(spark, PENGUINS_CSV, experiment="half", register_as="half")
    assert list(here.iterdir()) == []
    assert mlflow.MlflowClient().search_registered_models() == []


def test_where_nobody_can_write_the_temporary_folder_keeps_it(
    spark: SparkSession, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow.MlflowClient().create_experiment("read-only", artifact_location="file:///proc/artifacts")
    monkeypatch.chdir("/proc")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(StoreError, match="kept in") as raised:
        train_from_source(spark, PENGUINS_CSV, experiment="read-only")
    # It stays where it was made: a second copy might not find room.
    [kept] = tmp_path.glob("penguins-*")
    assert f"the fitted model is kept in {kept}, and" in str(raised.value)
    assert sorted(path.name for path in kept.iterdir()) == ["artifacts", "model", "run.json"]


def test_a_failure_before_there_is_a_model_keeps_nothing(spark: SparkSession, store: Path, here: Path) -> None:
    def stumble() -> None:
        raise RuntimeError("stumbled")

    with pytest.raises(RuntimeError, match="stumbled"):
        train_from_source(spark, PENGUINS_CSV, report=at_the_step("Logging", stumble))
    assert list(here.iterdir()) == []


def test_a_folder_that_holds_no_outcome_is_told(store: Path, tmp_path: Path) -> None:
    sentence = f"{tmp_path} holds no training run: give the folder that a failed `penguins train` has named."
    for content in (None, "no json", '{"params": {}}', '{"inputs": {"test": {}}}'):
        if content is not None:
            (tmp_path / "run.json").write_text(content)
        with pytest.raises(ModelError) as raised:
            outcome.log_kept(tmp_path)
        assert str(raised.value) == sentence
    assert mlflow.search_runs(search_all_experiments=True, output_format="list") == []


def test_a_server_that_is_down_is_told_before_anything_starts(tmp_path: Path) -> None:
    for uri, shown in (
        ("http://127.0.0.1:9", "http://127.0.0.1:9"),
        ("http://me:secret@127.0.0.1:9/", "http://***@127.0.0.1:9/"),
    ):
        told = subprocess.run(
            [PENGUINS, "train", "--data", str(PENGUINS_CSV)],
            cwd=tmp_path,
            env={**os.environ, "MLFLOW_TRACKING_URI": uri},
            capture_output=True,
            text=True,
        )
        assert (told.returncode, told.stdout) == (1, "")
        assert told.stderr.splitlines()[-1] == (
            f"Error: The MLflow server {shown} doesn't answer (ConnectionError): "
            "start it, or name another one (--tracking-uri, MLFLOW_TRACKING_URI)."
        )
        assert "secret" not in told.stderr
    assert [path for path in tmp_path.iterdir() if path.name != "here and now"] == []


def test_a_store_without_a_place_is_told() -> None:
    with pytest.raises(StoreError, match=r"^/proc/nowhere is no folder that can be written to: name another place "):
        Tracking.local("/proc/nowhere").require_reachable()
