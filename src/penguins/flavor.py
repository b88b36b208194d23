"""Save and load one MLflow model with three flavors of the same fit: `spark`, `onnx` and `python_function`."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from penguins import atomic, integrity, readback
from penguins.errors import ModelError
from penguins.spec import PENGUINS, Spec

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models.signature import ModelSignature
    from mlflow.pyfunc import PyFuncModel
    from onnx import ModelProto
    from pyspark.ml import PipelineModel
    from pyspark.sql import DataFrame

    from penguins.scorer import Scorer

ONNX_FILE = "model.onnx"
SERVING_PACKAGES = ("mlflow", "numpy", "onnxruntime", "pandas")
"""What `python_function` needs, and so what a serving container installs: no pyspark, no Java."""

PARITY_ROWS = 10_000
"""How many test rows at most the Spark model and its twin are compared on."""

Loaded = TypeVar("Loaded")


def write(
    path: Path,
    spark_model: PipelineModel,
    onnx_model: ModelProto,
    signature: ModelSignature,
    input_example: pd.DataFrame,
) -> None:
    """Write the model with its three flavors to the folder `path`, which must not exist yet."""
    import mlflow.onnx
    import mlflow.pyfunc
    import mlflow.spark
    from mlflow.models import Model
    from mlflow.models.model import MLMODEL_FILE_NAME

    model = Model()
    # Without given requirements MLflow starts a second Spark process to find them out.
    requirements = [f"{name}=={version(name)}" for name in SERVING_PACKAGES]
    with tempfile.TemporaryDirectory() as folder:
        mlflow.spark.save_model(
            spark_model,
            str(path),
            mlflow_model=model,
            dfs_tmpdir=_spark_folder(folder),
            pip_requirements=requirements,
            signature=signature,
            input_example=input_example,
        )
        onnx_folder = Path(folder, "onnx")
        # One file: by default tensors of 1 KB or more go into files of their own beside it.
        mlflow.onnx.save_model(onnx_model, str(onnx_folder), pip_requirements=requirements, save_as_external_data=False)
        shutil.copy(onnx_folder / ONNX_FILE, path)
        model.add_flavor("onnx", **Model.load(str(onnx_folder)).flavors["onnx"])
    mlflow.pyfunc.add_to_model(
        model,
        loader_module=_copy_scorer(path / "code"),
        data=ONNX_FILE,
        code="code",
        conda_env="conda.yaml",
        python_env="python_env.yaml",
    )
    model.save(str(path / MLMODEL_FILE_NAME))


def _spark_folder(folder: str) -> str | None:
    """Where Spark may put a model before MLflow fetches it; None for what MLFLOW_DFS_TMP or Databricks says.

    MLflow's own default is one folder for all users of a machine, in which only its owner can write.
    """
    is_told = os.environ.get("MLFLOW_DFS_TMP") or "DATABRICKS_RUNTIME_VERSION" in os.environ
    return None if is_told else str(Path(folder, "spark"))


def require_free(path: str | Path) -> None:
    """Make the folder that a model is to be saved into.

    Raises ModelError when there is something at `path` already, or nothing can be written there.
    """
    if os.path.lexists(path):
        raise ModelError(f"{path} exists already: give a path that doesn't, or remove it first.")
    parent = Path(path).resolve().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryDirectory(dir=parent).cleanup()
    except OSError as error:
        raise ModelError(f"{path} can't be written ({error.strerror}): give another path for the model.") from error


def save(
    model: PipelineModel,
    path: str | Path,
    input_example: pd.DataFrame,
    spec: Spec = PENGUINS,
    signature: ModelSignature | None = None,
) -> None:
    """Save a fitted pipeline as a model folder.

    Raises ModelError as `require_free` does, and when the model that was written can't be loaded and asked.
    """
    from penguins.export import to_onnx

    require_free(path)
    onnx_model = to_onnx(model, spec)
    signature = signature or infer_signature(onnx_model, input_example)
    # Written beside and moved into place, so that an interrupted save leaves nothing half-written at `path`.
    with atomic.beside(Path(path)) as folder:
        write(folder / "model", model, onnx_model, signature, input_example)
        readback.require_answers(folder / "model", what="The model as written")
        atomic.put(folder / "model", Path(path))


def save_without_spark(model_uri: str, path: str | Path, *, also_needs: Sequence[str] = ()) -> str:
    """Save a model's JVM-free flavors alone, for a container: MLflow puts a Java into the image of any Spark flavor.

    `also_needs` are packages that the copy's requirements list beside the model's own. Returns the digest of the
    model that was copied. Raises ModelError when there is no such model, its files aren't those that were registered,
    the copy can't be loaded and asked, or there is something at `path` already.
    """
    from mlflow.models import Model

    if os.path.lexists(path):
        raise ModelError(f"{path} exists already: give a path that doesn't, or remove it first.")
    with atomic.beside(Path(path)) as folder:
        copy = integrity.fetch(model_uri, folder)
        digest = integrity.digest(copy)
        model = Model.load(str(copy))
        if spark_flavor := model.flavors.pop("spark", None):
            shutil.rmtree(copy / spark_flavor["model_data"])
        _require(copy, also_needs)
        model.save(str(copy / integrity.DESCRIPTION))
        readback.require_answers(copy, what=f"The copy of {model_uri} without Spark")
        atomic.put(copy, Path(path))
    return digest


def _require(folder: Path, packages: Sequence[str]) -> None:
    """Add packages to the two files in which a model says what it needs; the third refers to one of them."""
    import yaml

    with (folder / "requirements.txt").open("a", encoding="utf-8") as requirements:
        requirements.writelines(f"\n{package}" for package in packages)
    environment = yaml.safe_load((folder / "conda.yaml").read_text(encoding="utf-8"))
    for dependency in environment["dependencies"]:
        if isinstance(dependency, dict):
            dependency["pip"] += packages
    (folder / "conda.yaml").write_text(yaml.safe_dump(environment, sort_keys=False), encoding="utf-8")


def infer_signature(onnx_model: ModelProto, input_example: pd.DataFrame) -> ModelSignature:
    """The signature from example rows and the answers to them."""
    from mlflow.models import infer_signature as infer

    from penguins.scorer import Scorer

    answers = Scorer(onnx_model.SerializeToString()).predict(input_example)
    with warnings.catch_warnings():
        # MLflow warns that a column of whole numbers could have gaps; the predicted class never has.
        warnings.filterwarnings("ignore", message="Hint: Inferred schema contains integer column")
        return infer(input_example, answers)


def collect_sample(scored: DataFrame, spec: Spec = PENGUINS) -> pd.DataFrame:
    """At most PARITY_ROWS of the rows that the Spark model scored: the features, `prediction` and `probability`."""
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import functions as F

    probability = vector_to_array(F.col("probability")).alias("probability")
    return scored.select(*spec.features, "prediction", probability).limit(PARITY_ROWS).toPandas()


def largest_difference(sample: pd.DataFrame, onnx_model: ModelProto) -> float:
    """The largest difference between Spark's probabilities in a collected sample and the twin's.

    Raises ModelError when a prediction differs, or a probability by more than `readback.PARITY_TOLERANCE`.
    """
    from penguins.scorer import Scorer

    answers = readback.answers_of(Scorer(onnx_model.SerializeToString()), sample)
    return readback.difference(answers, sample, "The JVM-free twin", "the Spark model")


def load_spark(model_uri: str) -> PipelineModel:
    """The Spark model of a run, a registry URI or a path; needs a Spark session. Raises ModelError if there is none."""
    import mlflow.spark

    return cast("PipelineModel", _load(model_uri, "spark", mlflow.spark.load_model))


def load_python_function(model_uri: str) -> PyFuncModel:
    """The JVM-free twin of a run, a registry URI or a path, as MLflow serves it. Raises ModelError if there is none."""
    import mlflow.pyfunc

    return cast("PyFuncModel", _load(model_uri, "python_function", mlflow.pyfunc.load_model))


def load_scorer(model_uri: str) -> Scorer:
    """The JVM-free twin of a run, a registry URI or a path, without MLflow's schema check in front of it.

    MLflow refuses whole numbers in a pandas frame where the signature says double; this door takes them.
    Raises ModelError if there is no such model.
    """
    return cast("Scorer", load_python_function(model_uri)._model_impl)


def known_answers(model_uri: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The model's own input example, and what its JVM-free twin answers to it here.

    Raises ModelError when there is no such model, or it has no example.
    """
    model = load_python_function(model_uri)
    rows = model.input_example
    if rows is None:
        raise ModelError(f"{model_uri} has no input example, so it isn't known what it should answer: train it anew.")
    return rows, cast("Scorer", model._model_impl).predict(rows)


