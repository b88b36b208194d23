"""Tune a model: one MLflow run with a nested run per trial, and the best parameters trained on all training rows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penguins import data, dialect, evaluate, names, pipeline, plots, process, record, registry, train
from penguins.config import Report, SearchParameters, SearchSpace, TrainingParameters, silent
from penguins.errors import ModelError, StoppedError
from penguins.search import INTERRUPTED, Trial, best_of, search
from penguins.spec import PENGUINS, Spec
from penguins.train import TrainedModel

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import ActiveRun, MlflowClient
    from mlflow.entities import Run
    from pyspark.sql import DataFrame, SparkSession

OBJECTIVE = "validation_balancedLogLoss"
"""What a search makes small. On a few dozen validation rows most trials have the same accuracy; the log loss tells
them apart, and balanced it counts the smallest class as much as the others."""

VALIDATION_PARTS = 4
"""Without folds the training rows are cut into so many parts, and one of them validates."""

STEPS = ("Preparing the search", "Searching")
"""What `tune_model` reports before the steps of `train_model`; `tune_from_source` reports SOURCE_STEPS before."""

OnTrial = Callable[[Trial, Trial | None], None]
"""Called with each trial as it ends, and with the best one so far, so that progress can be shown."""


def ignore(trial: Trial, best: Trial | None) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class TunedModel:
    """A finished search: its run in MLflow, every trial, and the model trained with the best parameters."""

    run_id: str
    experiment_id: str
    best: Trial
    trials: tuple[Trial, ...]
    ended: str
    """`finished`, `timed out` or `interrupted`."""

    trained: TrainedModel = field(repr=False)
    objective: str = OBJECTIVE

    @property
    def params(self) -> dict[str, int | float]:
        """The best parameters, under MLlib's names."""
        return self.best.params

    @property
    def value(self) -> float:
        """The best trial's objective: the balanced log loss on the validation rows."""
        return self.best.metrics[self.objective]

    @property
    def history(self) -> dict[int, float]:
        """The objective of each trial that finished, by the trial's number."""
        return {trial.number: trial.value for trial in self.trials if trial.value is not None}

    def table(self) -> pd.DataFrame:
        """One row per trial: number, parameters, measures on the validation rows, seconds, failure."""
        return _table(self.trials)


def tune_from_source(
    spark: SparkSession,
    source: str | Path,
    settings: SearchParameters | None = None,
    *,
    spec: Spec = PENGUINS,
    quarantine: str | Path | None = None,
    report: Report = silent,
    **options: Any,
) -> TunedModel:
    """Read, check and split the observations at `source`, then `tune_model` on them; `options` go there.

    Quarantined rows are counted, and written to the CSV file `quarantine` if one is named.
    Raises DataError, or whatever `tune_model` raises.
    """
    settings = settings or SearchParameters()
    record.require_run()
    with train.split_source(
        spark,
        source,
        settings.test_fraction,
        settings.seed,
        spec=spec,
        quarantine=quarantine,
        report=report,
    ) as (training, test, origin):
        return tune_model(
            training,
            test,
            trials=settings.trials,
            timeout=settings.timeout,
            parallelism=settings.parallelism,
            folds=settings.folds,
            space=settings.space,
            spec=spec,
            report=report,
            **origin,
            **options,
        )


