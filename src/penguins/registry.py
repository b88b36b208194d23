"""Model versions: register one, find one, copy one to another store."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penguins import azureml, dialect, integrity, names, readback, record
from penguins.config import CHAMPION, DEFAULT_EXPERIMENT
from penguins.errors import ModelError, PenguinsError, StoreError, first_sentence
from penguins.tracking import Tracking, experiment_id

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import Model


ARTIFACTS = "artifacts"
"""The output of a job of Azure Machine Learning that is what the job's run keeps."""

OUTPUT = re.compile(r"azureml://jobs/(?P<job>[^/]+)/outputs/(?P<output>[^/]+)(/(paths(/|$))?(?P<path>.*))?")

LONGEST_TAG = 250
"""Characters; Unity Catalog takes 256 in a tag's value, and no dot in its name."""


@dataclass(frozen=True)
class Version:
    """A version of a registered model, by its number: an alias may move while one works with it."""

    name: str
    number: int

    @property
    def uri(self) -> str:
        """What MLflow loads it by."""
        return f"models:/{self.name}/{self.number}"


def resolve(model: str) -> Version:
    """The version that `models:/name@alias` or `models:/name/number` stands for at this moment, in the active store.

    Raises ModelError when there is no such model, alias or version, or the version isn't ready; StoreError when the
    registry can't be asked.
    """
    parts = re.fullmatch(r"models:/(?P<name>[^@/]+)(@(?P<alias>[^@/]+)|/(?P<number>\d+))", model)
    if parts is None:
        raise ModelError(f"{model} names no version: give models:/name@alias or models:/name/number.")
    name, alias, number = parts["name"], parts["alias"], parts["number"]
    with asking(name):
        number = dialect.marked(name, alias) if alias else number
    if number is not None and (found := _found(name, str(number))) is not None:
        _require_ready(found)
        return Version(name, int(found.version))
    if alias and number is not None:
        promote = "`penguins promote --replace-broken-champion` makes another version champion"
        way_on = promote if alias == CHAMPION else "give it to another one"
        raise ModelError(f"The alias {alias} of {name} is that of version {number}, which is deleted: {way_on}.")
    raise ModelError(
        f"{name} doesn't have {f'the alias {alias}' if alias else f'a version {number}'}: "
        "`penguins train` makes a version, `penguins promote` the champion."
    )


def _found(name: str, number: str) -> ModelVersion | None:
    """The version of that number; None when the model has none. Raises ModelError when there is no such model."""
    import mlflow
    from mlflow.exceptions import MlflowException

    client = mlflow.MlflowClient()
    with asking(name):
        try:
            return client.get_model_version(name, number)
        except MlflowException as error:
            if error.error_code not in dialect.MISSING or not dialect.has_model(name):
                raise
    return None


def _require_ready(version: ModelVersion) -> None:
    """Raise ModelError when the registry is still making the version, or couldn't."""
    status, what = str(version.status), f"Version {version.version} of {version.name}"
    if status.startswith("PENDING"):
        raise ModelError(f"{what} isn't there yet ({status}): try again when the registry has all its files.")
    if _has_failed(version):
        reason = f": {version.status_message}" if version.status_message else ""
        raise ModelError(f"{what} has no files ({status}{reason}): register the model of its run again.")


def _has_failed(version: ModelVersion) -> bool:
    return str(version.status).startswith("FAILED")


def version_or_champion(name: str, number: str | int | None = None) -> Version:
    """The version of that number, or the champion without one. Raises ModelError and StoreError as `resolve` does."""
    return resolve(f"models:/{name}/{number}" if number else f"models:/{name}@{CHAMPION}")


def newest(name: str) -> Version:
    """The latest version of a registered model, but for those that couldn't be registered.

    Raises ModelError when it has none, StoreError as `resolve` does.
    """
    with asking(name):
        numbers = [int(found.version) for found in dialect.versions(name) if not _has_failed(found)]
    if not numbers:
        raise ModelError(f"There is no version of {name}: `penguins train` makes one.")
    return Version(name, max(numbers))


