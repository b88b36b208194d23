"""Deployment: the real SDK against a workspace on this machine, whose endpoints ask real servers of real models."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pytest
from click.testing import CliRunner, Result
from databricks.sdk import WorkspaceClient
from databricks.sdk.clock import RealClock

from penguins import champion, endpoint, registry
from penguins.champion import version_of
from penguins.cli import main
from penguins.config import ServingParameters
from penguins.deploy import Deployed, deploy, undeploy
from penguins.errors import ModelError, ParameterError, ServerError
from penguins.promote import promote
from penguins.registry import Version
from penguins.serve import serving
from penguins.spec import PENGUINS
from penguins.tracking import Tracking
from tests.conftest import LAB_BIRD
from tests.servers import free_port
from tests.workspace import NEVER, TOKEN, Workspace, refused, running

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NAME = "predict-penguin"
FAIR, LABS, GOOD = (Version("penguin_predictor", number) for number in (1, 2, 3))

pytestmark = [pytest.mark.spark, pytest.mark.slow]


@pytest.fixture(scope="module")
def scorers(three_models: Path) -> Iterator[dict[str, str]]:
    """The addresses of real scoring servers of the fair and the good model, by version."""
    Tracking.local(three_models.parent).activate()
    with serving(FAIR.uri) as fair, serving(GOOD.uri) as good:
        mlflow.set_tracking_uri("")
        mlflow.set_registry_uri("")
        yield {"1": fair, "3": good}


@pytest.fixture
def workspace(models: Path, scorers: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A workspace that the environment names, with a registry in which the fair model is champion."""
    # The SDK looks at an endpoint every few seconds; here its clock goes faster when it waits.
    monkeypatch.setattr(RealClock, "sleep", lambda _, seconds: time.sleep(seconds / 20))
    champion.move(FAIR, None)
    with running(Workspace(scorers=dict(scorers))) as running_workspace:
        monkeypatch.setenv("DATABRICKS_HOST", running_workspace.host)
        monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
        monkeypatch.setenv("DATABRICKS_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{models}")
        yield running_workspace


@pytest.fixture
def client(workspace: Workspace) -> WorkspaceClient:
    """A client that gives up soon."""
    return endpoint.workspace(patience=1)


def accept(version: Version, against: str = "1") -> None:
    """Leave what the gate leaves on a version that it accepts."""
    registry.describe(version, {"gate_verdict": "yes", "gate_champion": against})


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments])


def test_a_champion_gets_an_endpoint(workspace: Workspace, client: WorkspaceClient) -> None:
    assert deploy(FAIR, client=client) == Deployed(FAIR, NAME, 100, changed=True, became_champion=False)
    made = workspace.endpoints[NAME]
    assert made["tags"] == [{"key": "made_by", "value": "penguins"}]
    (entity,) = made["config"]["served_entities"]
    assert entity == {
        "name": "penguin_predictor-1",
        "entity_name": "penguin_predictor",
        "entity_version": "1",
        "workload_size": "Small",
        "scale_to_zero_enabled": True,
        "workload_type": "CPU",
        "creator": "somebody",
    }
    assert made["state"] == {"ready": "READY", "config_update": "NOT_UPDATING"}
    answer = endpoint.ask(client, NAME, LAB_BIRD)
    assert answer["species"].tolist() == ["Gentoo"]
    assert answer["probability_Gentoo"].item() == pytest.approx(0.946863, abs=1e-6)


def test_the_same_call_again_changes_nothing(workspace: Workspace, client: WorkspaceClient) -> None:
    deploy(FAIR, client=client)
    done = workspace.changes()
    assert deploy(FAIR, client=client) == Deployed(FAIR, NAME, 100, changed=False, became_champion=False)
    assert workspace.changes() == done


