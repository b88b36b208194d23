"""The documents tell the truth: shown commands run and give the shown output, named things exist."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import click
import mlflow
import pytest

from penguins import cli
from penguins.train import train_from_source
from tests.conftest import BRIEF_JVM, ROOT, no_java_path
from tests.test_cli import here

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "data" / "README.md", *(ROOT / "docs").glob("*.md")]
BIN = Path(sys.executable).parent


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def timeless(text: str) -> list[str]:
    """Lines without what differs from run to run: ids, milliseconds, and spaces at their ends."""
    lines = [re.sub(r"\b(m-)?[0-9a-f]{32}\b", "ID", line.rstrip()) for line in text.strip().splitlines()]
    return [re.sub(r"\b[\d.]+ ms\b", "TIME", line) for line in lines]


def run(command: str, folder: Path, **added: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment |= {"COLUMNS": "80", "MLFLOW_DISABLE_TELEMETRY": "true", **added}
    # The user's .venv is the environment that these tests run in.
    here = command.replace(".venv/bin/", f"{BIN}/")
    return subprocess.run(here, shell=True, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What a user has after cloning, as far as commands need it."""
    shutil.copytree(ROOT / "data", tmp_path / "data")
    return tmp_path


def test_the_readmes_first_command_is_what_make_does() -> None:
    [console] = blocks(README, "console")
    setup = console.splitlines()[0]
    makefile = (ROOT / "Makefile").read_text()
    assert "-m venv" in setup
    assert "-r requirements.lock" in setup
    assert "-r requirements.lock" in makefile
    assert "--no-deps -e ." in setup
    assert "--no-deps --editable ." in makefile
    assert "--hash=sha256:" in (ROOT / "requirements.lock").read_text(), "pip checks every hash when one is there"


@pytest.mark.spark
@pytest.mark.slow
def test_the_readmes_second_command_gives_the_output_shown_without_java(clone: Path) -> None:
    """The whole of it, for real: no JAVA_HOME, no java on the PATH, and Spark runs."""
    bare = {"JAVA_HOME": "", "PATH": no_java_path(clone), "XDG_CACHE_HOME": str(clone / "cache")}
    [console] = blocks(README, "console")
    command, _, shown = console.partition("\n")[2].partition("\n")
    result = run(command.removeprefix("$ "), clone, **bare)
    assert result.returncode == 0, result.stderr
    assert timeless(result.stdout) == timeless(shown)
    assert (clone / "cache" / "penguins").exists(), "the Java that was brought along ran"


@pytest.mark.spark
@pytest.mark.slow
def test_the_readmes_python_runs(clone: Path) -> None:
    [python] = blocks(README, "python")
    (clone / "readme.py").write_text(python)
    result = run(".venv/bin/python readme.py", clone, **BRIEF_JVM)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-2:] == ["0.964", "['Adelie', 'Adelie']"]


@pytest.mark.spark
@pytest.mark.slow
def test_the_pages_show_what_predict_and_monitor_print(
    store: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "data", store / "data")
    monkeypatch.chdir(store)
    train_from_source(spark, "data/penguins.csv", register_as="penguin_predictor")
    mlflow.MlflowClient().set_registered_model_alias("penguin_predictor", "champion", "1")
    pages = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("monitoring", "predict")}
    [python] = blocks(pages["monitoring"], "python")
    exec(python, {})
    for name, exit_code in (("predict", 0), ("monitoring", 3)):
        [console] = blocks(pages[name], "console")
        command, _, shown = console.partition("\n")
        result = here(*command.partition("penguins ")[2].split(), COLUMNS="80")
        assert result.exit_code == exit_code, result.stderr
        assert timeless(result.stdout) == timeless(shown)
    assert (store / "scored.csv").is_file()
    assert sorted(path.name for path in (store / "report").iterdir()) == [
        *("drift_report.html", "drift_report.png", "monitoring.json")
    ]


