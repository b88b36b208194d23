"""The command line, run as a user runs it: in a process of its own, in a folder of its own.

What only asks for other words of a command that has run that way runs here, with the Spark session that is there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
from click.testing import CliRunner, Result

from penguins.cli import main, run
from penguins.tracking import Tracking
from tests.conftest import PENGUINS_CSV

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PENGUINS = str(Path(sys.executable).with_name("penguins"))


def penguins(*args: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command with a clean environment, but for what `env` adds."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "SPARK_", "COLUMNS"))}
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "COLUMNS": "120"}
    return subprocess.run([PENGUINS, *args], cwd=cwd, env={**clean, **quiet, **env}, capture_output=True, text=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder in which `penguins train --json` ran once, and how that went."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "data").mkdir()
    shutil.copy(PENGUINS_CSV, folder / "data")
    options = ["--save", "model", "--quarantine", "aside.csv", "--run-name", "first"]
    return folder, penguins("train", "--json", *options, cwd=folder)


def here(*args: str, **env: str) -> Result:
    """Run the command in this process, with a clean environment, but for what `env` adds."""
    clean = {name: None for name in os.environ if name.startswith("MLFLOW_")}
    result = CliRunner().invoke(main, args, env={**clean, "COLUMNS": "120", **env})
    mlflow.set_tracking_uri("")
    mlflow.set_registry_uri("")
    return result


def parsed(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 1
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def test_train_prints_one_json_object(trained: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    answer = parsed(trained[1])
    assert set(answer) == {
        *("run_id", "experiment_id", "model_uri", "registered_model", "version", "params", "metrics", "rows")
    }
    assert answer["registered_model"] == "penguin_predictor"
    assert answer["version"] == 1
    assert answer["params"]["maxIter"] == 100
    assert answer["rows"] == {"read": 344, "training": 226, "test": 116, "quarantined": 2}
    assert answer["metrics"]["recall_Chinstrap"] == pytest.approx(27 / 28)


def test_train_tells_what_it_does_and_hides_the_chatter(trained: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    lines = trained[1].stderr.splitlines()
    assert [re.sub(r"^ *\d+\.\d s  ", "", line) for line in lines] == [
        "Starting Spark",
        "Reading and checking the data",
        "Splitting into training and test rows",
        "Counting the rows",
        "Fitting the features",
        "Fitting the regression",
        "Evaluating on the test rows",
        "Logging",
    ]


def test_train_leaves_the_store_the_saved_model_and_the_quarantine(
    trained: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, result = trained
    assert sorted(path.name for path in folder.iterdir()) == ["aside.csv", "data", "mlflow.db", "mlruns", "model"]
    client = Tracking.local(folder).client()
    run = client.get_run(parsed(result)["run_id"])
    assert run.info.run_name == "first"
    assert client.get_experiment(run.info.experiment_id).name == "penguins"
    assert set(mlflow.models.Model.load(str(folder / "model")).flavors) == {"spark", "onnx", "python_function"}
    assert len((folder / "aside.csv").read_text().splitlines()) == 3


def test_promote_says_yes_then_no_and_there_is_no_way_back_from_the_first(
    spark: SparkSession, trained: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    folder, _ = trained
    promoted = here("promote", "--tracking-uri", f"sqlite:///{folder}/mlflow.db", "--json")
    assert promoted.exit_code == 0, promoted.stderr
    answer = json.loads(promoted.stdout)
    assert (answer["promote"], answer["moved"], answer["champion"], answer["version"]) == (True, True, None, 1)
    assert answer["rows"] == 116
    refused = here("promote", "--tracking-uri", f"sqlite:///{folder}/mlflow.db")
    assert refused.exit_code == 3, refused.stderr
    assert refused.stdout.splitlines() == [
        "The gate refuses version 1 of penguin_predictor:",
        "  - it is the champion already",
        "Version 1 stays champion.",
    ]
    back = penguins("rollback", cwd=folder)
    assert (back.returncode, back.stdout) == (1, "")
    assert back.stderr == "Error: penguin_predictor has no previous champion: version 1 is the first.\n"


def test_a_person_reads_tables_and_what_to_do_next(spark: SparkSession, tmp_path: Path, empty_store: Path) -> None:
    store = f"sqlite:///{shutil.copy(empty_store, tmp_path)}"
    result = here(
        *("train", "--data", str(PENGUINS_CSV), "--no-register", "--max-iter", "10", "--reg-param", "0.2"),
        MLFLOW_TRACKING_URI=store,
        MLFLOW_EXPERIMENT_NAME="lab",
    )
    assert result.exit_code == 0, result.stderr
    assert "344 rows read: 226 for training, 116 for the test, 2 set aside." in result.stdout
    assert "2 × BodyMass is missing" in result.stdout
    assert "true \\ predicted" in result.stdout
    assert "penguins ui" in result.stdout
    assert "models:/penguin_predictor" not in result.stdout
    client = Tracking(store).client()
    [run] = client.search_runs([client.get_experiment_by_name("lab").experiment_id])  # type: ignore[union-attr]  # it is there
    assert run.data.params["maxIter"] == "10"
    assert client.search_registered_models() == []


def test_tune_stops_at_ctrl_c_and_keeps_the_best_so_far(tmp_path: Path, empty_store: Path) -> None:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "SPARK_"))}
    store = f"sqlite:///{shutil.copy(empty_store, tmp_path)}"
    command = [PENGUINS, "tune", "--data", str(PENGUINS_CSV), "--trials", "500", "--json", "--tracking-uri", store]
    # A session of its own, so that a Ctrl-C reaches all its processes, as in a terminal.
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**clean, "MLFLOW_DISABLE_TELEMETRY": "true", "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as tuning:
        assert tuning.stderr is not None
        lines = []
        for line in tuning.stderr:
            lines.append(line)
            if "Trial 1:" in line:
                time.sleep(0.3)  # in the middle of the next one's fit
                os.killpg(tuning.pid, signal.SIGINT)
                break
        stdout, rest = tuning.communicate()
    assert tuning.returncode == 0, [*lines, rest]
    assert re.search(r"s  Trial 0: log loss \d\.\d{4}, best \d\.\d{4} in trial 0$", "".join(lines), re.MULTILINE)
    assert len(stdout.splitlines()) == 1
    answer = json.loads(stdout)
    assert answer["version"] == 1
    assert answer["rows"]["test"] == 116
    found = answer["search"]
    assert found["ended"] == "interrupted"
    assert [trial["trial"] for trial in found["trials"][:2]] == [0, 1]
    assert len(found["trials"]) < 10
    assert found["value"] == min(trial["value"] for trial in found["trials"] if trial["value"] is not None)
    version = Tracking(store).client().get_model_version("penguin_predictor", "1")
    assert version.tags["search_run_id"] == found["run_id"]


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--trials", "0"], "trials is 0: it must be a whole number from 1 to 1000000."),
        (["--timeout", "0"], "timeout is 0.0: it must be a number above 0."),
    ],
)
def test_tune_tells_a_bad_value_before_anything_starts(args: list[str], sentence: str, tmp_path: Path) -> None:
    result = penguins("tune", *args, cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", f"Error: {sentence}\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--reg-param", "-1"], "reg_param is -1.0: it must be a number at least 0."),
        (["--reg-param", "nan"], "reg_param is nan: it must be a number at least 0."),
        (["--max-iter", "0"], "max_iter is 0: it must be a whole number from 1 to 2147483647."),
        (["--elastic-net-param", "1.5"], "elastic_net_param is 1.5: it must be a number from 0 to 1."),
        (["--test-fraction", "1"], "test_fraction is 1.0: it must be a number between 0 and 1."),
        (["--save", "."], ". exists already: give a path that doesn't, or remove it first."),
    ],
)
def test_a_bad_value_is_told_before_anything_starts(args: list[str], sentence: str, tmp_path: Path) -> None:
    result = penguins("train", *args, cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", f"Error: {sentence}\n")
    assert list(tmp_path.iterdir()) == []


def test_data_that_isnt_there_is_one_sentence_and_makes_no_run(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = here("train", "--data", "nowhere.csv")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines()[-1] == (
        "Error: nowhere.csv doesn't exist: give a .csv or .parquet file, a folder of them, or a table."
    )
    assert not (tmp_path / "mlruns").exists()
    assert Tracking.local(tmp_path).client().search_experiments(filter_string="name = 'penguins'") == []


def test_verbose_shows_spark_and_the_traceback(tmp_path: Path) -> None:
    result = penguins("train", "--data", "nowhere.csv", "--verbose", cwd=tmp_path)
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "WARN" in result.stderr


@pytest.mark.parametrize(
    "args", [["fly"], ["train", "--max-iter", "many"], ["train", "--colour", "black"], ["ui", "x"]]
)
def test_wrong_usage_exits_2(args: list[str], tmp_path: Path) -> None:
    result = penguins(*args, cwd=tmp_path)
    assert result.returncode == 2
    assert "Usage: penguins" in result.stderr
    assert result.stdout == ""


def test_the_module_is_the_command(tmp_path: Path) -> None:
    by_module = subprocess.run([sys.executable, "-m", "penguins", "--version"], capture_output=True, text=True)
    assert by_module.stdout == penguins("--version", cwd=tmp_path).stdout
    assert by_module.stdout.startswith("penguins, version ")


def test_every_command_has_help(tmp_path: Path) -> None:
    help_text = penguins("--help", cwd=tmp_path).stdout.partition("Commands:")[2]
    listed = re.findall(r"^  ([\w-]+)  ", help_text, re.MULTILINE)
    assert listed == [
        *(
            "azureml",
            "check",
            "clean-up",
            "databricks-workspace",
            "demo",
            "deploy",
            "log",
            "monitor",
            "predict",
            "promote",
            "query",
        ),
        *("register", "rollback", "serve", "train", "tune", "ui", "undeploy"),
    ]
    for command in listed:
        assert len(penguins(command, "--help", cwd=tmp_path).stdout.splitlines()) > 5


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("MASTER", "the-moon", "Master must either be yarn or start with spark"),
        ("SPARK_DRIVER_MEMORY", "100m", "System memory"),
    ],
)
def test_what_spark_says_when_it_cant_start_is_told(tmp_path: Path, variable: str, value: str, said: str) -> None:
    shown = penguins("check", "--data", str(PENGUINS_CSV), cwd=tmp_path, **{variable: value})
    assert shown.returncode == 1
    last = shown.stderr.splitlines()[-1]
    assert last.startswith("Error: Spark can't start: ")
    assert said in last


def test_ui_of_databricks_is_the_workspace(tmp_path: Path) -> None:
    shown = penguins("ui", "--tracking-uri", "databricks://birds", cwd=tmp_path)
    assert (shown.returncode, shown.stdout) == (
        0,
        "The runs are in the Databricks workspace already: its page Experiments shows them.\n",
    )


def test_ui_opens_mlflows_page_on_the_runs_and_stops_cleanly(
    trained: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    import psutil

    folder, _ = trained
    port = free_port()
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    # A session of its own, so that a Ctrl-C reaches all its processes, as in a terminal.
    command = [PENGUINS, "ui", "--port", str(port)]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as ui:
        try:
            assert ui.stdout is not None
            assert ui.stdout.readline() == f"The runs are at http://127.0.0.1:{port} (Ctrl-C stops)\n"
            page = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/get-by-name?experiment_name=penguins"
            assert json.loads(when_ready(page))["experiment"]["name"] == "penguins"
            children = psutil.Process(ui.pid).children(recursive=True)
            busy = penguins("ui", "--port", str(port), cwd=folder)
            assert busy.returncode == 1
            assert (
                busy.stderr == f"Error: 127.0.0.1:{port} can't be used (Address already in use): give another --port.\n"
            )
        finally:
            os.killpg(ui.pid, 2)
            ui.wait(timeout=30)
    assert ui.returncode == 0
    assert children
    assert psutil.wait_procs(children, timeout=30)[1] == []


def when_ready(url: str) -> bytes:
    for _ in range(600):
        try:
            with urllib.request.urlopen(url) as answer:
                return bytes(answer.read())
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(url)


def test_ui_without_runs_says_what_to_do(tmp_path: Path) -> None:
    result = penguins("ui", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr == f"Error: There is no mlflow.db in {tmp_path}: run `penguins train` first.\n"
    assert list(tmp_path.iterdir()) == []


def test_the_entry_point_returns_from_success_and_exits_from_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a wheel task on Databricks calls it, which takes any SystemExit for a failure."""
    monkeypatch.setattr(sys, "argv", ["penguins", "--version"])
    run()
    monkeypatch.setattr(sys, "argv", ["penguins", "fly"])
    with pytest.raises(SystemExit, match="2"):
        run()