def test_a_challenger_is_asked_before_it_gets_traffic_and_then_becomes_champion(
    workspace: Workspace, client: WorkspaceClient
) -> None:
    deploy(FAIR, client=client)
    accept(GOOD)
    workspace.asked.clear()
    assert deploy(GOOD, client=client) == Deployed(GOOD, NAME, 100, changed=True, became_champion=True)
    assert workspace.shares(NAME) == {"3": 100}
    assert [line for line in workspace.asked if not line.startswith("GET")] == [
        f"PUT /api/2.0/serving-endpoints/{NAME}/config",
        f"POST /serving-endpoints/{NAME}/served-models/penguin_predictor-3/invocations",
        f"PUT /api/2.0/serving-endpoints/{NAME}/config",
        f"POST /serving-endpoints/{NAME}/invocations",
    ]
    assert version_of("penguin_predictor") == GOOD
    assert version_of("penguin_predictor", "previous_champion") == FAIR


def test_while_the_challenger_is_asked_nobody_else_meets_it(workspace: Workspace, client: WorkspaceClient) -> None:
    deploy(FAIR, client=client)
    accept(GOOD)
    workspace.fail("penguin_predictor-3/invocations", refused(400, "BAD_REQUEST", "it is broken."))
    seen: list[dict[str, int]] = []
    with pytest.raises(ServerError):
        deploy(GOOD, client=client, report=lambda step: seen.append(workspace.shares(NAME)))
    assert seen[2] == {"1": 100, "3": 0}


def test_a_share_of_the_traffic_leaves_the_champion_and_all_of_it_completes(
    workspace: Workspace, client: WorkspaceClient
) -> None:
    deploy(FAIR, client=client)
    accept(GOOD)
    tenth = ServingParameters(traffic=10)
    assert deploy(GOOD, client=client, settings=tenth) == Deployed(GOOD, NAME, 10, changed=True, became_champion=False)
    assert workspace.shares(NAME) == {"1": 90, "3": 10}
    assert version_of("penguin_predictor") == FAIR
    workspace.questions = 0
    answers = [endpoint.ask(client, NAME, LAB_BIRD)["probability_Gentoo"].item() for _ in range(100)]
    assert sum(answer == pytest.approx(0.946863, abs=1e-6) for answer in answers) == 90
    done = workspace.changes()
    assert not deploy(GOOD, client=client, settings=tenth).changed
    assert workspace.changes() == done
    assert deploy(GOOD, client=client).became_champion
    assert workspace.shares(NAME) == {"3": 100}
    assert version_of("penguin_predictor") == GOOD


def test_a_share_can_be_taken_back(workspace: Workspace, client: WorkspaceClient) -> None:
    deploy(FAIR, client=client)
    accept(GOOD)
    deploy(GOOD, client=client, settings=ServingParameters(traffic=50))
    deploy(FAIR, client=client)
    assert workspace.shares(NAME) == {"1": 100}


def test_nothing_to_share_with(workspace: Workspace, client: WorkspaceClient) -> None:
    sentence = f"{NAME} serves no other version to share the traffic with: deploy version 1 with all of it."
    with pytest.raises(ParameterError, match=f"^{sentence}$"):
        deploy(FAIR, client=client, settings=ServingParameters(traffic=10))
    assert workspace.changes() == []


def test_a_trial_is_not_put_upside_down(workspace: Workspace, client: WorkspaceClient) -> None:
    deploy(FAIR, client=client)
    accept(GOOD)
    tenth = ServingParameters(traffic=10)
    deploy(GOOD, client=client, settings=tenth)
    sentence = "Version 1 of penguin_predictor is the champion: a share is for a challenger, name it (--version)."
    with pytest.raises(ParameterError, match=f"^{re.escape(sentence)}$"):
        deploy(FAIR, client=client, settings=tenth)
    assert workspace.shares(NAME) == {"1": 90, "3": 10}


