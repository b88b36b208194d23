"""The bundle: official types for every target, and what the types don't say; every check is shown to bite."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import bundle
from tests.conftest import ROOT
from tests.workspace import TOKEN, Workspace, refused, running

TARGETS = ("dev", "staging", "prod")
MODEL = "main.dev_ada_penguins.dev_ada_penguin_predictor"
VARIABLES = {
    "host": "",
    "catalog": "main",
    "schema": "penguins",
    "model_name": "penguin_predictor",
    "model_version": "champion",
    "endpoint_name": "predict-penguin",
    "endpoint_size": "Small",
    "prefix": "dev_ada_",
    "readers": "users",
    "arrivals": "/Volumes/main/penguins/data/new",
}
"""As the CLI hands them to the Python part for the target dev."""


def loaded(workspace: Workspace, folder: Path, target: str = "dev", **changed: str) -> tuple[dict[str, Any], str]:
    """The endpoint that the Python part makes in this workspace, and what it says."""
    environment = {
        "DATABRICKS_HOST": workspace.host,
        "DATABRICKS_TOKEN": TOKEN,
        "DATABRICKS_CONFIG_FILE": os.devnull,
    }
    resources, said = bundle.python_part({**VARIABLES, **changed}, environment, folder, target)
    return resources.get("model_serving_endpoints", {}), said


def version_served(endpoints: dict[str, Any]) -> str:
    (entity,) = endpoints["predict_penguin"]["config"]["served_entities"]
    return str(entity["entity_version"])


@pytest.mark.parametrize("target", ["staging", "prod"])
def test_in_other_targets_the_endpoint_is_the_champions_too(tmp_path: Path, target: str) -> None:
    prefix = bundle.read()["targets"][target].get("variables", {}).get("prefix", "")
    full_name = f"main.{prefix}penguins.{prefix}penguin_predictor"
    with running(Workspace(aliases={f"{full_name}@champion": "3"})) as workspace:
        endpoints, said = loaded(workspace, tmp_path, target, prefix=prefix)
    assert version_served(endpoints) == "3", said
    bundle.typed({"model_serving_endpoints": endpoints})
    assert bundle.problems(bundle.read(), target, endpoints) == []


def test_there_is_what_there_should_be() -> None:
    resources = bundle.read()["resources"]
    assert {kind: sorted(of_kind) for kind, of_kind in resources.items()} == {
        "clusters": ["interactive"],
        "experiments": ["runs"],
        "jobs": ["monitoring", "prediction", "training"],
        "registered_models": ["penguin_predictor"],
        "schemas": ["penguins"],
        "volumes": ["data", "temp"],
    }
    assert sorted(bundle.read()["targets"]) == sorted(TARGETS)
    assert "clusters" not in bundle.read(optional=False)["resources"]


@pytest.mark.parametrize("target", TARGETS)
def test_the_official_types_accept_every_resource(target: str) -> None:
    bundle.typed(bundle.resolved(bundle.read(), target))


@pytest.mark.parametrize("trainer", ["train", "tune"])
@pytest.mark.parametrize("target", TARGETS)
def test_no_problem_that_the_types_do_not_see(target: str, trainer: str) -> None:
    read = bundle.read()
    read["variables"]["trainer"]["default"] = trainer
    assert bundle.problems(read, target) == []


def training(read: dict[str, Any]) -> dict[str, Any]:
    job: dict[str, Any] = read["resources"]["jobs"]["training"]
    return job


def task(read: dict[str, Any], key: str) -> dict[str, Any]:
    return next(one for one in training(read)["tasks"] if one["task_key"] == key)


UNTYPED: dict[str, Callable[[dict[str, Any]], object]] = {
    "an unknown field": lambda read: training(read).update(retries=1),
    "an unknown field deep down": lambda read: task(read, "train")["notebook_task"].update(path="x"),
    "a value that isn't allowed": lambda read: read["variables"]["cluster"]["default"].update(runtime_engine="FAST"),
    "a missing field": lambda read: read["resources"]["volumes"]["data"].pop("name"),
}


@pytest.mark.parametrize("how", UNTYPED)
def test_the_types_bite(how: str) -> None:
    read = bundle.read()
    UNTYPED[how](read)
    with pytest.raises((ValueError, TypeError)):
        bundle.typed(bundle.resolved(read, "dev"))


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "variable": (
        lambda read: training(read).update(description="${var.nothing}"),
        "the variable nothing is used, but not declared",
    ),
    "unused variable": (
        lambda read: read["variables"].update(nothing={"default": "x"}),
        "the variable nothing is declared, but not used",
    ),
    "cluster": (
        lambda read: task(read, "train").update(job_cluster_key="big"),
        "training: train runs on big, which is no cluster of the job",
    ),
    "dependency": (
        lambda read: task(read, "promote").update(depends_on=[{"task_key": "nobody"}]),
        "training: Task 'promote': ",
    ),
    "job parameter": (
        lambda read: task(read, "train")["notebook_task"]["base_parameters"].update(seed="{{job.parameters.sed}}"),
        "training: Task 'train': ",
    ),
    "task value of a task that comes later": (
        lambda read: task(read, "train")["notebook_task"]["base_parameters"].update(
            seed="{{tasks.promote.values.verdict}}"
        ),
        "training: Task 'train': ",
    ),
    "task value that nobody sets": (
        lambda read: task(read, "accepted")["condition_task"].update(left="{{tasks.promote.values.answer}}"),
        "training: promote sets no task value answer",
    ),
    "notebook": (
        lambda read: task(read, "promote")["notebook_task"].update(notebook_path="../notebooks/gate.py"),
        "training: promote: ../notebooks/gate.py is no notebook",
    ),
    "widget": (
        lambda read: task(read, "promote")["notebook_task"]["base_parameters"].update(models="x"),
        "training: promote: ../notebooks/promote.py has no widget models",
    ),
    "command": (
        lambda read: task(read, "check")["python_wheel_task"].update(parameters=["chekc"]),
        "training: check: there is no command penguins chekc",
    ),
    "entry point": (
        lambda read: task(read, "check")["python_wheel_task"].update(entry_point="main"),
        "training: check: there is no command main check",
    ),
    "option": (
        lambda read: task(read, "check")["python_wheel_task"].update(parameters=["check", "--dta", "x"]),
        "training: check: penguins check: No such option '--dta'.",
    ),
    "init script": (
        lambda read: read["variables"]["cluster"]["default"].update(
            init_scripts=[{"workspace": {"destination": "${workspace.file_path}/resources/link.sh"}}]
        ),
        "there is no resources/link.sh",
    ),
    "job parameter that takes the place of a task's": (
        lambda read: task(read, "promote")["notebook_task"]["base_parameters"].update(model="another"),
        "training: promote: the job's parameter model takes the place of another",
    ),
    "time": (
        lambda read: training(read).update(timeout_seconds=14400),
        "training: its tasks may take 34200 seconds",
    ),
    "time to put back": (
        lambda read: task(read, "deploy").update(timeout_seconds=7200),
        "training: deploy may be killed before it has put everything back",
    ),
    "secret": (
        lambda read: read["variables"]["azureml_client_secret"].update(default="hunter2"),
        "a secret stands there in clear",
    ),
    "two resources of one key": (
        lambda read: read["resources"]["experiments"].update(penguins={"name": "x"}),
        "penguins is the key of 2 resources",
    ),
    "folder that everybody may change": (
        lambda read: read["targets"]["dev"].update(workspace={"root_path": "/Workspace/Shared/x"}),
        "everybody may change what is in /Workspace/Shared",
    ),
    "schedule in dev": (
        lambda read: read["targets"]["dev"].update(mode="production"),
        "prediction: its schedule is on in dev",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_the_other_checks_bite(what: str) -> None:
    read = bundle.read()
    breaks, problem = BROKEN[what]
    breaks(read)
    found = bundle.problems(read, "dev")
    assert any(one.startswith(problem) for one in found), found


def test_the_checks_of_prod_bite() -> None:
    read = bundle.read()
    read["targets"]["prod"]["workspace"]["root_path"] = "/Workspace/Users/ada@example.com/x"
    read["targets"]["prod"]["presets"]["trigger_pause_status"] = "PAUSED"
    assert set(bundle.problems(read, "prod")) >= {
        "a path in prod is a person's",
        "prediction: its schedule is off in prod",
    }


def test_the_cluster_is_the_labs() -> None:
    (cluster,) = bundle.resolved(bundle.read(), "prod")["jobs"]["training"]["job_clusters"]
    settings = cluster["new_cluster"]
    assert settings["spark_version"] == "17.3.x-cpu-ml-scala2.13"
    assert (settings["kind"], settings["is_single_node"]) == ("CLASSIC_PREVIEW", True)
    assert settings["data_security_mode"] == "SINGLE_USER"
    assert settings["runtime_engine"] == "STANDARD"
    assert settings["node_type_id"] == "Standard_D4ds_v5"
    assert settings["spark_env_vars"]["MLFLOW_DFS_TMP"] == "/Volumes/main/penguins/temp"
    assert settings["spark_env_vars"]["AZURE_CLIENT_SECRET"] == "", "a reference to nothing would fail the start"
    interactive = bundle.resolved(bundle.read(), "prod")["clusters"]["interactive"]
    assert interactive["autotermination_minutes"] == 20
    assert interactive["init_scripts"] == settings["init_scripts"]


def test_retries_only_where_they_are_safe() -> None:
    resources = bundle.resolved(bundle.read(), "prod")
    retries = {
        f"{name}.{one['task_key']}": one.get("max_retries")
        for name, job in resources["jobs"].items()
        for one in job["tasks"]
        if "condition_task" not in one
    }
    assert retries == {
        "training.check": 0,
        "training.train": 1,
        "training.promote": 1,
        "training.deploy": 0,
        "prediction.predict": 2,
        "monitoring.monitor": 1,
        "monitoring.retrain": 0,
    }
    for job in resources["jobs"].values():
        assert job["max_concurrent_runs"] == 1
        assert job["queue"] == {"enabled": True}
        assert job["timeout_seconds"] > 0
        assert job["email_notifications"]["on_failure"] == ["ada@example.com"]


def schedules(jobs: dict[str, Any]) -> dict[str, str | None]:
    return {name: job["schedule"].get("pause_status") for name, job in jobs.items() if "schedule" in job}


def test_jobs_for_new_data_rest_while_there_is_none(tmp_path: Path) -> None:
    """As the CLI hands them over: variables in the jobs aren't resolved, and the mode may have said its own."""
    jobs = bundle.read()["resources"]["jobs"]
    jobs["prediction"]["schedule"]["pause_status"] = "UNPAUSED"
    without = bundle.mutated(jobs, {**VARIABLES, "arrivals": "none"}, tmp_path)
    assert schedules(without) == {"monitoring": "PAUSED", "prediction": "PAUSED"}
    named = bundle.mutated(jobs, VARIABLES, tmp_path)
    assert schedules(named) == {"monitoring": None, "prediction": "UNPAUSED"}
    jobs["prediction"]["schedule"]["pause_status"] = jobs["monitoring"]["schedule"]["pause_status"] = "PAUSED"
    assert without == {name: bundle.TYPES["jobs"].from_dict(job).as_dict() for name, job in jobs.items()}


