"""Score files on a batch endpoint of Azure Machine Learning: put a version there, send a file, fetch the answers."""

from __future__ import annotations

import csv
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penguins import azure_batch_scoring, azure_names, batch_endpoint, online_endpoint, serving_copy, submit
from penguins.acceptance import accepted_against
from penguins.config import DEFAULT_BATCH_ENDPOINT, BatchServing, Report, silent
from penguins.delimited import column_names, scan, suffixes
from penguins.errors import DataError, ServerError, StoppedError
from penguins.predict import free_names
from penguins.registry import Version
from penguins.target import SEPARATOR

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

STEPS = ("Registering the copy without Spark", "Making the endpoint", "Starting the version")
"""What `deploy` reports, in order."""


def deploy(
    version: Version,
    *,
    client: MLClient,
    settings: BatchServing,
    name: str = DEFAULT_BATCH_ENDPOINT,
    report: Report = silent,
) -> None:
    """Make `version` the one that the batch endpoint `name` scores with, on a compute cluster of the workspace.

    The version must be the champion, or one that the gate accepted against the present champion. The endpoint is made
    if there is none. Deployments of other versions stay, and cost nothing while no job runs.
    Raises ModelError for a version that can't be deployed, ParameterError without the compute, ServerError otherwise.
    """
    azure_names.require("endpoint", name)
    accepted_against(version)
    submit.require_compute(client, settings.compute)
    report(STEPS[0])
    model = serving_copy.register(client, version)
    report(STEPS[1])
    if batch_endpoint.read_state(client, name) is None:
        batch_endpoint.create(client, name, settings.timeout)
    report(STEPS[2])
    environment = serving_copy.batch_environment(version)
    with serving_copy.script_folder(serving_copy.BATCH_SCRIPT) as code:
        script = (str(code), serving_copy.BATCH_SCRIPT, environment)
        batch_endpoint.start(client, name, online_endpoint.deployment_name(version), model, settings, script)


@dataclass(frozen=True)
class Scored:
    """What a batch came to: rows per predicted class, and rows per reason why they have no answer."""

    job: str
    output: Path
    rows: int
    classes: dict[str, int]
    reasons: dict[str, int]

    @property
    def scored(self) -> int:
        """The number of rows that have an answer."""
        return sum(self.classes.values())

    @property
    def unscored(self) -> int:
        """The number of rows that have reasons instead."""
        return self.rows - self.scored


def score(client: MLClient, name: str, data: str, output: Path) -> Scored:
    """Have the endpoint score `data`, wait, and put every row with its answer into the CSV file `output`.

    The columns are those of `predict.score`: the input's own, the answers, and `reasons`. The log of the job is
    printed. Raises DataError when there is something at `output`, it can't be written, or there is nothing at `data`
    that can be read; ServerError and StoppedError as `submit.follow` does, and ServerError when there aren't as many
    rows in the answers as were handed in. When the answers can't be fetched or written, the error says where in Azure
    they are.
    """
    azure_names.require("endpoint", name)
    _require_free(output)
    handed_in = _rows_at(data)
    with _beside(output) as whole:
        job, place = batch_endpoint.invoke(client, name, data)
        there = f"Look for the answers in the workspace's storage: {place}"
        try:
            submit.follow(client, job)
        except KeyboardInterrupt as error:
            raise StoppedError(f"The job {job} goes on, and costs, until it is done or cancelled. {there}") from error
        try:
            parts = batch_endpoint.fetch(client, place, azure_batch_scoring.SUFFIX, whole.parent)
            rows, classes, reasons = _joined(name, parts, whole)
            if handed_in not in (None, rows):
                raise ServerError(
                    f"{handed_in:,} rows were handed in, and {rows:,} came back: nothing is written to {output}."
                )
            _require_free(output)
            whole.rename(output)
        except OSError as error:
            raise DataError(f"{output} can't be written: {error.strerror or error}. {there}") from error
        except (DataError, ServerError) as error:
            raise type(error)(f"{error} {there}") from error
    return Scored(job, output, rows, classes, reasons)


