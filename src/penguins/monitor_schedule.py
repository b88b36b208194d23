"""The monitor as a schedule of an Azure Machine Learning workspace, with the thresholds of `penguins monitor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penguins import arm, azure_names
from penguins.config import Thresholds
from penguins.spec import PENGUINS, Spec

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.ai.ml.constants import MonitorDatasetContext
    from azure.ai.ml.entities import MonitorSchedule

NAME = "penguins-monitor"

TIMEOUT = 600.0

ACCURACY, RECALL = "min_accuracy", "min_recall"
"""The tags of a schedule that keep the floors of quality."""

JOIN_COLUMN = "correlationid"
"""What Azure's collection of data numbers the questions with, and the answers to them."""

ANSWER = "prediction"
"""The column of the answers that holds the class, as a number like the label's."""


@dataclass(frozen=True)
class Watched:
    """What a schedule watches.

    Data are `azureml:<name>:<version>` or `azureml://` paths. `reference` holds what the model was trained on,
    `inputs` what the endpoint was asked, `outputs` what it answered; with `truth`, the known classes, the quality of
    the answers is watched too: `join_column` is in both, and tells which answer a known class belongs to.
    """

    deployment: str
    """`<endpoint>:<deployment>`."""
    reference: str
    inputs: str
    outputs: str | None = None
    truth: str | None = None
    join_column: str = JOIN_COLUMN


def create(
    client: MLClient,
    watched: Watched,
    *,
    name: str = NAME,
    thresholds: Thresholds | None = None,
    spec: Spec = PENGUINS,
    hour: int = 3,
    email: tuple[str, ...] = (),
) -> MonitorSchedule:
    """Make the schedule, or change it: every day at `hour` (UTC).

    Raises ServerError, and ParameterError for a name that no schedule, no endpoint or no deployment can have.
    """
    azure_names.require("schedule", name)
    endpoint, _, deployment = watched.deployment.partition(":")
    azure_names.require("endpoint", endpoint)
    azure_names.require("deployment", deployment)
    schedule = definition(watched, name=name, thresholds=thresholds or Thresholds(), spec=spec, hour=hour, email=email)
    with arm.told(name):
        poller = client.schedules.begin_create_or_update(schedule)
    made: MonitorSchedule = arm.finish(poller, name, TIMEOUT)
    return made


def disable(client: MLClient, name: str = NAME) -> None:
    """Let the schedule rest; its definition stays as it is, but for a deployment that is gone. Raises ServerError."""
    from azure.core.exceptions import ResourceNotFoundError

    with arm.told(name):
        schedule = client.schedules.get(name)
        # Azure's own `begin_disable` does these two, and forgets the floor of the recall on the way.
        schedule._is_enabled = False
        signals = schedule.create_monitor.monitoring_signals
        if "performance" in signals and {ACCURACY, RECALL} <= schedule.tags.keys():
            signals["performance"].metric_thresholds = _floors(
                float(schedule.tags[ACCURACY]), float(schedule.tags[RECALL])
            )
        try:
            poller = client.schedules.begin_create_or_update(schedule)
        except ResourceNotFoundError as error:
            if not arm.is_missing(error):
                raise
            # The client looks up the deployment that is watched, and sends nothing when it is gone.
            schedule.create_monitor.monitoring_target.endpoint_deployment_id = None
            poller = client.schedules.begin_create_or_update(schedule)
    arm.finish(poller, name, TIMEOUT)


def delete(client: MLClient, name: str = NAME) -> bool:
    """Delete the schedule; False if there is none. Raises ServerError."""
    from azure.core.exceptions import ResourceNotFoundError

    with arm.told(name):
        try:
            client.schedules.get(name)
        except ResourceNotFoundError as error:
            if not arm.is_missing(error):
                raise
            return False
    # Azure deletes none that is still enabled.
    disable(client, name)
    with arm.told(name):
        poller = client.schedules.begin_delete(name)
    arm.finish(poller, name, TIMEOUT)
    return True


def definition(
    watched: Watched, *, name: str, thresholds: Thresholds, spec: Spec, hour: int, email: tuple[str, ...]
) -> MonitorSchedule:
    """The schedule with each of its signals named: what is left to Azure has Azure's thresholds, not ours."""
    from azure.ai.ml.entities import (
        AlertNotification,
        MonitorDefinition,
        MonitoringTarget,
        MonitorSchedule,
        RecurrencePattern,
        RecurrenceTrigger,
        ServerlessSparkCompute,
    )

    return MonitorSchedule(
        name=name,
        trigger=RecurrenceTrigger(frequency="day", interval=1, schedule=RecurrencePattern(hours=hour, minutes=0)),
        create_monitor=MonitorDefinition(
            compute=ServerlessSparkCompute(instance_type="standard_e4s_v3", runtime_version="3.4"),
            monitoring_target=MonitoringTarget(
                ml_task="classification", endpoint_deployment_id=f"azureml:{watched.deployment}"
            ),
            monitoring_signals=_signals(watched, thresholds, spec),
            alert_notification=AlertNotification(emails=list(email)) if email else None,
        ),
        tags={**arm.MADE_BY, ACCURACY: str(thresholds.accuracy), RECALL: str(thresholds.recall)},
    )


