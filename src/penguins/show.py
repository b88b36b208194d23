"""What a person sees in a terminal: progress on stderr, results as tables on stdout."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from penguins import evaluate, tracking
from penguins.config import Report
from penguins.errors import printable
from penguins.spec import LAB_REQUEST

if TYPE_CHECKING:
    import pandas as pd

    from penguins.batch import Scored as BatchScored
    from penguins.check import Checked
    from penguins.deploy import Deployed
    from penguins.evaluate import Confusion
    from penguins.findings import Findings
    from penguins.monitor import Monitoring
    from penguins.predict import Scored
    from penguins.promote import Promotion
    from penguins.registry import Version
    from penguins.search import Trial
    from penguins.train import TrainedModel
    from penguins.tune import OnTrial, TunedModel

ENDINGS = {
    "finished": "did all its trials",
    "timed out": "was ended by its timeout",
    "interrupted": "was interrupted, and keeps what it had",
}
"""How a search ended, in words."""

ROWS_SHOWN = 20

MOST_WINDOWS = 20
"""How many windows a table shows; `--json` and the run have all of them."""


@contextmanager
def progress(steps: Sequence[str]) -> Iterator[Report]:
    """Show which of the known `steps` is under way: a bar in a terminal, a line per step elsewhere."""
    console = _stderr()
    if not console.is_terminal:
        start = time.monotonic()
        yield lambda step: console.print(f"{time.monotonic() - start:5.1f} s  {step}")
        return
    with _bar(console) as bar:
        task = bar.add_task(steps[0], total=len(steps))
        yield lambda step: bar.update(task, description=step, completed=steps.index(step))


class Shown(Console):
    """A console on which text from the data is shown and never obeyed: control characters appear as codes."""

    def render_str(self, text: str, **options: Any) -> Text:
        """The text, before it is measured and laid out."""
        return super().render_str(printable(text, but="\n\t"), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments, of which those that aren't rich's own commands to the terminal are safe to print."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text, but="\n\t"))


def _stdout(*, soft_wrap: bool = False) -> Console:
    """For results, which may hold anything: brackets in them are no markup."""
    return Shown(highlight=False, markup=False, soft_wrap=soft_wrap)


def _stderr() -> Console:
    """For progress: the real stderr, since `sys.stderr` may be where a library's chatter goes to be forgotten."""
    return Shown(file=sys.__stderr__, highlight=False, markup=False)


def _bar(console: Console, *more: ProgressColumn) -> Progress:
    columns = (
        *(SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()),
        *more,
    )
    # What libraries print goes above the bar, unless it is to be forgotten.
    shown = sys.stderr is sys.__stderr__
    return Progress(*columns, console=console, transient=True, redirect_stdout=shown, redirect_stderr=shown)


def checked(result: Checked) -> None:
    """Print what a source holds: rows, why some were set aside, and how many of each class are left."""
    console = _stdout()
    rows = result.accepted + result.quarantined
    console.print(
        f"\n{rows:,} rows: {result.accepted:,} accepted, {result.quarantined:,} set aside ({result.share:.1%})."
    )
    _counted(console, result.reasons, result.classes)


def _counted(console: Console, reasons: dict[str, int], classes: dict[str, int]) -> None:
    """Print how many rows have each reason against them, and how many are of each class."""
    for reason, count in reasons.items():
        console.print(f"  {count:,} × {reason}")
    table = Table()
    table.add_column("class")
    table.add_column("rows", justify="right")
    for name, count in classes.items():
        table.add_row(name, f"{count:,}")
    console.print(table)


def checked_as_json(result: Checked) -> dict[str, Any]:
    """What `penguins check --json` prints."""
    return {
        "accepted": result.accepted,
        "quarantined": result.quarantined,
        "reasons": result.reasons,
        "classes": result.classes,
        "digest": result.digest,
    }


def trained(result: TrainedModel) -> None:
    """Print a finished training run: rows, quality, confusion matrix, where to look and what to do next."""
    console = _stdout()
    rows = result.rows
    console.print(
        f"\n{rows['read']:,} rows read: {rows['training']:,} for training, {rows['test']:,} for the test, "
        f"{rows['quarantined']:,} set aside."
    )
    for reason, count in result.reasons.items():
        console.print(f"  {count:,} × {reason}")
    console.print(quality(result.confusion, result.metrics))
    console.print(matrix(result.confusion))
    console.print(f"\nRun      {result.run_id}\nModel    {result.model_uri}")
    if result.version is not None:
        console.print(f"Version  models:/{result.registered_model}/{result.version}")
    if page := tracking.run_page(result.run_id):
        console.print(f"Studio   {page}", soft_wrap=True)
    else:
        console.print(
            Text.assemble(
                "\nNext: ", ("penguins ui", "bold"), " shows the run, its pictures and the model in a browser."
            )
        )


