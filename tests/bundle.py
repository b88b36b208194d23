"""The bundle as the tests see it: read from its files, resolved for a target, and looked through for mistakes.

The CLI does the same in `databricks bundle validate`, but needs a workspace for it. Not resolved here is what only a
workspace knows; the fixed values below stand for it.
"""

from __future__ import annotations

import ast
import copy
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import yaml
from databricks.bundles.clusters import Cluster
from databricks.bundles.experiments import MlflowExperiment
from databricks.bundles.jobs import Job
from databricks.bundles.model_serving_endpoints import ModelServingEndpoint
from databricks.bundles.registered_models import RegisteredModel
from databricks.bundles.schemas import Schema
from databricks.bundles.volumes import Volume
from databricks.sdk.service.jobs import JobSettings
from pytest_databricks_lakeflow.settings.lint import ALL_RULES, lint

from penguins.cli import main
from penguins.config import WORKLOAD_SIZES, ServingParameters
from tests.conftest import ROOT

TYPES: dict[str, Any] = {
    "clusters": Cluster,
    "experiments": MlflowExperiment,
    "jobs": Job,
    "model_serving_endpoints": ModelServingEndpoint,
    "registered_models": RegisteredModel,
    "schemas": Schema,
    "volumes": Volume,
}
"""The official type of each kind of resource."""

WORKSPACE = {
    "workspace.root_path": "/Workspace/Users/ada@example.com/.bundle/penguins/dev",
    "workspace.current_user.userName": "ada@example.com",
    "workspace.current_user.short_name": "ada",
}

REFERENCE = re.compile(r"\$\{([^}]+)\}")


def read(optional: bool = True) -> dict[str, Any]:
    """databricks.yml with the resources of its files; of the optional ones, too, unless they are not wanted."""
    bundle: dict[str, Any] = yaml.safe_load((ROOT / "databricks.yml").read_text())
    resources: dict[str, Any] = {}
    files = sorted((ROOT / "resources").glob("*.yml"))
    files += sorted((ROOT / "resources" / "optional").glob("*.yml")) if optional else []
    for file in files:
        for kind, of_kind in yaml.safe_load(file.read_text())["resources"].items():
            resources.setdefault(kind, {}).update(of_kind)
    bundle["resources"] = resources
    return bundle


def resolved(bundle: dict[str, Any], target: str) -> dict[str, Any]:
    """The bundle's resources as they are for a target. An undeclared reference raises KeyError."""
    chosen = bundle["targets"][target] or {}
    overrides = chosen.get("variables", {})
    known: dict[str, Any] = {
        f"var.{name}": overrides.get(name, said.get("default")) for name, said in bundle["variables"].items()
    }
    known |= WORKSPACE | {"bundle.name": bundle["bundle"]["name"], "bundle.target": target}
    if root := chosen.get("workspace", {}).get("root_path"):
        known["workspace.root_path"] = root
    known["workspace.host"] = chosen.get("workspace", {}).get("host", "")
    known["workspace.file_path"] = "${workspace.root_path}/files"
    known |= {"resources.jobs.training.id": 1}
    for kind, of_kind in bundle["resources"].items():
        for key, resource in of_kind.items():
            known |= {f"resources.{kind}.{key}.{name}": value for name, value in resource.items()}
    for name, value in bundle["variables"].get("cluster", {}).get("default", {}).items():
        known[f"var.cluster.{name}"] = value
    resources: dict[str, Any] = _resolve(copy.deepcopy(bundle["resources"]), known)
    return resources


def _resolve(value: Any, known: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {key: _resolve(item, known) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, known) for item in value]
    if not isinstance(value, str):
        return value
    if whole := REFERENCE.fullmatch(value):
        return _resolve(known[whole[1]], known)
    return REFERENCE.sub(lambda found: str(_resolve(known[found[1]], known)), value)


def typed(resources: dict[str, Any]) -> None:
    """Raise when a resource isn't what its official type says: an unknown field, a value that isn't allowed."""
    for kind, of_kind in resources.items():
        for resource in of_kind.values():
            TYPES[kind].from_dict(resource)


def python_part(
    variables: dict[str, Any], environment: dict[str, str], folder: Path, target: str = "dev"
) -> tuple[dict[str, Any], str]:
    """What the bundle's Python part adds to the resources, and what it says."""
    # When it says that something is wrong, there is nothing it adds.
    added, said = _built("load_resources", "resources", {}, variables, environment, folder, target)
    return added or {}, said


