"""What Azure's clients and MLflow's plugin raise becomes one sentence that says what failed, why, and what to do."""

from __future__ import annotations

import json

import pytest
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azureml.mlflow._common.exceptions import AzureMLException
from click.testing import CliRunner

from penguins import arm
from penguins.cli import main
from penguins.errors import ServerError, first_sentence
from tests.azureml.mlflow_workspace import MlflowWorkspace, refused

pytestmark = pytest.mark.azureml


def of_status(status: int | None, message: str | None) -> HttpResponseError:
    error = HttpResponseError(message)
    error.status_code = status
    return error


NO_TOKEN = ClientAuthenticationError("The token is expired")
ABSENT = ResourceNotFoundError("(NotFound) There is no job.\nCode: NotFound")
TOLD = {
    "no code": (of_status(None, "(None) boom"), "boom; look at it in the studio."),
    "a code": (of_status(409, "(Conflict) It is there."), "It is there; another change is under way, or the name is "),
    "nothing": (of_status(400, None), "Operation returned an invalid status 'None'; look at what was asked for."),
    "only a code": (
        of_status(403, "(Forbidden) "),
        "HttpResponseError without a reason; ask for a role",
    ),
    "a token": (NO_TOKEN, "The token is expired; sign in again (`az login`), or renew the service principal's secret."),
    "absent": (ABSENT, "There is no job; look at it in the studio."),
}


@pytest.mark.parametrize("case", TOLD)
def test_azures_refusals_have_a_reason(case: str) -> None:
    error, sentence = TOLD[case]
    with pytest.raises(ServerError) as raised, arm.told("The job"):
        raise error
    assert str(raised.value).startswith(f"The job: {sentence}")
    assert str(raised.value).endswith(".")
    assert "(None)" not in str(raised.value)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("Resource Conflict: it is there.\nmore", "Resource Conflict: it is there."),
        (
            "Received bad response from service:\nResponse Code: 404\nHeaders: {}",
            "Received bad response from service: Response Code: 404",
        ),
        ("", "AzureMLException"),
    ],
)
def test_the_plugins_errors_have_one_too(message: str, sentence: str) -> None:
    assert str(AzureMLException(message)).startswith("AzureMLException:\n")
    assert first_sentence(AzureMLException(message)).startswith(sentence)


def test_a_token_that_runs_out_during_a_command_is_told_with_what_to_do(workspace: MlflowWorkspace) -> None:
    workspace.fail("registered-models/get", refused(401, "UserError", "The token is expired."))
    workspace.fail("model-versions/search", refused(401, "UserError", "The token is expired."))
    result = CliRunner().invoke(main, ["promote", "--model", "birds", "--tracking-uri", workspace.uri])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: The model registry can't be asked for birds: The token is expired; sign in again, with `az login` for "
        "example, or renew the token.\n"
    ), json.dumps(workspace.asked)
