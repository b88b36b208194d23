"""An SQLite store that was moved, copied, damaged, made by another MLflow, or is used by two at once."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pytest
from click.testing import CliRunner
from mlflow.models import Model

from penguins import local_store, record, registry
from penguins.cli import main
from penguins.errors import StoreError
from penguins.tracking import Tracking, experiment_id, require_experiment

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NAME = "penguin_predictor"


@pytest.fixture(autouse=True)
def another_store_afterwards() -> Iterator[None]:
    yield
    mlflow.set_tracking_uri("")
    mlflow.set_registry_uri("")


@pytest.fixture(scope="module")
def one_model(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A project's folder with a store of one run with a file, and one version of a model; not to be changed."""
    folder = tmp_path_factory.mktemp("projects") / "first"
    folder.mkdir()
    shutil.copy(empty_store, folder)
    Tracking.local(folder).activate()
    keep_run("first")
    return folder


@pytest.fixture
def project(one_model: Path, tmp_path: Path) -> Path:
    """Such a project of the test's own, as if it had been made there: it knows nothing of the first one."""
    folder = tmp_path / "project"
    shutil.copytree(one_model, folder)
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as connection, connection:
        for table, column in (("experiments", "artifact_location"), *local_store._LOCATIONS):
            connection.execute(
                f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(one_model.parent / "first"), str(folder))
            )
    return folder


def keep_run(said: str) -> int:
    """Leave a run with a file, and a version of a model, in the active store."""
    with mlflow.start_run(experiment_id=experiment_id("birds"), run_name=said):
        mlflow.log_text(said, "said.txt")
        with tempfile.TemporaryDirectory() as folder:
            Model(flavors={"python_function": {"loader_module": "nothing"}}).save(f"{folder}/MLmodel")
            return registry.register(registry.log_folder(folder), NAME)


def said_in(run_name: str) -> str:
    [run] = mlflow.search_runs(
        experiment_names=["birds"], filter_string=f"run_name = '{run_name}'", output_format="list"
    )
    return mlflow.artifacts.load_text(f"{run.info.artifact_uri}/said.txt")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name in {"said.txt", "MLmodel"})


def test_a_moved_folder_is_read_and_written_where_it_is(
    project: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moved = project.rename(tmp_path / "a new name%20 ü")
    Tracking.local(moved).require_reachable()
    assert caplog.messages == [
        f"{moved}/mlflow.db was in {project} before: the artifacts of its runs and models are looked for in "
        f"{moved}/mlruns now, and new ones are kept there."
    ]
    Tracking.local(moved).activate()
    assert said_in("first") == "first"
    assert Model.load(mlflow.artifacts.download_artifacts(f"models:/{NAME}/1", dst_path=str(tmp_path / "one")))
    assert keep_run("second") == 2
    assert said_in("second") == "second"
    assert not project.exists()
    Tracking.local(moved).require_reachable()
    assert len(caplog.messages) == 1, "said once"


def test_a_copy_and_its_original_have_nothing_in_common(project: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(project, copied)
    before = files(project)
    Tracking.local(copied).activate()
    keep_run("second")
    assert files(project) == before
    assert len(files(copied)) == 2 * len(before) == 4
    shutil.rmtree(copied)
    Tracking.local(project).activate()
    assert said_in("first") == "first"


def test_of_a_file_that_was_copied_alone_old_artifacts_stay_readable_and_new_ones_lie_beside_it(
    project: Path, tmp_path: Path
) -> None:
    alone, before = tmp_path / "alone", files(project)
    alone.mkdir()
    shutil.copy(project / "mlflow.db", alone)
    Tracking.local(alone).activate()
    assert said_in("first") == "first"
    keep_run("second")
    assert files(project) == before
    assert len(files(alone)) == 2


def test_what_somebody_keeps_elsewhere_stays_there(tmp_path: Path, empty_store: Path) -> None:
    """MLflow itself keeps artifacts in mlruns in whatever folder a process runs."""
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    for folder in (project, elsewhere):
        folder.mkdir()
    shutil.copy(empty_store, project)
    Tracking.local(project).activate()
    mlflow.MlflowClient().create_experiment("birds", artifact_location=(elsewhere / "mlruns" / "1").as_uri())
    keep_run("first")
    Tracking.local(project).require_reachable()
    Tracking.local(project).activate()
    keep_run("second")
    assert len(files(elsewhere)) == 4
    assert files(project) == []


def test_what_lies_on_a_disk_that_is_not_there_now_is_found_again_later(project: Path, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(project / "mlflow.db")) as connection, connection:
        for table, column in (("experiments", "artifact_location"), *local_store._LOCATIONS):
            connection.execute(
                f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(project), str(tmp_path / "disk"))
            )
    taken = (project / "mlruns").rename(tmp_path / "taken")
    Tracking.local(project).activate()
    keep_run("second")
    assert said_in("second") == "second"
    assert not (tmp_path / "disk").exists()
    (tmp_path / "disk").mkdir()
    taken.rename(tmp_path / "disk" / "mlruns")
    assert said_in("first") == "first"


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        ("sqlite:////data/x.db", "/data/x.db"),
        ("sqlite:////data/x.db?timeout=60", "/data/x.db"),
        ("sqlite+pysqlite:////data/x.db?timeout=60&check_same_thread=false", "/data/x.db"),
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
        ("postgresql://u:p@h/runs", None),
    ],
)
def test_the_file_of_an_sqlite_uri(uri: str, file: str | None) -> None:
    assert local_store.file_of(uri) == (Path(file) if file else None)
    assert Tracking(uri).tracking_uri == uri


