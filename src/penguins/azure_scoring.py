"""The scoring script of an Azure Machine Learning deployment: what is wrong with a row is a 400 with a sentence.

It runs in the deployment's container, with the model's own requirements and no wheel of this package, and must import
nothing else of it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import mlflow.pyfunc
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.scoring_server import invocations

JSON = "application/json"
SHAPE = '{"input_data": {"columns": ["Island", ...], "index": [0], "data": [["Biscoe", ...]]}}'

model: Any = None


def init() -> None:
    """Load the model that Azure has put into the container; called once, before the first request."""
    global model
    folder = Path(os.environ["AZUREML_MODEL_DIR"])
    # Azure puts the model into a folder of its own name, at a depth that it doesn't tell.
    model = mlflow.pyfunc.load_model(str(min(folder.rglob("MLmodel"), key=lambda file: len(file.parts)).parent))


def run(body: str) -> Any:
    """Answer one request: predictions as MLflow's own server gives them, or its sentence with the status 400."""
    try:
        split = json.loads(body)["input_data"]
        rows = {"dataframe_split": {"columns": split["columns"], "data": split["data"]}}
    except (ValueError, KeyError, TypeError, RecursionError):
        return _response({"message": f"The body can't be read: send {SHAPE}."}, 400)
    try:
        schema = model.metadata.get_input_schema()
        # MLflow hasn't typed these two.
        answer = invocations(json.dumps(rows), JSON, model, schema)  # type: ignore[no-untyped-call]
    except MlflowException as error:
        return _response({"message": error.message}, error.get_http_status_code())  # type: ignore[no-untyped-call]
    return _response(json.loads(answer.response), answer.status)


def _response(content: Any, status: int) -> Any:
    # Only the container has the server's package.
    from azureml_inference_server_http.api.aml_response import AMLResponse

    return AMLResponse(content, status, json_str=True)