def describe(version: Version, tags: Mapping[str, str], *, in_place_of: str | None = None) -> None:
    """Put tags on a version; values are cut to what every registry takes.

    Other tags whose names begin with `in_place_of` are from an earlier time, and go.
    """
    import mlflow

    client = mlflow.MlflowClient()
    if in_place_of is not None:
        for key in client.get_model_version(version.name, str(version.number)).tags:
            if key.startswith(in_place_of) and key not in tags:
                client.delete_model_version_tag(version.name, str(version.number), key)
    for key, value in tags.items():
        shown = value if len(value) <= LONGEST_TAG else f"{value[: LONGEST_TAG - 3]}..."
        client.set_model_version_tag(version.name, str(version.number), key, shown)


@contextmanager
def asking(name: str) -> Iterator[None]:
    """Turn what the registry says within the block into one sentence about the model `name`."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code in dialect.MISSING and not dialect.has_model(name):
            raise ModelError(f"There is no registered model {name}: `penguins train` makes one.") from error
        raise StoreError(f"The model registry can't be asked for {name}: {first_sentence(error)}") from error


def require_name(name: str | None, tags: Iterable[str] = ()) -> None:
    """Raise ParameterError when the registry in use has no room for a model of this name, or for tags of these names.

    None stands for no registration.
    """
    import mlflow

    if name is not None:
        names.require_model(name, mlflow.get_registry_uri())
        names.require_tags(tags, mlflow.get_registry_uri())


def register(
    model_uri: str,
    name: str,
    *,
    description: str = "",
    tags: Mapping[str, str] | None = None,
) -> int:
    """Make a logged model the next version of the registered model `name`, and return the version number.

    `name` may have three levels, `catalog.schema.model`, as in Unity Catalog.
    Raises StoreError when the registry refuses.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    require_name(name, tags or {})
    before: set[str] | None = None
    try:
        with dialect.registered(name):
            before = {found.version for found in dialect.versions(name)}
            if dialect.has_logged_models():
                number = mlflow.register_model(model_uri, name, tags=dict(tags or {})).version
            else:
                number = dialect.create_version(model_uri, name, tags or {}).version
    except MlflowException as error:
        if (made := _made_anyway(model_uri, name, before)) is None:
            raise StoreError(f"The model can't be registered as {name}: {_refusal(error, model_uri, name)}") from error
        number = made
    if description:
        # A version without a description is worth more than an error that has it made once again.
        with suppress(MlflowException):
            mlflow.MlflowClient().update_model_version(name, number, description)
    return int(number)


def _made_anyway(model_uri: str, name: str, before: set[str] | None) -> str | None:
    """The version that was made of the model although its registration failed: the answer got lost, or a later step.

    Registering it once more would make a second one. `before` are the versions that were there already; None when it
    failed before they were known, and then it made none.
    """
    from mlflow.exceptions import MlflowException

    if before is None:
        return None
    origin = model_uri.split("/")[1]
    with suppress(MlflowException):
        for found in dialect.versions(name):
            made_of = {found.run_id, getattr(found, "model_id", None), *(found.source or "").split("/")}
            is_ready = not str(found.status).startswith(("PENDING", "FAILED"))
            if found.version not in before and origin in made_of and is_ready:
                return str(found.version)
    return None


def _refusal(error: Exception, model_uri: str, name: str) -> str:
    """Why a model can't be registered, and what registers it later: the run that keeps it."""
    import mlflow
    from mlflow.exceptions import MlflowException

    reason, run_id = first_sentence(error), model_uri.split("/")[1]
    with suppress(MlflowException):
        if model_uri.startswith("models:/"):
            run_id = mlflow.get_logged_model(run_id).source_run_id or ""
        mlflow.get_run(run_id)
        command = shlex.join(["penguins", "register", run_id, "--register-as", name])
        return f"{reason.rstrip('.')}; the run {run_id} has it, and `{command}` registers it."
    return reason