def _signals(watched: Watched, thresholds: Thresholds, spec: Spec) -> dict[str, Any]:
    from azure.ai.ml.constants import MonitorDatasetContext
    from azure.ai.ml.entities import DataDriftSignal, DataQualitySignal, PredictionDriftSignal

    # Azure's own default is to measure and to tell nobody.
    trained_on = _reference(watched.reference, MonitorDatasetContext.TRAINING, {"target_column": spec.label})
    told: dict[str, Any] = {"reference_data": trained_on, "alert_enabled": True}
    inputs = {"production_data": _production(watched.inputs, MonitorDatasetContext.MODEL_INPUTS), **told}
    inputs["features"] = list(spec.features)
    signals: dict[str, Any] = {
        "data_drift": DataDriftSignal(metric_thresholds=_drift(thresholds), **inputs),
        "data_quality": DataQualitySignal(metric_thresholds=_quality(thresholds), **inputs),
    }
    if watched.outputs is None:
        return signals
    outputs = _production(watched.outputs, MonitorDatasetContext.MODEL_OUTPUTS)
    signals["prediction_drift"] = PredictionDriftSignal(
        production_data=outputs, metric_thresholds=_prediction_drift(thresholds), **told
    )
    if watched.truth is not None:
        signals["performance"] = _performance(watched.outputs, watched.truth, watched.join_column, thresholds, spec)
    return signals


def _reference(data: str, context: MonitorDatasetContext, columns: dict[str, str]) -> Any:
    from azure.ai.ml import Input
    from azure.ai.ml.entities import ReferenceData

    return ReferenceData(input_data=Input(type="mltable", path=data), data_context=context, data_column_names=columns)


def _production(data: str, context: MonitorDatasetContext, columns: dict[str, str] | None = None) -> Any:
    from azure.ai.ml import Input
    from azure.ai.ml.entities import BaselineDataRange, ProductionData

    return ProductionData(
        input_data=Input(type="uri_folder", path=data),
        data_context=context,
        data_window=BaselineDataRange(lookback_window_size="P1D", lookback_window_offset="P0D"),
        data_column_names=columns,
    )


def _drift(thresholds: Thresholds) -> Any:
    from azure.ai.ml.entities import CategoricalDriftMetrics, DataDriftMetricThreshold, NumericalDriftMetrics

    return DataDriftMetricThreshold(
        numerical=NumericalDriftMetrics(population_stability_index=thresholds.psi_drift),
        categorical=CategoricalDriftMetrics(population_stability_index=thresholds.psi_drift),
    )


def _prediction_drift(thresholds: Thresholds) -> Any:
    from azure.ai.ml.entities import CategoricalDriftMetrics, NumericalDriftMetrics, PredictionDriftMetricThreshold

    return PredictionDriftMetricThreshold(
        numerical=NumericalDriftMetrics(population_stability_index=thresholds.psi_drift),
        categorical=CategoricalDriftMetrics(population_stability_index=thresholds.psi_drift),
    )


def _quality(thresholds: Thresholds) -> Any:
    from azure.ai.ml.entities import (
        DataQualityMetricsCategorical,
        DataQualityMetricsNumerical,
        DataQualityMetricThreshold,
    )

    return DataQualityMetricThreshold(
        numerical=DataQualityMetricsNumerical(
            null_value_rate=thresholds.missing_increase, out_of_bounds_rate=thresholds.out_of_range
        ),
        categorical=DataQualityMetricsCategorical(
            null_value_rate=thresholds.missing_increase, out_of_bounds_rate=thresholds.new_categories
        ),
    )


def _performance(outputs: str, truth: str, join_column: str, thresholds: Thresholds, spec: Spec) -> Any:
    from azure.ai.ml.constants import MonitorDatasetContext
    from azure.ai.ml.entities import ModelPerformanceSignal

    answered = {"target_column": ANSWER, "join_column": join_column}
    known = {"target_column": spec.label, "join_column": join_column}
    return ModelPerformanceSignal(
        production_data=_production(outputs, MonitorDatasetContext.MODEL_OUTPUTS, answered),
        reference_data=_reference(truth, MonitorDatasetContext.GROUND_TRUTH_DATA, known),
        metric_thresholds=_floors(thresholds.accuracy, thresholds.recall),
        alert_enabled=True,
    )


def _floors(accuracy: float, recall: float) -> Any:
    from azure.ai.ml.entities import ModelPerformanceClassificationThresholds, ModelPerformanceMetricThreshold

    return ModelPerformanceMetricThreshold(
        classification=ModelPerformanceClassificationThresholds(accuracy=accuracy, recall=recall)
    )