def test_nothing_is_watched_by_default_and_the_deployment_says_so(tmp_path: Path) -> None:
    assert bundle.read()["variables"]["arrivals"]["default"] == "none"
    with running(Workspace(aliases={f"{MODEL}@champion": "3"})) as workspace:
        endpoints, said = loaded(workspace, tmp_path, arrivals="none")
    assert version_served(endpoints) == "3"
    assert re.search(r'"severity": ?"warning"', said)
    assert (
        "The schedules of the prediction and the monitoring job are paused: the variable arrivals names no new data."
    ) in said


@pytest.mark.parametrize(("job", "parameter"), [("prediction", "data"), ("monitoring", "current")])
def test_a_job_without_new_data_stops_before_it_starts_a_cluster(job: str, parameter: str) -> None:
    first, second, *_ = bundle.resolved(bundle.read(), "prod")["jobs"][job]["tasks"]
    assert first["condition_task"] == {
        "op": "NOT_EQUAL",
        "left": f"{{{{job.parameters.{parameter}}}}}",
        "right": "none",
    }
    assert second["depends_on"] == [{"task_key": "new_data", "outcome": "true"}]


def test_in_prod_nothing_that_holds_data_can_be_deleted() -> None:
    kept = {"schemas": ["penguins"], "volumes": ["data", "temp"], "registered_models": ["penguin_predictor"]}
    for target, is_refused in {"dev": False, "staging": False, "prod": True}.items():
        resources = bundle.resolved(bundle.read(), target)
        protected = {
            kind: [name for name, one in of_kind.items() if one.get("lifecycle") == {"prevent_destroy": is_refused}]
            for kind, of_kind in resources.items()
        }
        assert {kind: names for kind, names in protected.items() if names} == kept


