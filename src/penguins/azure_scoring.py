"""The scoring script of an Azure Machine Learning deployment: what is wrong with a row is a 400 with a sentence.

It runs in the deployment's container, with the model's own requirements and no wheel of this package, and must import
nothing else of it. What the model is asked and what it answers is handed to Azure's data collector, which keeps it
where the deployment says so; whether that succeeds changes no answer.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.scoring_server import invocations

JSON = "application/json"

INPUTS, OUTPUTS = "model_inputs", "model_outputs"
"""The names by which Azure's monitoring knows what was collected."""

model: Any = None


class Collected:
    """A model that collects the rows that it is asked about, and its answers.

    The rows are collected whether or not they can be answered: how many can't is what monitoring is for. They have the
    model's columns alone, with the types of its signature.
    """

    def __init__(self, asked: Any) -> None:
        # Only the container has this package.
        from azureml.ai.monitoring import Collector

        self.metadata = asked.metadata
        self._model = asked
        self._told: set[str] = set()
        self._inputs = Collector(name=INPUTS, on_error=self._tell)
        self._outputs = Collector(name=OUTPUTS, on_error=self._tell)

    def predict(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The model's answers. Raises MlflowException as the model does."""
        names = self.metadata.get_input_schema().input_names()
        context = self._inputs.collect(rows[[name for name in names if name in rows]])
        answers: pd.DataFrame = self._model.predict(rows)
        self._outputs.collect(answers, context)
        return answers

    def _tell(self, error: Exception) -> None:
        """Log once why rows aren't collected."""
        if str(error) not in self._told:
            self._told.add(str(error))
            logging.getLogger(__name__).warning("Rows are not collected: %s", error)


def init() -> None:
    """Load the model that Azure has put into the container; called once, before the first request."""
    global model
    folder = Path(os.environ["AZUREML_MODEL_DIR"])
    # Azure puts the model into a folder of its own name, at a depth that it doesn't tell.
    found = min(folder.rglob("MLmodel"), key=lambda file: len(file.parts)).parent
    model = Collected(mlflow.pyfunc.load_model(str(found)))


def run(body: str) -> Any:
    """Answer one request: predictions as MLflow's own server gives them, or its sentence with the status 400."""
    try:
        split = json.loads(body)["input_data"]
        rows = {"dataframe_split": {"columns": split["columns"], "data": split["data"]}}
    except (ValueError, KeyError, TypeError, RecursionError):
        return _response({"message": f"The body can't be read: send {_shape()}."}, 400)
    try:
        schema = model.metadata.get_input_schema()
        # MLflow hasn't typed these two.
        answer = invocations(json.dumps(rows), JSON, model, schema)  # type: ignore[no-untyped-call]
    except MlflowException as error:
        return _response({"message": error.message}, error.get_http_status_code())  # type: ignore[no-untyped-call]
    return _response(json.loads(answer.response), answer.status)


def _shape() -> str:
    """A body as it must be, with the model's own columns."""
    columns = json.dumps(model.metadata.get_input_schema().input_names())
    return f'{{"input_data": {{"columns": {columns}, "index": [0], "data": [[...]]}}}}'


def _response(content: Any, status: int) -> Any:
    # Only the container has the server's package.
    from azureml_inference_server_http.api.aml_response import AMLResponse

    return AMLResponse(content, status, json_str=True)