def mutated(jobs: dict[str, Any], variables: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What the bundle's Python part makes of the jobs."""
    changed, said = _built("apply_mutators", "mutators", {"jobs": jobs}, variables, {}, folder, "dev")
    assert changed is not None, said
    after: dict[str, Any] = changed["jobs"]
    return after


def _built(
    phase: str,
    functions: str,
    resources: dict[str, Any],
    variables: dict[str, Any],
    environment: dict[str, str],
    folder: Path,
    target: str,
) -> tuple[dict[str, Any] | None, str]:
    """Run a phase of the Python part as the CLI does: the resources after it, None if it failed, and what it says."""
    given, built, said = folder / "in.json", folder / "out.json", folder / "diagnostics.json"
    built.unlink(missing_ok=True)
    declared = {name: {"value": value} for name, value in variables.items()}
    python = {functions: yaml.safe_load((ROOT / "databricks.yml").read_text())["python"][functions]}
    bundle = {"bundle": {"target": target}, "variables": declared, "python": python, "resources": resources}
    given.write_text(json.dumps(bundle))
    command = [sys.executable, "-m", "databricks.bundles.build", "--phase", phase, "--input", str(given)]
    command += ["--output", str(built), "--diagnostics", str(said), "--locations", str(folder / "locations.json")]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, timeout=120)
    told = said.read_text() if said.exists() else ""
    return None if done.returncode else json.loads(built.read_text()).get("resources", {}), told


def problems(bundle: dict[str, Any], target: str, endpoints: dict[str, Any] | None = None) -> list[str]:
    """What neither the official types nor the CLI say of the bundle."""
    found = list(_undeclared(bundle))
    if found:
        return found
    resources = resolved(bundle, target)
    keys = Counter(key for of_kind in resources.values() for key in of_kind)
    found += [f"{key} is the key of {count} resources" for key, count in keys.items() if count > 1]
    for key, job in resources["jobs"].items():
        found += [f"{key}: {problem}" for problem in _of_job(job)]
        found += [f"{key}: {problem}" for problem in _of_time(job, resources["jobs"])]
        found += [f"{key}: {problem}" for problem in _of_schedule(bundle, target, job)]
    for name, endpoint in (endpoints or {}).items():
        found += [f"{name}: {problem}" for problem in _of_endpoint(endpoint)]
    told = json.dumps(resources)
    for path in re.findall(r"/files/(resources/[^\"]+)", told):
        if not (ROOT / path).is_file():
            found.append(f"there is no {path}")
    for secret in re.findall(r'"AZURE_CLIENT_SECRET": "([^"]*)"', told):
        if secret and not re.fullmatch(r"\{\{secrets/[^/]+/[^/]+\}\}", secret):
            found.append("a secret stands there in clear")
    if "/Workspace/Shared" in told:
        found.append("everybody may change what is in /Workspace/Shared")
    if target == "prod" and "/Users/" in told:
        found.append("a path in prod is a person's")
    return found


def undescribed(bundle: dict[str, Any]) -> list[str]:
    """The variables that don't say in a sentence what they are."""
    return [name for name, said in bundle["variables"].items() if not str(said.get("description", "")).endswith(".")]


ENVIRONMENT = re.compile(r"\b([\w.-]+\.azuredatabricks\.net|adb-\d+|dev|staging|prod)\b(?![-/])")
SECRET = re.compile(r"dapi[0-9a-f]{8}|client_secret: (?!\$)\w")


def told_outside(text: str) -> list[str]:
    """What a file says that only databricks.yml may say, or none: targets, hosts, secrets."""
    return [found[0] for pattern in (ENVIRONMENT, SECRET) for found in pattern.finditer(text)]


def _undeclared(bundle: dict[str, Any]) -> Iterator[str]:
    said = json.dumps(bundle)
    for name in sorted(set(re.findall(r"\$\{var\.([a-z_]+)", said)) - set(bundle["variables"])):
        yield f"the variable {name} is used, but not declared"
    for name in sorted(set(bundle["variables"]) - set(re.findall(r"\$\{var\.([a-z_]+)", said)) - _of_python()):
        yield f"the variable {name} is declared, but not used"


