"""Turn results.json into docs/benchmarks.md and the plot: `python -m benchmarks.report DOCS`; measures nothing."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

PLOT = "cost_per_row.png"
LINEAR_FROM = 100_000
NOISE = 1.1
"""How much more a row may cost than at the next smaller size before it counts as growth."""

ACCURACY_TOLERANCE = 0.005

INTRODUCTION = """# Benchmarks

How long `penguins` takes beside the lab's own procedure ([benchmarks/lab.py](../benchmarks/lab.py)). `make bench`
measures it all again and rewrites this page; the figures in full are in [results.json](benchmarks/results.json).
Ratios carry over to other machines, seconds don't. Both sides of a row were measured in one run; the rows were
measured at different times where `--only` was given. A target is the ratio that we want to keep; *no* means that this
run missed it.
"""

EXPLANATION = """## What is measured

Both sides have the same data, parameters, master (`local[*]`) and driver memory, and a real MLflow store (SQLite).
Where several repetitions are made, the lab and ours take turns and the median counts.

- **Warm run**: rows that are read and split already, in a session that has done a run of each before. Ours counts,
  fits, evaluates, draws, logs the three-flavor model and registers it; the lab fits, evaluates, logs its model and
  saves it to a path. Both share our session, whose few shuffle partitions are a help to the lab.
- **Tracked trials**: one search by `tune_model`, in a session as warm: fits of up to 100 iterations, a nested run for
  each, and at the end the best parameters trained, logged and registered. The lab does its warm run three times.
- **Whole process**: the command `penguins train` and the lab as a script with one run, from start to exit, each in an
  empty folder.
- **Many rows**: birds resampled with noise, from the file to the logged model. Each line is a fresh process that first
  does a run on the 344 real birds, so that the start of the JVM doesn't count (it does in the whole process). The
  lab's seconds hold its counts and its sample. Accuracy is each one's own, on its own 30 % of the rows.
- **scikit-learn** reads the CSV with pandas, fits OrdinalEncoder, MinMaxScaler, StandardScaler and LogisticRegression,
  and logs nothing. `C = 1 / (regParam · n)` for n training rows, because Spark minimizes the *mean* loss plus
  regParam/2 · |w|², and scikit-learn C times the *sum* plus 1/2 · |w|². StandardScaler is there because Spark
  standardizes inside its regression and regularizes those coefficients.
- **Peak memory** is the largest sum of resident memory of the process and all its children, looked at five times a
  second: the JVM, and the second Spark process that MLflow starts to find out what the lab's model requires. A JVM
  takes what it may before it collects garbage, so this is what was used, not what is needed.
- **One prediction**: `mlflow.pyfunc.load_model(...).predict` of one bird, for the lab's model (MLflow's wrapper of its
  Spark flavor) and for ours (its JVM-free `python_function`); and `PipelineModel.transform(...).collect()` of a Spark
  frame with that bird.
- **Rows scored in a batch**: from Parquet to Parquet, in one warm session. Ours is `penguins predict`, which scores
  with the Spark flavor, checks every value, and counts what it wrote. Beside it stands not the lab, which has no batch,
  but MLflow's `spark_udf` (`env_manager="local"`) of the same version, which sends the rows to Python processes that
  ask the JVM-free `python_function`; it checks nothing it writes, and one unusable value fails the job.