def quality(confusion: Confusion, metrics: dict[str, float], rows: str = "test rows") -> Table:
    """Precision, recall and F-measure per class, and weighted over all."""
    table = Table(title=f"Accuracy {metrics['accuracy']:.3f}", title_justify="left")
    table.add_column("class")
    for heading in ("precision", "recall", "F-measure", rows):
        table.add_column(heading, justify="right")
    for name, count in zip(confusion.classes, confusion.counts.sum(axis=1), strict=True):
        values = [metrics[f"{measure}_{name}"] for measure in ("precision", "recall", "fMeasure")]
        table.add_row(name, *(f"{value:.3f}" for value in values), f"{count:,}")
    table.add_section()
    values = [metrics[f"weighted{measure}"] for measure in ("Precision", "Recall", "FMeasure")]
    table.add_row("weighted", *(f"{value:.3f}" for value in values), f"{confusion.rows:,}")
    return table


def matrix(confusion: Confusion) -> Table:
    """The confusion matrix: true classes down, predicted classes across."""
    table = Table(title="Confusion matrix", title_justify="left")
    table.add_column("true \\ predicted")
    for name in confusion.classes:
        table.add_column(name, justify="right")
    for name, counts in zip(confusion.classes, confusion.counts, strict=True):
        table.add_row(name, *(f"{count:,}" for count in counts))
    return table


def as_json(result: TrainedModel) -> dict[str, Any]:
    """What `penguins train --json` prints."""
    answer = {
        "run_id": result.run_id,
        "experiment_id": result.experiment_id,
        "model_uri": result.model_uri,
        "registered_model": result.registered_model,
        "version": result.version,
        "params": result.params,
        "metrics": result.metrics,
        "rows": result.rows,
    }
    return with_page(answer, result.run_id)


def with_page(answer: dict[str, Any], run_id: str) -> dict[str, Any]:
    """The answer, with `run_page` where there is a run and it has a page in a studio."""
    page = tracking.run_page(run_id) if run_id else None
    return answer if page is None else {**answer, "run_page": page}


@contextmanager
def search_progress(steps: Sequence[str], trials: int) -> Iterator[tuple[Report, OnTrial]]:
    """Show the steps of a search and its trials: a bar with the best so far in a terminal, a line each elsewhere."""
    console = _stderr()
    if not console.is_terminal:
        start = time.monotonic()

        def print_step(step: str) -> None:
            console.print(f"{time.monotonic() - start:5.1f} s  {step}")

        yield print_step, lambda trial, best: print_step(_outcome(trial, best))
        return
    with _bar(console, TextColumn("{task.fields[outcome]}", markup=False)) as bar:
        task = bar.add_task(steps[0], total=trials, outcome="")
        yield (
            lambda step: bar.update(task, description=step),
            lambda trial, best: bar.update(task, advance=1, outcome=_outcome(trial, best)),
        )


def _outcome(trial: Trial, best: Trial | None) -> str:
    result = trial.failure if trial.value is None else f"log loss {trial.value:.4f}"
    so_far = "none has finished" if best is None else f"best {best.value:.4f} in trial {best.number}"
    return f"Trial {trial.number}: {result}, {so_far}"


def tuned(result: TunedModel) -> None:
    """Print a finished search: how it ended, its best trials, and the model trained with the best parameters."""
    console = _stdout()
    failed = sum(trial.value is None for trial in result.trials)
    console.print(f"\nThe search {ENDINGS[result.ended]}: {len(result.trials)} trials, {failed} of which failed.")
    console.print(best_trials(result.trials))
    console.print(f"Search   {result.run_id}")
    trained(result.trained)


def best_trials(trials: Sequence[Trial], shown: int = 5) -> Table:
    """The trials with the smallest balanced log loss on the validation rows, the best one first."""
    finished = [(trial.value, trial.number, trial) for trial in trials if trial.value is not None]
    table = Table(title="Best trials, on the validation rows", title_justify="left")
    for heading in ("trial", "maxIter", "regParam", "elasticNetParam", "log loss", "accuracy"):
        table.add_column(heading, justify="right")
    for value, number, trial in sorted(finished)[:shown]:
        params = (f"{trial.params[name]:.4g}" for name in ("maxIter", "regParam", "elasticNetParam"))
        accuracy = trial.metrics["validation_accuracy"]
        table.add_row(str(number), *params, f"{value:.4f}", f"{accuracy:.3f}")
    return table


def tuned_as_json(result: TunedModel) -> dict[str, Any]:
    """What `penguins tune --json` prints: what `train --json` does, and `search`."""
    return {
        **as_json(result.trained),
        "search": {
            "run_id": result.run_id,
            "ended": result.ended,
            "objective": result.objective,
            "value": result.value,
            "best_trial": result.best.number,
            "trials": [
                {"trial": trial.number, "params": trial.params, "value": trial.value, "failure": trial.failure}
                for trial in result.trials
            ],
        },
    }


