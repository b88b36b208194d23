"""The wheel in an empty environment without extras: no pyspark, no Java, and yet it imports and a model answers."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from penguins import flavor
from penguins.train import train_from_source
from tests.conftest import PENGUINS_CSV, ROOT, no_java_path

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

UV = str(Path(sys.executable).with_name("uv"))


def run(*command: str, **options: object) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(command, capture_output=True, text=True, **options)  # type: ignore[call-overload]  # keyword soup
    assert isinstance(result, subprocess.CompletedProcess)
    return result


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    built = run(UV, "build", "--wheel", "--out-dir", str(folder), str(ROOT))
    assert built.returncode == 0, built.stderr
    [found] = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def bare_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of an environment that has the wheel and its core dependencies, and nothing else."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    assert run(UV, "venv", "--quiet", "--python", sys.executable, str(folder)).returncode == 0
    python = str(folder / "bin" / "python")
    installed = run(
        *(UV, "pip", "install", "--python", python, str(wheel), "--constraint", str(ROOT / "requirements.lock"))
    )
    assert installed.returncode == 0, installed.stderr
    return python


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "penguins/log4j2.properties" in names
    assert "penguins/py.typed" in names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"penguins"}
    metadata = zipfile.ZipFile(wheel).read(next(name for name in names if name.endswith("METADATA"))).decode()
    core = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert not [line for line in core if "pyspark" in line or "==" in line], "few and loose, and never another Spark"


def test_it_imports_without_extras(bare_python: str) -> None:
    code = (
        "import importlib.util, pkgutil, penguins\n"
        "assert importlib.util.find_spec('pyspark') is None\n"
        "names = [m.name for m in pkgutil.iter_modules(penguins.__path__) if m.name != '__main__']\n"
        "for name in names: __import__(f'penguins.{name}')\n"
        "print(len(names))"
    )
    result = run(bare_python, "-W", "ignore", "-c", code)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 10


def test_training_without_spark_says_what_to_install(bare_python: str, tmp_path: Path) -> None:
    result = run(bare_python, "-m", "penguins", "train", "--data", str(PENGUINS_CSV), cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == 'Error: pyspark is not installed: run `pip install "penguins[local]"`.'


@pytest.mark.parametrize(
    "command",
    ["rollback --tracking azureml", "deploy --to azureml", "query --to azureml --endpoint e", "azureml clean-up"],
)
def test_azure_without_its_clients_says_what_to_install(bare_python: str, tmp_path: Path, command: str) -> None:
    named = {"subscription_id": "s", "resource_group": "g", "workspace_name": "n"}
    (tmp_path / "config.json").write_text(json.dumps(named))
    result = run(bare_python, "-m", "penguins", *command.split(), cwd=tmp_path)
    assert result.returncode == 1
    said = 'Error: Azure\'s clients are not installed: run `pip install "penguins[azureml]"`.'
    assert result.stderr.splitlines()[-1] == said


@pytest.mark.spark
@pytest.mark.slow
def test_a_model_answers_where_there_is_neither_spark_nor_java(
    spark: SparkSession, store: Path, bare_python: str, tmp_path: Path
) -> None:
    trained = train_from_source(spark, PENGUINS_CSV)
    flavor.save(trained.model, tmp_path / "model", trained.input_example)
    # The package is removed too: the model brings along all the code it needs.
    code = (
        "import sys, json, shutil; sys.modules['penguins'] = None\n"
        "assert shutil.which('java') is None\n"
        "import mlflow, pandas\n"
        "bird = dict(Island='Biscoe', CulmenLength=48.7, CulmenDepth=14.1, FlipperLength=210.0, BodyMass=4450.0)\n"
        f"model = mlflow.pyfunc.load_model({str(tmp_path / 'model')!r})\n"
        "print(json.dumps(model.predict(pandas.DataFrame([bird])).to_dict('records')[0]))\n"
        "assert 'pyspark' not in sys.modules"
    )
    path = no_java_path(tmp_path)
    result = run(bare_python, "-W", "ignore", "-c", code, env={"PATH": path, "HOME": str(tmp_path)}, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["species"] == "Gentoo"
    assert answer["probability_Gentoo"] == pytest.approx(0.97987, abs=1e-5)
