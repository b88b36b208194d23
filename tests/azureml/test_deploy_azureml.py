"""Online endpoints: the real clients against an Azure on this machine, whose endpoints ask real models' servers."""

from __future__ import annotations

import copy
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pytest
import yaml
from click.testing import CliRunner, Result

from penguins import azureml, champion, online_endpoint, registry
from penguins.champion import version_of
from penguins.cli import main
from penguins.config import AzureServing
from penguins.deploy import Deployed
from penguins.deploy_azureml import deploy, undeploy
from penguins.errors import ModelError, ParameterError, ServerError
from penguins.registry import Version
from penguins.serve import serving
from penguins.tracking import Tracking
from tests.azureml.arm import (
    HOME,
    NEVER,
    REGION,
    SECRETS,
    TOKEN,
    WORKSPACE,
    Azure,
    configure,
    refused,
    running,
)
from tests.azureml.tls import Authority
from tests.conftest import LAB_BIRD

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

NAME = "predict-penguin"
FAIR, LABS, GOOD = (Version("penguin_predictor", number) for number in (1, 2, 3))
ONE, THREE = "penguin-predictor-1", "penguin-predictor-3"

pytestmark = [pytest.mark.azureml, pytest.mark.slow]


@pytest.fixture(scope="module")
def scorers(three_models: Path) -> Iterator[dict[str, str]]:
    """The addresses of real scoring servers of the fair and the good model, by version."""
    Tracking.local(three_models.parent).activate()
    with serving(FAIR.uri) as fair, serving(GOOD.uri) as good:
        mlflow.set_tracking_uri("")
        mlflow.set_registry_uri("")
        yield {"1": fair, "3": good}


@pytest.fixture
def azure(
    models: Path, scorers: dict[str, str], trusted: Authority, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Azure]:
    """An Azure that the environment names, beside a registry in which the fair model is champion."""
    champion.move(FAIR, None)
    with running(Azure(scorers=dict(scorers)), trusted) as running_azure:
        configure(running_azure, monkeypatch)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{models}")
        yield running_azure


@pytest.fixture
def client(azure: Azure) -> MLClient:
    return azureml.client(azureml.workspace())


def accept(version: Version, against: str = "1") -> None:
    """Leave what the gate leaves on a version that it accepts."""
    registry.describe(version, {"gate_verdict": "yes", "gate_champion": against})


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments])


def test_a_champion_gets_an_endpoint(azure: Azure, client: MLClient) -> None:
    assert deploy(FAIR, client=client) == Deployed(FAIR, NAME, 100, changed=True, became_champion=False)
    assert azure.of_kind("onlineEndpoints") == [NAME]
    made = azure.things[f"onlineEndpoints/{NAME}"]
    assert made["tags"] == {"made_by": "penguins"}
    assert made["properties"]["authMode"].lower() == "key"
    running_deployment = azure.things[f"onlineEndpoints/{NAME}/deployments/{ONE}"]
    assert running_deployment["properties"]["model"] == f"{HOME}/models/penguin_predictor-serving/versions/1"
    assert running_deployment["properties"]["instanceType"] == "Standard_DS3_v2"
    assert running_deployment["properties"]["appInsightsEnabled"] is True
    assert of_deployment(azure) == (1, "Standard_DS3_v2", True, True, True, True)
    assert running_deployment["sku"]["capacity"] == 1
    assert azure.traffic(NAME) == {ONE: 100}
    answer = online_endpoint.ask(client, NAME, LAB_BIRD)
    assert answer["species"].tolist() == ["Gentoo"]
    assert answer["probability_Gentoo"].item() == pytest.approx(0.946863, abs=1e-6)


def test_what_is_registered_for_it_needs_no_java(azure: Azure, client: MLClient) -> None:
    deploy(FAIR, client=client)
    copy = azure.things["models/penguin_predictor-serving/versions/1"]
    assert copy["properties"]["modelType"] == "mlflow_model"
    tags = copy["properties"]["tags"]
    assert sorted(tags) == ["copied_from", "digest", "made_by"]
    assert (tags["made_by"], tags["copied_from"]) == ("penguins", "models:/penguin_predictor/1")
    assert re.fullmatch("[0-9a-f]{64}", tags["digest"])
    files = {name.partition("/model/")[2]: content for name, content in azure.blobs.items()}
    assert "model.onnx" in files
    assert not [name for name in files if "sparkml" in name]
    model = yaml.safe_load(files["MLmodel"])
    assert sorted(model["flavors"]) == ["onnx", "python_function"]
    needed = [line.split("==")[0] for line in files["requirements.txt"].decode().split()]
    assert needed == [
        *("mlflow", "numpy", "onnxruntime", "pandas"),
        *("azureml-ai-monitoring", "azureml-inference-server-http"),
    ]
    pip = yaml.safe_load(files["conda.yaml"])["dependencies"][-1]["pip"]
    assert pip[-2:] == ["azureml-ai-monitoring", "azureml-inference-server-http"]


