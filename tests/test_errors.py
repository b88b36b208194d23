"""What an error tells in one line: something true, whatever the library that raised it has written around it."""

from __future__ import annotations

import pytest
from mlflow.exceptions import MlflowException, RestException

from penguins.errors import StoreError, first_sentence


class AzureMLError(Exception):
    """As MLflow's plugin for Azure writes its errors; tests/azureml asks the real one."""

    def __init__(self, message: str, inner_exception: Exception | None = None) -> None:
        self.message, self.inner_exception = message, inner_exception

    def __str__(self) -> str:
        inner = f"\tInnerException {self.inner_exception}\n\tErrorResponse \n{{}}"
        return f"AzureMLException:\n\tMessage: {self.message}\n{inner}"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (AzureMLError("boom"), "boom"),
        (AzureMLError("", ValueError("deep")), "deep"),
        (AzureMLError(""), "AzureMLError"),
        (Exception("(None) boom\nCode: None\nMessage: boom"), "boom"),
        (Exception("(ResourceNotFound) no such bird"), "(ResourceNotFound) no such bird"),
        (Exception("requests.exceptions.ConnectionError:\n\n  refused"), "refused"),
        (RestException({"message": "The token is expired"}), "The token is expired"),
        (RestException({"error": {"code": "UserError", "message": "No such run"}}), "No such run"),
        (RestException({"detail": "Not Found"}), "Response: {'detail': 'Not Found'}"),
        (RestException({"error_code": "INTERNAL_ERROR", "message": ""}), "RestException"),
        (RestException({}), "RestException"),
        (MlflowException(""), "MlflowException"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (StoreError("Message: in a bottle"), "in a bottle"),
        (ValueError("Error: is a word\nsecond line"), "Error: is a word"),
    ],
)
def test_a_line_tells_something(error: BaseException, told: str) -> None:
    assert first_sentence(error) == told


def test_where_an_error_tells_nothing_what_caused_it_does() -> None:
    error = MlflowException("")
    error.__cause__ = TimeoutError("the server sleeps")
    assert first_sentence(error) == "the server sleeps"


def test_what_was_handled_before_is_no_reason() -> None:
    error = KeyboardInterrupt()
    error.__context__ = ValueError("something that was handled")
    assert first_sentence(error) == "KeyboardInterrupt"