def test_a_relative_file_keeps_its_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, tmp_path / "x.db")
    for uri in ("sqlite:///x.db?timeout=60", "sqlite+pysqlite:///x.db"):
        driver, _, options = uri.partition(":///x.db")
        assert Tracking(uri) == Tracking(f"{driver}:///{tmp_path}/x.db{options}")
        store = Tracking(uri)
        store.require()
        store.require_reachable()
        assert store.folder == tmp_path
        assert [found.name for found in store.client().search_experiments()] == ["Default"]


@pytest.mark.parametrize("name", ["a b", "100%20", "what?x=1", "#ü[1]=:{}", "-dash"])
def test_a_folder_may_have_any_name(name: str, tmp_path: Path, empty_store: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    shutil.copy(empty_store, folder)
    store = Tracking.local(folder)
    assert store.folder == folder
    assert Tracking(store.tracking_uri) == store
    store.activate()
    with mlflow.start_run(experiment_id=experiment_id("birds"), run_name="first"):
        mlflow.log_text("here", "said.txt")
    assert said_in("first") == "here"
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]
    assert len(files(folder)) == 1


def refusal(file: Path) -> str:
    """What a command says of the store that this file is."""
    result = CliRunner().invoke(main, ["rollback"], env={"MLFLOW_TRACKING_URI": local_store.uri_of(file)})
    assert result.exit_code == 1
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    return line.removeprefix("Error: ")


def test_a_damaged_file_is_told(tmp_path: Path, project: Path) -> None:
    text = tmp_path / "text.db"
    text.write_text("Island,CulmenLength\n" * 100)
    assert refusal(text) == (
        f"{text} is damaged, or no SQLite database (file is not a database): put a copy of it in its place, or move it "
        "away to begin a new store."
    )
    damaged = project / "mlflow.db"
    content = bytearray(damaged.read_bytes())
    content[40_960:200_000] = b"x" * (200_000 - 40_960)
    damaged.write_bytes(content)
    assert refusal(damaged).startswith(f"{damaged} is damaged, or no SQLite database (")
    assert damaged.read_bytes() == content


def test_what_is_no_store_is_told_and_left_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "folder.db"
    folder.mkdir()
    assert refusal(folder) == (
        f"{folder} is a folder, and an SQLite store is a file: name another place (--tracking-uri)."
    )
    birds = tmp_path / "birds.db"
    with contextlib.closing(sqlite3.connect(birds)) as connection, connection:
        connection.execute("CREATE TABLE birds (id INTEGER)")
    before = birds.read_bytes()
    assert refusal(birds) == f"{birds} is an SQLite database, but no store of MLflow: name another file."
    assert birds.read_bytes() == before