def _rows_at(data: str) -> int | None:
    """How many rows a file or a folder here holds; None for data in Azure. Raises DataError for what can't be read."""
    path = Path(data)
    if not path.exists():
        return None
    found = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    # The script on the cluster leaves out the same ones.
    files = [file for file in found if not file.name.startswith(("_", "."))]
    if not files:
        raise DataError(f"{data} holds no files: give a CSV or Parquet file, or a folder of them.")
    try:
        for file in files:
            if suffixes(file.name)[0] == ".csv":
                scan(file)
        return sum(map(_count, files))
    except (ValueError, OSError) as error:
        raise DataError(str(error)) from error


def _count(file: Path) -> int:
    _, rows = azure_batch_scoring.read(file)
    return sum(1 for _ in rows)


def _joined(name: str, parts: list[Path], whole: Path) -> tuple[int, dict[str, int], dict[str, int]]:
    """Write all that the script has written as one CSV file; its rows, those of each class, those with each reason.

    Raises ServerError when there is nothing, or a part isn't whole.
    """
    headers = {part: _header(part) for part in parts}
    for header in headers.values():
        header["columns"] = column_names(header["columns"])
    if not headers:
        raise ServerError(
            f"{name} wrote nothing that this version understands: deploy the version again (`penguins deploy --to "
            "azureml --kind batch`)."
        )
    columns = list(dict.fromkeys(column for header in headers.values() for column in header["columns"]))
    added = next(iter(headers.values()))["added"]
    names = free_names(columns, added, added[1])
    count = 0
    classes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    with whole.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*columns, *names.values()], restval="", lineterminator="\n")
        writer.writeheader()
        # In the order of the files that were scored, which other files may have been scored between.
        for part in sorted(parts, key=lambda part: str(headers[part]["file"])):
            header = headers[part]
            for row in _rows(part, header):
                *_, why = row
                count += 1
                classes.update([] if why else [row[len(header["columns"]) + 1]])
                reasons.update(why or [])
                row[-1] = SEPARATOR.join(why or [])
                writer.writerow(dict(zip([*header["columns"], *names.values()], row, strict=True)))
    return count, dict(classes), dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))


def _header(part: Path) -> dict[str, Any]:
    with part.open(encoding="utf-8") as lines:
        header: dict[str, Any] = json.loads(next(lines))
        return header


def _rows(part: Path, header: dict[str, Any]) -> Iterator[list[Any]]:
    """The rows of a part. Raises ServerError when its last line doesn't say that these are all."""
    count, end = 0, None
    with part.open(encoding="utf-8") as lines:
        next(lines)
        for line in lines:
            try:
                end = json.loads(line)
            except ValueError:
                break
            if isinstance(end, list):
                count += 1
                yield end
    if end != {"rows": count}:
        raise ServerError(f"The answers to {Path(header['file']).name} end after {count:,} rows, and that isn't all.")


@contextmanager
def _beside(output: Path) -> Iterator[Path]:
    """A place for a file in the folder of `output`, which is made; what is there after the block is removed.

    Made before a job, because a job costs money. Raises DataError when there is something at `output`, or can't be.
    """
    _require_free(output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.", ignore_cleanup_errors=True)
    except OSError as error:
        raise DataError(
            f"{output} can't be written ({output.parent}: {error.strerror or error}): give another --output."
        ) from error
    with folder:
        yield Path(folder.name, output.name)


def _require_free(output: Path) -> None:
    if output.exists():
        raise DataError(f"{output} exists already: give a path that doesn't, or remove it first.")


def undeploy(name: str = DEFAULT_BATCH_ENDPOINT, *, client: MLClient, timeout: float = BatchServing.timeout) -> bool:
    """Delete the endpoint; False if there is none. The model and what was written stay. Raises ServerError."""
    azure_names.require("endpoint", name)
    return batch_endpoint.delete(client, name, timeout)
