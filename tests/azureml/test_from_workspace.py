"""From a workspace's own registry to its endpoint: MLflow's plugin and Azure's clients, each with its own server."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner

from penguins import champion, registry
from penguins.champion import version_of
from penguins.cli import main
from penguins.registry import Version
from penguins.serve import serving
from penguins.tracking import Tracking
from tests.azureml.arm import Azure, configure, running
from tests.azureml.mlflow_workspace import MlflowWorkspace
from tests.azureml.tls import Authority

pytestmark = [pytest.mark.azureml, pytest.mark.slow]

NAME = "birds_of_the_workspace"


@pytest.mark.parametrize("knows_more", [True, False], ids=["aliases and inputs", "neither"])
def test_a_version_goes_from_the_registry_to_the_endpoint_and_becomes_champion_there(
    models: Path,
    workspace: MlflowWorkspace,
    trusted: Authority,
    monkeypatch: pytest.MonkeyPatch,
    knows_more: bool,
) -> None:
    workspace.has_aliases = workspace.has_inputs = knows_more
    name = f"{NAME}_{knows_more}"
    here, there = Tracking(f"sqlite:///{models}"), Tracking(workspace.uri)
    for version in (1, 3):
        registry.copy_version("penguin_predictor", version, here, there, copy_as=name)
    there.activate()
    fair, good = Version(name, 1), Version(name, 2)
    champion.move(fair, None)
    registry.describe(good, {"gate_verdict": "yes", "gate_champion": "1"})
    here.activate()
    with serving("models:/penguin_predictor/3") as scorer, running(Azure(scorers={"2": scorer}), trusted) as azure:
        mlflow.set_tracking_uri("")
        mlflow.set_registry_uri("")
        monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)  # MLflow itself has set it
        configure(azure, monkeypatch)
        # One Entra ID for both servers: the tokens that the one gives are the tokens that the other takes.
        for variable, value in workspace.environment().items():
            monkeypatch.setenv(variable, value)
        monkeypatch.setenv("AZUREML_CURRENT_CLOUD", "Loopback")
        azure.tokens = workspace.tokens
        arguments = ["--to", "azureml", "--model", name, "--version", "2", "--tracking-uri", workspace.uri]
        result = CliRunner().invoke(main, ["deploy", *arguments])
        assert (result.exit_code, result.stdout.splitlines()) == (0, [
            f"predict-penguin serves version 2 of {name} with 100 % of the traffic.", "Version 2 is champion.",
        ]), result.output  # fmt: skip
        assert azure.traffic("predict-penguin") == {f"{name.replace('_', '-').lower()[:30]}-2": 100}
    there.activate()
    assert version_of(name) == good
    assert version_of(name, "previous_champion") == fair
