"""The monitor as a schedule of an Azure Machine Learning workspace, with the thresholds of `penguins monitor`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from penguins import arm, azure_names, monitor_reference
from penguins.config import Thresholds
from penguins.errors import ServerError
from penguins.online_endpoint import INPUTS, OUTPUTS
from penguins.spec import PENGUINS, Spec

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.ai.ml.constants import MonitorDatasetContext
    from azure.ai.ml.entities import MonitorSchedule

NAME = "penguins-monitor"

TIMEOUT = 600.0


@dataclass(frozen=True)
class Watched:
    """What a schedule watches.

    Data are `azureml:<name>:<version>` or `azureml://` paths. `reference` is what `monitor_reference.register` takes,
    `inputs` is what the endpoint was asked, `outputs` what it answered. The quality of the answers isn't watched:
    Azure's own component takes a high accuracy for a breach and a low one for none.
    """

    deployment: str
    """`<endpoint>:<deployment>`."""
    reference: str
    inputs: str
    outputs: str

    @classmethod
    def collected(cls, endpoint: str, deployment: str, reference: str) -> Watched:
        """What a deployment that collects writes, where Azure puts it by itself."""
        asset = f"azureml:{endpoint}-{deployment}"
        return cls(f"{endpoint}:{deployment}", reference, f"{asset}-{INPUTS}:1", f"{asset}-{OUTPUTS}:1")


def create(
    client: MLClient,
    watched: Watched,
    *,
    name: str = NAME,
    thresholds: Thresholds | None = None,
    spec: Spec = PENGUINS,
    hour: int = 3,
    email: tuple[str, ...] = (),
) -> str:
    """Make the schedule, or change it: every day at `hour` (UTC); the address of the reference in the workspace.

    Raises ParameterError for a name that no schedule, no endpoint or no deployment can have, DataError as
    `monitor_reference.register` does, and ServerError, also where there is no data to watch.
    """
    azure_names.require("schedule", name)
    endpoint, _, deployment = watched.deployment.partition(":")
    azure_names.require("endpoint", endpoint)
    azure_names.require("deployment", deployment)
    for data in (watched.inputs, watched.outputs):
        _require_data(client, data)
    watched = replace(watched, reference=monitor_reference.register(client, watched.reference, spec))
    schedule = definition(watched, name=name, thresholds=thresholds or Thresholds(), spec=spec, hour=hour, email=email)
    with arm.told(name):
        poller = client.schedules.begin_create_or_update(schedule)
    arm.finish(poller, name, TIMEOUT)
    return watched.reference


def disable(client: MLClient, name: str = NAME) -> None:
    """Let the schedule rest; its definition stays as it is, but for a deployment that is gone. Raises ServerError."""
    from azure.core.exceptions import ResourceNotFoundError

    with arm.told(name):
        schedule = client.schedules.get(name)
        # Azure's own `begin_disable` does the same, and ends in an error when the deployment is gone.
        schedule._is_enabled = False
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
        tags=dict(arm.MADE_BY),
    )


def _signals(watched: Watched, thresholds: Thresholds, spec: Spec) -> dict[str, Any]:
    from azure.ai.ml.constants import MonitorDatasetContext
    from azure.ai.ml.entities import DataDriftSignal, DataQualitySignal, PredictionDriftSignal

    # Azure's own default is to measure and to tell nobody.
    told: dict[str, Any] = {"reference_data": _reference(watched.reference), "alert_enabled": True}
    inputs = {"production_data": _production(watched.inputs, MonitorDatasetContext.MODEL_INPUTS), **told}
    inputs["features"] = list(spec.features)
    outputs = {"production_data": _production(watched.outputs, MonitorDatasetContext.MODEL_OUTPUTS), **told}
    return {
        "data_drift": DataDriftSignal(metric_thresholds=_drift(thresholds), **inputs),
        "data_quality": DataQualitySignal(metric_thresholds=_quality(thresholds), **inputs),
        # Of the columns of an answer the reference has the class alone.
        "prediction_drift": PredictionDriftSignal(metric_thresholds=_prediction_drift(thresholds), **outputs),
    }


def _require_data(client: MLClient, data: str) -> None:
    """Raise ServerError when the workspace has no such data; Azure would watch nothing, and say nothing."""
    from azure.core.exceptions import ResourceNotFoundError

    if (named := monitor_reference.ASSET.fullmatch(data)) is None:
        return
    with arm.told(data):
        try:
            client.data.get(named[1], version=named[2])
        except ResourceNotFoundError as error:
            if not arm.is_missing(error):
                raise
            raise ServerError(
                f"There is no {data}: a deployment makes it that collects (`penguins deploy --to azureml`, without "
                "--no-collect); or name other data (--inputs, --outputs)."
            ) from error


def _reference(data: str) -> Any:
    from azure.ai.ml import Input
    from azure.ai.ml.constants import MonitorDatasetContext
    from azure.ai.ml.entities import ReferenceData

    given = Input(type="mltable", path=data)
    return ReferenceData(input_data=given, data_context=MonitorDatasetContext.TRAINING)


def _production(data: str, context: MonitorDatasetContext) -> Any:
    from azure.ai.ml import Input
    from azure.ai.ml.entities import BaselineDataRange, ProductionData

    return ProductionData(
        input_data=Input(type="uri_folder", path=data),
        data_context=context,
        data_window=BaselineDataRange(lookback_window_size="P1D", lookback_window_offset="P0D"),
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