def tune_model(
    training: DataFrame,
    test: DataFrame,
    *,
    trials: int = 20,
    timeout: float | None = None,
    parallelism: int = 1,
    folds: int | None = None,
    space: SearchSpace | None = None,
    seed: int = 42,
    test_fraction: float | None = None,
    spec: Spec = PENGUINS,
    experiment: str | None = None,
    run_name: str | None = None,
    register_as: str | None = None,
    tags: Mapping[str, str] | None = None,
    source: str | None = None,
    quarantined: int = 0,
    reasons: Mapping[str, int] | None = None,
    report: Report = silent,
    on_trial: OnTrial = ignore,
) -> TunedModel:
    """Search parameters on the training rows, train with the best, and log it all to one MLflow run with nested runs.

    Trials are compared by their balanced log loss (`evaluate.confusion_and_loss`) on a validation part of `training`,
    or on each of `folds` parts; `test` serves nothing but the evaluation of the model that is trained at the end, by
    `train_model`, in a nested run `best` like any training run. Both frames and `seed`, `test_fraction`, `source`,
    `quarantined` and `reasons` are as `train_model` takes them. `timeout` (seconds) begins no further trial;
    Ctrl-C ends the trial that is under way; in both cases the best trial so far is trained, logged and registered.

    Raises ParameterError or DataError before any run is made, StoppedError when there was no trial to keep (the run
    then ends as KILLED), ModelError when every trial failed, and whatever `train_model` raises.
    """
    import mlflow

    settings = SearchParameters(
        *(trials, timeout, parallelism, seed),
        test_fraction=0.3 if test_fraction is None else test_fraction,
        folds=folds,
        space=space or SearchSpace(),
    )
    record.require_run()
    registry.require_name(register_as, tags or {})
    names.require_run(run_name)
    report(STEPS[0])
    profiles = train.trainable_profiles(training, test, spec)
    assembled = _assembled(training, settings, spec)
    with record.active_run(experiment, run_name) as run:
        params = settings.as_mlflow()
        if test_fraction is None:
            del params["testFraction"]
        mlflow.log_params(params)
        mlflow.set_tags({**record.versions(), **(tags or {}), "objective": OBJECTIVE})
        training_rows = profiles["training"]
        record.log_inputs({"training": record.Input(training_rows.digest, training_rows.rows)}, source)
        with data.cached(assembled):
            tried, ended = _search(assembled, settings, spec, run, report, on_trial)
        best = _best(tried, ended, settings)
        _log_search(tried, best, ended)
        with record.new_run(run.info.experiment_id, "best"):
            trained = train.train_model(
                training,
                test,
                **_as_arguments(best),
                seed=seed,
                test_fraction=test_fraction,
                spec=spec,
                # Its run is active already; this is for `penguins log`, should the store be gone by then.
                experiment=experiment,
                register_as=register_as,
                tags={**(tags or {}), **_search_tags(run.info.run_id, best, len(tried))},
                source=source,
                quarantined=quarantined,
                reasons=reasons,
                report=report,
            )
    return TunedModel(run.info.run_id, run.info.experiment_id, best, tried, ended, trained)


def measure(assembled: DataFrame, parameters: TrainingParameters, spec: Spec, folds: int) -> dict[str, float]:
    """Fit the regression beside each of the first `folds` folds, predict that fold, and measure all predictions.

    `assembled` has the columns `Features`, `_fold` and the label. Returns the measures of `evaluate.metrics` and the
    balanced log loss, each with the prefix `validation_`: they are no test measures, and can't be taken for such.
    """
    regression = pipeline.regression_of(
        spec,
        max_iter=parameters.max_iter,
        reg_param=parameters.reg_param,
        elastic_net_param=parameters.elastic_net_param,
    )
    predicted = [
        regression.fit(assembled.where(assembled[data.FOLD] != fold)).transform(
            assembled.where(assembled[data.FOLD] == fold)
        )
        for fold in range(folds)
    ]
    confusion, loss = evaluate.confusion_and_loss(reduce(lambda above, below: above.union(below), predicted), spec)
    return {OBJECTIVE: loss, **{f"validation_{name}": value for name, value in evaluate.metrics(confusion).items()}}


def _assembled(training: DataFrame, settings: SearchParameters, spec: Spec) -> DataFrame:
    """What every trial is measured on: the features that the final model has as well, and each row's fold.

    The feature stages are fitted once, on all training rows: they learn which categories there are and the range of
    each number, and nothing of the label.
    """
    folded = data.with_folds(training, settings.folds or VALIDATION_PARTS, settings.folds or 1, settings.seed, spec)
    return pipeline.assemble(pipeline.fit_features(training, spec), folded, spec, data.FOLD)


def _search(
    assembled: DataFrame, settings: SearchParameters, spec: Spec, run: ActiveRun, report: Report, on_trial: OnTrial
) -> tuple[tuple[Trial, ...], str]:
    import mlflow

    client = mlflow.MlflowClient()
    kept: list[Trial] = []

    def keep(trial: Trial) -> None:
        _log_trial(client, run, trial)
        kept.append(trial)
        on_trial(trial, best_of(kept))

    try:
        report(STEPS[1])
        tried, ended = search(
            lambda parameters: measure(assembled, parameters, spec, settings.folds or 1),
            settings,
            objective=OBJECTIVE,
            keep=keep,
        )
    except KeyboardInterrupt:
        # It came before the search was under way, or when it was over.
        tried, ended = tuple(sorted(kept, key=lambda trial: trial.number)), INTERRUPTED
    if ended == INTERRUPTED:
        _end_trials_cut_short(client, run)
    return tried, ended