def test_nobody_but_who_deploys_may_read_the_data_unless_somebody_says_so() -> None:
    def principals(read: dict[str, Any]) -> set[str]:
        kinds = ("schemas", "volumes", "registered_models")
        resources = bundle.resolved(read, "prod")
        granting = [one for kind in kinds for one in resources[kind].values() if "grants" in one]
        assert len(granting) == 3
        return {grant["principal"] for one in granting for grant in one["grants"]}

    read = bundle.read()
    assert principals(read) == {"ada@example.com"}
    read["variables"]["data_readers"]["default"] = "account users"
    assert principals(read) == {"account users"}


def test_without_a_champion_the_endpoint_is_left_out(tmp_path: Path) -> None:
    with running(Workspace()) as workspace:
        endpoints, said = loaded(workspace, tmp_path)
    assert endpoints == {}
    assert f"The endpoint dev_ada_predict-penguin is left out: {MODEL} has no champion yet." in said
    assert '"severity": "warning"' in said or '"severity":"warning"' in said


def test_the_endpoint_serves_the_champion(tmp_path: Path) -> None:
    with running(Workspace(aliases={f"{MODEL}@champion": "3"})) as workspace:
        endpoints, said = loaded(workspace, tmp_path)
    assert said == ""
    endpoint = endpoints["predict_penguin"]
    assert endpoint["name"] == "predict-penguin"
    assert endpoint["config"] == {
        "served_entities": [
            {
                "name": "dev_ada_penguin_predictor-3",
                "entity_name": MODEL,
                "entity_version": "3",
                "workload_size": "Small",
                "scale_to_zero_enabled": True,
            }
        ],
        "traffic_config": {"routes": [{"served_model_name": "dev_ada_penguin_predictor-3", "traffic_percentage": 100}]},
    }
    assert endpoint["ai_gateway"]["inference_table_config"] == {
        "enabled": True,
        "catalog_name": "main",
        "schema_name": "dev_ada_penguins",
        "table_name_prefix": "predict_penguin",
    }
    bundle.typed({"model_serving_endpoints": endpoints})
    assert bundle.problems(bundle.read(), "dev", endpoints) == []


