"""Watch what arrives: compare current rows with a reference, judge, and log the findings to one MLflow run."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from penguins import data, flavor, page, plots, record, registry
from penguins.config import Report, silent
from penguins.errors import DataError, ParameterError
from penguins.findings import Findings, Period, Settings, examine
from penguins.registry import Version
from penguins.spec import PENGUINS, Spec

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

STEPS = ("Reading the data", "Loading the model", "Comparing", "Logging")
"""What `monitor` reports, in order."""

PAGE = "drift_report.html"


@dataclass(frozen=True)
class Monitoring:
    """A finished monitoring run: where it stands in MLflow, which model it asked, and what it found."""

    run_id: str
    experiment_id: str
    model_uri: str | None
    findings: Findings

    @property
    def drifted(self) -> bool:
        """Whether a threshold is broken."""
        return self.findings.drifted

    @property
    def retrain(self) -> bool:
        """Whether the retrain rule advises a retraining."""
        return self.findings.retrain

    def as_dict(self) -> dict[str, Any]:
        """What `penguins monitor --json` prints."""
        where = {"run_id": self.run_id, "experiment_id": self.experiment_id, "model_uri": self.model_uri}
        return {**where, **self.findings.as_dict()}


def monitor(
    spark: SparkSession,
    reference: str | Path,
    current: str | Path,
    *,
    model: str | None = None,
    settings: Settings | None = None,
    output: str | Path | None = None,
    spec: Spec = PENGUINS,
    experiment: str | None = None,
    report: Report = silent,
) -> Monitoring:
    """Read both sources as `data.read` does, `findings.examine` them, and log what was found to an MLflow run.

    `model` is `models:/name@alias` or `models:/name/number`, resolved once, or another URI that MLflow loads. The run
    has the PSI and the shares of each column as metrics, the measures of each window under `window_` with its place
    as the step, and the page, the picture and all numbers as artifacts; its tags tell the model's name and version,
    `drifted` and `retrain`. The run that is active is used, or the one that MLFLOW_RUN_ID names, or a new one in
    `experiment`. The artifacts are written to `output` as well: the page alone if that ends in `.html`, else a folder.

    Raises ParameterError, DataError, ModelError or StoreError before any run is made; and after it a DataError that
    names the run, if `output` can't be written any more.
    """
    require_free(output)
    report(STEPS[0])
    sources = {"reference": str(reference), "current": str(current)}
    sides = {name: data.read(spark, source, spec, labelled=False) for name, source in sources.items()}
    # The first look at every line: a file that turns out to be unreadable does so here.
    digests = {
        name: data.told(lambda rows=rows: data.digest(rows, spec.features), sources[name])  # type: ignore[misc]
        for name, rows in sides.items()
    }
    report(STEPS[1])
    version = registry.resolve(model) if model is not None and _is_registered(model) else None
    uri = version.uri if version is not None else model
    pipeline = None if uri is None else flavor.load_spark(uri)
    report(STEPS[2])
    findings = examine(sides["reference"], sides["current"], settings, model=pipeline, spec=spec)
    report(STEPS[3])
    rows = {"reference": findings.whole.drifts[0].reference.rows, "current": findings.whole.rows}
    inputs = {name: record.Input(digests[name], rows[name]) for name in sources}
    with TemporaryDirectory() as temporary:
        folder = Path(temporary, "report")  # unlike the temporary one, readable for all
        with record.active_run(experiment, None) as run:
            result = Monitoring(run.info.run_id, run.info.experiment_id, uri, findings)
            _write(result, sources, folder)
            _log(result, sources, inputs, version, folder)
        if output is not None:
            _deliver(folder, Path(output), result.run_id)
    return result


def require_free(output: str | Path | None) -> None:
    """Make the folder that a report is to be written into.

    Raises ParameterError when there is something already at `output`, DataError when nothing can be written there.
    """
    if output is None:
        return
    if Path(output).exists():
        raise ParameterError(f"{output} exists already: give another path for the report, or remove it first.")
    folder = Path(output).absolute().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Tried and not asked for: what `os.access` says isn't always true of shared folders.
        TemporaryDirectory(dir=folder).cleanup()
    except OSError as error:
        raise DataError(f"{output} can't be written ({error.strerror}): give another path for the report.") from error


def _is_registered(model: str) -> bool:
    """Whether a URI names a registered model; `models:/m-` and an id is a logged one."""
    return model.startswith("models:/") and not re.fullmatch(r"models:/m-[0-9a-f]{32}", model)


def _write(result: Monitoring, sources: dict[str, str], folder: Path) -> None:
    """Write the page, the picture and all numbers to `folder`."""
    found = result.findings
    folder.mkdir()
    picture = io.BytesIO()
    plots.drift(found.whole.drifts, found.verdicts).savefig(picture, format="png")
    facts = {**sources, "model": result.model_uri or "none", "run": result.run_id}
    (folder / PAGE).write_text(page.render(found, facts, picture.getvalue()), encoding="utf-8")
    (folder / "drift_report.png").write_bytes(picture.getvalue())
    (folder / "monitoring.json").write_text(json.dumps(result.as_dict(), indent=2), encoding="utf-8")


def _log(
    result: Monitoring,
    sources: dict[str, str],
    inputs: dict[str, record.Input],
    version: Version | None,
    folder: Path,
) -> None:
    import mlflow

    found = result.findings
    asked = {} if version is None else {"model_name": version.name, "model_version": str(version.number)}
    verdict = {"drifted": str(found.drifted).lower(), "retrain": str(found.retrain).lower()}
    mlflow.set_tags({**record.versions(), "penguins.step": "monitor", **asked, **verdict})
    windows = found.settings.windows
    timing = {} if windows is None else {"timestamp": windows.timestamp, "window": str(windows.length)}
    mlflow.log_params(
        {**sources, **timing, "retrain_rule": str(found.settings.rule), **asdict(found.settings.thresholds)}
    )
    for name, rows in inputs.items():
        record.log_inputs({name: rows}, data.located(sources[name]))
    counts = {f"rows_{name}": rows.rows for name, rows in inputs.items()}
    mlflow.log_metrics({**_metrics(found.whole), **counts, "breaches": len(found.breaches)})
    for place, window in enumerate(found.windows if windows else ()):
        measured = {**_metrics(window), "rows": window.rows, "breaches": len(window.breaches)}
        mlflow.log_metrics({f"window_{name}": value for name, value in measured.items()}, step=place)
    mlflow.log_artifacts(str(folder))


def _metrics(period: Period) -> dict[str, float]:
    measured = dict(period.metrics)
    for column in period.drifts:
        values = {"psi": column.psi, "js": column.js, **column.shares()}
        measured |= {f"{name}_{column.column}": value for name, value in values.items() if value is not None}
    return measured


def _deliver(folder: Path, output: Path, run_id: str) -> None:
    """Put the report in place whole: the page alone, or the folder."""
    beside = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        if output.suffix == ".html":
            shutil.copyfile(folder / PAGE, beside)
        else:
            shutil.copytree(folder, beside)
        beside.rename(output)
    except OSError as error:
        raise DataError(f"{output} can't be written ({error.strerror}): the report is kept in run {run_id}.") from error
    finally:
        if beside.is_dir():
            shutil.rmtree(beside)
        beside.unlink(missing_ok=True)
