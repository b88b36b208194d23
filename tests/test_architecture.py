"""The shape of the code: who may import whom, and what importing costs."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "src" / "penguins"

# docs/architecture.md explains the layers. A module imports from layers above its own, and from its own layer only
# what stands before it in the row.
LAYERS = [
    [
        "redaction",
        "errors",
        "process",
        "atomic",
        "config",
        "limits",
        "spec",
        "delimited",
        "scorer",
        "azure_scoring",
        "azure_batch_scoring",
    ],
    [
        *("paths", "files", "csv_reader", "source", "target", "data", "pipeline", "evaluate", "export"),
        *("bins", "drift", "findings", "plots", "page", "search"),
    ],
    [
        *("java", "session", "azure_names", "names", "arm", "azureml", "local_store", "remote_store"),
        *("tracking", "dialect", "record"),
        *("integrity", "readback", "flavor", "registry", "outcome"),
        *("champion", "acceptance", "request_body", "scoring", "scoring_process", "http_app", "http_server"),
        *("serve", "query", "endpoint"),
        *("online_endpoint", "batch_endpoint", "monitor_reference", "monitor_schedule", "dependents"),
    ],
    [
        *("check", "train", "promote", "predict", "tune", "monitor", "deploy"),
        *("serving_copy", "deploy_azureml", "submit", "batch", "provision", "clean_up", "leftovers"),
    ],
    ["output", "show", "ui", "demo", "commands", "serving_commands", "azure_commands", "cli", "__main__"],
]

# Third-party packages that only some layers may know; the others are free for all.
PLATFORMS = {
    "mlflow": {
        *("scorer", "local_store", "remote_store", "tracking"),
        *("dialect", "record", "integrity", "readback", "flavor", "registry", "outcome"),
        *("champion", "serve", "scoring", "scoring_process", "http_app"),
        *("acceptance", "train", "promote", "tune", "monitor", "leftovers", "azure_scoring", "azure_batch_scoring"),
    },
    "uvicorn": {"http_app", "http_server"},
    "h11": {"http_server"},
    "requests": {"azureml", "remote_store", "query", "endpoint"},
    "azure": {
        *("azureml", "arm", "online_endpoint", "batch_endpoint", "monitor_reference", "monitor_schedule", "dependents"),
        *("serving_copy", "deploy_azureml", "submit", "batch", "provision", "clean_up", "commands", "azure_commands"),
    },
    "azureml_inference_server_http": {"azure_scoring"},
    "azureml": {"azureml", "azure_scoring"},
    "databricks": {"endpoint", "deploy"},
    "click": {"output", "ui", "commands", "serving_commands", "azure_commands", "cli"},
    "rich": {"show", "demo"},
    "optuna": {"search"},
    "scipy": {"drift"},
}

HEAVY = {
    "pyspark",
    "mlflow",
    "pandas",
    "onnx",
    "matplotlib",
    "sklearn",
    "optuna",
    "scipy",
    "databricks",
    "azure",
    "azureml",
}


def modules() -> dict[str, ast.Module]:
    found = {path.stem: ast.parse(path.read_text()) for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    assert len(found) > 10
    return found


def imports(tree: ast.Module) -> set[str]:
    """Everything imported anywhere in the module, in functions and for type checking too; `penguins.x` for our own."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            source = node.module or ""
            names |= {f"penguins.{alias.name}" for alias in node.names} if source == "penguins" else {source}
    return names


def breaches(layers: list[list[str]], tree_of: dict[str, ast.Module]) -> list[str]:
    order = [module for layer in layers for module in layer]
    found = []
    for module, tree in tree_of.items():
        own = {name.split(".")[1] for name in imports(tree) if name.startswith("penguins.")} - {"__version__"}
        found += [f"{module} imports {name}" for name in own if order.index(name) >= order.index(module)]
    return found


def test_every_module_has_its_place_in_the_table() -> None:
    assert sorted(modules()) == sorted(name for layer in LAYERS for name in layer)


def test_imports_go_one_way() -> None:
    assert breaches(LAYERS, modules()) == []


def test_the_table_bites() -> None:
    upwards = {
        "data": ast.parse("from penguins.train import train_model"),
        "train": ast.parse("from penguins import data"),
    }
    assert breaches(LAYERS, upwards) == ["data imports train"]


def test_platforms_are_known_only_where_they_belong() -> None:
    for package, allowed in PLATFORMS.items():
        users = {
            module for module, tree in modules().items() for name in imports(tree) if name.split(".")[0] == package
        }
        assert users <= allowed, f"{package} is imported by {sorted(users - allowed)}"
        assert users, f"{package} is imported by nobody: the row is stale"


def test_the_scorer_imports_nothing_of_the_package() -> None:
    """It travels inside models, into containers that don't have the package."""
    assert {name.split(".")[0] for name in imports(modules()["scorer"])} <= {
        *("__future__", "collections", "decimal", "json", "typing"),
        *("mlflow", "numpy", "onnxruntime", "pandas"),
    }


def test_the_scoring_scripts_import_nothing_of_the_package() -> None:
    """They run in a deployment's container or on its cluster, which don't have the package either."""
    assert {name.split(".")[0] for name in imports(modules()["azure_scoring"])} <= {
        *("__future__", "json", "logging", "os", "pathlib", "typing"),
        *("azureml", "azureml_inference_server_http", "mlflow", "pandas"),
    }
    assert {name.split(".")[0] for name in imports(modules()["azure_batch_scoring"])} <= {
        *("__future__", "collections", "csv", "gzip", "hashlib", "itertools", "json", "math", "os", "pathlib", "sys"),
        *("typing", "mlflow", "pandas", "pyarrow"),
    }


def test_one_place_makes_a_spark_session() -> None:
    makers = [path.name for path in PACKAGE.glob("*.py") if "getOrCreate" in path.read_text()]
    assert makers == ["session.py"]
    assert (PACKAGE / "session.py").read_text().count("getOrCreate") == 1


def test_shared_code_works_over_spark_connect() -> None:
    """There is no SparkContext, no RDD and no JVM gateway on the other side of Spark Connect."""
    for path in PACKAGE.glob("*.py"):
        if path.name != "session.py":
            text = path.read_text()
            assert not [word for word in ("sparkContext", ".rdd", "_jvm", "_jsc") if word in text], path.name


def test_functions_and_classes_that_are_public_have_docstrings() -> None:
    bare = [
        f"{module}.{node.name}"
        for module, tree in modules().items()
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_" and not ast.get_docstring(node)
    ]
    assert bare == []


@pytest.mark.parametrize(
    "code",
    [
        "import penguins",
        "from penguins.cli import main\nmain(['--help'], standalone_mode=False)",
        "from penguins.cli import main\nmain(['train', '--help'], standalone_mode=False)",
        "import penguins.config, penguins.data, penguins.evaluate, penguins.pipeline, penguins.train, penguins.tune",
        "import penguins.monitor, penguins.predict, penguins.promote",
    ],
)
def test_importing_and_helping_load_neither_spark_nor_mlflow(code: str) -> None:
    look = f"\nimport sys\nheavy = {HEAVY} & set(sys.modules)"
    told = subprocess.run(
        [sys.executable, "-c", f"{code}{look}\nassert not heavy, heavy"], capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr


def test_every_ignore_has_a_code() -> None:
    places = [*PACKAGE.glob("*.py"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    marker = "# type: " + "ignore"  # in two pieces, so that this line is none
    bare = []
    for path in places:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            _, found, rest = line.partition(marker)
            if found and not rest.startswith("["):
                bare.append(f"{path.name}:{number}")
    assert bare == []
