"""Clean-up: what carries the tag goes, everything else stays."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

from penguins.cli import main
from tests.azureml.arm import REGION, Azure, configure, refused, running
from tests.azureml.tls import Authority

pytestmark = pytest.mark.azureml

OURS = {"made_by": "penguins"}


@pytest.fixture
def azure(trusted: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Azure]:
    """An Azure with things of ours and of others."""
    azure = Azure()
    for name, tags in (("predict-penguin", OURS), ("churn", {"made_by": "somebody"}), ("old", {})):
        azure.things[f"onlineEndpoints/{name}"] = {
            "location": REGION, "tags": tags,
            "properties": {"authMode": "Key", "traffic": {}, "provisioningState": "Succeeded"},
        }  # fmt: skip
    azure.things["batchEndpoints/score-penguins"] = {
        "location": REGION, "tags": OURS, "properties": {"authMode": "AADToken", "provisioningState": "Succeeded"},
    }  # fmt: skip
    for version, tags in (("1", OURS), ("2", OURS), ("3", {})):
        azure.things[f"models/penguin_predictor-serving/versions/{version}"] = {
            "properties": {"modelType": "mlflow_model", "modelUri": "azureml://x", "tags": tags, "flavors": {}}
        }
    azure.things["models/churn/versions/1"] = {
        "properties": {"modelType": "mlflow_model", "modelUri": "azureml://x", "tags": {}, "flavors": {}}
    }
    azure.things["environments/penguins-training/versions/abc"] = {
        "properties": {"image": "python:3.11-slim", "tags": OURS, "environmentType": "UserCreated"}
    }
    with running(azure, trusted):
        configure(azure, monkeypatch)
        yield azure


def command(*arguments: str, answer: str = "") -> Result:
    return CliRunner().invoke(main, ["azureml", "clean-up", *arguments], input=answer)


LISTED = [
    "online endpoint predict-penguin",
    "batch endpoint score-penguins",
    "model penguin_predictor-serving 1",
    "model penguin_predictor-serving 2",
    "environment penguins-training abc",
]


def test_nothing_goes_before_a_yes(azure: Azure) -> None:
    result = command(answer="n\n")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[:5] == LISTED
    assert "Delete these 5?" in result.stdout
    assert azure.changes() == []


def test_what_is_ours_goes_and_nothing_else(azure: Azure) -> None:
    result = command(answer="y\n")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "5 removed."
    assert sorted(azure.changes()) == [
        "DELETE /batchEndpoints/score-penguins",
        "DELETE /onlineEndpoints/predict-penguin",
        "PUT /environments/penguins-training/versions/abc",
        "PUT /models/penguin_predictor-serving/versions/1",
        "PUT /models/penguin_predictor-serving/versions/2",
    ]
    assert azure.of_kind("onlineEndpoints") == ["churn", "old"]
    assert azure.things["models/penguin_predictor-serving/versions/1"]["properties"]["isArchived"] is True
    assert not azure.things["models/penguin_predictor-serving/versions/3"]["properties"].get("isArchived")
    result = command("--yes", "--json")
    assert json.loads(result.stdout) == {"removed": []}


def test_others_keep_their_deployments_and_their_endpoints(azure: Azure) -> None:
    def deployment(path: str, tags: dict[str, str]) -> None:
        azure.things[path] = {
            "location": REGION, "tags": tags, "sku": {"name": "Default", "capacity": 1},
            "properties": {"endpointComputeType": "Managed", "provisioningState": "Succeeded",
                           "scaleSettings": {"scaleType": "Default"}},
        }  # fmt: skip

    deployment("onlineEndpoints/predict-penguin/deployments/theirs", {})
    deployment("onlineEndpoints/predict-penguin/deployments/ours", OURS)
    deployment("onlineEndpoints/churn/deployments/visitor", OURS)
    deployment("onlineEndpoints/churn/deployments/owner", {})
    deployment("batchEndpoints/score-penguins/deployments/theirs", {})
    listed = ["online deployment predict-penguin/ours", "online deployment churn/visitor", *LISTED[2:]]
    result = command("--yes")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[: len(listed)] == listed
    assert sorted(line for line in azure.changes() if line.startswith("DELETE")) == [
        "DELETE /onlineEndpoints/churn/deployments/visitor",
        "DELETE /onlineEndpoints/predict-penguin/deployments/ours",
    ]


def test_what_can_not_be_deleted_is_named(azure: Azure) -> None:
    azure.fail("DELETE .*/predict-penguin", refused(403, "AuthorizationFailed", "You may not delete."))
    result = command("--yes")
    assert result.exit_code == 1
    assert "Error: online endpoint predict-penguin: You may not delete; ask for a role" in result.stderr
    assert "predict-penguin" in azure.of_kind("onlineEndpoints")