def test_the_same_call_again_changes_nothing(azure: Azure, client: MLClient) -> None:
    deploy(FAIR, client=client)
    done = azure.changes()
    assert deploy(FAIR, client=client) == Deployed(FAIR, NAME, 100, changed=False, became_champion=False)
    assert azure.changes() == done


def of_deployment(azure: Azure, name: str = ONE) -> tuple[object, ...]:
    """What a deployment runs on, whether it has our own script and its environment, and whether it collects."""
    deployment = azure.things[f"onlineEndpoints/{NAME}/deployments/{name}"]
    properties = deployment["properties"]
    kept = (properties.get("dataCollector") or {"collections": {}})["collections"]
    modes = {name: one["dataCollectionMode"].lower() for name, one in kept.items()}
    collects = modes == {"model_inputs": "enabled", "model_outputs": "enabled"}
    runs_on = deployment["sku"]["capacity"], properties["instanceType"], properties["appInsightsEnabled"]
    return *runs_on, "codeConfiguration" in properties, "environmentId" in properties, collects


@pytest.mark.parametrize(
    ("settings", "deployed"),
    [
        (AzureServing(instances=2), (2, "Standard_DS3_v2", True, True, True, True)),
        (AzureServing(instance_type="Standard_F4s_v2"), (1, "Standard_F4s_v2", True, True, True, True)),
        (AzureServing(app_insights=False), (1, "Standard_DS3_v2", False, True, True, True)),
        (AzureServing(own_script=False), (1, "Standard_DS3_v2", True, False, False, True)),
        (AzureServing(collect=False), (1, "Standard_DS3_v2", True, True, True, False)),
    ],
    ids=["instances", "instance_type", "app_insights", "no_code", "no_collect"],
)
def test_other_settings_change_the_deployment_in_place(
    azure: Azure, client: MLClient, settings: AzureServing, deployed: tuple[object, ...]
) -> None:
    deploy(FAIR, client=client)
    # Azure tells sizes back in letters of its own.
    properties = azure.things[f"onlineEndpoints/{NAME}/deployments/{ONE}"]["properties"]
    properties["instanceType"] = "STANDARD_DS3_V2"
    assert not deploy(FAIR, client=client).changed
    azure.asked.clear()
    azure.invoked.clear()
    changed = Deployed(FAIR, NAME, 100, changed=True, became_champion=False)
    assert deploy(FAIR, client=client, settings=settings) == changed
    assert of_deployment(azure) == deployed
    assert [line for line in azure.changes() if "onlineEndpoints" in line] == [
        f"PUT /onlineEndpoints/{NAME}/deployments/{ONE}",
        f"PUT /onlineEndpoints/{NAME}",
    ]
    assert azure.invoked == [ONE, None]
    assert azure.traffic(NAME) == {ONE: 100}
    done = azure.changes()
    assert not deploy(FAIR, client=client, settings=settings).changed
    assert azure.changes() == done
    former = (deployed[0], "Standard_DS3_v2", True, True, True, True)
    assert deploy(FAIR, client=client).changed is (former != deployed), (
        "the number of instances stays where none is said"
    )
    assert of_deployment(azure) == former


def test_what_was_set_in_the_studio_stays_when_the_settings_change(azure: Azure, client: MLClient) -> None:
    deploy(FAIR, client=client)
    asked = f"{HOME}/data/asked/versions/1"
    place = "azureml://datastores/workspaceblobstore/paths/asked"
    known = {"dataType": "uri_folder", "dataUri": place, "isAnonymous": False}
    azure.things["data/asked/versions/1"] = {"properties": known}
    collected = {"model_inputs": {"dataCollectionMode": "Enabled", "dataId": asked, "samplingRate": 1.0}}
    properties = azure.things[f"onlineEndpoints/{NAME}/deployments/{ONE}"]["properties"]
    properties["dataCollector"] = {"collections": collected, "rollingRate": "Hour"}
    deploy(FAIR, client=client, settings=AzureServing(instances=2))
    now = azure.things[f"onlineEndpoints/{NAME}/deployments/{ONE}"]
    assert of_deployment(azure) == (2, "Standard_DS3_v2", True, True, True, True)
    assert now["properties"]["dataCollector"]["collections"]["model_inputs"]["dataId"] == asked
    assert azure.things["data/asked/versions/1"]["properties"]["dataUri"].endswith("/paths/asked")


