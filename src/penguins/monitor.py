"""Watch what arrives: compare current rows with a reference, judge, and log the findings to one MLflow run."""

from __future__ import annotations

import io
import json
import re
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from penguins import atomic, data, dialect, flavor, page, plots, record, registry
from penguins.config import Report, silent
from penguins.errors import DataError, ParameterError, first_sentence
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
    """A finished monitoring run: where it stands in MLflow, which model it asked, and what it found.

    `failure` says in a sentence why the run couldn't be logged, or not whole, and where the report is instead; the
    findings stand all the same. Where there isn't even a run, its ids are empty.
    """

    run_id: str
    experiment_id: str
    model_uri: str | None
    findings: Findings
    failure: str | None = None

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
        return {**where, "failure": self.failure, **self.findings.as_dict()}


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
    `drifted` and `retrain`. Where a run takes few metrics, as in Azure Machine Learning, those of the windows and the
    least important ones are in the artifact `monitoring.json` only. The run that is active is used, or the one that
    MLFLOW_RUN_ID names, or a new one in `experiment`. The artifacts are written to `output` as well: the page alone if
    that ends in `.html`, else a folder.

    What was found is returned even if it can't be logged: the result's `failure` says why, and names the folder that
    has the report, `output` or a new one in the current folder.
    Raises ParameterError, DataError, ModelError or StoreError before any run is made; and after it a DataError that
    names the run, if `output` can't be written any more.
    """
    require_free(output)
    record.require_run()
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
    result = Monitoring("", "", uri, findings)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary, "report")  # unlike the temporary one, readable for all
        folder.mkdir()
        try:
            with record.active_run(experiment, None) as run:
                result = replace(result, run_id=run.info.run_id, experiment_id=run.info.experiment_id)
                _write(result, sources, folder)
                _log(result, sources, inputs, version, folder)
        except Exception as error:  # each kind of store has its own ways to fail
            # What was found is worth more than the run.
            place = _spare_place() if output is None else Path(output)
            reason = first_sentence(error).rstrip(".")
            result = replace(result, failure=f"The run can't be logged: {reason}; the report is in {place}.")
            _write(result, sources, folder)
            _deliver(folder, place, result)
        else:
            if output is not None:
                _deliver(folder, Path(output), result)
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


def _spare_place() -> Path:
    """Where a report goes that nobody has named a place for: the current folder, or, if it can't, a temporary one."""
    name = f"penguins-report-{uuid4().hex[:8]}"
    try:
        TemporaryDirectory(dir=".").cleanup()
    except OSError:
        return Path(mkdtemp(prefix="penguins-"), name)
    return Path(name)


def _is_registered(model: str) -> bool:
    """Whether a URI names a registered model; `models:/m-` and an id is a logged one."""
    return model.startswith("models:/") and not re.fullmatch(r"models:/m-[0-9a-f]{32}", model)


def _write(result: Monitoring, sources: dict[str, str], folder: Path) -> None:
    """Write the page, the picture and all numbers to `folder`."""
    found = result.findings
    picture = io.BytesIO()
    plots.drift(found.whole.drifts, found.verdicts).savefig(picture, format="png")
    facts = {**sources, "model": result.model_uri or "none", "run": result.run_id or "none"}
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
    # The report before the numbers, which it has, too.
    mlflow.log_artifacts(str(folder))
    counts = {f"rows_{name}": rows.rows for name, rows in inputs.items()}
    record.log_metrics({**counts, "breaches": len(found.breaches), **_metrics(found.whole)})
    # Their names would be twice as many.
    shown = found.windows if windows and dialect.most_metrics() is None else ()
    for step, window in enumerate(shown):
        measured = {"rows": window.rows, "breaches": len(window.breaches), **_metrics(window)}
        record.log_metrics({f"window_{name}": value for name, value in measured.items()}, step=step)


def _metrics(period: Period) -> dict[str, float]:
    """The measures of a period, the most important first: quality, what is judged of a column, what is only shown."""
    measured = dict(period.metrics)
    values = {column.column: {"psi": column.psi, **column.shares(), "js": column.js} for column in period.drifts}
    kinds = list(next(iter(values.values())))
    for kind in kinds:
        found = {f"{kind}_{name}": of_column[kind] for name, of_column in values.items()}
        measured |= {name: value for name, value in found.items() if value is not None}
    return measured


def _deliver(folder: Path, output: Path, result: Monitoring) -> None:
    """Put the report in place whole: the page alone, or the folder."""
    try:
        with atomic.beside(output) as place:
            if output.suffix == ".html":
                whole = Path(shutil.copyfile(folder / PAGE, place / PAGE))
            else:
                whole = Path(shutil.copytree(folder, place / "report"))
            atomic.put(whole, output)
    except OSError as error:
        kept = f": the report is kept in run {result.run_id}." if result.failure is None else f". {result.failure}"
        raise DataError(f"{output} can't be written ({error.strerror}){kept}") from error
