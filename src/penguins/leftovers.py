"""What commands that were killed have left: runs that seem to go on, models half logged, temporary folders."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from penguins import atomic, dialect, outcome, process, record
from penguins.errors import ParameterError, StoreError, first_sentence

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run


@dataclass(frozen=True)
class Leftover:
    """A run under way, a model that it was logging, or a folder in which that was written; and who made it."""

    kind: str
    """`run`, `model` or `folder`."""
    id: str
    """A folder's is its path."""
    run_id: str | None
    where: str
    """The name of the run, and of its experiment; what a folder holds."""
    who: str
    """The process, as `process.identity()` says."""

    def __str__(self) -> str:
        return f"{self.kind} {self.id} ({self.where}) of {process.in_words(self.who)}"


def find(experiment: str | None = None) -> tuple[list[Leftover], list[Leftover]]:
    """What processes that are gone have left in the active store, and the runs of which that can't be known from here.

    Those are runs of other machines and containers. `experiment` names the only one to look in. A run that no process
    of this package has signed is nobody's. Raises StoreError.
    """
    import mlflow

    gone: list[Leftover] = []
    unknown: list[Leftover] = []
    client = mlflow.MlflowClient()
    with _told():
        for place in _experiments(client, experiment):
            for run in _under_way(client, place):
                who = run.data.tags[record.PROCESS]
                alive = process.is_alive(who)
                found = Leftover("run", run.info.run_id, run.info.run_id, f"{run.info.run_name}, {place.name}", who)
                if alive is None:
                    unknown.append(found)
                elif not alive:
                    gone += [*_models(client, place, found), found]
    return gone, unknown


def find_folders() -> tuple[list[Leftover], list[Path]]:
    """The temporary folders of processes that are gone, and those of them that hold a fitted model.

    The former include those in which outputs for the current folder were written. `penguins log` logs the latter, so
    they aren't to be removed with the others.
    """
    gone = [(place, who) for place, who in outcome.left_behind() if process.is_alive(who) is False]
    fitted = [place for place, _ in gone if (place / outcome.MODEL).exists()]
    temporary = [Leftover("folder", str(place), None, "temporary", who) for place, who in gone if place not in fitted]
    outputs = [
        Leftover("folder", str(place), None, "an output that was being written", atomic.maker(place))
        for place in atomic.leftovers(Path.cwd())
    ]
    return temporary + outputs, fitted


def remove(found: Sequence[Leftover]) -> list[Leftover]:
    """End the runs as KILLED, delete the models and the folders, but for what somebody has gone on with.

    Returns what was removed. Raises StoreError.
    """
    with _told():
        return [one for one in found if _removed(one)]


def _removed(one: Leftover) -> bool:
    """Remove what was left, and say whether it was still there as it was found."""
    import mlflow
    from mlflow.exceptions import MlflowException

    if one.run_id is None:
        folder = Path(one.id)
        with suppress(OSError):
            (atomic.remove if folder.name.startswith(atomic.PREFIX) else shutil.rmtree)(folder)
        return not folder.exists()
    client = mlflow.MlflowClient()
    run = client.get_run(one.run_id)
    if run.info.status != "RUNNING" or run.data.tags.get(record.PROCESS) != one.who:
        return False
    if one.kind == "model":
        client.delete_logged_model(one.id)
        return True
    client.set_tag(one.run_id, "failure", f"killed: {process.in_words(one.who)} is gone")
    client.set_terminated(one.run_id, "KILLED")
    with suppress(MlflowException):
        client.delete_tag(one.run_id, record.PROCESS)
    return True


def _experiments(client: MlflowClient, name: str | None) -> list[Experiment]:
    if name is None:
        return dialect.every(lambda token: client.search_experiments(page_token=token))
    if (experiment := client.get_experiment_by_name(name)) is None:
        raise ParameterError(f"There is no experiment {name} in this store: give the name of one.")
    return [experiment]


def _under_way(client: MlflowClient, experiment: Experiment) -> list[Run]:
    """The runs that have not ended and that a process has signed."""
    where, status = [experiment.experiment_id], "attributes.status = 'RUNNING'"
    runs = dialect.every(lambda token: client.search_runs(where, status, page_token=token))
    return [run for run in runs if record.PROCESS in run.data.tags]


def _models(client: MlflowClient, experiment: Experiment, run: Leftover) -> list[Leftover]:
    """The models that a run has begun to log and not finished."""
    if not dialect.has_logged_models():
        return []
    where, made = [experiment.experiment_id], f"source_run_id = '{run.id}'"
    models = dialect.every(lambda token: client.search_logged_models(where, made, page_token=token))
    return [
        Leftover("model", str(model.model_id), run.id, run.where, run.who)
        for model in models
        if str(model.status) == "PENDING"
    ]


@contextmanager
def _told() -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise StoreError(f"The store can't be cleaned up: {first_sentence(error)}") from error