def test_settings_that_fail_are_put_back(azure: Azure, client: MLClient) -> None:
    deploy(FAIR, client=client)
    former = azure.things[f"onlineEndpoints/{NAME}/deployments/{ONE}"]
    azure.failing[f"deployment {ONE}"] = {"code": "OutOfCapacity", "message": "There is no room."}

    def then_go_on(step: str) -> None:
        if step == "Giving the traffic back":
            azure.failing.clear()

    with pytest.raises(ServerError) as caught:
        deploy(FAIR, client=client, settings=AzureServing(instances=9), report=then_go_on)
    sentence, *_ = str(caught.value).splitlines()
    assert sentence == (
        f"{ONE}: There is no room; look at it in the studio. {NAME} has its former traffic and settings again. The "
        "champion is the one it was."
    )
    assert of_deployment(azure) == (1, "Standard_DS3_v2", True, True, True, True)
    now = azure.things[f"onlineEndpoints/{NAME}/deployments/{ONE}"]["properties"]
    assert now == former["properties"]
    assert azure.traffic(NAME) == {ONE: 100}


def test_settings_that_answer_wrong_are_put_back(azure: Azure, client: MLClient) -> None:
    deploy(FAIR, client=client)
    azure.scorers["1"] = azure.scorers["3"]
    with pytest.raises(ServerError, match=rf"answers wrong.* {NAME} has its former traffic and settings again\."):
        deploy(FAIR, client=client, settings=AzureServing(instances=2))
    assert of_deployment(azure) == (1, "Standard_DS3_v2", True, True, True, True)


def test_settings_that_are_refused_leave_nothing_to_put_back(azure: Azure, client: MLClient) -> None:
    deploy(FAIR, client=client)
    azure.fail(f"PUT .*/deployments/{ONE}", refused(403, "AuthorizationFailed", "You may not."))
    with pytest.raises(ServerError, match=rf"You may not; .* {NAME} has its former traffic again\. The champion"):
        deploy(FAIR, client=client, settings=AzureServing(instances=2))
    assert of_deployment(azure) == (1, "Standard_DS3_v2", True, True, True, True)


@pytest.mark.parametrize(
    ("settings", "made_with"),
    [
        (AzureServing(), "--auth aad_token"),
        (AzureServing(kind="kubernetes", compute="colony"), "--auth aad_token --kind managed"),
    ],
    ids=["auth", "kind"],
)
@pytest.mark.parametrize("word", ["AADToken", "aadToken"])
def test_what_an_endpoint_keeps_for_good(
    azure: Azure, client: MLClient, settings: AzureServing, made_with: str, word: str
) -> None:
    deploy(FAIR, client=client, settings=AzureServing(auth="aad_token"))
    azure.things[f"onlineEndpoints/{NAME}"]["properties"]["authMode"] = word
    done = azure.changes()
    with pytest.raises(ParameterError) as caught:
        deploy(FAIR, client=client, settings=settings)
    assert str(caught.value) == (
        f"{NAME} was made with {made_with}, which can't be changed: give that, or undeploy it first."
    )
    assert not deploy(FAIR, client=client, settings=AzureServing(auth="aad_token")).changed
    assert azure.changes() == done


def test_a_challenger_is_asked_before_it_gets_traffic_and_then_becomes_champion(azure: Azure, client: MLClient) -> None:
    deploy(FAIR, client=client)
    accept(GOOD)
    azure.asked.clear()
    azure.invoked.clear()
    assert deploy(GOOD, client=client) == Deployed(GOOD, NAME, 100, changed=True, became_champion=True)
    assert [line for line in azure.changes() if re.search("/(models|onlineEndpoints)/", line)] == [
        "PUT /models/penguin_predictor-serving/versions/3",
        f"PUT /onlineEndpoints/{NAME}/deployments/{THREE}",
        f"PUT /onlineEndpoints/{NAME}",
        f"DELETE /onlineEndpoints/{NAME}/deployments/{ONE}",
    ]
    assert azure.invoked == [THREE, None]
    assert azure.traffic(NAME) == {THREE: 100}
    assert version_of("penguin_predictor") == GOOD
    assert version_of("penguin_predictor", "previous_champion") == FAIR


def test_while_the_challenger_is_asked_nobody_else_meets_it(azure: Azure, client: MLClient) -> None:
    deploy(FAIR, client=client)
    accept(GOOD)
    seen: dict[str, dict[str, int]] = {}
    deploy(GOOD, client=client, report=lambda step: seen.update({step: dict(azure.traffic(NAME))}))
    assert seen["Asking the version"] == {ONE: 100}
    assert seen["Asking the endpoint"] == {THREE: 100}


