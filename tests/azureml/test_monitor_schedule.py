"""The monitor as a schedule: the real client's request, with the thresholds of `penguins monitor`."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner, Result

from penguins.cli import main
from tests.azureml.arm import HOME, REGION, Azure, configure, refused, running
from tests.azureml.tls import Authority

pytestmark = pytest.mark.azureml

DEPLOYMENT = "penguin-predictor-3"
ASKED, ANSWERED = (f"predict-penguin-{DEPLOYMENT}-{kind}" for kind in ("model_inputs", "model_outputs"))


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows as `penguins predict` writes them where the data has the label: two answered, one not."""
    rows = {
        "Island": ["Biscoe", "Dream", None],
        "CulmenLength": [48.7, 39.5, 40.0],
        "CulmenDepth": [14.1, 16.7, 17.0],
        "FlipperLength": [210.0, 178.0, 180.0],
        "BodyMass": [4450, 3250, 3300],
        "Species": [1.0, 0.0, 0.0],
        "prediction": [1, 0, None],
        "predicted_species": ["Gentoo", "Adelie", None],
        "reasons": [None, None, ["Island is missing"]],
    }
    path = tmp_path_factory.mktemp("scored") / "reference.parquet"
    pq.write_table(pa.table(rows), path)
    return path


@pytest.fixture
def watched(scored: Path) -> tuple[str, ...]:
    return "--deployment", DEPLOYMENT, "--reference", str(scored)


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
    for name, kind in (("birds", "mltable"), ("asked", "uri_folder"), (ASKED, "uri_folder"), (ANSWERED, "uri_folder")):
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


def test_the_schedule_has_the_thresholds_of_the_local_monitor(azure: Azure, watched: tuple[str, ...]) -> None:
    result = command("create", *watched, "--email", "keeper@example.org")
    assert result.exit_code == 0, result.output
    said, quality = result.stdout.splitlines()
    address = said.removeprefix("penguins-monitor watches predict-penguin every day at 3:00 UTC, against ")
    assert re.fullmatch(r"azureml:penguins-reference:[0-9a-f]{12}\.", address)
    assert quality == "It doesn't watch the quality of the answers: `penguins monitor` does."
    schedule = held(azure)
    assert schedule["tags"] == {"made_by": "penguins"}
    assert schedule["trigger"]["frequency"].lower() == "day"
    assert schedule["trigger"]["schedule"]["hours"] == [3]
    definition = schedule["action"]["monitorDefinition"]
    assert definition["monitoringTarget"]["taskType"].lower() == "classification"
    assert definition["monitoringTarget"]["deploymentId"].endswith(
        "/onlineEndpoints/predict-penguin/deployments/penguin-predictor-3"
    )
    assert definition["alertNotificationSetting"]["emailNotificationSetting"]["emails"] == ["keeper@example.org"]
    signals = definition["signals"]
    assert sorted(signals) == ["data_drift", "data_quality", "prediction_drift"]
    psi = [("Numerical", "populationStabilityIndex", 0.25), ("Categorical", "populationStabilityIndex", 0.25)]
    assert limits(signals["data_drift"]) == psi
    assert limits(signals["prediction_drift"]) == psi
    assert sorted(limits(signals["data_quality"])) == [
        ("Categorical", "nullValueRate", 0.05),
        ("Categorical", "outOfBoundsRate", 0.01),
        ("Numerical", "nullValueRate", 0.05),
        ("Numerical", "outOfBoundsRate", 0.01),
    ]
    features = ["Island", "CulmenLength", "CulmenDepth", "FlipperLength", "BodyMass"]
    produced = {name: signal["productionData"]["uri"] for name, signal in signals.items()}
    for name in ("data_drift", "data_quality"):
        assert signals[name]["features"]["features"] == features
        assert produced[name] == f"{HOME}/data/{ASKED}/versions/1"
    assert produced["prediction_drift"] == f"{HOME}/data/{ANSWERED}/versions/1"
    assert {signal["mode"] for signal in signals.values()} == {"Enabled"}
    [made] = [path for path in azure.things if path.startswith("data/penguins-reference/")]
    assert {signal["referenceData"]["uri"] for signal in signals.values()} == {f"{HOME}/{made}"}
    assert not [signal for signal in signals.values() if "columns" in signal["referenceData"]]