def promoted(result: Promotion) -> None:
    """Print a verdict: what both models measured on the same rows, the reasons, and what became of it."""
    console = _stdout()
    table = Table(title=f"On {result.rows:,} test rows", title_justify="left")
    table.add_column("")
    names = {"challenger": result.challenger, "champion": result.champion}
    for who in result.metrics:
        version = names[who]
        table.add_column(f"{who} (version {version.number if version else ''})", justify="right")
    for measure in next(iter(result.metrics.values()), {}):
        if measure == "accuracy" or measure.startswith("recall_"):
            values = [f"{measures[measure]:.3f}" for measures in result.metrics.values()]
            table.add_row(measure.replace("recall_", "recall of "), *values)
    if result.metrics:
        console.print(table)
    said = "accepts" if result.verdict.promote else "refuses"
    console.print(f"The gate {said} version {result.challenger.number} of {result.challenger.name}:")
    for reason in result.verdict.reasons:
        console.print(f"  - {reason}")
    if result.moved:
        before = f"; version {result.champion.number} was until now" if result.champion else ""
        console.print(f"Version {result.challenger.number} is champion{before}.")
    else:
        standing = f"Version {result.champion.number} stays champion" if result.champion else "There is no champion"
        console.print(f"{standing}{' (this was a dry run)' if result.run_id is None else ''}.")


def promotion_as_json(result: Promotion) -> dict[str, Any]:
    """What `penguins promote --json` prints."""
    return {
        "model": result.challenger.name,
        "version": result.challenger.number,
        "champion": None if result.champion is None else result.champion.number,
        "promote": result.verdict.promote,
        "moved": result.moved,
        "reasons": list(result.verdict.reasons),
        "rows": result.rows,
        "metrics": result.metrics,
        "run_id": result.run_id,
    }


def serving(version: Version, url: str) -> None:
    """Print which version answers where, and how to ask it."""
    console = _stdout(soft_wrap=True)
    console.print(f"Version {version.number} of {version.name} answers at {url} (Ctrl-C stops)")
    console.print(Text.assemble("Next: ", ("penguins query", "bold"), " in another terminal, or\n"))
    body = json.dumps({"dataframe_records": [LAB_REQUEST]})
    console.print(f"curl {url}/invocations -H 'Content-Type: application/json' -d '{body}'")


def serving_as_json(version: Version, url: str) -> None:
    """What `penguins serve --json` prints."""
    answer = {"model": version.name, "version": version.number, "uri": version.uri, "url": url}
    _stdout(soft_wrap=True).print(json.dumps(answer))


def deployed(result: Deployed) -> None:
    """Print where a version is served now, with which share of the traffic, and who is champion."""
    version = result.version
    if result.endpoint is None:
        said = "There is no endpoint yet: `databricks bundle deploy` makes it, with the champion."
    else:
        already = "" if result.changed else " already, and answers as it should"
        served = f"{result.endpoint} serves version {version.number} of {version.name}"
        said = f"{served} with {result.traffic} % of the traffic{already}."
    _stdout(soft_wrap=True).print(said)
    if result.became_champion:
        _stdout().print(f"Version {version.number} is champion.")


def deployed_as_json(result: Deployed) -> dict[str, Any]:
    """What `penguins deploy --json` prints."""
    return {
        "model": result.version.name,
        "version": result.version.number,
        "endpoint": result.endpoint,
        "traffic": result.traffic,
        "changed": result.changed,
        "became_champion": result.became_champion,
    }


def answers(rows: pd.DataFrame, answered: pd.DataFrame) -> None:
    """Print each row with the answer to it, the class before its probabilities; of many, the first ROWS_SHOWN."""
    probabilities = [name for name in answered.columns if name.startswith("probability_")]
    # The class's code says nothing to a person, where there is a name.
    names = [name for name in answered.columns if name not in {"prediction", *probabilities}] or ["prediction"]
    table = Table()
    for name in (", ".join(map(str, rows.columns)), *map(str, names)):
        table.add_column(name, max_width=32)
    for name in probabilities:
        table.add_column(name.removeprefix("probability_"), justify="right")
    # As objects, because one row of several columns would make its whole numbers doubles.
    for asked, answer in zip(
        rows.head(ROWS_SHOWN).astype(object).to_numpy(), answered.to_dict("records"), strict=False
    ):
        values = [", ".join(map(str, asked)), *(str(answer[name]) for name in names)]
        table.add_row(*values, *(f"{answer[name]:.6f}" for name in probabilities))
    console = _stdout()
    console.print(table)
    if len(rows) > ROWS_SHOWN:
        console.print(f"These are the first {ROWS_SHOWN} of {len(rows):,} rows; --json gives all of them.")