def test_the_workspace_of_the_target_is_asked_and_not_another(tmp_path: Path) -> None:
    with running(Workspace(aliases={f"{MODEL}@champion": "3"})) as workspace, running(Workspace()) as another:
        target, workspace.host = workspace.host, another.host
        endpoints, _ = loaded(workspace, tmp_path, host=target)
    assert version_served(endpoints) == "3"
    assert another.asked == []


def test_a_pinned_number_wins_and_asks_nobody(tmp_path: Path) -> None:
    with running(Workspace(aliases={f"{MODEL}@champion": "3"})) as workspace:
        endpoints, _ = loaded(workspace, tmp_path, model_version="2")
    assert version_served(endpoints) == "2"
    assert workspace.asked == []


def test_an_endpoint_goes_on_when_the_champion_is_gone(tmp_path: Path) -> None:
    """Left out, it would be deleted by the next deployment."""
    entity = {"name": "x-2", "entity_name": MODEL, "entity_version": "2"}
    config = {
        "served_entities": [entity, {**entity, "name": "x-1", "entity_version": "1"}],
        "traffic_config": {
            "routes": [
                {"served_model_name": "x-1", "traffic_percentage": 10},
                {"served_model_name": "x-2", "traffic_percentage": 90},
            ]
        },
    }
    there = {"name": "dev_ada_predict-penguin", "state": {}, "config": config, "polls": 0}
    with running(Workspace(endpoints={"dev_ada_predict-penguin": there})) as workspace:
        endpoints, _ = loaded(workspace, tmp_path)
    assert version_served(endpoints) == "2"


