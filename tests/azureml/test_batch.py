"""Batch endpoints: the real client against an Azure on this machine, whose jobs ask real servers of real models."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner, Result

from penguins import champion
from penguins.cli import main
from penguins.registry import Version
from penguins.serve import serving
from penguins.tracking import Tracking
from tests.azureml.arm import CLUSTER, HOME, SECRETS, TOKEN, Azure, configure, refused, running
from tests.azureml.endless import interrupted
from tests.azureml.tls import Authority

pytestmark = [pytest.mark.azureml, pytest.mark.slow]

NAME = "score-penguins"
FAIR = Version("penguin_predictor", 1)
BIRDS = "Island,CulmenLength,CulmenDepth,FlipperLength,BodyMass\nBiscoe,48.7,14.1,210,4450\nDream,39.5,16.7,178,3250\n"


@pytest.fixture(scope="module")
def scorer(three_models: Path) -> Iterator[str]:
    Tracking.local(three_models.parent).activate()
    with serving(FAIR.uri) as fair:
        mlflow.set_tracking_uri("")
        mlflow.set_registry_uri("")
        yield fair


@pytest.fixture
def azure(models: Path, scorer: str, trusted: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Azure]:
    """An Azure that the environment names, with a cluster, beside a registry in which the fair model is champion."""
    champion.move(FAIR, None)
    azure = Azure(scorers={"1": scorer})
    azure.things["computes/rookery"] = CLUSTER
    with running(azure, trusted):
        configure(azure, monkeypatch)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{models}")
        yield azure


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments])


def deploy(*arguments: str) -> Result:
    return command("deploy", "--to", "azureml", "--kind", "batch", *arguments)


def undeploy(*arguments: str) -> Result:
    return command("undeploy", "--to", "azureml", "--kind", "batch", *arguments)


def score(data: str, output: Path) -> Result:
    return command("azureml", "score", "--data", data, "--output", str(output))


def test_a_file_is_scored_from_here_to_here(
    azure: Azure, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    result = deploy("--compute", "rookery")
    assert (result.exit_code, result.stdout) == (
        0, f"{NAME} scores with version 1 of penguin_predictor.\n",
    ), result.output  # fmt: skip
    made = azure.things[f"batchEndpoints/{NAME}"]
    assert made["tags"] == {"made_by": "penguins"}
    assert made["properties"]["defaults"]["deploymentName"] == "penguin-predictor-1"
    deployment = azure.things[f"batchEndpoints/{NAME}/deployments/penguin-predictor-1"]["properties"]
    assert deployment["compute"] == f"{HOME}/computes/rookery"
    assert deployment["model"]["assetId"] == f"{HOME}/models/penguin_predictor-serving/versions/1"
    assert deployment["outputFileName"] == "predictions.csv"
    (tmp_path / "birds.csv").write_text(BIRDS)
    result = score(str(tmp_path / "birds.csv"), tmp_path / "scored.csv")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"Written  {tmp_path / 'scored.csv'}"
    assert (tmp_path / "scored.csv").read_text() == "0,Gentoo\n1,Adelie\n"
    shown = capfd.readouterr().err
    assert "2 rows scored" in shown
    for secret in (*SECRETS, TOKEN):
        assert secret not in result.output + shown + caplog.text


def test_a_folder_for_the_answers_is_made_before_the_job(azure: Azure, tmp_path: Path) -> None:
    deploy("--compute", "rookery")
    (tmp_path / "birds.csv").write_text(BIRDS)
    output = tmp_path / "year" / "2026" / "scored.csv"
    result = score(str(tmp_path / "birds.csv"), output)
    assert result.exit_code == 0, result.output
    assert output.read_text() == "0,Gentoo\n1,Adelie\n"
    assert [path.name for path in output.parent.iterdir()] == ["scored.csv"]
    azure.asked.clear()
    within = tmp_path / "birds.csv" / "scored.csv"
    result = score(str(tmp_path / "birds.csv"), within)
    assert (result.exit_code, result.stderr) == (
        1, f"Error: {within} can't be written ({within.parent}: File exists): give another --output.\n",
    )  # fmt: skip
    assert not [line for line in azure.asked if line.startswith("POST /batch/")]


class _Jobs(dict[str, list[str]]):
    """The logs of jobs; something happens while a job runs."""

    def __init__(self, happens: Callable[[], object]) -> None:
        super().__init__()
        self.happens = happens

    def __setitem__(self, job: str, log: list[str]) -> None:
        super().__setitem__(job, log)
        self.happens()


def test_answers_that_get_no_place_are_not_lost(azure: Azure, tmp_path: Path) -> None:
    deploy("--compute", "rookery")
    (tmp_path / "birds.csv").write_text(BIRDS)
    output = tmp_path / "year" / "scored.csv"
    no_secrets = refused(403, "AuthorizationFailed", "You may not read the storage.")
    while_it_runs: list[tuple[Callable[[], object], str]] = [
        (lambda: shutil.rmtree(output.parent), f"{output} can't be written: No such file or directory."),
        (lambda: output.write_text("mine"), f"{output} exists already: give a path that doesn't, or remove it first."),
        (lambda: azure.fail("POST .*/listSecrets", no_secrets), "The answers: You may not read the storage; ask for"),
    ]
    for happens, said in while_it_runs:
        output.unlink(missing_ok=True)
        azure.logs = _Jobs(happens)
        result = score(str(tmp_path / "birds.csv"), output)
        assert result.exit_code == 1
        last = result.stderr.splitlines()[-1]
        sentence, _, place = last.partition(" Look for the answers in the workspace's storage: ")
        assert sentence.startswith(f"Error: {said}")
        kept = place.removeprefix("azureml://datastores/workspaceblobstore/paths/")
        assert azure.blobs[kept] == b"0,Gentoo\n1,Adelie\n"
        assert [path.read_text() for path in tmp_path.glob("year/*")] == (["mine"] if "exists" in said else [])


def test_ctrl_c_tells_which_job_goes_on_and_where_its_answers_will_be(azure: Azure, tmp_path: Path) -> None:
    deploy("--compute", "rookery")
    (tmp_path / "birds.csv").write_text(BIRDS)
    arguments = ["azureml", "score", "--data", str(tmp_path / "birds.csv"), "--output", str(tmp_path / "scored.csv")]
    *ended, told = interrupted(azure, *arguments)
    [name] = azure.of_kind("jobs")
    assert ended == [1, ""]
    assert (
        f"Error: The job {name} goes on, and costs, until it is done or cancelled. Look for the answers in the " in told
    )
    assert not (tmp_path / "scored.csv").exists()


def test_a_folder_is_scored_whole(azure: Azure, tmp_path: Path) -> None:
    deploy("--compute", "rookery")
    (tmp_path / "birds").mkdir()
    for year in ("2025", "2026"):
        (tmp_path / "birds" / f"{year}.csv").write_text(BIRDS)
    result = score(str(tmp_path / "birds"), tmp_path / "scored.csv")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "scored.csv").read_text() == "0,Gentoo\n1,Adelie\n2,Gentoo\n3,Adelie\n"


def test_a_job_that_fails_leaves_no_file(azure: Azure, tmp_path: Path) -> None:
    deploy("--compute", "rookery")
    (tmp_path / "birds.csv").write_text(BIRDS.replace("Dream", "Atlantis"))
    result = score(str(tmp_path / "birds.csv"), tmp_path / "scored.csv")
    assert result.exit_code == 1
    assert result.stderr.endswith(" ended as Failed: its log says why.\n")
    assert not (tmp_path / "scored.csv").exists()


def test_what_is_wrong_is_told_before_anything_is_sent(azure: Azure, tmp_path: Path) -> None:
    result = deploy("--compute", "roockery")
    assert result.exit_code == 1
    assert "Error: The workspace has no compute roockery: there are rookery" in result.stderr
    taken = tmp_path / "scored.csv"
    taken.write_text("")
    result = score("birds.csv", taken)
    assert result.stderr == f"Error: {taken} exists already: give a path that doesn't, or remove it first.\n"
    result = score("birds.csv", tmp_path / "free.csv")
    assert result.stderr.startswith("Error: There is no birds.csv here: give a file, a folder, or data in Azure")
    for wrong, said in (
        (deploy(), "A batch endpoint runs on a compute cluster of the workspace: name it (--compute)."),
        (deploy("--compute", "rookery", "--traffic", "10"), "--traffic is not for --kind batch."),
        (command("undeploy", "--to", "databricks", "--kind", "batch"), "--kind is not for --to databricks."),
    ):
        assert (wrong.exit_code, wrong.stderr.splitlines()[-1]) == (2, f"Error: {said}")
    assert azure.changes() == []


def test_a_version_that_was_not_judged_scores_nothing(azure: Azure) -> None:
    result = deploy("--compute", "rookery", "--version", "2")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: The gate hasn't accepted version 2 of penguin_predictor: run")
    assert azure.changes() == []


def test_refusals_and_the_end(azure: Azure, tmp_path: Path) -> None:
    (tmp_path / "birds.csv").write_text(BIRDS)
    result = score(str(tmp_path / "birds.csv"), tmp_path / "scored.csv")
    assert result.exit_code == 1
    assert f"Error: {NAME}: batchEndpoint {NAME} can't be found; check the subscription" in result.stderr
    deploy("--compute", "rookery")
    azure.fail("DELETE", refused(403, "AuthorizationFailed", "You may not delete."), times=1)
    result = undeploy()
    assert result.exit_code == 1
    assert f"Error: {NAME}: You may not delete; ask for a role" in result.stderr
    assert undeploy().stdout == f"{NAME} is deleted.\n"
    assert json.loads(undeploy("--json").stdout) == {"endpoint": NAME, "deleted": False}
    assert azure.of_kind("batchEndpoints") == []