def test_a_wrong_answer_puts_everything_back(workspace: Workspace, client: WorkspaceClient) -> None:
    deploy(FAIR, client=client)
    accept(GOOD)
    before = workspace.endpoints[NAME]["config"]
    # The endpoint runs another model than the version that it was told.
    workspace.scorers["3"] = workspace.scorers["1"]
    with pytest.raises(ServerError) as caught:
        deploy(GOOD, client=client)
    sentence = str(caught.value)
    assert sentence.startswith(
        f"{NAME} (penguin_predictor-3) answers wrong: in known row 1 of 5 probability_Adelie is "
    )
    assert sentence.endswith(f" {NAME} has its former configuration again. The champion is the one it was.")
    assert workspace.endpoints[NAME]["config"] == before
    assert version_of("penguin_predictor") == FAIR


def test_a_wrong_answer_of_a_new_endpoint_deletes_it(workspace: Workspace, client: WorkspaceClient) -> None:
    workspace.scorers["1"] = workspace.scorers["3"]
    with pytest.raises(ServerError, match=f"The new endpoint {NAME} is deleted again. The champion is the one it was."):
        deploy(FAIR, client=client)
    assert workspace.endpoints == {}


def test_a_timeout_puts_everything_back(workspace: Workspace, client: WorkspaceClient) -> None:
    deploy(FAIR, client=client)
    accept(GOOD)
    workspace.polls = NEVER

    def then_give_up(step: str) -> None:
        if step == "Putting the former configuration back":
            # The change that never came to an end is over, so that another can be made.
            workspace.polls = workspace.endpoints[NAME]["polls"] = 1

    with pytest.raises(ServerError) as caught:
        deploy(GOOD, client=client, settings=ServingParameters(timeout=2), report=then_give_up)
    assert str(caught.value) == (
        f"{NAME} was not ready within 2 seconds. {NAME} has its former configuration again. "
        "The champion is the one it was."
    )
    assert workspace.shares(NAME) == {"1": 100}
    assert version_of("penguin_predictor") == FAIR


def test_a_change_that_never_ends_is_told(workspace: Workspace, client: WorkspaceClient) -> None:
    deploy(FAIR, client=client)
    accept(GOOD)
    workspace.polls = NEVER
    with pytest.raises(ServerError) as caught:
        deploy(GOOD, client=client, settings=ServingParameters(timeout=1))
    assert "It could not be put back" in str(caught.value)
    assert "is currently being updated" in str(caught.value)
    # What runs meanwhile is what ran before.
    assert workspace.shares(NAME) == {"1": 100}
    with pytest.raises(ServerError, match=f"^{NAME} is being changed at the moment: wait until it is done"):
        deploy(FAIR, client=client)


def test_a_failed_update_is_told_with_the_workspaces_reason(workspace: Workspace, client: WorkspaceClient) -> None:
    deploy(FAIR, client=client)
    accept(GOOD)
    workspace.update_fails = True
    with pytest.raises(ServerError) as caught:
        deploy(GOOD, client=client)
    assert str(caught.value).startswith(f"The update of {NAME} failed: ")
    assert "penguin_predictor-3: no image was built" in str(caught.value)
    assert workspace.shares(NAME) == {"1": 100}


def test_a_champion_that_changed_meanwhile_puts_everything_back(workspace: Workspace, client: WorkspaceClient) -> None:
    deploy(FAIR, client=client)
    accept(GOOD)

    def somebody_else(step: str) -> None:
        if step == "Asking the endpoint":
            champion.move(LABS, FAIR)

    with pytest.raises(ModelError, match="The champion of penguin_predictor has changed meanwhile"):
        deploy(GOOD, client=client, report=somebody_else)
    assert workspace.shares(NAME) == {"1": 100}
    assert version_of("penguin_predictor") == LABS


def test_what_the_gate_has_not_accepted_is_not_deployed(workspace: Workspace, client: WorkspaceClient) -> None:
    with pytest.raises(
        ModelError, match=r"^The gate hasn't accepted version 3 of penguin_predictor: run `penguins promote"
    ):
        deploy(GOOD, client=client)
    accept(GOOD, against="none")
    with pytest.raises(ModelError, match="with champion none, and the champion is 1 now: run"):
        deploy(GOOD, client=client)
    with pytest.raises(ModelError, match="penguin_predictor doesn't have a version 9"):
        deploy(Version("penguin_predictor", 9), client=client)
    assert workspace.asked == ["GET /", "GET /.well-known/databricks-config"]


