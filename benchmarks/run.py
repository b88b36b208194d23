"""Measure everything and write docs/benchmarks.md: each measurement in a process of its own, watched from here."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import psutil
from rich.console import Console

MEASUREMENTS = ("warm", "tune", "process", "big", "scaling", "predict", "batch", "serve", "attacked")
ROOT = Path(__file__).resolve().parent.parent
REAL_BIRDS = ROOT / "data" / "penguins.csv"
LAB_PARAMETERS = {"max_iter": 10, "reg_param": 0.2}
OUR_PARAMETERS = {"max_iter": 100, "reg_param": 0.001}
SIZES = (10_000, 100_000, 300_000, 1_000_000, 2_500_000)
"""Of the plot, below the number of rows asked for."""

MANY_BIRDS = 1_000_000
"""For the JVM-free model to answer at once."""

BETWEEN_LOOKS = 0.2
"""Seconds between two looks at the memory of a process."""

MEMORY = max(1, min(8, psutil.virtual_memory().total // 2**30 // 3))
"""GiB of Spark's driver, the lab's and ours: what penguins takes by itself."""

console = Console(stderr=True, highlight=False)


class Bench:
    """How large, where, and what to call each measurement with."""

    def __init__(self, rows: int, data: Path, also_converged: bool) -> None:
        self.rows, self.data, self.also_converged = rows, data, also_converged

    def warm(self) -> dict[str, Any]:
        """One run on rows that are there, in a session that is warm."""
        return {**LAB_PARAMETERS, "seconds": _measure("warm", repetitions=5, **LAB_PARAMETERS)["result"]}

    def tune(self) -> dict[str, Any]:
        """A search of 20 trials beside three runs of the lab, in a session that is warm."""
        sizes = {"trials": 20, "lab_runs": 3}
        return {**LAB_PARAMETERS, **sizes, "seconds": _measure("tune", **sizes, **LAB_PARAMETERS)["result"]}

    def process(self) -> dict[str, Any]:
        """A command from start to end, by turns, each with an empty folder and store."""
        options = ["--data", str(REAL_BIRDS), "--max-iter", "10", "--reg-param", "0.2"]
        commands = {
            "lab": [sys.executable, str(ROOT / "benchmarks" / "lab.py"), *options],
            "ours": [str(Path(sys.executable).with_name("penguins")), "train", *options],
        }
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
        for _ in range(3):
            for name, command in commands.items():
                with tempfile.TemporaryDirectory() as folder:
                    run = _watch(f"process {name}", command, Path(folder))
                    runs[name].append({**run, "steps": _steps(Path(folder, "log.txt").read_text(), run["seconds"])})
        return {**LAB_PARAMETERS, **runs}

    def big(self) -> list[dict[str, Any]]:
        """Many rows: the lab, ours from both formats, and scikit-learn."""
        csv, parquet = self._birds(self.rows)
        runs = []
        for parameters in (LAB_PARAMETERS, OUR_PARAMETERS) if self.also_converged else (LAB_PARAMETERS,):
            for contender, name, source in (
                ("lab", "lab_run", csv),
                ("ours from CSV", "our_run", csv),
                ("ours from Parquet", "our_run", parquet),
                ("scikit-learn", "scikit_learn_run", csv),
            ):
                measured = _measure(name, source=source, **parameters)
                result = measured.pop("result")
                process = {"process_seconds": measured["seconds"], "peak_gib": measured["peak_gib"]}
                runs.append({"contender": contender, "rows": self.rows, **parameters, **result, **process})
        return runs

    def scaling(self) -> dict[str, Any]:
        """Seconds of a run by number of rows, from Parquet."""
        sizes = [*(size for size in SIZES if size < self.rows), self.rows]
        sources = {str(size): self._birds(size)[1] for size in sizes}
        return {
            **LAB_PARAMETERS,
            "seconds": _measure("scaling", sources=sources, repetitions=3, **LAB_PARAMETERS)["result"],
        }

    def predict(self) -> dict[str, Any]:
        """One bird asked of the lab's model and of ours, and many asked of ours."""
        many_birds = self._birds(min(MANY_BIRDS, self.rows))[1]
        return dict(_measure("predict", many_birds=many_birds, repetitions=30)["result"])

    def batch(self) -> dict[str, Any]:
        """Many rows scored into a file, ours and MLflow's way."""
        return dict(_measure("batch", source=self._birds(self.rows)[1], repetitions=3)["result"])

    def serve(self) -> dict[str, Any]:
        """One bird asked over HTTP."""
        return dict(_measure("serve", repetitions=3, requests=200)["result"])

    def attacked(self) -> dict[str, Any]:
        """One bird asked over HTTP while somebody attacks the server."""
        return dict(_measure("attacked", questions=2000)["result"])

    def _birds(self, rows: int) -> list[str]:
        return list(_measure("birds", rows=rows, folder=str(self.data))["result"])


