"""What an Azure Machine Learning store can't do, done another way there, behind the same functions as everywhere.

It has no logged models. Whether it has aliases, and whether its runs keep inputs, isn't documented: both are tried
first, and whichever way it says that it doesn't know them counts. Tags of versions are documented, tags of registered
models aren't, so only the former are used there.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from penguins import arm, azureml
from penguins.errors import ModelError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, FileInfo, Run
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.store.entities import PagedList

T = TypeVar("T")

UNKNOWN = {400, 404, 405, 501}
"""With which statuses servers answer a request that they don't know."""

MODEL = "model"
"""Under which name a run keeps its model."""

INPUT = "penguins.input."
"""How the tags of a run begin that say what its inputs were, where the store keeps none."""

METRIC_NAMES = 50
"""How many metrics, by their names, a run of Azure Machine Learning takes: its documented limit."""

MISSING = {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"}
"""How stores say that something isn't there."""

INVALID = "INVALID_PARAMETER_VALUE"
"""How stores say that nothing can have such a name."""

NO_ROUTE = "ENDPOINT_NOT_FOUND"
"""What MLflow's client makes of the answer of a server that doesn't know a request at all."""


PAGE = 1000
"""How many things to ask a store for at a time; Unity Catalog gives no more."""


def every(page: Callable[[str | None], PagedList[T]]) -> list[T]:
    """All that a search finds; `page` asks for the page of a token. A page may be empty and still not be the last.

    MLflow's client reads one page for each call. Unity Catalog's pages are in no order.
    """
    everything: list[T] = []
    token = None
    while True:
        found = page(token)
        everything += found
        if not (token := found.token):
            return everything


def versions(name: str) -> list[ModelVersion]:
    """All versions of a registered model of the active registry, in no order; none where there is no such model."""
    import mlflow

    return _versions(mlflow.MlflowClient(), name)


def _versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    # A name of an earlier time, or of somebody else, may have the quotation mark that `names` refuses.
    mark = '"' if "'" in name else "'"
    filter_string = f"name={mark}{name}{mark}"
    return every(lambda token: client.search_model_versions(filter_string, PAGE, page_token=token))


def has_model(name: str) -> bool:
    """Whether the active registry has a registered model of this name; also where it can't be asked just now."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        mlflow.MlflowClient().get_registered_model(name)
    except MlflowException as error:
        return error.error_code not in MISSING
    return True


def has_logged_models() -> bool:
    """Whether the active store keeps models apart from the artifacts of runs."""
    import mlflow

    return not mlflow.get_tracking_uri().startswith(azureml.SCHEME)


def most_metrics() -> int | None:
    """How many metrics, by their names, a run of the active store takes; None where there is no limit.

    Each may have as many steps as it likes. Beyond the limit Azure Machine Learning answers 400, or drops the surplus.
    """
    return None if has_logged_models() else METRIC_NAMES


def log_files(folder: str) -> str:
    """Log a copy of the model in `folder` to the active run as its artifact `model`, and return its URI.

    Raises ModelError when the run has one already: the store takes no file twice.
    """
    import mlflow
    from mlflow.models import Model
    from mlflow.models.model import MLMODEL_FILE_NAME

    run = mlflow.active_run()
    assert run is not None
    if any(path.startswith(f"{MODEL}/") for path in artifacts(run.info.run_id)):
        raise ModelError(f"The run {run.info.run_id} has a model already, and can't get another: start a new run.")
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(shutil.copytree(folder, Path(temporary, MODEL)))
        model = Model.load(str(copy))
        model.run_id, model.artifact_path = run.info.run_id, MODEL
        model.save(str(copy / MLMODEL_FILE_NAME))
        mlflow.log_artifacts(str(copy), MODEL)
    return f"runs:/{run.info.run_id}/{MODEL}"


@contextmanager
def registered(name: str) -> Iterator[None]:
    """For the block, which makes a version, there is a registered model `name`.

    Made here, it goes if that fails, unless somebody has a version in it by then.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    client = mlflow.MlflowClient()
    is_new = _is_new(client, name)
    try:
        yield
    except MlflowException:
        if is_new:
            # It isn't documented that Azure Machine Learning deletes a name; an empty one does no harm.
            with suppress(MlflowException):
                if not versions(name):
                    client.delete_registered_model(name)
        raise


def create_version(model_uri: str, name: str, tags: Mapping[str, str]) -> ModelVersion:
    """Make what `log_files` logged the next version of `name`, with the tag by which `clean_up` finds it."""
    import mlflow

    client = mlflow.MlflowClient()
    run_id, _, path = model_uri.removeprefix("runs:/").partition("/")
    source = f"{client.get_run(run_id).info.artifact_uri}/{path}"
    return client.create_model_version(name, source, run_id, tags={**tags, **arm.MADE_BY})


def artifacts(run_id: str) -> list[str]:
    """The paths of all files that a run of the active store keeps, those in folders too, in order."""

    def files(listed: Callable[[str | None], list[FileInfo]], path: str | None = None) -> Iterator[str]:
        for found in listed(path):
            if found.is_dir:
                yield from files(listed, found.path)
            else:
                yield found.path

    # Asked for a folder, the plugin also tells what is in those whose names begin in the same way.
    return sorted(set(files(_listing(run_id))))


def log_inputs(run_id: str, inputs: list[DatasetInput]) -> None:
    """Log sets of rows as inputs of a run, or, where the store keeps no inputs, as tags of the run."""
    import mlflow
    from mlflow.exceptions import MlflowException

    client = mlflow.MlflowClient()
    try:
        client.log_inputs(run_id, inputs)
    except MlflowException as error:
        if error.error_code != NO_ROUTE and not _is_unknown("runs/log-inputs", run_id=run_id, datasets=[]):
            raise
        for given in inputs:
            client.set_tag(run_id, f"{INPUT}{given.dataset.name}", json.dumps(_as_dict(given)))


def inputs(run: Run) -> list[DatasetInput]:
    """What `log_inputs` logged."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    if run.inputs is not None and run.inputs.dataset_inputs:
        return list(run.inputs.dataset_inputs)
    said: list[dict[str, Any]] = [json.loads(text) for key, text in run.data.tags.items() if key.startswith(INPUT)]
    return [
        DatasetInput(Dataset(**one["dataset"]), [InputTag(key, value) for key, value in one["tags"].items()])
        for one in said
    ]


def _as_dict(given: DatasetInput) -> dict[str, Any]:
    names = ("name", "digest", "source_type", "source")
    return {
        "dataset": {name: getattr(given.dataset, name) for name in names},
        "tags": {tag.key: tag.value for tag in given.tags},
    }


def marked(name: str, mark: str) -> int | None:
    """The number of the version that carries a mark, an alias or what stands for one; None where none does.

    An alias stays when its version is deleted, a tag goes with it.
    """
    import mlflow

    client = mlflow.MlflowClient()
    number = client.get_registered_model(name).aliases.get(mark)
    if number is not None:
        return int(number)
    return None if _has_tags_of_models() else _latest(_marks(client, name, mark))


def mark(name: str, number: int, mark: str) -> None:
    """Give a version a mark, which no other version of the name has then.

    An alias moves in one step. Where there are none, the version gets a tag with a count that is higher than all
    others, and counts from then on; then the others lose theirs.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    client = mlflow.MlflowClient()
    try:
        client.set_registered_model_alias(name, mark, str(number))
    except MlflowException as error:
        asked = {"name": name, "alias": mark, "version": str(number)}
        # Where there was an alias once, a server that doesn't know them now is a failure, and no other kind of server.
        if not _is_unknown("registered-models/alias", **asked) or client.get_registered_model(name).aliases:
            raise error
    else:
        return
    marks = _marks(client, name, mark)
    client.set_model_version_tag(name, str(number), mark, str(max(marks.values(), default=0) + 1))
    for other in marks.keys() - {number}:
        # The count has decided already: what stays behind is in nobody's way.
        with suppress(MlflowException):
            client.delete_model_version_tag(name, str(other), mark)


def notes(name: str) -> dict[str, str]:
    """What processes have written on a registered model for one another: its tags, or those of its oldest version."""
    import mlflow

    client = mlflow.MlflowClient()
    if _has_tags_of_models():
        return dict(client.get_registered_model(name).tags)
    return dict(client.get_model_version(name, _oldest(client, name)).tags)


def notes_place(name: str) -> str:
    """Where a person finds what processes have written, in words."""
    import mlflow

    if _has_tags_of_models():
        return "the registered model"
    return f"version {_oldest(mlflow.MlflowClient(), name)}"


def note(name: str, key: str, value: str) -> None:
    """Write something on a registered model for other processes."""
    import mlflow

    client = mlflow.MlflowClient()
    if _has_tags_of_models():
        client.set_registered_model_tag(name, key, value)
    else:
        client.set_model_version_tag(name, _oldest(client, name), key, value)


def forget(name: str, key: str) -> None:
    """Remove what was written."""
    import mlflow

    client = mlflow.MlflowClient()
    if _has_tags_of_models():
        client.delete_registered_model_tag(name, key)
    else:
        client.delete_model_version_tag(name, _oldest(client, name), key)


def _is_unknown(route: str, **asked: Any) -> bool:
    """Whether a workspace of Azure Machine Learning doesn't know a request, in whatever way it says so.

    MLflow's client keeps the status of an answer only where this has no body.
    """
    import mlflow
    from mlflow.utils import rest_utils

    is_of_runs = route.startswith("runs/")
    if not (mlflow.get_tracking_uri() if is_of_runs else mlflow.get_registry_uri()).startswith(azureml.SCHEME):
        return False
    # MLflow has typed neither.
    client, library = cast("Any", mlflow.MlflowClient()), cast("Any", rest_utils)
    store = client._tracking_client.store if is_of_runs else client._get_registry_client().store
    answer = library.http_request(store.get_host_creds(), f"/api/2.0/mlflow/{route}", "POST", json=asked)
    return answer.status_code in UNKNOWN


def _has_tags_of_models() -> bool:
    """Whether the active registry is one with tags on registered models, and so with aliases."""
    import mlflow

    return not mlflow.get_registry_uri().startswith(azureml.SCHEME)


def _oldest(client: MlflowClient, name: str) -> str:
    numbers = [int(found.version) for found in _versions(client, name)]
    if not numbers:
        raise ModelError(f"There is no version of {name}: `penguins train` makes one.")
    return str(min(numbers))


def _marks(client: MlflowClient, name: str, mark: str) -> dict[int, int]:
    """The count in the tag of each version that has it; a tag that somebody else has set counts as the first."""
    found = {int(one.version): one.tags[mark] for one in _versions(client, name) if mark in one.tags}
    return {number: int(value) if value.isdecimal() else 0 for number, value in found.items()}


def _latest(marks: dict[int, int]) -> int | None:
    return max(marks, key=lambda number: (marks[number], number), default=None)


def _is_new(client: MlflowClient, name: str) -> bool:
    """Make the registered model if there is none, and say whether that was so."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        # Servers say in different ways that something is there.
        try:
            client.get_registered_model(name)
        except MlflowException:
            raise error from None
        return False
    return True


def _listing(run_id: str) -> Callable[[str | None], list[FileInfo]]:
    import mlflow

    if has_logged_models():
        return lambda path: mlflow.MlflowClient().list_artifacts(run_id, path)
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    # MLflow's own function fails there when it is asked for a folder.
    uri = mlflow.get_run(run_id).info.artifact_uri
    listed: Callable[[str | None], list[FileInfo]] = get_artifact_repository(
        str(uri), tracking_uri=mlflow.get_tracking_uri()
    ).list_artifacts
    return listed
