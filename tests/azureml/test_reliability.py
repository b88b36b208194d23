"""What goes wrong between here and a workspace: one sentence for each, nothing lost, and no secret in any of them."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pytest
import requests

from penguins import azureml, flavor, outcome
from penguins.errors import StoreError
from penguins.redaction import without_secrets
from penguins.tracking import Tracking, experiment_id
from penguins.train import train_from_source
from tests.azureml.mlflow_workspace import HANG_UP, ID, Answer, MlflowWorkspace, refused
from tests.conftest import LAB_BIRD, PENGUINS_CSV
from tests.test_cli import PENGUINS
from tests.test_outcome import at_the_step, kept_in

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.azureml, pytest.mark.spark, pytest.mark.slow]

WHO = "penguins-ws (resource group birds(west), subscription 11111111-2222-3333-4444-555555555555)"

REFUSALS = {
    401: f"The workspace {WHO} doesn't accept the credential (401): sign in again, or renew the secret.",
    403: f"The workspace {WHO} doesn't allow this (403): ask for the role AzureML Data Scientist on it.",
    404: f"There is no workspace {WHO} (404): check the names, the subscription and the region.",
    429: f"The workspace {WHO} is asked too often (429): try again in some minutes.",
    500: f"The workspace {WHO} failed (500): try again, and look at Azure's status page.",
    503: f"The workspace {WHO} failed (503): try again, and look at Azure's status page.",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, where outcomes are kept."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def store(workspace: MlflowWorkspace) -> Tracking:
    store = Tracking(workspace.uri)
    store.activate()
    return store


def no_secret(workspace: MlflowWorkspace, *texts: str) -> None:
    assert workspace.tokens, "somebody has signed in"
    for text in texts:
        assert not [secret for secret in workspace.secrets() if secret in text]


@pytest.mark.parametrize("status", REFUSALS)
def test_what_the_workspace_refuses_is_told_before_anything_starts(workspace: MlflowWorkspace, status: int) -> None:
    workspace.fail("experiments/search", refused(status, "Something", "happened"))
    with pytest.raises(StoreError) as raised:
        Tracking(workspace.uri).require_reachable()
    assert str(raised.value) == REFUSALS[status]


@pytest.mark.parametrize("status", [429, 503])
def test_a_workspace_that_says_when_to_ask_again_is_asked_again(workspace: MlflowWorkspace, status: int) -> None:
    answer = refused(status, "TooManyRequests", "Slow down.")
    answer.headers["Retry-After"] = "1"
    workspace.fail("experiments/search", answer, times=2)
    began = time.monotonic()
    Tracking(workspace.uri).require_reachable()
    assert time.monotonic() - began > 2, "twice as long as the workspace has asked for"
    assert workspace.count("experiments/search") == 3


@pytest.mark.parametrize("when", ["3600", "Fri, 31 Dec 2099 23:59:59 GMT"])
def test_a_workspace_that_is_busy_for_long_is_not_waited_for(workspace: MlflowWorkspace, when: str) -> None:
    answer = refused(429, "TooManyRequests", "Slow down.")
    answer.headers["Retry-After"] = when
    workspace.fail("experiments/search", answer)
    with pytest.raises(StoreError) as raised:
        Tracking(workspace.uri).require_reachable()
    assert str(raised.value) == REFUSALS[429]
    assert workspace.count("experiments/search") == 1


def test_another_workspace_of_the_same_subscription_is_told(workspace: MlflowWorkspace) -> None:
    with pytest.raises(StoreError, match=r"^There is no workspace emperors \(resource group birds\(west\), subscripti"):
        Tracking(workspace.uri.replace("penguins-ws", "emperors")).require_reachable()


def test_a_wrong_secret_is_told_and_not_shown(workspace: MlflowWorkspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "wr0ng~secret")
    with pytest.raises(
        StoreError, match=r"^There is no token for Azure \(.*Invalid client secret.*\): run `az"
    ) as raised:
        Tracking(workspace.uri).require_reachable()
    assert "wr0ng~secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_sign_in_that_takes_too_long_is_given_up(workspace: MlflowWorkspace) -> None:
    workspace.delay = 3.0
    with pytest.raises(
        StoreError, match=r"^Nobody gave a token for Azure within 0\.5 seconds: check the network, and "
    ):
        azureml.require(workspace.uri, patience=0.5)


def test_a_workspace_that_is_gone_is_told_by_every_command(workspace: MlflowWorkspace, here: Path) -> None:
    workspace.fail("experiments/search", HANG_UP)
    for command in (
        ["train", "--data", str(PENGUINS_CSV)],
        ["tune", "--data", str(PENGUINS_CSV)],
        ["promote"],
        ["rollback"],
        ["predict", "--data", str(PENGUINS_CSV), "--output", "scored.csv"],
        ["serve", "--port", "0"],
        ["monitor", "--current", str(PENGUINS_CSV), "--reference", str(PENGUINS_CSV)],
        ["log", "."],
        ["register", "."],
    ):
        done = subprocess.run(
            [PENGUINS, *command, "--tracking-uri", workspace.uri], cwd=here, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (1, ""), command
        said = (
            f"Error: The workspace {WHO} doesn't answer at {workspace.url.removeprefix('https://')} (ConnectionError): "
        )
        assert done.stderr.splitlines()[-1] == f"{said}check region and network."
        assert "Traceback" not in done.stderr
        no_secret(workspace, done.stderr)
    assert list(here.iterdir()) == []


def test_a_token_that_expires_meanwhile_is_renewed(store: Tracking, workspace: MlflowWorkspace) -> None:
    # The library asks for a new one 300 seconds before the end, so this one is used for two seconds.
    workspace.told_life, workspace.token_life = 302, 5.0
    with mlflow.start_run(experiment_id=experiment_id("a-long-run")) as run:
        for step in range(16):
            mlflow.log_metric("beaks", step, step=step)
            time.sleep(0.5)
    assert len(mlflow.MlflowClient().get_metric_history(run.info.run_id, "beaks")) == 16
    assert len(workspace.tokens) > 2
    first = next(iter(workspace.tokens))
    url = f"{workspace.url}/mlflow/v2.0{ID}/api/2.0/mlflow/runs/get"
    old = requests.get(url, headers={"Authorization": f"Bearer {first}"}, timeout=5)
    assert old.status_code == 401, "the first one is no longer taken"


@pytest.mark.parametrize("status", [429, 503])
def test_a_moment_of_trouble_is_waited_for(store: Tracking, workspace: MlflowWorkspace, status: int) -> None:
    experiment = experiment_id("trouble")
    answer = refused(status, "Something", "happened")
    answer.headers["Retry-After"] = "2"
    workspace.fail("runs/log-metric", answer, times=1)
    began = time.monotonic()
    with mlflow.start_run(experiment_id=experiment) as run:
        mlflow.log_metric("beaks", 7)
    assert time.monotonic() - began > 2, "as long as the workspace has asked for"
    assert mlflow.get_run(run.info.run_id).data.metrics == {"beaks": 7}


def break_at_upload(workspace: MlflowWorkspace, answer: Answer) -> Callable[[str], None]:
    """Let the pictures and some files of the model arrive, and then none."""
    return at_the_step("Logging", lambda: workspace.fail("^PUT .*/model/", answer, after=3))


def test_signatures_that_run_out_in_the_middle_of_an_upload_lose_nothing(
    spark: SparkSession, store: Tracking, workspace: MlflowWorkspace, here: Path
) -> None:
    report = break_at_upload(workspace, Answer(403, headers={"x-ms-error-code": "AuthenticationFailed"}))
    with pytest.raises(StoreError, match="kept in") as raised:
        train_from_source(spark, PENGUINS_CSV, experiment="expired", register_as="expired", report=report)
    kept = kept_in(raised.value, here)
    no_secret(workspace, str(raised.value))
    [run] = mlflow.search_runs(experiment_names=["expired"], output_format="list")
    assert run.info.status == "FAILED"
    no_secret(workspace, run.data.tags["failure"])
    with pytest.raises(StoreError, match=rf"^{kept} can't be logged: ") as raised:
        outcome.log_kept(kept)
    no_secret(workspace, str(raised.value))
    assert "\n" not in str(raised.value)
    assert [found.name for found in mlflow.MlflowClient().search_registered_models("name = 'expired'")] == []

    workspace.failures.clear()
    command = [PENGUINS, "log", str(kept), "--json", "--tracking-uri", workspace.uri]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    logged = json.loads(done.stdout)
    assert (logged["registered_model"], logged["version"]) == ("expired", 1)
    assert flavor.load_scorer("models:/expired/1").predict(LAB_BIRD)["species"].tolist() == ["Gentoo"]
    no_secret(workspace, done.stdout, done.stderr)


def test_a_server_that_dies_in_the_middle_of_an_upload_loses_nothing(workspace: MlflowWorkspace, here: Path) -> None:
    # The pictures have arrived, and then there is no more answer.
    workspace.fail("POST .*/artifacts/batch/metadata", HANG_UP, after=1)
    command = [PENGUINS, "train", "--data", str(PENGUINS_CSV), "--tracking-uri", workspace.uri, "--verbose"]
    done = subprocess.run([*command, "--register-as", "died"], cwd=here, capture_output=True, text=True)
    assert done.returncode == 1
    [kept] = here.glob("penguins-kept-*")
    named = shlex.join(["penguins", "log", str(kept), "--tracking-uri", workspace.uri])
    assert f"the fitted model is kept in {kept}, and `{named}` logs it." in done.stderr
    assert "Traceback" in done.stderr
    no_secret(workspace, done.stdout, done.stderr)
    assert sorted(path.name for path in kept.iterdir()) == ["artifacts", "model", "run.json"]


def test_a_workspace_that_forbids_registering_keeps_the_model(
    spark: SparkSession, store: Tracking, workspace: MlflowWorkspace, here: Path
) -> None:
    workspace.fail("registered-models/create", refused(403, "Forbidden", "You may not write models."))
    with pytest.raises(
        StoreError, match=r"^The model can't be registered as forbidden: You may not write models; "
    ) as e:
        train_from_source(spark, PENGUINS_CSV, experiment="forbidden", register_as="forbidden")
    kept = kept_in(e.value, here)
    workspace.failures.clear()
    assert outcome.log_kept(kept).version == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET https://a/b?sv=1&sig=AbC%2Fd%3D&se=2 failed", "GET https://a/b?sv=1&sig=***&se=2 failed"),
        ("url: /c/d?sig=AbC%3D (Caused by it)", "url: /c/d?sig=*** (Caused by it)"),
        ("{'Authorization': 'Bearer eyJ0.eXAi-_.x=='}", "{'Authorization': 'Bearer ***'}"),
        ("http://me:secret@host/", "http://***@host/"),
        ("a beak of 3.1 cm", "a beak of 3.1 cm"),
    ],
)
def test_signatures_tokens_and_passwords_are_not_shown(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