def _load(model_uri: str, flavor: str, load: Callable[[str], Loaded]) -> Loaded:
    """Load a model from a copy of its files that `integrity.fetch` has checked.

    The copy goes when the model goes; at once for this package's scorer, which has read all of it, so that a process
    that is killed leaves nothing behind.
    """
    temporary = tempfile.mkdtemp(prefix="penguins-model-")
    try:
        folder = integrity.fetch(model_uri, Path(temporary))
        with integrity.told(model_uri):
            integrity.require_flavor(folder, flavor)
            loaded = load(str(folder))
    except BaseException:
        _remove(temporary)
        raise
    remove = weakref.finalize(loaded, _remove, temporary)
    if flavor == "python_function" and integrity.has_scorer(folder):
        remove()
    return loaded


def _remove(temporary: str) -> None:
    integrity.forget(temporary)
    shutil.rmtree(temporary, ignore_errors=True)


def _copy_scorer(folder: Path) -> str:
    """Put the scorer into the model, and return its module name.

    The name says what the file contains, so that two models of different versions load in one process, and
    neither hides this package.
    """
    source = Path(__file__).with_name("scorer.py").read_bytes()
    module = integrity.scorer_name(source)
    folder.mkdir()
    (folder / f"{module}.py").write_bytes(source)
    return module