def test_a_store_that_another_process_holds_is_told(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_store, "BUSY", 0.1)
    file = Path(shutil.copy(empty_store, tmp_path))
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        assert refusal(file) == (
            f"{file} is in use by another process (database is locked): wait until that is done, or end it."
        )


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Root may write everywhere."""
    if os.getuid() != 0:
        yield
        return
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


def test_a_file_that_only_others_may_write_is_told(tmp_path: Path, empty_store: Path) -> None:
    file = Path(shutil.copy(empty_store, tmp_path))
    file.chmod(0o444)
    for folder in tmp_path.parents:
        folder.chmod(folder.stat().st_mode | 0o011)
    tmp_path.chmod(0o777)
    with nobody(), pytest.raises(StoreError) as refused:
        local_store.require_usable(file)
    assert str(refused.value) == (
        f"{file} can't be written to: change its mode, or name another place (--tracking-uri)."
    )
    tmp_path.chmod(0o755)
    with nobody(), pytest.raises(StoreError, match="is no folder that can be written to: name another place"):
        local_store.require_usable(file)


def at_revision(file: Path, revision: str) -> None:
    """Make a store as the MLflow of that schema would have."""
    from alembic import command
    from mlflow.store.db import utils
    from mlflow.store.tracking.dbmodels.initial_models import Base

    engine = utils.create_sqlalchemy_engine(f"sqlite:///{file}")
    Base.metadata.create_all(engine)
    config = utils._get_alembic_config(f"sqlite:///{file}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def schema(file: Path) -> str:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def test_an_older_store_is_copied_and_then_upgraded(
    tmp_path: Path, empty_store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "mlflow.db"
    # MLflow 2.0's last one.
    at_revision(file, "cc1f77228345")
    with caplog.at_level(logging.WARNING, "penguins"):
        Tracking.local(tmp_path).require_reachable()
    [copy] = tmp_path.glob("mlflow.db.*.bak")
    assert caplog.messages == [
        f"{file} is a store of an older MLflow. Its schema is upgraded to that of MLflow {mlflow.__version__}, after "
        f"which the older one can't read it; {copy} is a copy of what it was."
    ]
    assert (schema(copy), schema(file)) == ("cc1f77228345", schema(empty_store))
    Tracking.local(tmp_path).activate()
    assert [found.name for found in mlflow.search_experiments()] == ["Default"]


def test_an_upgrade_that_fails_leaves_the_store_as_it_was(tmp_path: Path, empty_store: Path) -> None:
    file = Path(shutil.copy(empty_store, tmp_path))
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        # It has more than that schema had, so that making it once again fails.
        connection.execute("UPDATE alembic_version SET version_num = 'cc1f77228345'")
    with pytest.raises(
        StoreError, match=r"can't upgrade .*mlflow.db \(.*\); it is as it was: use the MLflow that made"
    ):
        Tracking.local(tmp_path).require_reachable()
    assert schema(file) == "cc1f77228345"
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_store_of_a_newer_mlflow_is_refused(tmp_path: Path, empty_store: Path) -> None:
    file = Path(shutil.copy(empty_store, tmp_path))
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffff00000000'")
    before = file.read_bytes()
    assert refusal(file) == (
        f"{file} is a store of a newer MLflow than {mlflow.__version__} (its schema is ffff00000000): install that "
        "version of MLflow, or name another store (--tracking-uri)."
    )
    assert file.read_bytes() == before


def test_of_several_who_begin_a_store_together_one_makes_it(tmp_path: Path) -> None:
    store = Tracking.local(tmp_path)
    with ThreadPoolExecutor(3) as pool:
        names = list(pool.map(lambda _: [found.name for found in store.client().search_experiments()], range(3)))
    assert names == [["Default"]] * 3
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
    assert store.client().get_experiment("0").artifact_location == (tmp_path / "mlruns" / "0").as_uri()


def test_of_several_who_make_an_experiment_together_all_get_it(store: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda number: experiment_id(f"birds {number // 6}"), range(30)))
    assert len(set(found)) == 5


def test_a_deleted_experiment_is_told_with_the_way_back(store: Path) -> None:
    number = experiment_id("birds")
    mlflow.MlflowClient().delete_experiment(number)
    uri = mlflow.get_tracking_uri()
    with pytest.raises(StoreError) as refused:
        experiment_id("birds")
    assert str(refused.value) == (
        f"The experiment birds is deleted: `mlflow experiments restore --experiment-id {number}` brings it back "
        f"(with MLFLOW_TRACKING_URI={uri}), or name another one (--experiment)."
    )


def test_mlflows_experiment_id_counts(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number = experiment_id("birds")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", number)
    assert require_experiment(None) == number
    assert require_experiment("birds") == number
    assert require_experiment("fish") is None
    with record.active_run(None, "counted") as run:
        assert run.info.experiment_id == number
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "77")
    with pytest.raises(StoreError) as refused:
        require_experiment(None)
    assert str(refused.value) == (
        f"MLFLOW_EXPERIMENT_ID is 77, and there is no such experiment in {mlflow.get_tracking_uri()}: unset it, or "
        "name one (--experiment)."
    )


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("MLFLOW_EXPERIMENT_ID", "77", "MLFLOW_EXPERIMENT_ID is 77, and there is no such experiment in sqlite:"),
        ("MLFLOW_EXPERIMENT_NAME", "gone", "The experiment gone is deleted: `mlflow experiments restore --experiment-"),
        ("MLFLOW_ACTIVE_MODEL_ID", "m-1", "MLFLOW_ACTIVE_MODEL_ID is m-1, so MLflow would give this run's metrics to "),
    ],
)
@pytest.mark.spark
def test_what_is_in_the_way_of_a_run_is_told_before_the_work(
    variable: str, value: str, said: str, store: Path, spark: SparkSession
) -> None:
    mlflow.MlflowClient().delete_experiment(experiment_id("gone"))
    uri = mlflow.get_tracking_uri()
    for command in (["train", "--data", "nowhere.csv"], ["monitor", "--current", "nowhere.csv"]):
        result = CliRunner().invoke(main, command, env={"MLFLOW_TRACKING_URI": uri, variable: value})
        assert result.exit_code == 1
        assert result.stderr.splitlines()[-1].startswith(f"Error: {said}")