def test_a_share_of_the_traffic_leaves_the_champion_and_all_of_it_completes(azure: Azure, client: MLClient) -> None:
    deploy(FAIR, client=client)
    accept(GOOD)
    tenth = AzureServing(traffic=10)
    assert deploy(GOOD, client=client, settings=tenth) == Deployed(GOOD, NAME, 10, changed=True, became_champion=False)
    assert azure.traffic(NAME) == {ONE: 90, THREE: 10}
    assert version_of("penguin_predictor") == FAIR
    azure.questions = 0
    answers = [online_endpoint.ask(client, NAME, LAB_BIRD)["probability_Gentoo"].item() for _ in range(20)]
    assert sum(answer == pytest.approx(0.946863, abs=1e-6) for answer in answers) == 20
    azure.questions = 90
    assert online_endpoint.ask(client, NAME, LAB_BIRD)["probability_Gentoo"].item() > 0.95
    done = azure.changes()
    assert not deploy(GOOD, client=client, settings=tenth).changed
    assert azure.changes() == done
    assert deploy(GOOD, client=client).became_champion
    assert azure.traffic(NAME) == {THREE: 100}
    assert version_of("penguin_predictor") == GOOD


def test_somebody_elses_deployment_loses_its_traffic_but_stays(azure: Azure, client: MLClient) -> None:
    deploy(FAIR, client=client)
    accept(GOOD)
    azure.things[f"onlineEndpoints/{NAME}/deployments/{ONE}"]["tags"] = {"made_by": "somebody"}
    deploy(GOOD, client=client)
    assert azure.traffic(NAME) == {THREE: 100}
    assert f"onlineEndpoints/{NAME}/deployments/{ONE}" in azure.things


def test_what_costs_although_it_is_idle_is_told(azure: Azure, client: MLClient) -> None:
    deploy(FAIR, client=client)
    accept(GOOD)
    azure.fail("DELETE", refused(403, "AuthorizationFailed", "You may not delete."))
    with pytest.raises(ServerError) as caught:
        deploy(GOOD, client=client)
    assert str(caught.value).startswith(
        f"{NAME} serves the version, but {ONE}, which has no traffic any more, can't be removed ({ONE}: You may not "
        "delete; ask for a role"
    )
    assert azure.traffic(NAME) == {THREE: 100}
    assert version_of("penguin_predictor") == GOOD


def test_nothing_to_share_with(azure: Azure, client: MLClient) -> None:
    with pytest.raises(
        ParameterError, match=f"^{NAME} serves no other version to share the traffic with: deploy {ONE}"
    ):
        deploy(FAIR, client=client, settings=AzureServing(traffic=10))
    assert azure.changes() == []


def test_a_wrong_answer_puts_everything_back(azure: Azure, client: MLClient) -> None:
    deploy(FAIR, client=client)
    accept(GOOD)
    azure.logs[THREE] = ["loading", f"secret in a URL: https://me:{SECRETS[0]}@somewhere", "listening on 5001"]
    # The deployment runs another model than the version that it was told.
    azure.scorers["3"] = azure.scorers["1"]
    with pytest.raises(ServerError) as caught:
        deploy(GOOD, client=client)
    sentence, said, *log = str(caught.value).splitlines()
    assert sentence.startswith(f"{NAME} ({THREE}) answers wrong: in known row 1 of 5 probability_Adelie is ")
    assert sentence.endswith(f" {NAME} has its former traffic again. The champion is the one it was.")
    assert said == f"The end of the log of {THREE}:"
    assert log == ["loading", "secret in a URL: https://***@somewhere", "listening on 5001"]
    assert azure.traffic(NAME) == {ONE: 100}
    assert f"onlineEndpoints/{NAME}/deployments/{THREE}" not in azure.things
    assert version_of("penguin_predictor") == FAIR


def test_a_wrong_answer_of_a_new_endpoint_deletes_it(azure: Azure, client: MLClient) -> None:
    azure.scorers["1"] = azure.scorers["3"]
    with pytest.raises(ServerError, match=f"The new endpoint {NAME} is deleted again. The champion is the one it was."):
        deploy(FAIR, client=client)
    assert azure.of_kind("onlineEndpoints") == []


