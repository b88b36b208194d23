"""The run that a command logs to: a job's run while that goes on, and never one that is finished or another's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import mlflow
import pytest

from penguins import monitor, process, record, registry, train, tune
from penguins.errors import StoreError
from tests.conftest import PENGUINS_CSV

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NO_SPARK = cast("SparkSession", None)
"""Nothing that is refused at once asks for a session."""


def run_in_state(state: str) -> str:
    """A run that has ended, is deleted, or isn't there, by its id."""
    client = mlflow.MlflowClient()
    run_id: str = client.create_run("0").info.run_id
    if state == "deleted":
        client.delete_run(run_id)
    elif state == "unknown":
        return "0" * 32
    elif state == "no id":
        return "../run"
    else:
        client.set_terminated(run_id, state)
    return run_id


SENTENCES = {
    "FINISHED": "has ended (FINISHED)",
    "FAILED": "has ended (FAILED)",
    "KILLED": "has ended (KILLED)",
    "deleted": "is deleted",
    "unknown": r"sqlite:///\S+ doesn't have",
    "no id": r"sqlite:///\S+ doesn't have",
}


@pytest.mark.parametrize("state", SENTENCES)
def test_a_run_that_cant_be_gone_on_with_is_told_and_stays_as_it_is(
    store: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    run_id = run_in_state(state)
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    told = SENTENCES[state].replace("(", r"\(").replace(")", r"\)")
    pattern = (
        f"MLFLOW_RUN_ID names the run {re.escape(run_id)}, which {told}: unset MLFLOW_RUN_ID, and a run of its own "
    )
    with pytest.raises(StoreError, match=f"^{pattern}is made\\.$"), record.active_run("birds", None):
        pytest.fail("nothing is logged")
    if state in {"FINISHED", "FAILED", "KILLED"}:
        assert mlflow.get_run(run_id).info.status == state
    assert mlflow.search_runs(experiment_names=["birds"], output_format="list") == []


def to_register(folder: Path) -> None:
    (folder / "MLmodel").write_text("flavors: {}\n")
    registry.register_folder(folder, "penguin_predictor")


EARLY: dict[str, Callable[[Path], Any]] = {
    "train": lambda _: train.train_from_source(NO_SPARK, PENGUINS_CSV),
    "train_model": lambda _: train.train_model(None, None),  # type: ignore[arg-type]  # nothing is asked of them
    "tune": lambda _: tune.tune_from_source(NO_SPARK, PENGUINS_CSV),
    "tune_model": lambda _: tune.tune_model(None, None),  # type: ignore[arg-type]  # nothing is asked of them
    "monitor": lambda _: monitor.monitor(NO_SPARK, PENGUINS_CSV, PENGUINS_CSV),
}


@pytest.mark.parametrize("command", EARLY)
def test_it_is_told_before_anything_is_computed(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", run_in_state("FINISHED"))
    with pytest.raises(StoreError, match=r"^MLFLOW_RUN_ID names the run .* has ended \(FINISHED\)"):
        EARLY[command](tmp_path)


def test_a_jobs_run_that_goes_on_is_picked_up_and_is_the_jobs(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = mlflow.MlflowClient().create_run("0", run_name="job").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", job)
    record.require_run()
    with record.active_run("birds", None) as run:
        assert run.info.run_id == job
        assert record.PROCESS not in mlflow.get_run(job).data.tags, "who ends the job's run is the job's affair"
    assert mlflow.search_runs(experiment_names=["birds"], output_format="list") == []


def test_a_run_of_its_own_leaves_the_jobs_run_alone(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verdict and a copy have a run of their own, in a job too."""
    job = mlflow.MlflowClient().create_run("0", run_name="job").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", job)
    with record.new_run("0", "gate") as gate:
        assert gate.info.run_id != job
        assert os.environ["MLFLOW_RUN_ID"] == job
    assert mlflow.get_run(job).info.status == "RUNNING"


def test_an_empty_variable_names_no_run(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "")
    with record.active_run("birds", None) as run:
        assert mlflow.get_experiment(run.info.experiment_id).name == "birds"


def test_a_run_under_way_says_which_process_makes_it_and_an_ended_one_is_nobodys(store: Path) -> None:
    def signature(run_id: str) -> str | None:
        return mlflow.get_run(run_id).data.tags.get(record.PROCESS)

    with record.active_run("birds", None) as run:
        assert signature(run.info.run_id) == process.identity()
        with record.new_run(run.info.experiment_id, "best") as nested:
            assert signature(nested.info.run_id) == process.identity()
        assert signature(nested.info.run_id) is None
        assert signature(run.info.run_id) == process.identity()
    assert signature(run.info.run_id) is None
    with pytest.raises(ZeroDivisionError), record.active_run("birds", None) as failed:
        assert 1 / 0
    assert signature(failed.info.run_id) is None
    assert mlflow.get_run(failed.info.run_id).info.status == "FAILED"


def test_whoever_goes_on_with_a_run_signs_it(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = subprocess.run(
        [sys.executable, "-c", "from penguins import process; print(process.identity())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    client = mlflow.MlflowClient()
    one, two = (client.create_run("0", tags={record.PROCESS: gone}).info.run_id for _ in range(2))
    with mlflow.start_run(run_id=one), record.active_run(None, None) as run:
        assert mlflow.get_run(run.info.run_id).data.tags[record.PROCESS] == process.identity()
    monkeypatch.setenv("MLFLOW_RUN_ID", two)
    with record.active_run(None, None) as run:
        assert run.info.run_id == two
        assert mlflow.get_run(two).data.tags[record.PROCESS] == process.identity()
