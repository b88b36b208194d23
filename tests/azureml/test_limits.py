"""How much a run of a workspace takes, as the loopback has it and the package says it."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from penguins import dialect
from penguins.tracking import Tracking
from tests.azureml.mlflow_workspace import MlflowWorkspace

pytestmark = pytest.mark.azureml


def test_a_run_takes_fifty_metrics_by_name_and_any_number_of_steps(workspace: MlflowWorkspace, tmp_path: Path) -> None:
    Tracking(workspace.uri).activate()
    assert dialect.most_metrics() == 50
    with mlflow.start_run() as run:
        mlflow.log_metrics({f"m{number}": number for number in range(50)})
        for step in range(3):
            mlflow.log_metric("m0", step, step=step)
        with pytest.raises(MlflowException, match=r"^INVALID_PARAMETER_VALUE: .*Limit=50, Size=52\."):
            mlflow.log_metrics({"m49": 1.0, "m50": 1.0, "m51": 1.0})
    kept = mlflow.get_run(run.info.run_id).data.metrics
    assert (len(kept), kept["m0"], kept["m49"]) == (50, 2, 49)
    Tracking.local(tmp_path).activate()
    assert dialect.most_metrics() is None