def _log_trial(client: MlflowClient, run: Run, trial: Trial) -> None:
    """Keep a trial as a nested run: a few calls, and by its id, since trials may end in threads of their own."""
    from mlflow.entities import Metric, Param, RunTag

    began, ended = (int(seconds * 1e3) for seconds in (trial.began, trial.began + trial.seconds))
    ours = ("mlflow.user", "mlflow.source.")
    tags = {key: value for key, value in run.data.tags.items() if key.startswith(ours)}
    nested = client.create_run(
        run.info.experiment_id,
        start_time=began,
        tags={**tags, "mlflow.parentRunId": run.info.run_id, record.PROCESS: process.identity()},
        run_name=f"trial {trial.number}",
    )
    names = record.metric_names(trial.metrics)
    client.log_batch(
        nested.info.run_id,
        metrics=[Metric(names[name], value, ended, 0) for name, value in trial.metrics.items()][
            : dialect.most_metrics()
        ],
        params=[Param(name, str(value)) for name, value in trial.params.items()],
        tags=[] if trial.failure is None else [RunTag("failure", trial.failure)],
    )
    client.set_terminated(nested.info.run_id, "FINISHED" if trial.failure is None else "FAILED", ended)
    client.delete_tag(nested.info.run_id, record.PROCESS)


def _end_trials_cut_short(client: MlflowClient, run: Run) -> None:
    """End nested runs that an interruption left half-written."""
    filter_string = f"tags.`mlflow.parentRunId` = '{run.info.run_id}' and attributes.status = 'RUNNING'"
    experiment = [run.info.experiment_id]
    for nested in dialect.every(lambda token: client.search_runs(experiment, filter_string, page_token=token)):
        client.set_terminated(nested.info.run_id, "KILLED")


def _best(trials: tuple[Trial, ...], ended: str, settings: SearchParameters) -> Trial:
    best = best_of(trials)
    if best is not None:
        return best
    if ended == INTERRUPTED:
        raise StoppedError("The search was interrupted before a trial had finished: there is nothing to keep.")
    if not trials:
        raise ModelError(f"No trial began within {settings.timeout:g} seconds: give a longer timeout.")
    raise ModelError(f"Every trial failed ({len(trials)}), the first one with: {trials[0].failure}")


def _log_search(trials: tuple[Trial, ...], best: Trial, ended: str) -> None:
    """Log to the active run: the best trial's measures, how many trials there were, their table and pictures."""
    import mlflow

    finished = {trial.number: trial.value for trial in trials if trial.value is not None}
    counts = {"trials_finished": len(finished), "trials_failed": len(trials) - len(finished)}
    record.log_metrics({**counts, **best.metrics})
    mlflow.set_tags({"search_ended": ended, "search_best_trial": str(best.number)})
    columns = {name: [trial.params[name] for trial in trials if trial.value is not None] for name in best.params}
    with tempfile.TemporaryDirectory() as folder:
        _table(trials).to_csv(Path(folder, "trials.csv"), index=False)
        plots.search_history(finished, OBJECTIVE).savefig(Path(folder, "search_history.png"))
        plots.search_slices(columns, list(finished.values()), OBJECTIVE).savefig(Path(folder, "search_slices.png"))
        mlflow.log_artifacts(folder)


def _search_tags(run_id: str, best: Trial, trials: int) -> dict[str, str]:
    """What the trained run and its version say of the search they come from."""
    return {
        "search_run_id": run_id,
        "search_trial": str(best.number),
        "search_trials": str(trials),
        f"search_{OBJECTIVE}": f"{best.metrics[OBJECTIVE]:.6f}",
    }


def _as_arguments(best: Trial) -> dict[str, Any]:
    names = {"maxIter": "max_iter", "regParam": "reg_param", "elasticNetParam": "elastic_net_param"}
    return {names[name]: value for name, value in best.params.items()}


def _table(trials: tuple[Trial, ...]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        [
            {"trial": trial.number, **trial.params, **trial.metrics, "seconds": trial.seconds, "failure": trial.failure}
            for trial in trials
        ]
    )