def test_a_deployment_that_does_not_get_healthy_is_removed_and_its_log_shown(azure: Azure, client: MLClient) -> None:
    deploy(FAIR, client=client)
    accept(GOOD)
    azure.failing[f"deployment {THREE}"] = {"code": "UserContainerCrashed", "message": "The container has crashed."}
    azure.logs[THREE] = ["ModuleNotFoundError: No module named 'azureml.ai'"]
    with pytest.raises(ServerError) as caught:
        deploy(GOOD, client=client)
    assert str(caught.value) == (
        f"{THREE}: The container has crashed; look at it in the studio. {NAME} has its former traffic again. The "
        f"champion is the one it was.\nThe end of the log of {THREE}:\n"
        "ModuleNotFoundError: No module named 'azureml.ai'"
    )
    assert azure.traffic(NAME) == {ONE: 100}
    assert f"onlineEndpoints/{NAME}/deployments/{THREE}" not in azure.things


def test_an_endpoint_that_somebody_else_makes_meanwhile_stays(azure: Azure, client: MLClient) -> None:
    def somebody_else(step: str) -> None:
        if step == "Making the endpoint":
            done = {"authMode": "Key", "traffic": {}, "provisioningState": "Updating"}
            azure.things[f"onlineEndpoints/{NAME}"] = {"location": REGION, "tags": {}, "properties": done}

    with pytest.raises(ServerError, match=r"Already running method on endpoint .* No endpoint was made\. "):
        deploy(FAIR, client=client, report=somebody_else)
    assert azure.of_kind("onlineEndpoints") == [NAME]


def test_an_endpoint_that_can_not_be_made_is_deleted_again(azure: Azure, client: MLClient) -> None:
    azure.failing[f"endpoint {NAME}"] = {"code": "SubnetMissing", "message": "There is no address left."}
    with pytest.raises(ServerError) as caught:
        deploy(FAIR, client=client)
    assert str(caught.value) == (
        f"{NAME}: There is no address left; look at it in the studio. The new endpoint {NAME} is deleted again. The "
        "champion is the one it was."
    )
    assert azure.of_kind("onlineEndpoints") == []


def test_a_timeout_puts_everything_back(azure: Azure, client: MLClient) -> None:
    deploy(FAIR, client=client)
    accept(GOOD)
    azure.polls = NEVER

    def then_go_on(step: str) -> None:
        if step == "Giving the traffic back":
            azure.polls = 1
            for operation in azure.operations.values():
                operation.polls = min(operation.polls, 2)  # it still goes on when the putting back begins

    with pytest.raises(ServerError) as caught:
        deploy(GOOD, client=client, settings=AzureServing(timeout=2), report=then_go_on)
    assert str(caught.value).startswith(
        f"{THREE} was not ready within 2 seconds (InProgress). {NAME} has its former tr"
    )
    assert azure.traffic(NAME) == {ONE: 100}
    assert f"onlineEndpoints/{NAME}/deployments/{THREE}" not in azure.things
    assert version_of("penguin_predictor") == FAIR


def test_what_somebody_else_changes_meanwhile_stays(azure: Azure, client: MLClient) -> None:
    deploy(FAIR, client=client)
    accept(GOOD)
    properties = azure.things[f"onlineEndpoints/{NAME}"]["properties"]
    theirs = f"onlineEndpoints/{NAME}/deployments/theirs"

    def somebody_else(step: str) -> None:
        if step == "Starting the version":
            azure.things[theirs] = copy.deepcopy(azure.things[f"onlineEndpoints/{NAME}/deployments/{ONE}"])
            properties["provisioningState"] = "Updating"
        elif step == "Giving the traffic back":
            properties.update(provisioningState="Succeeded", traffic={"theirs": 100})

    with pytest.raises(ServerError) as caught:
        deploy(GOOD, client=client, report=somebody_else)
    assert "Already running method on endpoint" in str(caught.value)
    assert f" {NAME} has the traffic that somebody else has given it meanwhile. The champion is" in str(caught.value)
    assert azure.traffic(NAME) == {"theirs": 100}
    assert theirs in azure.things


def test_ctrl_c_puts_everything_back(azure: Azure, client: MLClient) -> None:
    deploy(FAIR, client=client)
    accept(GOOD)

    def impatient(step: str) -> None:
        if step == "Moving the traffic":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deploy(GOOD, client=client, report=impatient)
    assert azure.traffic(NAME) == {ONE: 100}
    assert f"onlineEndpoints/{NAME}/deployments/{THREE}" not in azure.things


def test_an_endpoint_that_is_being_changed_is_left_alone(azure: Azure, client: MLClient) -> None:
    deploy(FAIR, client=client)
    accept(GOOD)
    azure.things[f"onlineEndpoints/{NAME}/deployments/{ONE}"]["properties"]["provisioningState"] = "Updating"
    done = azure.changes()
    with pytest.raises(ServerError, match=rf"^{NAME} is being changed at the moment \({ONE}\): wait until it is done"):
        deploy(GOOD, client=client)
    assert azure.changes() == done