def _of_python() -> set[str]:
    """The variables that the bundle's Python part asks for."""
    tree = ast.parse((ROOT / "resources" / "__init__.py").read_text())
    declared = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Variables")
    return {
        node.target.id
        for node in declared.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def _of_job(job: dict[str, Any]) -> Iterator[str]:
    yield from lint(JobSettings.from_dict(job), rules=ALL_RULES - {"equal_to"}, bundle_root=ROOT)
    clusters = {cluster["job_cluster_key"] for cluster in job.get("job_clusters", [])}
    parameters = {parameter["name"] for parameter in job.get("parameters", [])}
    for task in job["tasks"]:
        key = task["task_key"]
        if "job_cluster_key" in task and task["job_cluster_key"] not in clusters:
            yield f"{key} runs on {task['job_cluster_key']}, which is no cluster of the job"
        if "notebook_task" in task:
            yield from _of_notebook(key, task["notebook_task"], parameters)
        if "python_wheel_task" in task:
            yield from _of_command(key, task["python_wheel_task"])
    for asked, value in re.findall(r"\{\{tasks\.(\w+)\.values\.(\w+)\}\}", json.dumps(job)):
        notebook = next(task["notebook_task"]["notebook_path"] for task in job["tasks"] if task["task_key"] == asked)
        if f'dbutils.jobs.taskValues.set("{value}", ' not in _text(notebook):
            yield f"{asked} sets no task value {value}"


def _of_time(job: dict[str, Any], jobs: dict[str, Any]) -> Iterator[str]:
    """A job must leave its tasks their time, with all retries; a deployment that is killed puts nothing back."""
    needed = 0
    for task in job["tasks"]:
        if "condition_task" in task:
            continue
        # The only job that another one runs is the training job.
        seconds = jobs["training"]["timeout_seconds"] if "run_job_task" in task else task["timeout_seconds"]
        needed += seconds * (1 + task.get("max_retries", 0))
        if task["task_key"] == "deploy" and seconds < 5 * ServingParameters().timeout:
            yield "deploy may be killed before it has put everything back"
    if job["timeout_seconds"] < needed:
        yield f"its tasks may take {needed} seconds"


def _text(notebook_path: str) -> str:
    path = ROOT / "resources" / notebook_path
    return path.read_text() if path.is_file() else ""


def _of_notebook(key: str, task: dict[str, Any], parameters: set[str]) -> Iterator[str]:
    text = _text(task["notebook_path"])
    if not text.startswith("# Databricks notebook source\n"):
        yield f"{key}: {task['notebook_path']} is no notebook"
        return
    widgets = set(re.findall(r'dbutils\.widgets\.text\("(\w+)"', text))
    for name, value in task.get("base_parameters", {}).items():
        # A job's parameter of the same name wins.
        if name in parameters and value != f"{{{{job.parameters.{name}}}}}":
            yield f"{key}: the job's parameter {name} takes the place of {value}"
    for unknown in sorted(set(task.get("base_parameters", {})) - widgets):
        yield f"{key}: {task['notebook_path']} has no widget {unknown}"


def _of_command(key: str, task: dict[str, Any]) -> Iterator[str]:
    """Let the real command line parse what the task passes, without running it."""
    name, *arguments = task["parameters"]
    if task["entry_point"] != "penguins" or name not in main.commands:
        yield f"{key}: there is no command {task['entry_point']} {name}"
        return
    try:
        main.commands[name].make_context(name, arguments)
    except click.ClickException as error:
        yield f"{key}: penguins {name}: {error.format_message()}"


def _of_schedule(bundle: dict[str, Any], target: str, job: dict[str, Any]) -> Iterator[str]:
    chosen = bundle["targets"][target]
    presets = chosen.get("presets", {})
    # Development mode pauses every schedule by itself.
    default = "PAUSED" if chosen.get("mode") == "development" else "UNPAUSED"
    paused = presets.get("trigger_pause_status", default) == "PAUSED"
    if "schedule" in job and not paused and target != "prod":
        yield f"its schedule is on in {target}"
    if "schedule" in job and paused and target == "prod":
        yield "its schedule is off in prod"


def _of_endpoint(endpoint: dict[str, Any]) -> Iterator[str]:
    config = endpoint["config"]
    if "auto_capture_config" in config:
        yield "auto_capture_config can no longer be enabled: use ai_gateway.inference_table_config"
    for entity in config["served_entities"]:
        if entity["workload_size"] not in WORKLOAD_SIZES:
            yield f"{entity['workload_size']} is no workload_size"
        if not isinstance(entity["entity_version"], str):
            yield "entity_version must be text"
    routes = [(route["served_model_name"], route["traffic_percentage"]) for route in config["traffic_config"]["routes"]]
    if {name for name, _ in routes} != {entity["name"] for entity in config["served_entities"]}:
        yield "the traffic goes to other entities than are served"
    if sum(share for _, share in routes) != 100:
        yield "the traffic doesn't add up to 100"
