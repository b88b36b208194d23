"""What a run keeps: measures under names that MLflow takes, however many there are."""

from __future__ import annotations

from pathlib import Path

import mlflow
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name

from penguins import record


def test_a_name_that_mlflow_refuses_is_made_one_that_it_takes() -> None:
    assert record.metric_names(["accuracy", "psi_sepal length (cm)", "psi_größe", "recall_a/b", "recall_a:b"]) == {
        "accuracy": "accuracy",
        "psi_sepal length (cm)": "psi_sepal length _cm_",
        "psi_größe": "psi_größe",
        "recall_a/b": "recall_a_b",
        "recall_a:b": "recall_a:b",
    }


def test_two_columns_never_share_a_metric() -> None:
    assert record.metric_names(["psi_a(", "psi_a)", "psi_a_", "psi_a__2"]) == {
        "psi_a(": "psi_a_",
        "psi_a)": "psi_a__2",
        "psi_a_": "psi_a__3",
        "psi_a__2": "psi_a__4",
    }
    long = ["x" * 250, "x" * 251, "x" * 252]
    assert [len(name) for name in record.metric_names(long).values()] == [250, 250, 250]
    assert len(set(record.metric_names(long).values())) == 3


@given(st.lists(st.text(min_size=1, max_size=260), unique=True, max_size=6))
def test_mlflow_takes_every_name(names: list[str]) -> None:
    safe = record.metric_names(names)
    assert list(safe) == names
    assert len(set(safe.values())) == len(names)
    for name in safe.values():
        _validate_metric_name(name)


def test_more_measures_than_a_request_takes_are_all_logged(store: Path) -> None:
    with mlflow.start_run() as run:
        record.log_metrics({f"psi_column {number} (cm)": number / 8 for number in range(1001)}, step=3)
    kept = mlflow.get_run(run.info.run_id).data
    assert len(kept.metrics) == 1001
    assert kept.metrics["psi_column 1000 _cm_"] == 125
    assert "metrics_left_out" not in kept.tags
    [point] = mlflow.MlflowClient().get_metric_history(run.info.run_id, "psi_column 7 _cm_")
    assert point.step == 3
