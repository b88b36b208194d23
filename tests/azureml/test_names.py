"""A name that Azure would refuse is told before Azure is asked for anything but a token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner

from penguins.cli import main
from penguins.errors import ParameterError
from penguins.tracking import Tracking, experiment_id
from tests.azureml.arm import Azure, configure, running
from tests.azureml.mlflow_workspace import MlflowWorkspace
from tests.azureml.tls import Authority
from tests.conftest import PENGUINS_CSV

pytestmark = pytest.mark.azureml

MONITOR = ("azureml", "monitor", "create", "--reference", "azureml:birds:1", "--inputs", "azureml:asked:1")


@pytest.fixture
def azure(trusted: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Azure]:
    monkeypatch.chdir(tmp_path)
    with running(Azure(), trusted) as azure:
        configure(azure, monkeypatch)
        yield azure


@pytest.mark.parametrize(
    ("command", "kind", "name"),
    [
        (("query", "--to", "azureml", "--endpoint", "3birds"), "an endpoint", "3birds"),
        (("undeploy", "--to", "azureml", "--endpoint", "predict_penguin"), "an endpoint", "predict_penguin"),
        (("undeploy", "--to", "azureml", "--kind", "batch", "--endpoint", "ab"), "an endpoint", "ab"),
        (("azureml", "score", "--endpoint", "a b", "--data", ".", "--output", "o.csv"), "an endpoint", "a b"),
        ((*MONITOR, "--endpoint", "pingüino", "--deployment", "blue"), "an endpoint", "pingüino"),
        ((*MONITOR, "--deployment", "3blue"), "a deployment", "3blue"),
        ((*MONITOR, "--deployment", "blue", "--name", "every day"), "a schedule", "every day"),
        (("azureml", "workspace", "create", "--name", "ab", "--region", "uksouth"), "a workspace", "ab"),
        (("databricks-workspace", "create", "--name", "a.b", "--region", "uksouth"), "a workspace", "a.b"),
        (
            (
                "azureml",
                "submit-training",
                "--compute",
                "rookery",
                "--data",
                str(PENGUINS_CSV),
                "--experiment",
                "/me/x",
            ),
            *("an experiment", "/me/x"),
        ),
        (
            ("azureml", "submit-training", "--compute", "rookery", "--data", str(PENGUINS_CSV), "--register-as", "ñ b"),
            *("a registered model", "ñ b"),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_refused_name_is_told_before_it_is_sent(azure: Azure, command: tuple[str, ...], kind: str, name: str) -> None:
    result = CliRunner().invoke(main, command)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {name!r} can't be the name of {kind} of Azure ")
    assert [line for line in azure.asked if "/subscriptions/" in line] == []


def test_an_experiment_that_would_not_be_found_again_is_not_made(workspace: MlflowWorkspace) -> None:
    Tracking(workspace.uri).activate()
    with pytest.raises(
        ParameterError, match=r"^'/Users/me/x' can't be the name of an experiment of Azure .*Users-me-x\.$"
    ):
        experiment_id("/Users/me/x")
    assert workspace.count("experiments/") == 0
    assert experiment_id("penguins-of-3") == mlflow.get_experiment_by_name("penguins-of-3").experiment_id  # type: ignore[union-attr]  # it is there
