"""What killed commands leave is found and cleaned up, and what others are working on is never touched."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner, Result

from penguins import atomic, leftovers, process, record
from penguins.cli import main
from penguins.errors import ParameterError

WORK = """
import sys
import mlflow
from penguins import record
from penguins.tracking import Tracking

Tracking.local().activate()
with record.active_run("birds", sys.argv[1]) as run, record.new_run(run.info.experiment_id, "best") as nested:
    model = mlflow.MlflowClient().create_logged_model(run.info.experiment_id, source_run_id=nested.info.run_id)
    print(run.info.run_id, nested.info.run_id, model.model_id, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What other tests' killed processes left in the shared one is not for these."""
    before, tempfile.tempdir = tempfile.tempdir, str(tmp_path_factory.mktemp("temporary"))
    yield
    tempfile.tempdir = before


def begin(store: Path, name: str) -> tuple[subprocess.Popen[str], list[str]]:
    """A process that has begun a run, a nested one and a model, and waits; and their ids."""
    command = [sys.executable, "-W", "ignore", "-c", WORK, name]
    working = subprocess.Popen(command, cwd=store, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return working, first_line(working).split()


@pytest.fixture
def killed(store: Path) -> list[str]:
    """The run, the nested run and the model of a process that was killed."""
    working, made = begin(store, "night")
    with working:
        working.kill()
    assert working.returncode == -signal.SIGKILL
    return made


@pytest.fixture
def living(store: Path) -> Iterator[list[str]]:
    """The run, the nested run and the model of a process that works on."""
    working, made = begin(store, "day")
    with working:
        yield made
        assert working.stdin is not None
        working.stdin.close()
    assert working.returncode == 0


def status(run_id: str) -> str:
    return str(mlflow.get_run(run_id).info.status)


def penguins(store: Path, *options: str, answer: str = "") -> Result:
    where = ["--tracking-uri", f"sqlite:///{store}/mlflow.db"]
    result = CliRunner().invoke(main, ["clean-up", *options, *where], input=answer)
    mlflow.set_tracking_uri(where[1])
    mlflow.set_registry_uri(where[1])
    return result


def test_a_killed_commands_runs_and_models_go_and_nobody_elses(
    store: Path, killed: list[str], living: list[str]
) -> None:
    client = mlflow.MlflowClient()
    run, nested = killed[:2]
    elsewhere = client.create_run("0", run_name="far", tags={record.PROCESS: "1_1_1_1_1_far"}).info.run_id
    unsigned = client.create_run("0").info.run_id
    finished = client.create_logged_model(client.get_run(run).info.experiment_id, source_run_id=run)
    client.finalize_logged_model(finished.model_id, "READY")

    listed = penguins(store, "--dry-run")
    assert listed.exit_code == 0, listed.output
    lines = listed.output.splitlines()
    assert sorted(line.split()[1] for line in lines[:-1]) == sorted(killed)
    assert (
        lines[-1] == f"run {elsewhere} (far, Default) of process 1 on far: that can't be known from here, so it stays."
    )
    assert f"run {run} (night, birds) of process " in listed.output
    assert {status(one) for one in (run, nested)} == {"RUNNING"}, "nothing has changed"

    refused = penguins(store, answer="n\n")
    assert refused.exit_code == 1
    assert "Clean these 3 up? [y/N]" in refused.output
    assert {status(one) for one in (run, nested)} == {"RUNNING"}

    done = penguins(store, "--yes", "--json")
    answer = json.loads(done.stdout)
    assert len(answer["removed"]) == 3
    assert answer["removed"] == answer["found"]
    assert [one.split()[1] for one in answer["unknown"]] == [elsewhere]
    assert [status(one) for one in (run, nested, elsewhere, unsigned, *living[:2])] == ["KILLED"] * 2 + ["RUNNING"] * 4
    assert client.get_run(run).data.tags["failure"].startswith("killed: process ")
    experiment = [client.get_run(run).info.experiment_id]
    assert {one.model_id for one in client.search_logged_models(experiment)} == {finished.model_id, living[2]}

    nothing = penguins(store, "--yes")
    assert nothing.output.splitlines()[0] == "Killed commands have left nothing here."


def test_what_somebody_goes_on_with_meanwhile_stays(store: Path, killed: list[str]) -> None:
    gone, _ = leftovers.find("birds")
    assert sorted(one.id for one in gone) == sorted(killed)
    mlflow.MlflowClient().set_tag(killed[0], record.PROCESS, process.identity())
    mlflow.MlflowClient().set_terminated(killed[1], "FINISHED")
    assert leftovers.remove(gone) == []
    assert [status(one) for one in killed[:2]] == ["RUNNING", "FINISHED"]


def test_an_experiment_can_be_chosen(store: Path, killed: list[str]) -> None:
    mlflow.create_experiment("empty")
    assert leftovers.find("empty") == ([], [])
    with pytest.raises(ParameterError, match=r"^There is no experiment night in this store: give the name of one\.$"):
        leftovers.find("night")


HALF_WRITTEN = """
import sys
from penguins import outcome

summary = outcome.Summary(None, None, {}, {}, None, {}, {}, None, "", {})
with outcome.folder(summary) as place:
    if sys.argv[1:] == ["fitted"]:
        (place / outcome.MODEL).mkdir()
    print(place, flush=True)
    sys.stdin.read()
"""


def begin_to_write(*how: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-c", HALF_WRITTEN, *how]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def first_line(working: subprocess.Popen[str]) -> str:
    assert working.stdout is not None
    return working.stdout.readline().strip()


def test_temporary_folders_go_but_for_a_fitted_model(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / f"penguins-link~{process.identity()}").symlink_to(store)
    with begin_to_write() as half, begin_to_write("fitted") as fitted, begin_to_write() as living:
        places = [Path(first_line(one)) for one in (half, fitted, living)]
        for one in (half, fitted):
            one.kill()
            one.wait()
        done = penguins(store, "--yes")
        assert done.exit_code == 0, done.output
        assert f"folder {places[0]} (temporary) of process {half.pid} on " in done.output
        assert f"{places[1]} holds a model that was fitted and not logged: `penguins log {places[1]}`" in done.output
        assert [place.exists() for place in places] == [False, True, True]
        assert living.stdin is not None
        living.stdin.close()
    assert not places[2].exists(), "a process that ends removes its own"
    assert store.exists()


def test_json_asks_nothing(store: Path) -> None:
    assert penguins(store, "--json").exit_code == 2


WRITE = """
import sys
from pathlib import Path
from penguins import atomic

with atomic.beside(Path("scored.csv")) as folder:
    print(folder.name, flush=True)
    sys.stdin.read()
"""


def writing(store: Path) -> tuple[subprocess.Popen[str], str]:
    """A process that has begun to write beside an output in the store's folder, and where."""
    command = [sys.executable, "-W", "ignore", "-c", WRITE]
    working = subprocess.Popen(command, cwd=store, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return working, first_line(working)


def test_what_a_killed_command_was_writing_goes_and_what_it_replaced_comes_back(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(store)
    alive, kept = writing(store)
    killed_one, left = writing(store)
    with killed_one:
        killed_one.kill()
    before = store / left / atomic.BEFORE
    before.mkdir()
    (before / "scored.csv").write_text("what stood there")
    with alive:
        cleaned = penguins(store, "--yes")
        assert cleaned.exit_code == 0, cleaned.output
        assert f"folder {store / left} (an output that was being written)" in cleaned.output
        assert kept not in cleaned.output
        assert (store / kept).is_dir()
        assert not (store / left).exists()
        assert (store / "scored.csv").read_text() == "what stood there"
        assert alive.stdin is not None
        alive.stdin.close()