@pytest.mark.parametrize("status", [403, 500])
def test_a_workspace_that_does_not_tell_is_an_error_and_not_no_champion(tmp_path: Path, status: int) -> None:
    with running(Workspace()) as workspace:
        workspace.fail("GET /api/2.1/unity-catalog", refused(status, "NO", "not today"))
        endpoints, said = loaded(workspace, tmp_path)
    assert endpoints == {}
    assert re.search(r'"severity": ?"error"', said)
    assert f"It isn't known which version of {MODEL} the endpoint is to serve: not today" in said


def test_an_endpoint_of_another_model_is_not_left_out_and_so_deleted(tmp_path: Path) -> None:
    config = {
        "served_entities": [{"name": "other-2", "entity_name": "main.penguins.other", "entity_version": "2"}],
        "traffic_config": {"routes": [{"served_model_name": "other-2", "traffic_percentage": 100}]},
    }
    there = {"name": "dev_ada_predict-penguin", "state": {}, "config": config, "polls": 0}
    with running(Workspace(endpoints={"dev_ada_predict-penguin": there})) as workspace:
        endpoints, said = loaded(workspace, tmp_path)
    assert endpoints == {}
    assert re.search(r'"severity": ?"error"', said)
    assert (
        f"It isn't known which version of {MODEL} the endpoint is to serve: dev_ada_predict-penguin serves "
        "main.penguins.other, and this model has no champion yet: deploy with the former names, or delete the endpoint "
        "first (`penguins undeploy --to databricks --endpoint dev_ada_predict-penguin`)."
    ) in said


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("model_version", "newest", "it must be champion, or the number of a version, from 1."),
        ("model_version", "0", "it must be champion, or the number of a version, from 1."),
        ("model_version", "-1", "it must be champion, or the number of a version, from 1."),
        ("endpoint_size", "Tiny", "it must be one of Small, Medium, Large."),
    ],
)
def test_values_that_nothing_can_be_made_of(tmp_path: Path, name: str, value: str, sentence: str) -> None:
    with running(Workspace(aliases={f"{MODEL}@champion": "3"})) as workspace:
        endpoints, said = loaded(workspace, tmp_path, **{name: value})
    assert endpoints == {}
    assert re.search(r'"severity": ?"error"', said)
    assert f"\"{name} is '{value}': {sentence}\"" in said


def test_the_checks_of_an_endpoint_bite(tmp_path: Path) -> None:
    with running(Workspace(aliases={f"{MODEL}@champion": "3"})) as workspace:
        endpoints, _ = loaded(workspace, tmp_path)
    config = endpoints["predict_penguin"]["config"]
    config["auto_capture_config"] = {}
    config["served_entities"][0] |= {"workload_size": "Tiny", "entity_version": 3}
    config["traffic_config"]["routes"][0] |= {"served_model_name": "another", "traffic_percentage": 90}
    assert bundle.problems(bundle.read(), "dev", endpoints) == [
        "predict_penguin: auto_capture_config can no longer be enabled: use ai_gateway.inference_table_config",
        "predict_penguin: Tiny is no workload_size",
        "predict_penguin: entity_version must be text",
        "predict_penguin: the traffic goes to other entities than are served",
        "predict_penguin: the traffic doesn't add up to 100",
    ]
    with pytest.raises((ValueError, TypeError)):
        bundle.typed({"model_serving_endpoints": {"x": {**endpoints["predict_penguin"], "size": "Small"}}})


