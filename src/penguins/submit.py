"""Train on a compute of an Azure Machine Learning workspace: the command of a laptop, as a job; or that job, here."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penguins import arm, azure_names, azureml
from penguins.config import DEFAULT_DATA, DEFAULT_EXPERIMENT, DEFAULT_MODEL, TrainingParameters
from penguins.errors import DataError, ModelError, ParameterError, ServerError, StoppedError
from penguins.tracking import Tracking, experiment_id, impatient

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import Environment, Job

COMMAND = (
    "python -m penguins train --data ${{inputs.data}} --max-iter ${{inputs.max_iter}} "
    "--reg-param ${{inputs.reg_param}} --elastic-net-param ${{inputs.elastic_net_param}} "
    "--seed ${{inputs.seed}} --test-fraction ${{inputs.test_fraction}} "
    "--experiment ${{inputs.experiment}} --register-as ${{inputs.register_as}}"
)
"""What a job runs; Azure, or `run_here`, puts the inputs in."""

ENVIRONMENT = "penguins-training"

EXTRAS = ("local", "azureml")
"""What a machine needs that has neither Spark nor Java, and tracks in a workspace."""

DOCKERFILE = """\
FROM python:{python}-slim
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
"""

DONE, STOPPED = "Completed", {"Canceled", "CancelRequested"}

UNDER_WAY = {"NotStarted", "Queued", "Preparing", "Provisioning", "Starting", "Running", "Finalizing"}
"""The states of a job that will have another one."""


@dataclass(frozen=True)
class Training:
    """What a job is to train on and with."""

    data: str = DEFAULT_DATA
    """A file or a folder here, which is uploaded, or one in Azure: `azureml:<name>:<version>`, `azureml://…`."""
    parameters: TrainingParameters = field(default_factory=TrainingParameters)
    experiment: str = DEFAULT_EXPERIMENT
    register_as: str = DEFAULT_MODEL
    tags: Mapping[str, str] = field(default_factory=dict)

    def inputs(self) -> dict[str, str | int | float]:
        """The values of the command's inputs, but for the data."""
        return {
            "max_iter": self.parameters.max_iter,
            "reg_param": self.parameters.reg_param,
            "elastic_net_param": self.parameters.elastic_net_param,
            "seed": self.parameters.seed,
            "test_fraction": self.parameters.test_fraction,
            "experiment": self.experiment,
            "register_as": self.register_as,
        }


def submit(client: MLClient, training: Training, compute: str) -> Job:
    """Send the training to a compute of the workspace, and return the job, which has not run then.

    The job gets this package's code as it is here, the data, and an image with the versions that are installed here; it
    tracks to the workspace by itself. Raises ServerError when the workspace refuses, ParameterError when there is no
    such compute or a name that Azure doesn't take, DataError when there is no such file.
    """
    azure_names.require("experiment", training.experiment)
    azure_names.require("model", training.register_as)
    data = arm.data(client, training.data)
    require_compute(client, compute)
    with _code() as code, _image() as environment, arm.told("The job"):
        job: Job = client.jobs.create_or_update(_job(training, compute, data, code, environment))
    return job


def follow(client: MLClient, name: str) -> None:
    """Print a job's log until the job has ended.

    Raises ServerError when it failed, StoppedError when it was cancelled, KeyboardInterrupt when a person stops
    looking, while the job goes on.
    """
    from azure.ai.ml.exceptions import JobException

    with arm.told(name):
        try:
            client.jobs.stream(name)
        except JobException as error:
            # The client makes a failure of its own of Ctrl-C.
            if isinstance(error.__cause__, KeyboardInterrupt):
                raise KeyboardInterrupt from error
        # The log ends with the command; after that the job keeps what the command wrote, and may still fail.
        while (status := arm.word(client.jobs.get(name).status)) in UNDER_WAY:
            time.sleep(arm.ASK_EVERY)
    if status in STOPPED:
        raise StoppedError(f"The job {name} was cancelled.")
    if status != DONE:
        raise ServerError(f"The job {name} ended as {status}: its log says why.")


def cancel(client: MLClient, name: str) -> None:
    """End a job, and wait until it has ended. Raises ServerError."""
    with arm.told(name):
        poller = client.jobs.begin_cancel(name)
    arm.finish(poller, name, 600.0)