def test_a_champion_that_changed_meanwhile_puts_everything_back(azure: Azure, client: MLClient) -> None:
    deploy(FAIR, client=client)
    accept(GOOD)

    def somebody_else(step: str) -> None:
        if step == "Asking the endpoint":
            champion.move(LABS, FAIR)

    with pytest.raises(ModelError, match="The champion of penguin_predictor has changed meanwhile"):
        deploy(GOOD, client=client, report=somebody_else)
    assert azure.traffic(NAME) == {ONE: 100}
    assert version_of("penguin_predictor") == LABS


def test_what_the_gate_has_not_accepted_is_not_deployed(azure: Azure, client: MLClient) -> None:
    with pytest.raises(ModelError, match=r"^The gate hasn't accepted version 3 of penguin_predictor"):
        deploy(GOOD, client=client)
    assert azure.changes() == []


def test_another_stores_model_under_the_same_number_is_not_served(azure: Azure, client: MLClient) -> None:
    deploy(FAIR, client=client)
    undeploy(client=client)
    azure.things["models/penguin_predictor-serving/versions/1"]["properties"]["tags"]["digest"] = "another"
    with pytest.raises(
        ServerError,
        match=r"^The workspace has another model as version 1 of penguin_predictor-serving: it comes from .* of "
        r"another store; delete that version, or give --model another name\.",
    ):
        deploy(FAIR, client=client)
    assert azure.of_kind("onlineEndpoints") == []


def test_production_runs_on_a_kubernetes_cluster(azure: Azure, client: MLClient) -> None:
    azure.things["computes/colony"] = {"location": "westeurope", "properties": {"computeType": "Kubernetes"}}
    settings = AzureServing(kind="kubernetes", compute="colony", instance_type="small", instances=2)
    assert deploy(FAIR, client=client, settings=settings).changed
    made = azure.things[f"onlineEndpoints/{NAME}"]["properties"]
    assert made["compute"] == f"{HOME}/computes/colony"
    assert made["authMode"].lower() == "key"
    running_deployment = azure.things[f"onlineEndpoints/{NAME}/deployments/{ONE}"]
    assert running_deployment["properties"]["endpointComputeType"] == "Kubernetes"
    assert running_deployment["properties"]["instanceType"] == "small"
    assert running_deployment["sku"]["capacity"] == 2
    assert online_endpoint.ask(client, NAME, LAB_BIRD)["species"].tolist() == ["Gentoo"]
    done = azure.changes()
    # Where no instance type is asked for, it is Azure's matter.
    left = replace(settings, instance_type=None)
    assert not deploy(FAIR, client=client, settings=left).changed
    with pytest.raises(
        ParameterError, match=rf"^{NAME} was made with --kind kubernetes --compute colony, which can't be changed: "
    ):
        deploy(FAIR, client=client, settings=AzureServing())
    with pytest.raises(ParameterError, match=rf"^{NAME} was made with --compute colony, which can't be changed: "):
        deploy(FAIR, client=client, settings=replace(settings, compute="rookery"))
    assert azure.changes() == done
    assert deploy(FAIR, client=client, settings=replace(left, instances=3)).changed
    now = azure.things[f"onlineEndpoints/{NAME}/deployments/{ONE}"]
    assert (now["sku"]["capacity"], now["properties"]["instanceType"]) == (3, "small")


def test_settings_that_do_not_fit() -> None:
    with pytest.raises(ParameterError, match=r"^A kubernetes endpoint runs on a compute of the workspace: name it"):
        AzureServing(kind="kubernetes")
    with pytest.raises(ParameterError, match=r"^A kubernetes endpoint knows who asks by its key: only a managed one "):
        AzureServing(kind="kubernetes", compute="colony", auth="aad_token")
    with pytest.raises(ParameterError, match=r"^A managed endpoint runs on Azure's machines: leave the compute out"):
        AzureServing(compute="colony")
    with pytest.raises(ParameterError, match=r"^auth is 'none': it must be one of key, aad_token\.$"):
        AzureServing(auth="none")


def test_our_own_script_is_sent_with_what_it_runs_in(azure: Azure, client: MLClient) -> None:
    deploy(FAIR, client=client)
    properties = azure.things[f"onlineEndpoints/{NAME}/deployments/{ONE}"]["properties"]
    assert properties["codeConfiguration"]["scoringScript"] == "azure_scoring.py"
    environment = azure.things[properties["environmentId"].removeprefix(f"{HOME}/")]["properties"]
    assert environment["image"] == "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest"
    pip = yaml.safe_load(environment["condaFile"])["dependencies"][-1]["pip"]
    assert [package.split("==")[0] for package in pip] == [
        *("mlflow", "numpy", "onnxruntime", "pandas"),
        *("azureml-ai-monitoring", "azureml-inference-server-http"),
    ]
    assert [name for name in azure.blobs if name.endswith("/azure_scoring.py")]