def scored(result: Scored) -> None:
    """Print a finished batch: rows, answers by class, what couldn't be scored and why, where it all is."""
    console = _stdout()
    console.print(f"\n{result.rows:,} rows: {result.scored:,} scored, {result.unscored:,} with reasons why not.")
    _counted(console, result.reasons, result.classes)
    console.print(f"Version  {result.version.uri}\nWritten  {result.target}", soft_wrap=True)


def batch_scored(result: BatchScored) -> None:
    """Print what a batch endpoint has scored, in the same way."""
    console = _stdout()
    console.print(f"\n{result.rows:,} rows: {result.scored:,} scored, {result.unscored:,} with reasons why not.")
    _counted(console, result.reasons, result.classes)
    console.print(f"Job      {result.job}\nWritten  {result.output}", soft_wrap=True)


def batch_scored_as_json(result: BatchScored) -> dict[str, Any]:
    """What `penguins azureml score --json` prints."""
    return {
        "job": result.job,
        "output": str(result.output),
        "rows": result.rows,
        "scored": result.scored,
        "unscored": result.unscored,
        "classes": result.classes,
        "reasons": result.reasons,
    }


def scored_as_json(result: Scored) -> dict[str, Any]:
    """What `penguins predict --json` prints."""
    return {
        "rows": result.rows,
        "scored": result.scored,
        "unscored": result.unscored,
        "classes": result.classes,
        "reasons": result.reasons,
        "model_name": result.version.name,
        "model_version": result.version.number,
        "scored_at": result.scored_at.isoformat(),
        "output": result.target,
    }


def monitored(result: Monitoring) -> None:
    """Print a finished monitoring run: columns, windows, quality, and each breach as a sentence."""
    console = _stdout()
    findings = result.findings
    reference = findings.whole.drifts[0].reference.rows
    console.print(f"\n{findings.whole.rows:,} current rows compared with {reference:,} of the reference.")
    console.print(drifts(findings))
    if findings.whole.confusion is not None:
        console.print(quality(findings.whole.confusion, evaluate.metrics(findings.whole.confusion), "labelled rows"))
    if findings.settings.windows is not None and findings.windows:
        console.print(windows(findings))
    for sentence in findings.breaches:
        console.print(Text.assemble(("✗", "red"), f" {sentence}"), soft_wrap=True)
    if not findings.breaches:
        console.print("No threshold is broken.")
    advice = "is" if findings.retrain else "is not"
    console.print(f"\nRetraining {advice} advised (rule: {findings.settings.rule} windows).")
    console.print(f"\nRun    {result.run_id or 'none could be made'}\nModel  {result.model_uri or 'none was asked'}")
    if result.run_id and (page := tracking.run_page(result.run_id)):
        console.print(f"Studio {page}", soft_wrap=True)


def drifts(findings: Findings) -> Table:
    """A row for each column: PSI, Jensen-Shannon distance, shares of the current rows, verdict."""
    thresholds = findings.settings.thresholds
    table = Table(title="Drift", title_justify="left")
    table.add_column("column")
    for heading in ("PSI", "chance", "JS", "missing", "outside", "new"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    for found, verdict in zip(findings.whole.drifts, findings.verdicts, strict=True):
        measured = (found.psi, found.chance(thresholds.significance), found.js)
        numbers = ["—" if value is None else f"{value:.3f}" for value in measured]
        colour = {"drift": "red", "watch": "yellow"}.get(verdict, "default")
        shares = (f"{share:.1%}" for share in found.shares().values())
        table.add_row(found.column, *numbers, *shares, Text(verdict, style=colour))
    return table


def windows(findings: Findings) -> Table:
    """A row for each of the last windows: how many rows, how good the answers were, what drifted, how much broke."""
    shown = findings.windows[-MOST_WINDOWS:]
    number = f"the last {len(shown):,} of {len(findings.windows):,}" if shown != findings.windows else "all"
    table = Table(title=f"Windows ({number})", title_justify="left")
    table.add_column("from (UTC)")
    for heading in ("rows", "accuracy", "lowest recall", "largest PSI", "breaches"):
        table.add_column(heading, justify="right")
    for period in shown:
        recalls = [value for name, value in period.metrics.items() if name.startswith("recall_")]
        indices = [found.psi for found in period.drifts if found.psi is not None]
        accuracy = f"{period.metrics['accuracy']:.3f}" if period.metrics else "—"
        lowest = f"{min(recalls):.3f}" if recalls else "—"
        largest = f"{max(indices):.3f}" if indices else "—"
        table.add_row(
            f"{period.start:%Y-%m-%d %H:%M}", f"{period.rows:,}", accuracy, lowest, largest, str(len(period.breaches))
        )
    return table