def run_here(training: Training, store: Tracking) -> str:
    """Run what the job would run as a process here, with a job's variables, and return its run's id.

    As in a job, the run is there before the command starts, and MLFLOW_RUN_ID names it; it has ended when this returns
    or raises. The command's output goes to stderr. Raises DataError when there is no such file, ModelError when the
    command fails.
    """
    if not Path(training.data).exists():
        raise DataError(f"There is no {training.data} here: a run on this machine needs a file or a folder.")
    store.activate()
    client = store.client()
    run = client.create_run(experiment_id(training.experiment), tags={**arm.MADE_BY, **training.tags})
    run_id = str(run.info.run_id)
    values = {"data": str(Path(training.data).resolve()), **training.inputs()}
    variables = {**os.environ, **_as_in_a_job(store, str(run.info.experiment_id), run_id)}
    status = "FAILED"
    try:
        with _code() as code:
            ended = subprocess.run(_here(COMMAND, values), cwd=code, env=variables, stdout=sys.__stderr__)
        if ended.returncode == 0:
            status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        # A command that failed early has not met its run, and in a workspace it leaves its run for the job to end.
        # A store that has gone meanwhile doesn't hide how that ended.
        with contextlib.suppress(Exception), impatient():
            if client.get_run(run_id).info.status == "RUNNING":
                client.set_terminated(run_id, status)
    if ended.returncode != 0:
        raise ModelError(f"The training ended with exit code {ended.returncode}: what it said stands above.")
    return run_id


def _job(training: Training, compute: str, data: Any, code: Path, environment: Environment) -> Any:
    from azure.ai.ml import command

    return command(
        command=COMMAND,
        code=str(code),
        inputs={"data": data, **training.inputs()},
        environment=environment,
        # Without these the plugin looks for a person to sign in, and for the cloud's metadata.
        environment_variables={
            "AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential",
            "AZUREML_CURRENT_CLOUD": os.environ.get("AZUREML_CURRENT_CLOUD", "AzureCloud"),
        },
        compute=compute,
        experiment_name=training.experiment,
        display_name="penguins train",
        tags={**arm.MADE_BY, **training.tags},
    )


def require_compute(client: MLClient, compute: str) -> None:
    """Raise ParameterError when the workspace has no such compute, with the names of those that it has."""
    with arm.told("The workspace"):
        names = sorted(str(one.name) for one in client.compute.list())
    if compute not in names:
        there = f"there are {', '.join(names)}" if names else "it has none"
        raise ParameterError(f"The workspace has no compute {compute}: {there}; make one in the studio (--compute).")


@contextlib.contextmanager
def _code() -> Iterator[Path]:
    """A folder with this package alone, from which `python -m penguins` runs; gone after the block."""
    with tempfile.TemporaryDirectory() as folder:
        without = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(__file__).parent, Path(folder, "code", "penguins"), ignore=without)
        yield Path(folder, "code")


@contextlib.contextmanager
def _image() -> Iterator[Environment]:
    """What the job runs in: the Python and the versions of all packages that run here; gone after the block."""
    from azure.ai.ml.entities import BuildContext, Environment

    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder, "context")
        context.mkdir()
        (context / "requirements.txt").write_text("\n".join(installed()) + "\n", encoding="utf-8")
        (context / "Dockerfile").write_text(
            DOCKERFILE.format(python=".".join(map(str, sys.version_info[:2]))), encoding="utf-8"
        )
        digest = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(context.iterdir()))).hexdigest()
        yield Environment(
            name=ENVIRONMENT,
            version=digest[:12],
            build=BuildContext(path=str(context), dockerfile_path="Dockerfile"),
            tags=dict(arm.MADE_BY),
        )


def installed() -> list[str]:
    """The packages that this one needs for training in a workspace, each as `name==version`, as they are here.

    Raises ParameterError when one of them isn't installed.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: dict[str, str] = {}
    wanted = [Requirement(f"penguins[{','.join(EXTRAS)}]")]
    seen: set[tuple[str, str]] = set()
    while wanted:
        one = wanted.pop()
        name = canonicalize_name(one.name)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError as error:
            raise ParameterError(
                f"{one.name} isn't installed here, and a job needs it: run `pip install "
                f'"penguins[{",".join(EXTRAS)}]"`.'
            ) from error
        if name != "penguins":
            found[name] = distribution.version
        for extra in ("", *one.extras):
            if (name, extra) not in seen:
                seen.add((name, extra))
                requirements = [Requirement(line) for line in distribution.requires or []]
                wanted += [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": extra})]
    return sorted(f"{name}=={version}" for name, version in found.items())


def _here(command: str, values: Mapping[str, object]) -> list[str]:
    """The command's words with the inputs put in, and this Python."""
    filled = re.sub(r"\$\{\{inputs\.(\w+)\}\}", lambda found: shlex.quote(str(values[found[1]])), command)
    _, *words = shlex.split(filled)
    return [sys.executable, *words]


def _as_in_a_job(store: Tracking, experiment: str, run_id: str) -> dict[str, str]:
    """The variables by which a job's process knows where it tracks, and which run is its own.

    Who asks stays as it is here: a job has a token of its own for that.
    """
    return {
        "MLFLOW_TRACKING_URI": store.tracking_uri,
        "MLFLOW_REGISTRY_URI": store.registry_uri or store.tracking_uri,
        "MLFLOW_EXPERIMENT_ID": experiment,
        "MLFLOW_RUN_ID": run_id,
        "AZUREML_RUN_ID": run_id,
        **azureml.variables(store.tracking_uri),
    }