@pytest.mark.spark
@pytest.mark.slow
def test_the_demo_tells_the_story_shown_and_leaves_nothing_running(
    clone: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = uuid4().hex
    # A registry that others use is none of the demo's business.
    result = run(".venv/bin/penguins demo", clone, MLFLOW_REGISTRY_URI="http://127.0.0.1:9", DEMO=mark)
    assert result.returncode == 0, result.stderr
    assert started_with(mark) == []
    [shown] = blocks(README, "text")
    assert timeless(result.stdout) == timeless(shown)
    assert sorted(path.name for path in clone.iterdir()) == ["data", "penguins-demo"]
    made = ["both.csv", "drift", "mlflow.db", "mlruns", "penguins.csv", "scored.csv", "season.csv"]
    assert sorted(path.name for path in (clone / "penguins-demo").iterdir()) == made
    end = result.stdout.rpartition("That was all.")[2]
    named = [path.removesuffix(".") for path in re.findall(r"\S+\.(?:csv|html)\b", end)]
    assert named == ["scored.csv", "drift/drift_report.html"]
    for path in named:
        assert (clone / "penguins-demo" / path).is_file()
    monkeypatch.chdir(clone / "penguins-demo")
    commands = re.findall(r"^\$ penguins ((?:train|promote|predict|monitor|rollback).*)$", result.stdout, re.MULTILINE)
    assert len(commands) == 8
    for command in commands:
        again = here(*command.split())
        assert (again.exit_code in {0, 3}, "Error" in again.stderr) == (True, False), f"{command}: {again.stderr}"


def started_with(mark: str) -> list[str]:
    """The command lines of all processes that have `mark` in their environment, whoever is their parent now."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get("DEMO") == mark:
                found.append(" ".join(process.cmdline()))
    return found


def test_every_command_stands_in_the_readme() -> None:
    for name in cli.main.commands:
        assert f"`penguins {name}`" in README, name


def options(command: click.Command) -> set[str]:
    """The options of a command, and of all commands in it if it is a group."""
    inner = command.commands.values() if isinstance(command, click.Group) else ()
    own = {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
    return own.union(*map(options, inner))


def test_every_option_shown_exists() -> None:
    known = options(cli.main)
    for document in DOCUMENTS:
        for line in re.findall(rf"penguins (?:{'|'.join(cli.main.commands)})[^\n`|]*", document.read_text()):
            assert set(re.findall(r"--[a-z-]+", line)) <= known | {"--help"}, f"{document.name}: {line}"


def test_every_make_target_shown_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        shown = set(re.findall(r"(?:`|\$ )make ([a-z0-9-]+)", document.read_text()))
        assert shown <= targets, document.name


def test_every_link_leads_somewhere() -> None:
    for document in DOCUMENTS:
        for link in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if not link.startswith("http"):
                assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_every_core_dependency_has_its_reason() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lists = [project["project"]["dependencies"], *project["project"]["optional-dependencies"].values()]
    reasons = (ROOT / "docs" / "architecture.md").read_text().partition("## Dependencies")[2]
    for requirement in [*(item for items in lists for item in items), *project["dependency-groups"]["dev"]]:
        name = re.split(r"[<>=!;]", requirement)[0]
        assert f"`{name}`" in reasons, name


def test_the_layers_in_the_document_are_the_layers_in_the_test() -> None:
    from tests.test_architecture import LAYERS

    table = (ROOT / "docs" / "architecture.md").read_text().partition("## Layers")[2].partition("| module |")[0]
    rows = [
        re.findall(r"`(\w+)`", line.split("|")[2]) for line in table.splitlines() if re.match(r"\| [a-z]+ \| `", line)
    ]
    assert rows == [[module for module in layer if module != "__main__"] for layer in LAYERS]


def sentence(node: ast.expr) -> str:
    """What a string of the source says, with `…` for values."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(map(sentence, parts))
        case ast.FormattedValue(value=ast.IfExp(body=ast.JoinedStr() as first)):
            return sentence(first)
    return "…"


def sentences() -> list[str]:
    """All that the package and the bundle can say."""
    sources = [*(ROOT / "src" / "penguins").glob("*.py"), ROOT / "resources" / "__init__.py"]
    # A string that is a statement is a docstring, which nobody is told.
    trees = [ast.parse(file.read_text()) for file in sources]
    parents = [node for tree in trees for node in ast.walk(tree) if not isinstance(node, ast.Expr)]
    nodes = [node for parent in parents for node in ast.iter_child_nodes(parent)]
    script = (ROOT / "resources" / "azureml_link.sh").read_text()
    return [sentence(node) for node in nodes if isinstance(node, ast.Constant | ast.JoinedStr)] + [
        re.sub(r"\$\w+", "…", script)
    ]


PLATFORMS_OWN = {"already exists", "NOT_SUPPORTED_WITH_SERVERLESS"}


@pytest.mark.parametrize("name", ["azureml.md", "databricks.md"])
def test_explained_messages_are_those_that_can_come(name: str) -> None:
    table = (ROOT / "docs" / name).read_text().split("| the message says |")[1].split("\n\n")[0]
    explained = {said for row in table.splitlines()[2:] for said in re.findall("`([^`]+)`", row.split(" | ")[0])}
    assert len(explained) > 10
    can_come = sentences()
    assert [said for said in explained - PLATFORMS_OWN if not any(said in one for one in can_come)] == []
