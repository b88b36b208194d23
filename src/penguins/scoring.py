"""Answer one scoring request with MLflow's own parsing, schema check and form of answers."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penguins import request_body
from penguins.limits import Limits
from penguins.request_body import Body, RefusedError

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel

ERROR_CODES = {
    400: "BAD_REQUEST", 404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 408: "REQUEST_TIMEOUT",
    413: "REQUEST_TOO_LARGE", 415: "UNSUPPORTED_MEDIA_TYPE", 500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """A status and the JSON that goes with it."""

    status: int
    content: bytes


def refusal(status: int, sentence: str, error_code: str | None = None) -> Answer:
    """MLflow's form of an error, with a sentence of one line and no stack trace."""
    message = {"error_code": error_code or ERROR_CODES[status], "message": request_body.one_line(sentence)}
    return Answer(status, json.dumps(message).encode())


def columns_of(model: PyFuncModel) -> int:
    """How many columns the model's signature has; 0 without one."""
    schema = model.metadata.get_input_schema()  # type: ignore[no-untyped-call]
    return 0 if schema is None else len(schema.inputs)


def read_and_answer(model: PyFuncModel, content: bytes, kind: str, limits: Limits) -> Answer:
    """Read the body and answer it; whatever is wrong with it is an answer, too."""
    try:
        return answer(model, request_body.read(content, kind, limits, needed=columns_of(model)))
    except RefusedError as error:
        return refusal(error.status, str(error))


def answer(model: PyFuncModel, body: Body) -> Answer:
    """What MLflow's scoring server answers to the body, with its errors cut to what is wrong."""
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc.scoring_server import invocations

    try:
        # MLflow hasn't typed this.
        scored = invocations(body.content, body.content_type, model, model.metadata.get_input_schema())  # type: ignore[no-untyped-call]
    except MlflowException as error:
        # In front of what is wrong MLflow puts the whole input, and then a part of it with the schema.
        sentence = error.message.rpartition("\nError: ")[2]
        sentence = re.sub(r"^Failed to enforce schema of data .*?\]'\. Error: ", "", sentence, flags=re.DOTALL)
        status = error.get_http_status_code()  # type: ignore[no-untyped-call]
        return refusal(status, sentence, error.error_code)
    return Answer(scored.status, scored.response.encode())