def test_without_an_endpoint_only_the_champion_moves_if_asked_so(workspace: Workspace, client: WorkspaceClient) -> None:
    accept(GOOD)
    result = deploy(GOOD, client=client, only_existing=True)
    assert result == Deployed(GOOD, None, 0, changed=False, became_champion=True)
    assert workspace.endpoints == {}
    assert version_of("penguin_predictor") == GOOD


REFUSALS = [
    (
        403, "PERMISSION_DENIED", "You lack CAN_MANAGE.",
        "predict-penguin: You lack CAN_MANAGE (PermissionDenied); ask for CAN MANAGE on the endpoint and EXECUTE on "
        "the model.",
    ),
    (
        404, "RESOURCE_DOES_NOT_EXIST", "Model version 1 does not exist.",
        "predict-penguin: Model version 1 does not exist (ResourceDoesNotExist); check the names; `penguins deploy` "
        "makes an endpoint.",
    ),
    (
        400, "QUOTA_EXCEEDED", "Workspace exceeded its quota of 50 endpoints.",
        "The workspace is at a limit (Workspace exceeded its quota of 50 endpoints): delete an endpoint that nobody "
        "needs, or ask for a higher quota.",
    ),
    (
        429, "REQUEST_LIMIT_EXCEEDED", "Rate limit exceeded.",
        "predict-penguin: Rate limit exceeded (RequestLimitExceeded); the workspace is busy: try again in some "
        "minutes.",
    ),
    (
        500, "INTERNAL_ERROR", "Something broke.",
        "predict-penguin: Something broke (InternalError); the workspace failed: try again, and look at the platform's "
        "status page.",
    ),
    (
        503, "TEMPORARILY_UNAVAILABLE", "Back soon.",
        "predict-penguin: Back soon (TemporarilyUnavailable); the workspace is unavailable at the moment: try again in "
        "some minutes.",
    ),
    (
        409, "RESOURCE_CONFLICT", "It is being updated.",
        "predict-penguin: It is being updated (ResourceConflict); another change of the endpoint is under way: wait "
        "until it is done, then try again.",
    ),
    (
        409, "ALREADY_EXISTS", "There is one.",
        "predict-penguin: There is one (AlreadyExists); somebody else has made it meanwhile: try again.",
    ),
    (
        400, "RESOURCE_ALREADY_EXISTS", "There is one.",
        "predict-penguin: There is one (ResourceAlreadyExists); somebody else has made it meanwhile: try again.",
    ),
    (
        429, "RESOURCE_EXHAUSTED", "The quota of endpoints is used up.",
        "The workspace is at a limit (The quota of endpoints is used up): delete an endpoint that nobody needs, or ask "
        "for a higher quota.",
    ),
    (
        501, "NOT_IMPLEMENTED", "Not here.",
        "predict-penguin: Not here (NotImplemented); the workspace failed: try again, and look at the platform's "
        "status page.",
    ),
    (
        502, "BAD_GATEWAY", "Nobody there.",
        "predict-penguin: Nobody there (DatabricksError); the workspace failed: try again, and look at the platform's "
        "status page.",
    ),
    (
        504, "DEADLINE_EXCEEDED", "Too slow.",
        "predict-penguin: Too slow (DeadlineExceeded); the workspace failed: try again, and look at the platform's "
        "status page.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("status", "code", "said", "sentence"), REFUSALS, ids=[row[1] for row in REFUSALS])
def test_what_the_workspace_refuses(
    workspace: Workspace, client: WorkspaceClient, status: int, code: str, said: str, sentence: str
) -> None:
    workspace.fail("POST /api/2.0/serving-endpoints", refused(status, code, said))
    with pytest.raises(ServerError) as caught:
        deploy(FAIR, client=client)
    assert str(caught.value) == sentence
    assert "DELETE" not in " ".join(workspace.asked)


CALLS: dict[str, Callable[[WorkspaceClient], object]] = {
    "GET": lambda client: endpoint.read(client, NAME),
    "PUT": lambda client: endpoint.update(client, endpoint.configuration(NAME)),
    "DELETE": lambda client: endpoint.delete(client, NAME),
    "POST /serving-endpoints": lambda client: endpoint.ask(client, NAME, LAB_BIRD),
}


@pytest.mark.parametrize("call", CALLS)
def test_every_refusal_of_every_call_is_told(workspace: Workspace, client: WorkspaceClient, call: str) -> None:
    for status, code, said, sentence in REFUSALS:
        if status == 404 and call in {"GET", "DELETE"}:
            continue  # there is no such endpoint: that is an answer
        if call.startswith("POST"):
            sentence = sentence.replace(
                "CAN MANAGE on the endpoint and EXECUTE on the model", "CAN QUERY on the endpoint"
            )
        workspace.failures.clear()
        workspace.fail(call, refused(status, code, said))
        with pytest.raises(ServerError) as caught:
            CALLS[call](client)
        assert str(caught.value) == sentence


def test_who_may_not_ask_an_endpoint_is_told_which_right_is_missing(workspace: Workspace) -> None:
    workspace.fail("POST /serving-endpoints", refused(403, "PERMISSION_DENIED", "You lack CAN_QUERY."))
    result = command("query", "--endpoint", NAME)
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: predict-penguin: You lack CAN_QUERY (PermissionDenied); ask for CAN QUERY on the endpoint.\n"
    )


FAILURES = [(500, "INTERNAL_ERROR"), (502, "BAD_GATEWAY"), (504, "DEADLINE_EXCEEDED")]


@pytest.mark.parametrize(("status", "code"), FAILURES)
def test_a_stumble_of_the_workspace_while_waiting_does_no_harm(
    workspace: Workspace, client: WorkspaceClient, status: int, code: str
) -> None:
    def stumble(step: str) -> None:
        if step == "Starting the version":
            workspace.fail(f"GET .*/{NAME}", refused(status, code, "Something broke."), times=1)

    assert deploy(FAIR, client=client, report=stumble).changed
    assert workspace.shares(NAME) == {"1": 100}


def test_a_workspace_that_never_tells_is_quoted(workspace: Workspace, client: WorkspaceClient) -> None:
    workspace.fail(f"GET .*/{NAME}", refused(500, "INTERNAL_ERROR", "Something broke."))
    with pytest.raises(ServerError, match=rf"^{NAME} was not ready within 2 seconds \(Something broke\)\.$"):
        endpoint.wait(client, NAME, 2)


def test_throttling_that_ends_is_waited_for(workspace: Workspace, client: WorkspaceClient) -> None:
    busy = refused(429, "REQUEST_LIMIT_EXCEEDED", "Slow down.")
    workspace.fail("POST /api/2.0/serving-endpoints", busy, times=2, headers={"Retry-After": "1"})
    assert deploy(FAIR, client=endpoint.workspace()).changed
    assert workspace.asked.count("POST /api/2.0/serving-endpoints") == 3


def test_an_update_that_the_workspace_refuses_leaves_everything(workspace: Workspace, client: WorkspaceClient) -> None:
    deploy(FAIR, client=client)
    accept(GOOD)
    workspace.fail("PUT", refused(403, "PERMISSION_DENIED", "You lack CAN_MANAGE."), times=1)
    with pytest.raises(ServerError, match="You lack CAN_MANAGE"):
        deploy(GOOD, client=client)
    assert workspace.shares(NAME) == {"1": 100}


def test_who_may_not_change_an_endpoint_is_told_so_once(workspace: Workspace, client: WorkspaceClient) -> None:
    deploy(FAIR, client=client)
    accept(GOOD)
    workspace.fail("PUT", refused(403, "PERMISSION_DENIED", "You lack CAN_MANAGE."))
    with pytest.raises(ServerError) as caught:
        deploy(GOOD, client=client)
    assert str(caught.value) == (
        "predict-penguin: You lack CAN_MANAGE (PermissionDenied); ask for CAN MANAGE on the endpoint and EXECUTE on "
        "the model."
    )
    assert workspace.asked.count(f"PUT /api/2.0/serving-endpoints/{NAME}/config") == 1
    assert workspace.shares(NAME) == {"1": 100}


def test_somebody_elses_update_is_not_undone(workspace: Workspace, client: WorkspaceClient) -> None:
    deploy(FAIR, client=client)
    accept(GOOD)

    def somebody_else(step: str) -> None:
        if step == "Starting the version":
            theirs = endpoint.served(FAIR, ServingParameters(workload_size="Large"))
            endpoint.update(client, endpoint.configuration(NAME, (theirs, 100)))
            workspace.endpoints[NAME]["polls"] = 2

    with pytest.raises(ServerError) as caught:
        deploy(GOOD, client=client, report=somebody_else)
    assert str(caught.value) == (
        "predict-penguin: Endpoint 'predict-penguin' is currently being updated (ResourceConflict); another change of "
        "the endpoint is under way: wait until it is done, then try again."
    )
    endpoint.wait(client, NAME, 60)
    (entity,) = workspace.endpoints[NAME]["config"]["served_entities"]
    assert entity["workload_size"] == "Large"


def test_an_update_whose_answer_is_lost_is_put_back(workspace: Workspace, client: WorkspaceClient) -> None:
    deploy(FAIR, client=client)
    accept(GOOD)
    workspace.fail("PUT", (504, {"error_code": "DEADLINE_EXCEEDED", "message": "Too slow."}), times=1)
    with pytest.raises(ServerError, match=r"has its former configuration again\. The champion is the one it was\.$"):
        deploy(GOOD, client=client)
    assert workspace.shares(NAME) == {"1": 100}


def test_a_wrong_token_and_a_workspace_that_is_gone(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-wrong")
    result = command("deploy", "--to", "databricks")
    assert result.exit_code == 1
    assert "Invalid access token (Unauthenticated); sign in again" in result.stderr
    assert "dapi-wrong" not in result.output
    monkeypatch.setenv("DATABRICKS_HOST", f"http://127.0.0.1:{free_port()}")
    result = command("query", "--endpoint", NAME)
    assert result.exit_code == 1
    assert "doesn't answer (ConnectionError): check DATABRICKS_HOST." in result.stderr
    monkeypatch.delenv("DATABRICKS_HOST")
    result = command("undeploy", "--to", "databricks")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: No Databricks workspace is configured (")
    assert result.stderr.rstrip().endswith("set DATABRICKS_HOST and a credential such as DATABRICKS_TOKEN.")


def test_the_commands_from_the_gate_to_the_end(
    spark: SparkSession, workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said = ""
    result = command("deploy", "--to", "databricks")
    assert (result.exit_code, result.stdout) == (
        0, "predict-penguin serves version 1 of penguin_predictor with 100 % of the traffic.\n",
    )  # fmt: skip
    said += result.output
    result = command("promote", "--version", "3", "--judge-only", "--json")
    assert result.exit_code == 0, result.stderr
    judged = json.loads(result.stdout)
    assert (judged["promote"], judged["moved"]) == (True, False)
    assert version_of("penguin_predictor") == FAIR
    result = command("deploy", "--to", "databricks", "--version", "3", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == {
        "model": "penguin_predictor",
        "version": 3,
        "endpoint": NAME,
        "traffic": 100,
        "changed": True,
        "became_champion": True,
    }
    said += result.output
    result = command("query", "--endpoint", NAME)
    assert result.exit_code == 0
    assert "Gentoo" in result.stdout
    result = command("query", "--endpoint", NAME, "--record", '{"Island": "Atlantis", "CulmenLength": 48.7, '
                     '"CulmenDepth": 14.1, "FlipperLength": 210, "BodyMass": 4450}')  # fmt: skip
    assert result.exit_code == 1
    assert "Island in row 1 of 1 is 'Atlantis': it must be one of" in result.stderr
    said += result.output
    result = command("undeploy", "--to", "databricks")
    assert (result.exit_code, result.stdout) == (0, "predict-penguin is deleted.\n")
    result = command("undeploy", "--to", "databricks")
    assert (result.exit_code, result.stdout) == (0, "There is no predict-penguin: nothing to delete.\n")
    assert TOKEN not in said + caplog.text


def test_ctrl_c_puts_everything_back(workspace: Workspace, client: WorkspaceClient) -> None:
    deploy(FAIR, client=client)
    accept(GOOD)

    def impatient(step: str) -> None:
        if step == "Moving the traffic":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deploy(GOOD, client=client, report=impatient)
    assert workspace.shares(NAME) == {"1": 100}


def test_undeploy_and_deploy_only_touch_their_endpoint(workspace: Workspace, client: WorkspaceClient) -> None:
    deploy(FAIR, client=client, name="another")
    assert not undeploy(client=client)
    assert list(workspace.endpoints) == ["another"]


def test_the_gate_can_judge_without_moving(spark: SparkSession, models: Path) -> None:
    promotion = promote(spark, GOOD, judge_only=True)
    assert promotion.verdict.promote
    assert not promotion.moved
    assert version_of("penguin_predictor") is None
    tags = mlflow.MlflowClient().get_model_version("penguin_predictor", "3").tags
    assert (tags["gate_verdict"], tags["gate_champion"]) == ("yes", "none")


def test_an_endpoint_that_never_served_anything(workspace: Workspace, client: WorkspaceClient) -> None:
    empty = {"name": NAME, "state": {"ready": "NOT_READY", "config_update": "NOT_UPDATING"}, "polls": 0}
    workspace.endpoints[NAME] = empty
    right, workspace.scorers["1"] = workspace.scorers["1"], workspace.scorers["3"]
    with pytest.raises(ServerError, match=f"{NAME} served nothing before. The champion is the one it was."):
        deploy(FAIR, client=client)
    assert NAME in workspace.endpoints, "what was there before is not deleted"
    workspace.scorers["1"] = right
    deploy(FAIR, client=client)
    assert workspace.shares(NAME) == {"1": 100}


def test_an_answer_that_is_no_number_puts_everything_back(workspace: Workspace, client: WorkspaceClient) -> None:
    deploy(FAIR, client=client)
    accept(GOOD)
    unusable = {"prediction": 0, "species": "Adelie", **{f"probability_{name}": "n/a" for name in PENGUINS.classes}}
    workspace.fail(r"predict-penguin/invocations", (200, {"predictions": [unusable] * 5}))
    with pytest.raises(ServerError, match="has its former configuration again"):
        deploy(GOOD, client=client)
    assert workspace.shares(NAME) == {"1": 100}
    assert version_of("penguin_predictor") == FAIR


def test_whatever_goes_wrong_is_put_back(workspace: Workspace, client: WorkspaceClient) -> None:
    deploy(FAIR, client=client)
    accept(GOOD)

    def surprising(step: str) -> None:
        if step == "Asking the endpoint":
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        deploy(GOOD, client=client, report=surprising)
    assert workspace.shares(NAME) == {"1": 100}


def test_a_version_left_behind_without_traffic_is_asked_all_the_same(
    workspace: Workspace, client: WorkspaceClient
) -> None:
    deploy(FAIR, client=client)
    both = [(endpoint.served(FAIR, ServingParameters()), 100), (endpoint.served(GOOD, ServingParameters()), 0)]
    endpoint.update(client, endpoint.configuration(NAME, *both))
    endpoint.wait(client, NAME, 60)
    accept(GOOD)
    workspace.scorers["3"] = workspace.scorers["1"]
    with pytest.raises(ServerError, match=r"\(penguin_predictor-3\) answers wrong"):
        deploy(GOOD, client=client)
    assert workspace.shares(NAME) == {"1": 100, "3": 0}
