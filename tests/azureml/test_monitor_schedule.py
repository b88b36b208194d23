"""The monitor as a schedule: the real client's request, with the thresholds of `penguins monitor`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from penguins.cli import main
from tests.azureml.arm import HOME, REGION, Azure, configure, refused, running
from tests.azureml.tls import Authority

pytestmark = pytest.mark.azureml

WATCHED = (
    *("--deployment", "penguin-predictor-3", "--reference", "azureml:birds:1", "--inputs", "azureml:asked:1"),
    *("--outputs", "azureml:answered:1", "--truth", "azureml:truth:1"),
)


@pytest.fixture
def azure(trusted: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Azure]:
    """An Azure with an endpoint, and the data that it was trained on and asked about."""
    azure = Azure()
    endpoint = "onlineEndpoints/predict-penguin"
    done = {"provisioningState": "Succeeded", "authMode": "Key", "traffic": {"penguin-predictor-3": 100}}
    azure.things[endpoint] = {"location": REGION, "tags": {}, "properties": done}
    azure.things[f"{endpoint}/deployments/penguin-predictor-3"] = {
        "location": REGION, "tags": {}, "sku": {"name": "Default", "capacity": 1},
        "properties": {"endpointComputeType": "Managed", "provisioningState": "Succeeded",
                       "scaleSettings": {"scaleType": "Default"}},
    }  # fmt: skip
    for name in ("birds", "asked", "answered", "truth"):
        kind = "mltable" if name in {"birds", "truth"} else "uri_folder"
        place = f"azureml://datastores/workspaceblobstore/paths/{name}"
        azure.things[f"data/{name}/versions/1"] = {"properties": {"dataType": kind, "dataUri": place}}
    with running(azure, trusted):
        configure(azure, monkeypatch)
        yield azure


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["azureml", "monitor", *arguments])


def held(azure: Azure) -> dict[str, Any]:
    properties: dict[str, Any] = azure.things["schedules/penguins-monitor"]["properties"]
    return properties


def limits(signal: dict[str, Any]) -> list[tuple[str, str, float]]:
    return [(one["dataType"], one["metric"], one["threshold"]["value"]) for one in signal["metricThresholds"]]


def test_the_schedule_has_the_thresholds_of_the_local_monitor(azure: Azure) -> None:
    result = command("create", *WATCHED, "--email", "keeper@example.org")
    assert (result.exit_code, result.stdout) == (0, "penguins-monitor watches predict-penguin every day at 3:00 UTC.\n")
    schedule = held(azure)
    assert schedule["tags"]["made_by"] == "penguins"
    assert schedule["trigger"]["frequency"].lower() == "day"
    assert schedule["trigger"]["schedule"]["hours"] == [3]
    definition = schedule["action"]["monitorDefinition"]
    assert definition["monitoringTarget"]["taskType"].lower() == "classification"
    assert definition["monitoringTarget"]["deploymentId"].endswith(
        "/onlineEndpoints/predict-penguin/deployments/penguin-predictor-3"
    )
    assert definition["alertNotificationSetting"]["emailNotificationSetting"]["emails"] == ["keeper@example.org"]
    signals = definition["signals"]
    assert sorted(signals) == ["data_drift", "data_quality", "performance", "prediction_drift"]
    psi = [("Numerical", "populationStabilityIndex", 0.25), ("Categorical", "populationStabilityIndex", 0.25)]
    assert limits(signals["data_drift"]) == psi
    assert limits(signals["prediction_drift"]) == psi
    assert sorted(limits(signals["data_quality"])) == [
        ("Categorical", "nullValueRate", 0.05),
        ("Categorical", "outOfBoundsRate", 0.01),
        ("Numerical", "nullValueRate", 0.05),
        ("Numerical", "outOfBoundsRate", 0.01),
    ]
    floors = json.loads(signals["performance"]["properties"]["azureml.modelmonitor.model_performance_thresholds"])
    assert {one["metric"]: one["threshold"]["value"] for one in floors} == {"Accuracy": 0.9, "Recall": 0.8}
    features = ["Island", "CulmenLength", "CulmenDepth", "FlipperLength", "BodyMass"]
    for name in ("data_drift", "data_quality"):
        assert signals[name]["features"]["features"] == features
        assert signals[name]["productionData"]["uri"] == f"{HOME}/data/asked/versions/1"
        assert signals[name]["referenceData"]["uri"] == f"{HOME}/data/birds/versions/1"
    assert {signal["mode"] for signal in signals.values()} == {"Enabled"}
    assert signals["prediction_drift"]["referenceData"]["uri"] == f"{HOME}/data/birds/versions/1"


@pytest.mark.parametrize(("given", "join_column"), [((), "correlationid"), (("--join-column", "ring"), "ring")])
def test_answers_are_compared_with_the_known_classes_by_what_both_have(
    azure: Azure, given: tuple[str, ...], join_column: str
) -> None:
    result = command("create", *WATCHED, *given)
    assert result.exit_code == 0, result.output
    signal = held(azure)["action"]["monitorDefinition"]["signals"]["performance"]
    [answers] = signal["productionData"] if isinstance(signal["productionData"], list) else [signal["productionData"]]
    truth = signal["referenceData"]
    assert (answers["uri"], answers["dataContext"], answers["columns"]) == (
        f"{HOME}/data/answered/versions/1", "model_outputs",
        {"target_column": "prediction", "join_column": join_column},
    )  # fmt: skip
    assert (truth["uri"], truth["dataContext"], truth["columns"]) == (
        f"{HOME}/data/truth/versions/1", "ground_truth", {"target_column": "Species", "join_column": join_column},
    )  # fmt: skip


def test_other_thresholds_and_less_data(azure: Azure) -> None:
    given = ("--psi", "0.5", "--missing-increase", "0.2", "--out-of-range", "0.03", "--new-categories", "0.04")
    result = command("create", *WATCHED[:6], *given, "--hour", "22", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"schedule": "penguins-monitor", "hour": 22}
    signals = held(azure)["action"]["monitorDefinition"]["signals"]
    assert sorted(signals) == ["data_drift", "data_quality"]
    assert limits(signals["data_drift"])[0] == ("Numerical", "populationStabilityIndex", 0.5)
    assert sorted(limits(signals["data_quality"])) == [
        ("Categorical", "nullValueRate", 0.2),
        ("Categorical", "outOfBoundsRate", 0.04),
        ("Numerical", "nullValueRate", 0.2),
        ("Numerical", "outOfBoundsRate", 0.03),
    ]


def test_a_schedule_that_rests_keeps_its_definition(azure: Azure) -> None:
    assert command("create", *WATCHED).exit_code == 0
    before = held(azure)["action"]["monitorDefinition"]
    result = command("disable")
    assert (result.exit_code, result.stdout) == (0, "penguins-monitor rests.\n"), result.output
    assert held(azure)["isEnabled"] is False
    assert held(azure)["action"]["monitorDefinition"] == before


def test_deleting_an_enabled_schedule(azure: Azure) -> None:
    assert command("create", *WATCHED).exit_code == 0
    result = command("delete")
    assert (result.exit_code, result.stdout) == (0, "penguins-monitor is deleted.\n"), result.output
    assert azure.of_kind("schedules") == []
    result = command("delete", "--json")
    assert json.loads(result.stdout) == {"schedule": "penguins-monitor", "deleted": False}


@pytest.mark.parametrize("gone", ["", "/deployments/penguin-predictor-3"], ids=["endpoint", "deployment"])
def test_a_schedule_outlives_what_it_watched_and_can_be_ended(azure: Azure, gone: str) -> None:
    """As after a deployment of the next version, or `undeploy`."""
    assert command("create", *WATCHED).exit_code == 0
    limits_before = held(azure)["action"]["monitorDefinition"]["signals"]
    for path in [path for path in azure.things if path.startswith(f"onlineEndpoints/predict-penguin{gone}")]:
        del azure.things[path]
    result = command("disable")
    assert (result.exit_code, result.stdout) == (0, "penguins-monitor rests.\n"), result.output
    assert held(azure)["isEnabled"] is False
    assert held(azure)["action"]["monitorDefinition"]["signals"] == limits_before
    result = command("delete")
    assert (result.exit_code, result.stdout) == (0, "penguins-monitor is deleted.\n"), result.output
    assert azure.of_kind("schedules") == []


def test_an_enabled_schedule_whose_deployment_is_gone_can_be_deleted(azure: Azure) -> None:
    assert command("create", *WATCHED).exit_code == 0
    del azure.things["onlineEndpoints/predict-penguin/deployments/penguin-predictor-3"]
    result = command("delete")
    assert (result.exit_code, result.stdout) == (0, "penguins-monitor is deleted.\n"), result.output
    assert azure.of_kind("schedules") == []


def test_clean_up_takes_the_schedule_before_the_endpoint_that_it_watches(azure: Azure) -> None:
    assert command("create", *WATCHED).exit_code == 0
    for path in ("predict-penguin", "predict-penguin/deployments/penguin-predictor-3"):
        azure.things[f"onlineEndpoints/{path}"]["tags"] = {"made_by": "penguins"}
    result = CliRunner().invoke(main, ["azureml", "clean-up", "--yes"])
    assert result.exit_code == 0, result.output
    assert azure.of_kind("schedules") == azure.of_kind("onlineEndpoints") == []


def test_what_is_not_there(azure: Azure) -> None:
    result = command("create", "--endpoint", "nobody", *WATCHED)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: penguins-monitor: ")
    assert "can't be found; check the subscription" in result.stderr
    result = command("disable")
    assert result.exit_code == 1
    assert "schedule penguins-monitor can't be found" in result.stderr
    result = command("create", *WATCHED[:6], "--truth", "azureml:truth:1")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        2, "Error: --truth needs --outputs: the answers are compared with it.",
    )  # fmt: skip


def test_a_refusal(azure: Azure) -> None:
    azure.fail("PUT .*/schedules/", refused(403, "AuthorizationFailed", "You may not make schedules."))
    result = command("create", *WATCHED)
    assert result.exit_code == 1
    assert "Error: penguins-monitor: You may not make schedules; ask for a role" in result.stderr


def test_clean_up_takes_it_away_and_leaves_what_it_watched(azure: Azure) -> None:
    assert command("create", *WATCHED).exit_code == 0
    result = CliRunner().invoke(main, ["azureml", "clean-up", "--yes"])
    assert (result.exit_code, result.stdout.splitlines()) == (0, ["schedule penguins-monitor", "1 removed."])
    assert azure.of_kind("schedules") == []
    assert azure.of_kind("onlineEndpoints") == ["predict-penguin"]