def test_the_reference_has_the_names_and_types_of_what_is_collected(azure: Azure, watched: tuple[str, ...]) -> None:
    """As Azure's own monitor compares them: with case, and the type, too."""
    assert command("create", *watched).exit_code == 0
    [made] = [path for path in azure.things if path.startswith("data/penguins-reference/")]
    asset = azure.things[made]["properties"]
    assert (asset["dataType"], asset["tags"]) == ("mltable", {"made_by": "penguins"})
    files = {name.rpartition("/")[2]: content for name, content in azure.blobs.items()}
    assert yaml.safe_load(files["MLTable"]) == {
        "type": "mltable", "paths": [{"file": "./reference.parquet"}], "transformations": ["read_parquet"],
    }  # fmt: skip
    reference = pq.read_table(io.BytesIO(files["reference.parquet"]))
    numbers = dict.fromkeys(["CulmenLength", "CulmenDepth", "FlipperLength", "BodyMass"], "double")
    assert {name: str(reference.schema.field(name).type) for name in reference.column_names} == {
        "Island": "string", **numbers, "species": "string",
    }  # fmt: skip
    assert reference["species"].to_pylist() == ["Gentoo", "Adelie"]
    assert reference["BodyMass"].to_pylist() == [4450.0, 3250.0]


def test_the_same_reference_is_kept_once_and_can_be_named(azure: Azure, watched: tuple[str, ...]) -> None:
    address = json.loads(command("create", *watched, "--json").stdout)["reference"]
    done = len(azure.blobs)
    for reference in (watched[-1], address):
        result = command("create", "--deployment", DEPLOYMENT, "--reference", reference, "--json")
        assert json.loads(result.stdout)["reference"] == address
    assert len(azure.blobs) == done


def test_what_is_no_reference_is_refused(azure: Azure, scored: Path, tmp_path: Path) -> None:
    """A table of another's may have other types, and Azure would leave its columns out without a word."""
    table = pq.read_table(scored)
    pq.write_table(table.drop_columns(["predicted_species", "BodyMass"]), tmp_path / "less.parquet")
    pq.write_table(table.slice(2), tmp_path / "none.parquet")
    (tmp_path / "birds.csv").write_text("Island\nBiscoe\n")
    write_it = "write one with `penguins predict --data <the training data> --output reference.parquet`"
    for reference, said in (
        ("nowhere.parquet", f"There is no nowhere.parquet here: {write_it}."),
        (f"{tmp_path}/birds.csv", f"{tmp_path}/birds.csv is no Parquet file or folder: {write_it}."),
        (f"{tmp_path}/less.parquet", f"{tmp_path}/less.parquet lacks BodyMass, species: {write_it}."),
        (f"{tmp_path}/none.parquet", f"{tmp_path}/none.parquet has no row with an answer: {write_it}."),
        ("azureml:birds:1", "azureml:birds:1 wasn't made by penguins, so that its columns may have other names and "
                            f"types than what is collected, which Azure leaves out without a word: {write_it}, and "
                            "give that."),
    ):  # fmt: skip
        result = command("create", "--deployment", DEPLOYMENT, "--reference", reference)
        assert (result.exit_code, result.stderr.splitlines()[-1]) == (1, f"Error: {said}")
    assert azure.of_kind("schedules") == []


@pytest.mark.parametrize("option", ["--truth", "--join-column", "--min-accuracy", "--min-recall"])
def test_the_quality_is_not_watched_and_that_is_said(watched: tuple[str, ...], option: str) -> None:
    result = command("create", *watched, option, "0.9")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, (
        f"Error: {option} is no more: Azure's performance signal takes a high accuracy for a breach and a low one for "
        "none; watch the quality with `penguins monitor`."
    ))  # fmt: skip
    assert option not in command("create", "--help").stdout


def test_a_deployment_that_collects_nothing_is_not_watched(azure: Azure, watched: tuple[str, ...]) -> None:
    del azure.things[f"data/{ANSWERED}/versions/1"]
    result = command("create", *watched)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (1, (
        f"Error: There is no azureml:{ANSWERED}:1: a deployment makes it that collects (`penguins deploy --to "
        "azureml`, without --no-collect); or name other data (--inputs, --outputs)."
    ))  # fmt: skip
    assert azure.of_kind("schedules") == []


def test_other_thresholds_and_other_data(azure: Azure, watched: tuple[str, ...]) -> None:
    given = ("--psi", "0.5", "--missing-increase", "0.2", "--out-of-range", "0.03", "--new-categories", "0.04")
    result = command("create", *watched, *given, "--inputs", "azureml:asked:1", "--hour", "22", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["schedule"], told["hour"]) == ("penguins-monitor", 22)
    signals = held(azure)["action"]["monitorDefinition"]["signals"]
    assert signals["data_drift"]["productionData"]["uri"] == f"{HOME}/data/asked/versions/1"
    assert limits(signals["data_drift"])[0] == ("Numerical", "populationStabilityIndex", 0.5)
    assert sorted(limits(signals["data_quality"])) == [
        ("Categorical", "nullValueRate", 0.2),
        ("Categorical", "outOfBoundsRate", 0.04),
        ("Numerical", "nullValueRate", 0.2),
        ("Numerical", "outOfBoundsRate", 0.03),
    ]