def test_what_is_asked_and_answered_is_kept_where_monitoring_finds_it(azure: Azure, client: MLClient) -> None:
    deploy(FAIR, client=client)
    collector = azure.things[f"onlineEndpoints/{NAME}/deployments/{ONE}"]["properties"]["dataCollector"]
    for kind in ("model_inputs", "model_outputs"):
        asset = f"data/{NAME}-{ONE}-{kind}/versions/1"
        assert collector["collections"][kind]["dataId"] == f"{HOME}/{asset}"
        place = f"azureml://datastores/workspaceblobstore/paths/modelDataCollector/{NAME}/{ONE}/{kind}"
        assert azure.things[asset]["properties"]["dataUri"].endswith(place.removeprefix("azureml:/"))


REFUSALS = [
    (
        401, "InvalidAuthenticationToken", "The token has expired.",
        f"{NAME}: The token has expired; sign in again (`az login`), or renew the service principal's secret.",
    ),
    (
        403, "AuthorizationFailed", "You may not write here.",
        f"{NAME}: You may not write here; ask for a role that allows it, such as AzureML Data Scientist on the "
        "workspace.",
    ),
    (
        400, "QuotaExceeded", "Not enough quota for Standard_DS3_v2: 0 of 4 cores are left.",
        f"{NAME}: Not enough quota for Standard_DS3_v2: 0 of 4 cores are left; free some of the quota, ask for more, "
        "or take another size or region.",
    ),
    (
        409, "Conflict", "Already running method on endpoint.",
        f"{NAME}: Already running method on endpoint; another change is under way, or the name is taken: wait until it "
        "is done, or give another name.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("status", "code", "said", "sentence"), REFUSALS, ids=[row[1] for row in REFUSALS])
def test_what_azure_refuses(azure: Azure, client: MLClient, status: int, code: str, said: str, sentence: str) -> None:
    azure.fail(f"PUT {HOME}/onlineEndpoints/{NAME}$", refused(status, code, said))
    with pytest.raises(ServerError) as caught:
        deploy(FAIR, client=client)
    said_first, *_ = str(caught.value).splitlines()
    assert said_first == f"{sentence} No endpoint was made. The champion is the one it was."


def test_a_failing_azure_is_asked_again_and_then_told(azure: Azure, client: MLClient) -> None:
    azure.fail(f"GET {HOME}/onlineEndpoints/{NAME}$", refused(500, "InternalServerError", "Something broke."), times=2)
    assert deploy(FAIR, client=client).changed
    azure.fail(f"GET {HOME}/onlineEndpoints/{NAME}$", refused(503, "ServerBusy", "Back soon."))
    with pytest.raises(ServerError, match=f"^{NAME}: Back soon; Azure failed: try again, and look at"):
        deploy(FAIR, client=client)


def test_throttling_that_ends_is_waited_for(azure: Azure, client: MLClient) -> None:
    busy = refused(429, "TooManyRequests", "Slow down.")
    busy.headers["Retry-After"] = "1"
    azure.fail(f"PUT {HOME}/onlineEndpoints/{NAME}$", busy, times=2)
    assert deploy(FAIR, client=client).changed
    # Twice in vain, then the endpoint, then its traffic.
    assert [line for line in azure.changes() if line.endswith(f"/{NAME}")] == [f"PUT /onlineEndpoints/{NAME}"] * 4


def test_an_azure_that_is_gone_is_told(trusted: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(Azure(), trusted) as azure:
        configure(azure, monkeypatch)
        client = azureml.client(azureml.workspace())
    with pytest.raises(ServerError) as caught:
        online_endpoint.read(client, NAME)
    assert str(caught.value) == (f"{NAME}: Azure can't be asked (ServiceRequestError): check the network, try again.")


def test_a_workspace_that_is_not_there_is_no_endpoint_that_is_not_there(azure: Azure, client: MLClient) -> None:
    said = f"The Resource 'Microsoft.MachineLearningServices/workspaces/{WORKSPACE}' was not found."
    gone = refused(404, "ResourceNotFound", said)
    azure.fail("GET", gone)
    with pytest.raises(ServerError, match=f"workspaces/{WORKSPACE}' was not found; check the subscription"):
        deploy(FAIR, client=client)


def test_bad_rows_are_told_in_the_models_own_words(azure: Azure, client: MLClient) -> None:
    deploy(FAIR, client=client)
    bird = LAB_BIRD.assign(Island="Atlantis")
    with pytest.raises(ServerError) as caught:
        online_endpoint.ask(client, NAME, bird)
    assert str(caught.value) == (
        f"{NAME} answered 424: Island in row 1 of 1 is 'Atlantis': it must be one of Biscoe, Dream, Torgersen; look at "
        "the rows, and at the deployment's log."
    )


def test_a_key_that_is_not_taken_is_told_without_it(azure: Azure, client: MLClient) -> None:
    deploy(FAIR, client=client)
    azure.key = "made anew"
    with pytest.raises(ServerError) as caught:
        online_endpoint.ask(client, NAME, LAB_BIRD)
    assert str(caught.value) == (
        f"{NAME} answered 401: The key *** isn't the endpoint's; its key or token isn't taken: try again, or make the "
        "key anew."
    )


def test_a_deployment_asked_by_name_is_not_asked_ever_after(azure: Azure, client: MLClient) -> None:
    """The client's own `invoke` would go on asking it, because it keeps its headers."""
    deploy(FAIR, client=client)
    azure.invoked.clear()
    online_endpoint.ask(client, NAME, LAB_BIRD, ONE)
    online_endpoint.ask(client, NAME, LAB_BIRD)
    assert azure.invoked == [ONE, None]


def test_the_clients_own_way_of_asking_still_keeps_the_deployments_name(
    azure: Azure, client: MLClient, tmp_path: Path
) -> None:
    """The reason for a request of our own; once this fails, the client's `invoke` can be used."""
    from azure.ai.ml.constants._endpoint import EndpointInvokeFields

    deploy(FAIR, client=client)
    azure.invoked.clear()
    request = tmp_path / "request.json"
    request.write_text(json.dumps(online_endpoint.body(LAB_BIRD)))
    try:
        client.online_endpoints.invoke(NAME, request_file=str(request), deployment_name=ONE)
        client.online_endpoints.invoke(NAME, request_file=str(request))
        assert azure.invoked == [ONE, ONE]
    finally:
        for name in set(EndpointInvokeFields.DEFAULT_HEADER) - {"Content-Type"}:
            del EndpointInvokeFields.DEFAULT_HEADER[name]


def test_undeploy_touches_only_its_endpoint(azure: Azure, client: MLClient) -> None:
    deploy(FAIR, client=client, name="another")
    assert not undeploy(client=client)
    assert azure.of_kind("onlineEndpoints") == ["another"]
    assert undeploy("another", client=client)
    assert azure.of_kind("onlineEndpoints") == []


def test_the_commands_from_deployment_to_the_end(azure: Azure, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said = ""
    result = command("deploy", "--to", "azureml")
    assert (result.exit_code, result.stdout) == (
        0, "predict-penguin serves version 1 of penguin_predictor with 100 % of the traffic.\n",
    ), result.output  # fmt: skip
    said += result.output
    accept(GOOD)
    result = command("deploy", "--to", "azureml", "--version", "3", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "model": "penguin_predictor",
        "version": 3,
        "endpoint": NAME,
        "traffic": 100,
        "changed": True,
        "became_champion": True,
    }
    said += result.output
    result = command("query", "--to", "azureml", "--endpoint", NAME)
    assert result.exit_code == 0, result.output
    assert "Gentoo" in result.stdout
    said += result.output
    result = command("query", "--to", "azureml", "--endpoint", NAME, "--record", '{"Island": "Biscoe"}')
    assert result.exit_code == 1
    assert "CulmenLength" in result.stderr
    said += result.output
    result = command("undeploy", "--to", "azureml")
    assert (result.exit_code, result.stdout) == (0, "predict-penguin is deleted.\n")
    result = command("undeploy", "--to", "azureml")
    assert (result.exit_code, result.stdout) == (0, "There is no predict-penguin: nothing to delete.\n")
    for secret in (*SECRETS, TOKEN):
        assert secret not in said + caplog.text


def test_a_wrong_secret_is_told_without_it(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "a-wrong-secret")
    result = command("deploy", "--to", "azureml")
    assert result.exit_code == 1
    assert "There is no token for Azure (" in result.stderr
    assert "a-wrong-secret" not in result.output


def test_options_of_the_other_platform_are_refused() -> None:
    result = command("deploy", "--to", "azureml", "--size", "Large")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, "Error: --size is not for --to azureml.")
    result = command("query", "--to", "azureml")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, "Error: Name the endpoint to ask (--endpoint).")
    result = command("deploy", "--to", "databricks", "--compute", "colony")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, "Error: --compute is not for --to databricks.")
