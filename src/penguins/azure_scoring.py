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
from azureml_inference_server_http.api.aml_request import AMLRequest, rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse
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


@rawhttp  # type: ignore[untyped-decorator]  # the server's package has no types
def run(request: AMLRequest) -> AMLResponse:
    """Answer one request: predictions as MLflow's own server gives them, or its sentence with the status 400."""
    if request.method != "POST":
        return AMLResponse({"message": "Ask with POST."}, 405, json_str=True)
    try:
        split = json.loads(request.get_data())["input_data"]
        rows = {"dataframe_split": {"columns": split["columns"], "data": split["data"]}}
    except (ValueError, KeyError, TypeError, RecursionError):
        return AMLResponse({"message": f"The body can't be read: send {SHAPE}."}, 400, json_str=True)
    try:
        schema = model.metadata.get_input_schema()
        # MLflow hasn't typed these two.
        answer = invocations(json.dumps(rows), JSON, model, schema)  # type: ignore[no-untyped-call]
    except MlflowException as error:
        status = error.get_http_status_code()  # type: ignore[no-untyped-call]
        return AMLResponse({"message": error.message}, status, json_str=True)
    return AMLResponse(json.loads(answer.response), answer.status, json_str=True)