def test_the_wheel_carries_what_the_jobs_call(tmp_path: Path) -> None:
    """Built by the bundle's own command, in a copy so that nothing here changes."""
    build = bundle.read()["artifacts"]["penguins"]["build"]
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    subprocess.run(build.replace(".venv/bin/python", sys.executable), shell=True, cwd=copy, check=True)
    (wheel,) = (copy / "dist").glob("penguins-*.whl")
    with zipfile.ZipFile(wheel) as content:
        names = content.namelist()
        (entry_points,) = [name for name in names if name.endswith("entry_points.txt")]
        assert "penguins = penguins.cli:run" in content.read(entry_points).decode()
    assert "penguins/log4j2.properties" in names
    tasks = [one for job in bundle.read()["resources"]["jobs"].values() for one in job["tasks"]]
    assert {one["python_wheel_task"]["package_name"] for one in tasks if "python_wheel_task" in one} == {"penguins"}
    assert all(one["libraries"] == [{"whl": "../dist/*.whl"}] for one in tasks if "job_cluster_key" in one)


SHIPPED = [
    *sorted((ROOT / "resources").rglob("*.yml")),
    *sorted((ROOT / "resources").glob("*.py")),
    *sorted((ROOT / "resources").glob("*.sh")),
    *sorted((ROOT / "notebooks").glob("*.py")),
    *sorted((ROOT / "src").rglob("*.py")),
]


def test_environments_are_named_in_one_file_only() -> None:
    assert len(SHIPPED) > 40
    assert {path.name: told for path in SHIPPED if (told := bundle.told_outside(path.read_text()))} == {}
    assert not bundle.SECRET.search((ROOT / "databricks.yml").read_text())


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("catalog: prod", ["prod"]),
        ("if target == 'staging':", ["staging"]),
        ("name: dev", ["dev"]),
        ("host: https://adb-1234567890.7.azuredatabricks.net", ["adb-1234567890.7.azuredatabricks.net"]),
        ("token = 'dapi0123456789abcdef'", ["dapi01234567"]),
        ("client_secret: hunter2", ["client_secret: h"]),
        ("production develops a product; read /dev/null; client_secret: ${var.secret}", []),
    ],
)
def test_the_check_of_environments_bites(line: str, told: list[str]) -> None:
    assert bundle.told_outside(line) == told


def test_every_variable_has_a_description() -> None:
    read = bundle.read()
    assert len(read["variables"]) > 20
    assert bundle.undescribed(read) == []
    read["variables"]["catalog"].pop("description")
    read["variables"]["schema"]["description"] = ""
    assert bundle.undescribed(read) == ["catalog", "schema"]


@pytest.mark.parametrize("target", TARGETS)
def test_the_official_cli_agrees(target: str) -> None:
    if (cli := shutil.which("databricks")) is None:
        pytest.skip("the databricks CLI is not on the PATH")
    prefix = {"dev": "dev_ada_", "staging": "staging_", "prod": ""}[target]
    model = f"main.{prefix}penguins.{prefix}penguin_predictor"
    with running(Workspace(aliases={f"{model}@champion": "3"})) as workspace:
        environment = {
            "DATABRICKS_HOST": workspace.host,
            "DATABRICKS_TOKEN": TOKEN,
            "DATABRICKS_CONFIG_FILE": os.devnull,
        }
        done = subprocess.run(
            [cli, "bundle", "validate", "--strict", "--target", target, "--output", "json"],
            cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    resources = json.loads(done.stdout)["resources"]
    endpoint = resources["model_serving_endpoints"]["predict_penguin"]
    assert endpoint["config"]["served_entities"][0]["entity_name"] == model
    # What the CLI makes of the names is what the variable `prefix` makes of them.
    parameters = {one["name"]: one["default"] for one in resources["jobs"]["training"]["parameters"]}
    assert endpoint["name"] == parameters["endpoint"] == f"{prefix}predict-penguin"
    assert resources["schemas"]["penguins"]["name"] == f"{prefix}penguins"
    assert resources["registered_models"]["penguin_predictor"]["name"] == f"{prefix}penguin_predictor"
    paused = "UNPAUSED" if target == "prod" else "PAUSED"
    assert resources["jobs"]["prediction"]["schedule"]["pause_status"] == paused