- **Over HTTP**: the lab's model as the lab saved it, and ours, both served by `mlflow models serve --env-manager local
  -w 1`. The table of this part has ours by `penguins serve` as well, which asks the same MLflow function in one
  process, and which no target is about. Three starts of each by turns, with 10 requests to warm up and 200 that count,
  one after another on one connection. A prediction is the median of the three medians. Ready is from the start of the
  command to the first answer of `/ping`. Memory is the sum of resident memory of all the server's processes after the
  requests. The scorer's part is `Scorer.predict` of one bird, measured without a server; the rest of a request is
  MLflow and HTTP.
- **Under attack**: questions about one bird to `penguins serve`, one after another on one connection, in peace and
  while eight processes send what a server may fear: tables of 20,000 columns, 1,000,000 lists, 50,000 rows, 17 MB,
  Parquet, a body without an end, and 500 connections that say half a header. The ratio is that of the two p99. The
  table of this part has the server's memory, both of its processes, and its open files, before and 15 seconds after.
- **Growth of the cost per row**: the most that a row costs more at one size than at the next smaller one, from
  100,000 rows up. 1 is linear, less is better than linear, and up to 1.1 passes for noise.
"""


PROCESS = """## Whole process, step by step

Where the seconds of `penguins train` go. Nearly all of it is the JVM loading and compiling classes for the first time:
the warm run above does everything from the counting on in a fraction of it. Python's imports (about 5 s of processor
time, MLflow most of it) pass while the JVM starts, and the last step holds the end of both processes.
"""


@dataclass(frozen=True)
class Row:
    """One line of the table: what the lab needed, what we did, and what was promised."""

    what: str
    lab: str
    ours: str
    ratio: str = ""
    target: str = ""
    is_met: bool | None = None

    def cells(self) -> tuple[str, ...]:
        """The texts of the line."""
        met = {None: "", True: "yes", False: "**no**"}[self.is_met]
        return self.what, self.lab, self.ours, self.ratio, self.target, met


HEADINGS = ("", "lab", "ours", "lab / ours", "target", "met")


def rows(results: dict[str, Any]) -> list[Row]:
    """The table, as far as the results go."""
    table: list[Row] = []
    if warm := results.get("warm"):
        lab, ours = (statistics.median(warm["seconds"][name]) for name in ("lab", "ours"))
        table.append(_ratio("warm run, 342 rows", lab, ours, 5))
    if tune := results.get("tune"):
        what = f"{tune['trials']} tracked trials, beside {tune['lab_runs']} runs of the lab"
        table.append(_ratio(what, tune["seconds"]["lab"], tune["seconds"]["ours"], 1))
    if process := results.get("process"):
        lab, ours = (statistics.median(run["seconds"] for run in process[name]) for name in ("lab", "ours"))
        table.append(_ratio("whole process, 344 rows", lab, ours, 2))
    runs = results.get("big", [])
    for lab_run in (run for run in runs if run["contender"] == "lab"):
        for run in runs:
            if run["contender"].startswith("ours") and _setting(run) == _setting(lab_run):
                table += _big(lab_run, run)
    if predict := results.get("predict"):
        ours = predict["python_function"]
        table.append(_ratio("one prediction, Spark flavor", predict["spark_flavor"], ours, 50))
        table.append(_ratio("one prediction, `transform`", predict["transform"], ours, None))
        speed = predict["rows"] / predict["python_function_many"]
        table.append(Row(f"{predict['rows']:,} predictions", "", f"{speed:,.0f} rows/s"))
    if batch := results.get("batch"):
        ours, udf = (statistics.median(batch["seconds"][name]) for name in ("ours", "spark_udf"))
        rows_scored = batch["rows"]["ours"]
        speeds = f"{rows_scored / udf:,.0f} rows/s", f"{rows_scored / ours:,.0f} rows/s"
        table.append(Row(f"{rows_scored:,} rows scored in a batch, beside `spark_udf`", *speeds, f"{udf / ours:.2f}"))
    if serve := results.get("serve"):
        table += _serve(serve)
    if attacked := results.get("attacked"):
        table.append(_attacked(attacked))
    if scaling := results.get("scaling"):
        growth = _growth(_cost_per_row(scaling))
        if growth:
            worst = max(growth)
            target = f"≤ {NOISE:g}"
            table.append(Row("growth of the cost per row", "", f"× {worst:.2f}", "", target, worst <= NOISE))
    return table


def _ratio(what: str, lab: float, ours: float, target: float | None) -> Row:
    ratio = lab / ours
    told, is_met = ("", None) if target is None else (f"≥ {target:g}", ratio >= target)
    return Row(what, _time(lab), _time(ours), f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}", told, is_met)


def _big(lab: dict[str, Any], ours: dict[str, Any]) -> Iterable[Row]:
    what = f"{ours['rows']:,} rows, {ours['contender'].removeprefix('ours ')}, maxIter {ours['max_iter']}"
    yield _ratio(what, lab["seconds"], ours["seconds"], 4)
    difference = abs(lab["accuracy"] - ours["accuracy"])
    is_met = difference <= ACCURACY_TOLERANCE
    told = f"± {ACCURACY_TOLERANCE:g}"
    yield Row(
        "… accuracy", f"{lab['accuracy']:.4f}", f"{ours['accuracy']:.4f}", f"{difference:.4f} apart", told, is_met
    )


def _serve(serve: dict[str, Any]) -> Iterable[Row]:
    lab, ours = (
        {measure: statistics.median(run[measure] for run in serve[name]) for measure in ("requests", "ready", "gib")}
        # Behind the same server, so that what is compared is the models; `_servers` shows `penguins serve` as well.
        for name in ("lab", "ours by mlflow")
    )
    yield _ratio("one prediction over HTTP", lab["requests"], ours["requests"], 15)
    share = serve["scorer"] / ours["requests"]
    yield Row("… of which the scorer", "", f"{_time(serve['scorer'])}, {share:.0%}")
    yield _ratio("server ready", lab["ready"], ours["ready"], 1.7)
    ratio = lab["gib"] / ours["gib"]
    yield Row("server's memory", f"{lab['gib']:.2f} GiB", f"{ours['gib']:.2f} GiB", f"{ratio:.2f}", "≥ 2", ratio >= 2)


def _attacked(run: dict[str, Any]) -> Row:
    attacked = run["attacked"]["p99"]
    ratio = attacked / run["quiet"]["p99"]
    return Row(
        "99 of 100 predictions over HTTP under attack", "", _time(attacked), f"× {ratio:.1f}", "< 10", ratio < 10
    )


def _setting(run: dict[str, Any]) -> tuple[int, float]:
    return run["max_iter"], run["reg_param"]


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1e3:.2f} ms"


def _cost_per_row(scaling: dict[str, Any]) -> dict[int, float]:
    """Microseconds per row by number of rows."""
    return {int(size): statistics.median(times) / int(size) * 1e6 for size, times in scaling["seconds"].items()}


def _growth(costs: dict[int, float]) -> list[float]:
    """How much more a row costs at each size than at the next smaller one, from LINEAR_FROM up."""
    sizes = sorted(size for size in costs if size >= LINEAR_FROM)
    return [costs[larger] / costs[smaller] for smaller, larger in pairwise(sizes)]


def page(results: dict[str, Any]) -> str:
    """The whole of benchmarks.md."""
    parts = [INTRODUCTION, _machine(results["machine"]), _markdown(HEADINGS, [row.cells() for row in rows(results)])]
    if process := results.get("process"):
        parts += [PROCESS, _markdown(("step", "seconds"), _process_steps(process["ours"]))]
    if runs := results.get("big"):
        parts += ["## Many rows, step by step\n", _markdown(*_steps(runs))]
    if serve := results.get("serve"):
        parts += ["## Over HTTP\n", _markdown(*_servers(serve))]
    if attacked := results.get("attacked"):
        parts += ["## Under attack\n", _markdown(*_peace_and_attack(attacked))]
    if scaling := results.get("scaling"):
        cells = [(f"{size:,}", f"{cost:,.1f} µs") for size, cost in _cost_per_row(scaling).items()]
        parts += [
            "## Cost per row\n",
            f"![Cost per row by number of rows](benchmarks/{PLOT})\n",
            f"From Parquet, in one warm session, maxIter {scaling['max_iter']}, regParam {scaling['reg_param']:g}:\n",
            _markdown(("rows", "per row"), cells),
        ]
    return "\n".join([*parts, EXPLANATION])


def _machine(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"Machine: {machine['system']}, {machine['cores']} cores, {machine['memory_gib']} GiB of memory, "
        f"{machine['driver_memory_gib']} of them for Spark's driver. {versions}. "
        "maxIter 10 and regParam 0.2 for all, unless the line says otherwise.\n"
    )


def _steps(runs: list[dict[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    headings = ("", "maxIter", "regParam", "seconds", "of which", "accuracy", "peak memory")
    cells: list[tuple[str, ...]] = []
    for run in runs:
        steps = ", ".join(f"{step} {seconds:.1f}" for step, seconds in run["steps"].items())
        cells.append(
            (
                run["contender"],
                str(run["max_iter"]),
                f"{run['reg_param']:g}",
                f"{run['seconds']:.1f}",
                steps,
                f"{run['accuracy']:.4f}",
                f"{run['peak_gib']:.1f} GiB",
            )
        )
    return headings, cells


def _servers(serve: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    contenders = {
        "lab": "lab, `mlflow models serve`",
        "ours by mlflow": "ours, `mlflow models serve`",
        "ours": "ours, `penguins serve`",
    }
    cells: list[tuple[str, ...]] = []
    for name, told in contenders.items():
        median = {key: statistics.median(run[key] for run in serve[name]) for key in ("requests", "ready", "gib")}
        cells.append((told, _time(median["requests"]), _time(median["ready"]), f"{median['gib']:.2f} GiB"))
    return ("", "one prediction", "ready after", "memory"), cells


def _peace_and_attack(run: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    cells: list[tuple[str, ...]] = []
    for told, seconds, left in (("in peace", "quiet", "before"), ("under attack, and after it", "attacked", "after")):
        medians = (_time(run[seconds]["median"]), _time(run[seconds]["p99"]))
        cells.append((told, *medians, f"{run[left]['gib']:.2f} GiB", f"{run[left]['files']:.0f}"))
    return ("", "median", "p99", "memory", "open files"), cells


def _process_steps(runs: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [(step, f"{statistics.median(run['steps'][step] for run in runs):.1f}") for step in runs[0]["steps"]]


def _markdown(headings: tuple[str, ...], cells: Sequence[tuple[str, ...]]) -> str:
    lines = [headings, ("---",) * len(headings), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def plot(scaling: dict[str, Any]) -> Figure:
    """Cost per row over the number of rows, both axes logarithmic."""
    costs = _cost_per_row(scaling)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.loglog(list(costs), list(costs.values()), marker="o")
    axes.set(title="penguins train, from Parquet", xlabel="rows", ylabel="µs per row")
    axes.grid(visible=True, which="both", alpha=0.3)
    return figure


def main(docs: Path) -> None:
    """Write the page and the plot to `docs`, and show the table."""
    folder = docs / "benchmarks"
    results = json.loads((folder / "results.json").read_text())
    (docs / "benchmarks.md").write_text(page(results))
    if scaling := results.get("scaling"):
        plot(scaling).savefig(folder / PLOT, dpi=120)
    table = Table(*HEADINGS)
    for row in rows(results):
        table.add_row(*row.cells())
    Console().print(table)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
