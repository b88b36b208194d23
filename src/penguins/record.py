"""What a training run leaves in MLflow beside its model: inputs, versions, pictures, words."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

from penguins import __version__, evaluate, plots, tracking
from penguins.data import Profile
from penguins.errors import first_sentence
from penguins.spec import Spec

if TYPE_CHECKING:
    import mlflow
    from pyspark.ml import PipelineModel
    from pyspark.ml.classification import LogisticRegressionModel


@contextmanager
def active_run(experiment: str | None, run_name: str | None) -> Iterator[mlflow.ActiveRun]:
    """The run to log to: the active one, the one that MLFLOW_RUN_ID names, or a new one in `experiment`.

    A failure within the block leaves its reason in the tag `failure`.
    """
    import mlflow

    with ExitStack() as stack:
        run = mlflow.active_run()
        if run is None:
            # A job's run, which MLFLOW_RUN_ID names, is in an experiment already.
            is_job = "MLFLOW_RUN_ID" in os.environ
            where = None if experiment is None or is_job else tracking.experiment_id(experiment)
            run = stack.enter_context(mlflow.start_run(run_name=run_name, experiment_id=where))
        stack.enter_context(_reason_kept())
        yield run


@contextmanager
def new_run(experiment_id: str, run_name: str) -> Iterator[mlflow.ActiveRun]:
    """A run of its own for a step that isn't training, nested where a run is active.

    A failure within the block leaves its reason in the tag `failure`.
    """
    import mlflow

    with mlflow.start_run(experiment_id=experiment_id, run_name=run_name, nested=True) as run, _reason_kept():
        yield run


@contextmanager
def _reason_kept() -> Iterator[None]:
    """Put the reason of a failure within the block into the tag `failure` of the active run."""
    import mlflow

    try:
        yield
    except BaseException as error:
        # What went wrong is worth more than that the reason couldn't be kept.
        with suppress(Exception):
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


def log_inputs(profiles: Mapping[str, Profile], source: str | None) -> None:
    """Log the training and the test rows as inputs of the run: where they come from, their digest, their number."""
    import mlflow
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.data.spark_dataset_source import SparkDatasetSource

    origin = SparkDatasetSource(path=source) if source else CodeDatasetSource(tags={})
    mlflow.log_inputs(
        datasets=[
            # MLflow leaves a property abstract here that it never calls.
            MetaDataset(origin, name=name, digest=profile.digest)  # type: ignore[abstract]
            for name, profile in profiles.items()
        ],
        contexts=list(profiles),
        tags_list=[{"rows": str(profile.rows)} for profile in profiles.values()],
    )


def log_artifacts(model: PipelineModel, confusion: evaluate.Confusion, spec: Spec, reasons: dict[str, int]) -> None:
    """Log the pictures, the classification table, and why rows were set aside."""
    import mlflow

    matrix = cast("LogisticRegressionModel", model.stages[-1]).coefficientMatrix.toArray()
    with tempfile.TemporaryDirectory() as folder:
        plots.confusion_matrix(confusion).savefig(Path(folder, "confusion_matrix.png"))
        plots.coefficients(matrix, spec.features, spec.classes).savefig(Path(folder, "coefficients.png"))
        Path(folder, "report.txt").write_text(evaluate.report(confusion))
        Path(folder, "quarantined.json").write_text(json.dumps(reasons, indent=2))
        mlflow.log_artifacts(folder)


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
