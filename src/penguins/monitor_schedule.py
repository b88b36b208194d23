"""The monitor as a schedule of an Azure Machine Learning workspace, with the thresholds of `penguins monitor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penguins import arm
from penguins.config import Thresholds
from penguins.spec import PENGUINS, Spec

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import MonitorSchedule

NAME = "penguins-monitor"

TIMEOUT = 600.0


@dataclass(frozen=True)
class Watched:
    """What a schedule watches.

    Data are `azureml:<name>:<version>` or `azureml://` paths. `reference` holds what the model was trained on,
    `inputs` what the endpoint was asked, `outputs` what it answered; with `truth`, the known classes, the quality of
    the answers is watched too.
    """

    deployment: str
    """`<endpoint>:<deployment>`."""
    reference: str
    inputs: str
    outputs: str | None = None
    truth: str | None = None


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
    """Make the schedule, or change it: every day at `hour` (UTC). Raises ServerError."""
    schedule = definition(watched, name=name, thresholds=thresholds or Thresholds(), spec=spec, hour=hour, email=email)
    with arm.told(name):
        poller = client.schedules.begin_create_or_update(schedule)
    made: MonitorSchedule = arm.finish(poller, name, TIMEOUT)
    return made


def disable(client: MLClient, name: str = NAME) -> None:
    """Let the schedule rest. Raises ServerError."""
    with arm.told(name):
        poller = client.schedules.begin_disable(name)
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
        tags=dict(arm.MADE_BY),
    )


def _signals(watched: Watched, thresholds: Thresholds, spec: Spec) -> dict[str, Any]:
    from azure.ai.ml.constants import MonitorDatasetContext
    from azure.ai.ml.entities import DataDriftSignal, DataQualitySignal, PredictionDriftSignal

    reference = _reference(watched.reference, spec)
    inputs = _production(watched.inputs, MonitorDatasetContext.MODEL_INPUTS)
    features = list(spec.features)
    signals: dict[str, Any] = {
        "data_drift": DataDriftSignal(
            production_data=inputs, reference_data=reference, features=features, metric_thresholds=_drift(thresholds)
        ),
        "data_quality": DataQualitySignal(
            production_data=inputs, reference_data=reference, features=features, metric_thresholds=_quality(thresholds)
        ),
    }
    if watched.outputs is not None:
        outputs = _production(watched.outputs, MonitorDatasetContext.MODEL_OUTPUTS)
        signals["prediction_drift"] = PredictionDriftSignal(
            production_data=outputs, reference_data=reference, metric_thresholds=_prediction_drift(thresholds)
        )
        if watched.truth is not None:
            signals["performance"] = _performance(outputs, _reference(watched.truth, spec), thresholds)
    return signals


def _reference(data: str, spec: Spec) -> Any:
    from azure.ai.ml import Input
    from azure.ai.ml.constants import MonitorDatasetContext
    from azure.ai.ml.entities import ReferenceData

    return ReferenceData(
        input_data=Input(type="mltable", path=data),
        data_context=MonitorDatasetContext.TRAINING,
        target_column_name=spec.label,
    )


def _production(data: str, context: str) -> Any:
    from azure.ai.ml import Input
    from azure.ai.ml.entities import ProductionData

    return ProductionData(input_data=Input(type="uri_folder", path=data), data_context=context, data_window_size="P1D")


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


def _performance(outputs: Any, truth: Any, thresholds: Thresholds) -> Any:
    from azure.ai.ml.entities import (
        ModelPerformanceClassificationThresholds,
        ModelPerformanceMetricThreshold,
        ModelPerformanceSignal,
    )

    floors = ModelPerformanceClassificationThresholds(accuracy=thresholds.accuracy, recall=thresholds.recall)
    return ModelPerformanceSignal(
        production_data=outputs,
        reference_data=truth,
        metric_thresholds=ModelPerformanceMetricThreshold(classification=floors),
    )
