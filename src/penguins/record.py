"""What a training run leaves in MLflow beside its model: inputs, versions, pictures, words."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from penguins import __version__, dialect, evaluate, plots, process, tracking
from penguins.data import Profile
from penguins.errors import StoppedError, StoreError, first_sentence
from penguins.redaction import without_secrets
from penguins.spec import Spec

if TYPE_CHECKING:
    import mlflow
    from pyspark.ml import PipelineModel
    from pyspark.ml.classification import LogisticRegressionModel


RUN = "MLFLOW_RUN_ID"
"""The variable by which a job's script finds the run of the job."""

PROCESS = "penguins.process"
"""The tag of a run under way that says which process makes it, so that one left behind can be told from it."""

ENDED = {"FINISHED", "FAILED", "KILLED"}


def require_run() -> None:
    """Raise StoreError when MLFLOW_RUN_ID names a run that can't be gone on with; to be asked before any work is done.

    A job's script finds the run of its job there. One that has ended, is deleted, or is another store's was left in
    the environment by mistake, and logging to it would change what is finished.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    run_id = os.environ.get(RUN)
    if not run_id or mlflow.active_run() is not None:
        return
    try:
        info = mlflow.get_run(run_id).info
    except MlflowException as error:
        if error.error_code not in {*dialect.MISSING, dialect.INVALID}:
            raise StoreError(
                f"The run {run_id}, which {RUN} names, can't be asked for: {first_sentence(error)}"
            ) from error
        flaw = f"{without_secrets(mlflow.get_tracking_uri())} doesn't have"
    else:
        if info.lifecycle_stage != "deleted" and info.status not in ENDED:
            return
        flaw = "is deleted" if info.lifecycle_stage == "deleted" else f"has ended ({info.status})"
    raise StoreError(f"{RUN} names the run {run_id}, which {flaw}: unset {RUN}, and a run of its own is made.")


@contextmanager
def active_run(experiment: str | None, run_name: str | None) -> Iterator[mlflow.ActiveRun]:
    """The run to log to: the active one, the one that MLFLOW_RUN_ID names, or a new one in `experiment`.

    A failure within the block leaves its reason in the tag `failure`. A run made here that a person interrupts ends
    as KILLED. Raises StoreError as `require_run` does.
    """
    import mlflow

    if (run := mlflow.active_run()) is not None:
        _sign_again(run)
        with _reason_kept():
            yield run
        return
    require_run()
    if not os.environ.get(RUN):
        with new_run(None if experiment is None else tracking.experiment_id(experiment), run_name) as run:
            yield run
        return
    # A job's run, which is in an experiment already. The job ends it, if this process can't.
    with _ended(mlflow.start_run(run_name=run_name)) as run:
        _sign_again(run)
        yield run


@contextmanager
def new_run(experiment_id: str | None, run_name: str | None) -> Iterator[mlflow.ActiveRun]:
    """A run of its own, whatever MLFLOW_RUN_ID names; nested where a run is active.

    A failure within the block leaves its reason in the tag `failure`; interrupted by a person, it ends as KILLED.
    Raises StoreError when the store makes no run.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    job = os.environ.pop(RUN, None)
    try:
        signed = {PROCESS: process.identity()}
        started = mlflow.start_run(experiment_id=experiment_id, run_name=run_name, nested=True, tags=signed)
    except MlflowException as error:
        raise StoreError(f"No run can be started: {first_sentence(error)}") from error
    finally:
        if job is not None:
            os.environ[RUN] = job
    with _ended(started) as run:
        yield run


def _sign_again(run: mlflow.ActiveRun) -> None:
    """Put this process in the place of the one that made a run, if that was one of this package."""
    import mlflow

    if run.data.tags.get(PROCESS) not in {None, process.identity()}:
        mlflow.set_tag(PROCESS, process.identity())


@contextmanager
def _ended(run: mlflow.ActiveRun) -> Iterator[mlflow.ActiveRun]:
    """End the run after the block: as KILLED if a person interrupted it, as FAILED if it failed.

    A store that is gone doesn't hide the failure. What has ended is no process's any more: whoever goes on with it by
    MLflow's own means isn't taken for one that is gone.
    """
    import mlflow

    client = mlflow.MlflowClient()

    def end(status: str) -> None:
        mlflow.end_run(status)
        if PROCESS in run.data.tags:
            with suppress(Exception):
                client.delete_tag(run.info.run_id, PROCESS)

    try:
        with _reason_kept():
            yield run
    except BaseException as error:
        with suppress(Exception), tracking.impatient():
            end("KILLED" if isinstance(error, KeyboardInterrupt | StoppedError) else "FAILED")
        raise
    end("FINISHED")