def test_a_schedule_that_rests_keeps_its_definition(azure: Azure, watched: tuple[str, ...]) -> None:
    assert command("create", *watched).exit_code == 0
    before = held(azure)["action"]["monitorDefinition"]
    result = command("disable")
    assert (result.exit_code, result.stdout) == (0, "penguins-monitor rests.\n"), result.output
    assert held(azure)["isEnabled"] is False
    assert held(azure)["action"]["monitorDefinition"] == before


def test_deleting_an_enabled_schedule(azure: Azure, watched: tuple[str, ...]) -> None:
    assert command("create", *watched).exit_code == 0
    result = command("delete")
    assert (result.exit_code, result.stdout) == (0, "penguins-monitor is deleted.\n"), result.output
    assert azure.of_kind("schedules") == []
    result = command("delete", "--json")
    assert json.loads(result.stdout) == {"schedule": "penguins-monitor", "deleted": False}


@pytest.mark.parametrize("gone", ["", "/deployments/penguin-predictor-3"], ids=["endpoint", "deployment"])
def test_a_schedule_outlives_what_it_watched_and_can_be_ended(
    azure: Azure, gone: str, watched: tuple[str, ...]
) -> None:
    """As after a deployment of the next version, or `undeploy`."""
    assert command("create", *watched).exit_code == 0
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


def test_an_enabled_schedule_whose_deployment_is_gone_can_be_deleted(azure: Azure, watched: tuple[str, ...]) -> None:
    assert command("create", *watched).exit_code == 0
    del azure.things["onlineEndpoints/predict-penguin/deployments/penguin-predictor-3"]
    result = command("delete")
    assert (result.exit_code, result.stdout) == (0, "penguins-monitor is deleted.\n"), result.output
    assert azure.of_kind("schedules") == []


def test_clean_up_takes_the_schedule_before_the_endpoint_that_it_watches(
    azure: Azure, watched: tuple[str, ...]
) -> None:
    assert command("create", *watched).exit_code == 0
    for path in ("predict-penguin", "predict-penguin/deployments/penguin-predictor-3"):
        azure.things[f"onlineEndpoints/{path}"]["tags"] = {"made_by": "penguins"}
    result = CliRunner().invoke(main, ["azureml", "clean-up", "--yes"])
    assert result.exit_code == 0, result.output
    assert azure.of_kind("schedules") == azure.of_kind("onlineEndpoints") == []


def test_what_is_not_there(azure: Azure, watched: tuple[str, ...]) -> None:
    others = ("--inputs", "azureml:asked:1", "--outputs", "azureml:asked:1")
    result = command("create", "--endpoint", "nobody", *watched, *others)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: penguins-monitor: ")
    assert "can't be found; check the subscription" in result.stderr
    result = command("disable")
    assert result.exit_code == 1
    assert "schedule penguins-monitor can't be found" in result.stderr


def test_a_refusal(azure: Azure, watched: tuple[str, ...]) -> None:
    azure.fail("PUT .*/schedules/", refused(403, "AuthorizationFailed", "You may not make schedules."))
    result = command("create", *watched)
    assert result.exit_code == 1
    assert "Error: penguins-monitor: You may not make schedules; ask for a role" in result.stderr


def test_clean_up_takes_it_away_and_leaves_what_it_watched(azure: Azure, watched: tuple[str, ...]) -> None:
    assert command("create", *watched).exit_code == 0
    result = CliRunner().invoke(main, ["azureml", "clean-up", "--yes"])
    [made] = [path for path in azure.things if path.startswith("data/penguins-reference/")]
    assert (result.exit_code, result.stdout.splitlines()) == (0, [
        "schedule penguins-monitor", f"data penguins-reference {made.rpartition('/')[2]}", "2 removed.",
    ]), result.output  # fmt: skip
    assert azure.of_kind("schedules") == []
    assert azure.things[made]["properties"]["isArchived"] is True
    assert not azure.things["data/birds/versions/1"]["properties"].get("isArchived")
    assert azure.of_kind("onlineEndpoints") == ["predict-penguin"]
