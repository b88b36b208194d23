"""What a training run leaves: first a folder, then an MLflow run; a folder that could not be logged is kept."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from penguins import integrity, process, readback, record, registry
from penguins.errors import ModelError, PenguinsError, StoreError, first_sentence
from penguins.tracking import Tracking

SUMMARY, ARTIFACTS, MODEL = "run.json", "artifacts", "model"

PREFIX, SIGNED = "penguins-", "~"
"""How the name of the temporary folder begins, and what stands in it before the process that made it."""

UNFINISHED = "unfinished"
"""What the folder of a model is called until all of it is written."""


@dataclass(frozen=True)
class Summary:
    """What a run says beside its model and its pictures: plain values, that a file can hold."""

    experiment: str | None
    run_name: str | None
    params: Mapping[str, int | float]
    tags: Mapping[str, str]
    source: str | None
    inputs: Mapping[str, record.Input]
    metrics: Mapping[str, float]
    register_as: str | None
    description: str
    version_tags: Mapping[str, str]


@dataclass(frozen=True)
class Logged:
    """Where a logged outcome stands."""

    run_id: str
    experiment_id: str
    model_uri: str
    registered_model: str | None
    version: int | None


@contextmanager
def folder(summary: Summary) -> Iterator[Path]:
    """A folder to write `artifacts` and `model` to and to log from, gone after the block.

    When the block fails after the model was written, the folder is kept, and StoreError says where, and how to log it.
    """
    place = Path(tempfile.mkdtemp(prefix=PREFIX, suffix=f"{SIGNED}{process.identity()}"))
    kept = None
    try:
        (place / SUMMARY).write_text(json.dumps(asdict(summary), indent=2), encoding="utf-8")
        (place / ARTIFACTS).mkdir()
        yield place
    except Exception as error:
        if not (place / MODEL).exists():
            raise
        kept = _keep(place)
        said = str(error) if isinstance(error, PenguinsError) else f"The run can't be logged: {first_sentence(error)}"
        raise StoreError(
            f"{said.rstrip('.')}; the fitted model is kept in {kept}, and `{_command(kept)}` logs it."
        ) from error
    finally:
        if kept != place:
            shutil.rmtree(place, ignore_errors=True)


def left_behind() -> Iterator[tuple[Path, str]]:
    """The temporary folders of this user in which outcomes were being written, and which process made each."""
    for place in sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*{SIGNED}*")):
        if place.is_dir() and not place.is_symlink() and place.stat().st_uid == os.getuid():
            yield place, place.name.partition(SIGNED)[2]


def log(place: Path, summary: Summary) -> tuple[str, int | None]:
    """Log the metrics, the artifacts and the model in `place` to the active run; register the model if it has a name.

    Returns the model's URI and the version.
    """
    import mlflow

    record.log_metrics(summary.metrics)
    mlflow.log_artifacts(str(place / ARTIFACTS))
    model_uri = registry.log_folder(str(place / MODEL))
    if summary.register_as is None:
        return model_uri, None
    tags = {**summary.version_tags, integrity.TAG: integrity.digest(place / MODEL)}
    return model_uri, registry.register(model_uri, summary.register_as, description=summary.description, tags=tags)


def log_kept(place: Path) -> Logged:
    """Log a folder that was kept when its run could not be logged, to a new run in the active store.

    Raises ModelError when the folder holds no outcome, or a model that can't be loaded and asked, StoreError when it
    can't be logged again; it stays in any case.
    """
    import mlflow

    summary = _read(place)
    readback.require_answers(place / MODEL)
    try:
        with record.active_run(summary.experiment, summary.run_name) as run:
            mlflow.log_params(dict(summary.params))
            mlflow.set_tags(dict(summary.tags))
            record.log_inputs(summary.inputs, summary.source)
            model_uri, version = log(place, summary)
    except PenguinsError:
        raise
    except Exception as error:  # each kind of store has its own ways to fail
        raise StoreError(f"{place} can't be logged: {first_sentence(error)}") from error
    return Logged(run.info.run_id, run.info.experiment_id, model_uri, summary.register_as, version)


def _read(place: Path) -> Summary:
    try:
        values: dict[str, Any] = json.loads((place / SUMMARY).read_text(encoding="utf-8"))
        values["inputs"] = {name: record.Input(**described) for name, described in values["inputs"].items()}
        return Summary(**values)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"{place} holds no training run: give the folder that a failed `penguins train` has named."
        ) from error


def _keep(place: Path) -> Path:
    """Copy the folder to where the user works; if that can't be written to, it stays where it is."""
    kept = Path.cwd() / f"penguins-kept-{place.name.removeprefix(PREFIX).partition(SIGNED)[0]}"
    try:
        shutil.copytree(place, kept)
    except OSError:
        shutil.rmtree(kept, ignore_errors=True)
        return place
    return kept


def _command(kept: Path) -> str:
    """What logs the folder to the store that is in use, typed into a shell in this folder."""
    import mlflow

    uri = mlflow.get_tracking_uri()
    elsewhere = [] if uri == Tracking.local().tracking_uri else ["--tracking-uri", uri]
    return shlex.join(["penguins", "log", str(kept), *elsewhere])