@contextmanager
def _reason_kept() -> Iterator[None]:
    """Put the reason of a failure within the block into the tag `failure` of the active run."""
    import mlflow

    try:
        yield
    except BaseException as error:
        # What went wrong is worth more than that the reason couldn't be kept.
        with suppress(Exception), tracking.impatient():
            mlflow.set_tag("failure", first_sentence(error))
        raise


def versions() -> dict[str, str]:
    """The package's version, and the commit of the folder we run in (`-dirty` with changes on top), if it has one."""
    versions = {"penguins.version": __version__}
    with suppress(OSError, subprocess.SubprocessError):
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        versions["git.version"] = described.stdout.strip()
    return versions


METRICS_PER_REQUEST = 1000
"""How many metrics MLflow's server takes at a time."""

LONGEST_METRIC = 250
"""Characters that MLflow takes in a metric's name."""


def metric_names(names: Iterable[str]) -> dict[str, str]:
    """For each name one that MLflow takes for a metric, and no two the same.

    Letters, digits, `_`, `-`, `.`, `:` and the space stay, and anything else becomes `_`. Where that makes one name of
    two, the later one gets a number.
    """
    taken: dict[str, str] = {}
    for name in names:
        safe = re.sub(r"[^\w.\- :]|^\.+$", "_", name)[:LONGEST_METRIC]
        number = 2
        while safe in taken.values():
            end = f"_{number}"
            safe = re.sub(r"(_\d+)?$", end, safe[: LONGEST_METRIC - len(end)], count=1)
            number += 1
        taken[name] = safe
    return taken


def log_metrics(metrics: Mapping[str, float], step: int | None = None) -> None:
    """Log measures to the active run, under names that MLflow takes, the most important first.

    Where the store limits the names of a run's metrics, the last ones are left out, and the tag `metrics_left_out` says
    how many of how many.
    """
    import mlflow

    most = dialect.most_metrics()
    names = metric_names(metrics)
    values = [(names[name], value) for name, value in metrics.items()]
    if most is not None and len(values) > most:
        mlflow.set_tag("metrics_left_out", f"{len(values) - most} of {len(values)}")
        values = values[:most]
    for start in range(0, len(values), METRICS_PER_REQUEST):
        mlflow.log_metrics(dict(values[start : start + METRICS_PER_REQUEST]), step=step)


@dataclass(frozen=True)
class Input:
    """A set of rows as a run names it: what stands for their values, and how many there are."""

    digest: str
    rows: int


def log_inputs(inputs: Mapping[str, Input], source: str | None) -> None:
    """Log sets of rows by name as inputs of the run: where they come from, their digest, their number."""
    import mlflow
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.spark_dataset_source import SparkDatasetSource
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    origin = SparkDatasetSource(path=source) if source else CodeDatasetSource(tags={})
    run = mlflow.active_run()
    assert run is not None
    dialect.log_inputs(
        run.info.run_id,
        [
            DatasetInput(
                Dataset(name, given.digest, origin._get_source_type(), origin.to_json()),
                [InputTag("rows", str(given.rows)), InputTag(MLFLOW_DATASET_CONTEXT, name)],
            )
            for name, given in inputs.items()
        ],
    )


def write_artifacts(
    folder: Path, model: PipelineModel, confusion: evaluate.Confusion, spec: Spec, reasons: Mapping[str, int]
) -> None:
    """Write the pictures, the classification table, and why rows were set aside."""
    matrix = cast("LogisticRegressionModel", model.stages[-1]).coefficientMatrix.toArray()
    plots.confusion_matrix(confusion).savefig(folder / "confusion_matrix.png")
    plots.coefficients(matrix, spec.features, spec.classes).savefig(folder / "coefficients.png")
    (folder / "report.txt").write_text(evaluate.report(confusion), encoding="utf-8")
    (folder / "quarantined.json").write_text(json.dumps(dict(reasons), indent=2), encoding="utf-8")


def description(metrics: Mapping[str, float], rows: Mapping[str, int], spec: Spec) -> str:
    """A sentence about the model for people who see it in the registry."""
    recalls = ", ".join(f"{name} {metrics[f'recall_{name}']:.3f}" for name in spec.classes)
    return (
        f"Logistic regression of {spec.label}, trained on {rows['training']} rows: "
        f"accuracy {metrics['accuracy']:.3f} on {rows['test']} test rows, recall {recalls}."
    )


def version_tags(
    made_by: Mapping[str, str], profiles: Mapping[str, Profile], metrics: Mapping[str, float]
) -> dict[str, str]:
    """What a registered version says of itself: versions, digests of its rows, accuracy.

    No name has a dot, which Unity Catalog doesn't allow.
    """
    digests = {f"digest_{name}": profile.digest for name, profile in profiles.items()}
    made_by = {name.replace(".", "_"): value for name, value in made_by.items()}
    return {**made_by, **digests, "accuracy": f"{metrics['accuracy']:.4f}"}
