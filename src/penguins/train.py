"""Train a model: one MLflow run with parameters, metrics, pictures and the model, registered when asked to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from penguins import check, data, evaluate, export, flavor, names, outcome, pipeline, readback, record, registry
from penguins.config import Report, TrainingParameters, silent
from penguins.data import Profile
from penguins.errors import DataError, listed
from penguins.spec import PENGUINS, Spec
from penguins.tracking import Tracking

if TYPE_CHECKING:
    from mlflow.models.signature import ModelSignature
    from pyspark.ml import PipelineModel
    from pyspark.ml.classification import LogisticRegression, LogisticRegressionModel
    from pyspark.sql import DataFrame, SparkSession

EXAMPLE_ROWS = 5

STEPS = (
    "Counting the rows",
    "Fitting the features",
    "Fitting the regression",
    "Evaluating on the test rows",
    "Logging",
)
"""What `train_model` reports, in order; `train_from_source` reports SOURCE_STEPS before."""

SOURCE_STEPS = ("Reading and checking the data", "Splitting into training and test rows")


@dataclass(frozen=True)
class TrainedModel:
    """A finished training run: where it stands in MLflow, and what it measured."""

    run_id: str
    experiment_id: str
    model_uri: str
    registered_model: str | None
    version: int | None
    params: dict[str, int | float]
    metrics: dict[str, float]
    rows: dict[str, int]
    reasons: dict[str, int]
    confusion: evaluate.Confusion
    model: PipelineModel = field(repr=False)
    input_example: Any = field(repr=False)
    """A pandas DataFrame of a few test rows, feature columns only."""
    spec: Spec
    """The table that the model was trained on."""


def warm_up(store: Tracking) -> None:
    """Import what training needs beside Spark, and open the store: seconds that can pass while a JVM starts.

    What goes wrong here goes wrong again, and is told, where it is needed.
    """
    with suppress(Exception):
        for module in ("mlflow.spark", "mlflow.onnx", "matplotlib.figure"):
            import_module(module)
        store.client().search_experiments(max_results=1)


def train_from_source(
    spark: SparkSession,
    source: str | Path,
    parameters: TrainingParameters | None = None,
    *,
    spec: Spec = PENGUINS,
    quarantine: str | Path | None = None,
    report: Report = silent,
    **options: Any,
) -> TrainedModel:
    """Read, check and split the observations at `source`, then `train_model` on them; `options` go there.

    Quarantined rows are counted, and written to the CSV file `quarantine` if one is named.
    Raises DataError, or whatever `train_model` raises.
    """
    parameters = parameters or TrainingParameters()
    record.require_run()
    with split_source(
        spark,
        source,
        parameters.test_fraction,
        parameters.seed,
        spec=spec,
        quarantine=quarantine,
        report=report,
    ) as (training, test, origin):
        return train_model(
            training,
            test,
            max_iter=parameters.max_iter,
            reg_param=parameters.reg_param,
            elastic_net_param=parameters.elastic_net_param,
            spec=spec,
            report=report,
            **origin,
            **options,
        )


@contextmanager
def split_source(
    spark: SparkSession,
    source: str | Path,
    test_fraction: float,
    seed: int,
    *,
    spec: Spec = PENGUINS,
    quarantine: str | Path | None = None,
    report: Report = silent,
) -> Iterator[tuple[DataFrame, DataFrame, dict[str, Any]]]:
    """Read, check and split the observations at `source` for the `with` block: training rows, test rows, origin.

    The origin holds `seed`, `test_fraction`, `source`, `quarantined` and `reasons`, as `train_model` takes them.
    Quarantined rows are written to the CSV file `quarantine` if one is named. Raises DataError.
    """
    report(SOURCE_STEPS[0])
    with check.accepted_rows(spark, source, spec, quarantine) as (accepted, set_aside, reasons):
        report(SOURCE_STEPS[1])
        try:
            training, test = data.split(accepted, test_fraction, seed, spec)
        except DataError as error:
            raise DataError(f"{error}{_set_aside(set_aside, reasons, spec)}") from error
        origin = {"quarantined": set_aside, "reasons": reasons, "source": data.located(source)}
        yield training, test, {"seed": seed, "test_fraction": test_fraction, **origin}


def _set_aside(rows: int, reasons: Mapping[str, int], spec: Spec) -> str:
    """A sentence on the rows that are missing because they were set aside; nothing where none were."""
    if not rows:
        return ""
    why = listed(f"{reason} ({count:,})" for reason, count in reasons.items())
    codes = listed((f"{code} {name}" for code, name in enumerate(spec.classes)), 10)
    named = f" The codes of {spec.label} are {codes}." if any(spec.label in reason for reason in reasons) else ""
    return f" {rows:,} rows were set aside: {why}.{named}"


def train_model(
    training: DataFrame,
    test: DataFrame,
    *,
    max_iter: int = 100,
    reg_param: float = 0.001,
    elastic_net_param: float = 0.0,
    seed: int = 42,
    test_fraction: float | None = None,
    spec: Spec = PENGUINS,
    experiment: str | None = None,
    run_name: str | None = None,
    register_as: str | None = None,
    tags: Mapping[str, str] | None = None,
    description: str | None = None,
    signature: ModelSignature | None = None,
    source: str | None = None,
    quarantined: int = 0,
    reasons: Mapping[str, int] | None = None,
    autolog: bool = False,
    report: Report = silent,
) -> TrainedModel:
    """Fit the pipeline on `training`, evaluate it on `test`, and log both with the model to one MLflow run.

    Both frames hold accepted rows (`data.check`, `data.split`); `seed`, `test_fraction`, `source`, `quarantined`
    and `reasons` say how they came about and are logged, so that the same rows can be made again. The run that is
    active is used, or the one that MLFLOW_RUN_ID names, or a new one in `experiment`. `signature` replaces the
    one inferred from the data. `autolog` lets MLflow's own autologging record the regression's fit as well.

    With `register_as` the model becomes the next version of that registered model, the last thing that happens.
    Raises ParameterError, DataError or StoreError before any run is made; a failure after that ends the run as FAILED
    with the reason in the tag `failure`, and registers nothing. When the store fails after the model is fitted, the
    model is kept in a folder that the StoreError names (`outcome.log_kept` logs it).
    """
    import mlflow

    parameters = TrainingParameters(
        max_iter, reg_param, elastic_net_param, seed, 0.3 if test_fraction is None else test_fraction
    )
    params = parameters.as_mlflow()
    if test_fraction is None:
        del params["testFraction"]
    record.require_run()
    registry.require_name(register_as, tags or {})
    names.require_run(run_name)
    report(STEPS[0])
    profiles = trainable_profiles(training, test, spec)
    rows = {name: profile.rows for name, profile in profiles.items()}
    rows |= {"read": sum(rows.values()) + quarantined, "quarantined": quarantined}

    with record.active_run(experiment, run_name) as run:
        mlflow.log_params(params)
        made_by = record.versions()
        mlflow.set_tags({**made_by, **(tags or {})})
        inputs = {name: record.Input(profile.digest, profile.rows) for name, profile in profiles.items()}
        record.log_inputs(inputs, source)
        report(STEPS[1])
        features = pipeline.fit_features(training, spec)
        report(STEPS[2])
        regression = pipeline.regression_of(
            spec, max_iter=max_iter, reg_param=reg_param, elastic_net_param=elastic_net_param
        )
        with data.cached(pipeline.assemble(features, training, spec)) as assembled:
            model = pipeline.join(features, _fit(regression, assembled, autolog))
        report(STEPS[3])
        scored = model.transform(test)
        confusion = evaluate.confusion(scored, spec)
        onnx_model = export.to_onnx(model, spec)
        metrics = evaluate.metrics(confusion)
        sample = flavor.collect_sample(scored, spec)
        metrics["parityMaxDifference"] = flavor.largest_difference(sample, onnx_model)
        report(STEPS[4])
        example = sample[list(spec.features)].head(EXAMPLE_ROWS)
        summary = outcome.Summary(
            experiment=experiment,
            run_name=run_name,
            params=params,
            tags={**made_by, **(tags or {})},
            source=source,
            inputs=inputs,
            metrics={**metrics, **{f"rows_{name}": count for name, count in rows.items()}},
            register_as=register_as,
            description=description or record.description(metrics, rows, spec),
            version_tags={**record.version_tags(made_by, profiles, metrics), **(tags or {})},
        )
        with outcome.folder(summary) as place:
            record.write_artifacts(place / outcome.ARTIFACTS, model, confusion, spec, reasons or {})
            signature = signature or flavor.infer_signature(onnx_model, example)
            flavor.write(place / outcome.UNFINISHED, model, onnx_model, signature, example)
            readback.require_answers(place / outcome.UNFINISHED, sample, what="The model as written")
            (place / outcome.UNFINISHED).rename(place / outcome.MODEL)
            model_uri, version = outcome.log(place, summary)
    return TrainedModel(
        run_id=run.info.run_id,
        experiment_id=run.info.experiment_id,
        model_uri=model_uri,
        registered_model=register_as,
        version=version,
        params=params,
        metrics=metrics,
        rows=rows,
        reasons=dict(reasons or {}),
        confusion=confusion,
        model=model,
        input_example=example,
        spec=spec,
    )


def trainable_profiles(training: DataFrame, test: DataFrame, spec: Spec = PENGUINS) -> dict[str, Profile]:
    """The profiles of both sets, `training` and `test`.

    Raises DataError when a model can't be made of them, ParameterError when the spec has names that the pipeline needs.
    """
    pipeline.require_names(spec)
    data.require_columns(training, spec.columns, "The training set")
    data.require_columns(test, spec.columns, "The test set")
    profiles = data.profiles({"training": training, "test": test}, spec)
    _require_trainable(profiles)
    return profiles


def _require_trainable(profiles: Mapping[str, Profile]) -> None:
    for name, profile in profiles.items():
        if profile.rows == 0:
            raise DataError(f"The {name} set is empty: it needs rows of every class.")
    training, test = profiles["training"], profiles["test"]
    if missing := [name for name, count in training.classes.items() if count == 0]:
        counts = listed((f"{count} {name}" for name, count in training.classes.items()), 10)
        raise DataError(f"The training set has no {listed(missing)}: it needs rows of every class, but has {counts}.")
    # MLlib would fail on such a row in the middle of the evaluation.
    for name, known in training.categories.items():
        if unseen := test.categories[name] - known:
            raise DataError(
                f"{name} is {listed(sorted(unseen))} in the test set, but only {listed(sorted(known))} in the "
                "training set: give more rows, another seed, or a smaller test fraction."
            )


def _fit(regression: LogisticRegression, assembled: DataFrame, autolog: bool) -> LogisticRegressionModel:
    from mlflow.utils import autologging_utils

    if not autolog:
        # What the caller has switched on would log a model of its own beside ours.
        with autologging_utils.disable_autologging():
            return cast("LogisticRegressionModel", regression.fit(assembled))
    import mlflow.pyspark.ml

    name = mlflow.pyspark.ml.AUTOLOGGING_INTEGRATION_NAME
    before = autologging_utils.AUTOLOGGING_INTEGRATIONS.get(name, {})
    # Only this fit, and only what the run doesn't have yet: the rows, the metrics and the model are logged once, by us.
    mlflow.pyspark.ml.autolog(log_models=False, log_datasets=False, log_post_training_metrics=False, silent=True)
    try:
        return cast("LogisticRegressionModel", regression.fit(assembled))
    finally:
        autologging_utils.AUTOLOGGING_INTEGRATIONS[name] = before