@click.command()
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(MEASUREMENTS),
    help="Measure only this, and keep the other results as they are; may be given more than once.",
)
@click.option("--rows", default=5_000_000, show_default=True, help="How many the big run has.")
@click.option("--also-converged", is_flag=True, help="Do the big run with penguins' default parameters as well.")
@click.option(
    "--data",
    default=ROOT / "benchmarks" / "data",
    show_default="benchmarks/data",
    type=click.Path(path_type=Path),
    help="Where the made-up birds are kept.",
)
@click.option(
    "--docs", default=ROOT / "docs", show_default="docs", type=click.Path(path_type=Path),
    help="Where benchmarks.md and the folder benchmarks are written.",
)  # fmt: skip
def main(only: tuple[str, ...], rows: int, also_converged: bool, data: Path, docs: Path) -> None:
    """Measure penguins against the lab's procedure, and write the results down."""
    bench = Bench(rows, data.resolve(), also_converged)
    file = docs.resolve() / "benchmarks" / "results.json"
    results: dict[str, Any] = json.loads(file.read_text()) if only and file.exists() else {}
    results["machine"] = _machine()
    file.parent.mkdir(parents=True, exist_ok=True)
    for name in only or MEASUREMENTS:
        results[name] = getattr(bench, name)()
        file.write_text(json.dumps(results, indent=2) + "\n")
    subprocess.run([sys.executable, "-m", "benchmarks.report", str(docs.resolve())], cwd=ROOT, check=True)


def _measure(name: str, **arguments: Any) -> dict[str, Any]:
    """Run one function of benchmarks/measure.py in a fresh process and an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        command = [sys.executable, "-m", "benchmarks.measure", name, json.dumps(arguments), str(result)]
        size = next((f" {Path(value).name}" for key, value in arguments.items() if key == "source"), "")
        watched = _watch(f"{name}{size}", command, Path(folder))
        return {**watched, "result": json.loads(result.read_text())}


def _watch(what: str, command: list[str], folder: Path) -> dict[str, Any]:
    """Run a command in `folder`; its seconds, and the largest sum of its own and its children's resident memory."""
    log = folder / "log.txt"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "SPARK_DRIVER_MEMORY": f"{MEMORY}g",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    for name in ("MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_NAME"):
        environment.pop(name, None)
    environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
    peak = 0
    with log.open("w") as output, console.status(f"{what} ..."):
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        while True:
            try:
                process.wait(BETWEEN_LOOKS)
                break
            except subprocess.TimeoutExpired:
                peak = max(peak, _memory(process.pid))
        seconds = time.perf_counter() - start
    if process.returncode != 0:
        raise click.ClickException(f"{what} failed:\n{log.read_text()[-4000:]}")
    console.print(f"{seconds:7.1f} s  {peak / 2**30:5.2f} GiB  {what}")
    return {"seconds": seconds, "peak_gib": peak / 2**30}


def _steps(log: str, until: float) -> dict[str, float]:
    """Seconds of each step, from the lines in which `penguins train` tells when a step began."""
    begun = [(step, float(at)) for at, step in re.findall(r"^ *([\d.]+) s  (.+)$", log, re.MULTILINE)]
    ends = [at for _, at in begun[1:]] + [until]
    return {step: end - at for (step, at), end in zip(begun, ends, strict=True)} if begun else {}


def _memory(pid: int) -> int:
    total = 0
    try:
        parent = psutil.Process(pid)
        processes = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            # It ended since the list was made.
            continue
    return total


def _machine() -> dict[str, Any]:
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "driver_memory_gib": MEMORY,
        "versions": {
            "Python": platform.python_version(),
            **{name: version(name) for name in ("pyspark", "mlflow", "onnxruntime", "scikit-learn")},
        },
    }


if __name__ == "__main__":
    main()