def register_run(
    run: str, name: str, *, description: str = "", tags: Mapping[str, str] | None = None
) -> tuple[str, Version]:
    """Make the model of a run the next version of `name`: run, version.

    `run` is its id, or `runs:/<id>/<path>`. Raises ModelError when there is no such run, it has no such model, or that
    can't be loaded and asked (`readback.require_answers`), StoreError when the registry refuses.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    require_name(name, tags or {})
    run_id, _, path = run.removeprefix("runs:/").rstrip("/").partition("/")
    try:
        mlflow.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in {*dialect.MISSING, dialect.INVALID}:
            raise StoreError(f"The run {run_id} can't be asked for: {first_sentence(error)}") from error
        raise ModelError(f"There is no run {run_id}, and no folder of that name: give one of them.") from error
    model_uri = f"runs:/{run_id}/{path or dialect.MODEL}"
    # Before a name is made for it: MLflow would leave that behind without a version.
    with integrity.checked_copy(model_uri) as folder:
        readback.require_answers(folder, what=model_uri)
        tags = {**(tags or {}), integrity.TAG: integrity.digest(folder)}
    return run_id, Version(name, register(model_uri, name, description=description, tags=tags))


def register_output(
    place: str, name: str, *, custom: bool = False, description: str = "", tags: Mapping[str, str] | None = None
) -> tuple[str, Version]:
    """Make an output of an Azure Machine Learning job the next version of `name`: the job, which is a run, and version.

    `place` is `azureml://jobs/<job>/outputs/<output>/paths/<path>`; the output `artifacts` is what the job's run
    keeps, others have names of their own. With `custom` any files do, of which MLflow knows nothing.
    Raises ModelError for another form or another store, ServerError when the workspace refuses, and what
    `register_run` raises.
    """
    import mlflow

    require_name(name, tags or {})
    if (parts := OUTPUT.fullmatch(place)) is None:
        raise ModelError(f"{place} is no output of a job: give azureml://jobs/<job>/outputs/<output>/paths/<path>.")
    if dialect.has_logged_models():
        raise ModelError(f"Only Azure Machine Learning knows {place}: name such a workspace (--tracking-uri azureml).")
    job, output, path = parts["job"], parts["output"], (parts["path"] or "").strip("/")
    if output == ARTIFACTS and not custom:
        return register_run(f"runs:/{job}/{path}", name, description=description, tags=tags)
    workspace = azureml.Workspace.of(mlflow.get_registry_uri())
    number = azureml.register_output(
        workspace,
        f"azureml://jobs/{job}/outputs/{output}/paths/{path}",
        name,
        kind="custom_model" if custom else "mlflow_model",
        description=description,
        tags=tags,
    )
    return job, Version(name, number)


def register_folder(
    folder: str | Path,
    name: str,
    *,
    experiment: str | None = DEFAULT_EXPERIMENT,
    description: str = "",
    tags: Mapping[str, str] | None = None,
) -> tuple[str, Version]:
    """Log a model folder to a run of its own in `experiment`, and make it the next version of `name`: run, version.

    The folder is what `flavor.save` or any MLflow flavor has saved. Raises ModelError when it holds no MLflow model, or
    one that can't be loaded and asked (`readback.require_answers`), StoreError when it can't be logged or registered;
    the run then ends as FAILED.
    """
    require_name(name, tags or {})
    if not Path(folder, "MLmodel").is_file():
        raise ModelError(f"{folder} holds no MLflow model: it must be a folder with a file MLmodel.")
    with integrity.checked_copy(str(folder)) as copy:
        # What was asked is what is logged, whatever happens to the folder meanwhile.
        readback.require_answers(copy, what=str(folder))
        tags = {**(tags or {}), integrity.TAG: integrity.digest(copy)}
        with _run_for(folder, name, experiment) as run_id:
            return run_id, Version(name, register(log_folder(str(copy)), name, description=description, tags=tags))


def register_files(
    folder: str | Path,
    name: str,
    *,
    experiment: str | None = DEFAULT_EXPERIMENT,
    description: str = "",
    tags: Mapping[str, str] | None = None,
) -> tuple[str, Version]:
    """Like `register_folder`, for any files: a custom model, which Azure Machine Learning alone knows.

    Raises ModelError for an empty folder or another store, StoreError as `register_folder` does.
    """
    import mlflow

    require_name(name, tags or {})
    if dialect.has_logged_models():
        raise ModelError("Only Azure Machine Learning registers files that are no MLflow model: use such a workspace.")
    if not any(path.is_file() for path in Path(folder).rglob("*")):
        raise ModelError(f"{folder} holds no files: give the folder of a model.")
    with _run_for(folder, name, experiment) as run_id:
        mlflow.log_artifacts(str(folder), dialect.MODEL)
        place = f"azureml://jobs/{run_id}/outputs/{ARTIFACTS}/paths/{dialect.MODEL}"
        return register_output(place, name, custom=True, description=description, tags=tags)


@contextmanager
def _run_for(folder: str | Path, name: str, experiment: str | None) -> Iterator[str]:
    """A run to which a folder is logged in the block, by its id; StoreError for what fails there in another way."""
    try:
        with record.active_run(experiment, f"{name} from {Path(folder).resolve().name}") as run:
            yield run.info.run_id
    except PenguinsError:
        raise
    except Exception as error:  # each kind of store has its own ways to fail
        raise StoreError(f"{folder} can't be logged: {first_sentence(error)}") from error


def copy_version(
    name: str,
    version: int,
    source: Tracking,
    target: Tracking,
    *,
    copy_as: str | None = None,
    experiment: str = DEFAULT_EXPERIMENT,
) -> int:
    """Copy a model version from one store to another, another server's included, and return its number there.

    The copy has a run of its own in `experiment`, with the original run's params, metrics and tags, and the
    version's description and tags; `copied_from` says where it comes from. The store that MLflow uses
    stays as it was. Raises ModelError when the version can't be read, isn't what was registered, or can't be loaded and
    asked, StoreError when the copy can't be written.
    """
    import mlflow

    names.require_model(copy_as or name, target.registry_uri or target.tracking_uri)
    origin = f"models:/{name}/{version}"
    before = Tracking(mlflow.get_tracking_uri(), mlflow.get_registry_uri())
    with tempfile.TemporaryDirectory() as folder:
        try:
            unreadable = f"can't be read from {source.tracking_uri}"
            with _told(ModelError, f"{origin} {unreadable}"):
                source.activate()
                original = source.client().get_model_version(name, str(version))
                found = source.client().get_run(original.run_id) if original.run_id else None
            model = integrity.fetch(origin, Path(folder), unreadable)
            readback.require_answers(model, what=origin)
            with _told(StoreError, f"{origin} can't be copied to {target.tracking_uri}"):
                target.activate()
                with record.new_run(experiment_id(experiment), f"copy of {name} {version}") as copy:
                    if found is not None:
                        _copy_run(found, copy.info.run_id)
                    mlflow.set_tag("copied_from", origin)
                    logged = log_folder(str(model))
                tags = {**original.tags, integrity.TAG: integrity.digest(model), "copied_from": origin}
                return register(logged, copy_as or name, description=original.description or "", tags=tags)
        finally:
            before.activate()


@contextmanager
def _told(kind: type[PenguinsError], what: str) -> Iterator[None]:
    """Turn whatever the block raises into an error of this kind, for each kind of store has its own ways to fail."""
    try:
        yield
    except PenguinsError:
        raise
    except Exception as error:
        raise kind(f"{what}: {first_sentence(error)}") from error


def _copy_run(run: Run, run_id: str) -> None:
    """Log what another store's run holds, but for its artifacts, to the run `run_id` of the active store."""
    import mlflow

    mlflow.log_params(run.data.params)
    record.log_metrics(run.data.metrics)
    own = ("mlflow.", record.PROCESS)
    mlflow.set_tags({key: value for key, value in run.data.tags.items() if not key.startswith(own)})
    if inputs := dialect.inputs(run):
        # From them the gate makes the test rows again.
        dialect.log_inputs(run_id, inputs)


def save_model(path: str, mlflow_model: Model, *, folder: str, **_: Any) -> None:
    """Write a copy of the model in `folder` to `path`: the function that MLflow's `Model.log` calls for a copy."""
    from mlflow.models import Model
    from mlflow.models.model import MLMODEL_FILE_NAME

    shutil.copytree(folder, path)
    original = Model.load(folder)
    for name in ("flavors", "signature", "saved_input_example_info", "metadata"):
        setattr(mlflow_model, name, getattr(original, name))
    mlflow_model.save(str(Path(path, MLMODEL_FILE_NAME)))


def log_folder(folder: str) -> str:
    """Log a copy of the model in `folder` to the active run under the name `model`, and return its URI."""
    from mlflow.models import Model

    if not dialect.has_logged_models():
        return dialect.log_files(folder)
    flavor = sys.modules[__name__]
    return str(
        Model.log(artifact_path=None, name="model", flavor=flavor, flavor_name="penguins", folder=folder).model_uri
    )
