"""Save and load one MLflow model with three flavors of the same fit: `spark`, `onnx` and `python_function`."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, cast

from penguins.errors import ModelError, first_sentence
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

PARITY_TOLERANCE = 1e-9
PARITY_ROWS = 10_000
"""How many test rows at most the Spark model and its twin are compared on."""


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
    mlflow.spark.save_model(
        spark_model,
        str(path),
        mlflow_model=model,
        pip_requirements=requirements,
        signature=signature,
        input_example=input_example,
    )
    with tempfile.TemporaryDirectory() as folder:
        onnx_folder = Path(folder, "onnx")
        mlflow.onnx.save_model(onnx_model, str(onnx_folder), pip_requirements=requirements)
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


def require_free(path: str | Path) -> None:
    """Make the folder that a model is to be saved into.

    Raises ModelError when there is something at `path` already, or nothing can be written there.
    """
    if Path(path).exists():
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
    """Save a fitted pipeline as a model folder. Raises ModelError as `require_free` does."""
    from penguins.export import to_onnx

    require_free(path)
    onnx_model = to_onnx(model, spec)
    signature = signature or infer_signature(onnx_model, input_example)
    # Written beside and moved into place, so that an interrupted save leaves nothing half-written at `path`.
    with tempfile.TemporaryDirectory(dir=Path(path).resolve().parent, prefix=".saving-") as folder:
        write(Path(folder, "model"), model, onnx_model, signature, input_example)
        Path(folder, "model").rename(path)


def save_without_spark(model_uri: str, path: str | Path, *, also_needs: Sequence[str] = ()) -> None:
    """Save a model's JVM-free flavors alone, for a container: MLflow puts a Java into the image of any Spark flavor.

    `also_needs` are packages that the copy's requirements list beside the model's own.
    Raises ModelError when there is no such model, or something at `path` already.
    """
    import mlflow.artifacts
    from mlflow.models import Model
    from mlflow.models.model import MLMODEL_FILE_NAME

    if Path(path).exists():
        raise ModelError(f"{path} exists already: give a path that doesn't, or remove it first.")
    parent = Path(path).resolve().parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".saving-") as folder:
        # A local store gives its own folder, which must stay as it is; another one puts its files here.
        downloads, copy = Path(folder, "downloads"), Path(folder, "model")
        downloads.mkdir()
        with _told(model_uri):
            original = mlflow.artifacts.download_artifacts(model_uri, dst_path=str(downloads))
        shutil.copytree(original, copy)
        model = Model.load(str(copy))
        if spark_flavor := model.flavors.pop("spark", None):
            shutil.rmtree(copy / spark_flavor["model_data"])
        _require(copy, also_needs)
        model.save(str(copy / MLMODEL_FILE_NAME))
        copy.rename(path)


def _require(folder: Path, packages: Sequence[str]) -> None:
    """Add packages to the two files in which a model says what it needs; the third refers to one of them."""
    import yaml

    with (folder / "requirements.txt").open("a") as requirements:
        requirements.writelines(f"\n{package}" for package in packages)
    environment = yaml.safe_load((folder / "conda.yaml").read_text())
    for dependency in environment["dependencies"]:
        if isinstance(dependency, dict):
            dependency["pip"] += packages
    (folder / "conda.yaml").write_text(yaml.safe_dump(environment, sort_keys=False))


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


def largest_difference(sample: pd.DataFrame, onnx_model: ModelProto, spec: Spec = PENGUINS) -> float:
    """The largest difference between Spark's probabilities in a collected sample and the twin's.

    Raises ModelError when a prediction differs, or a probability by more than PARITY_TOLERANCE.
    """
    import numpy as np

    from penguins.scorer import Scorer

    answers = Scorer(onnx_model.SerializeToString()).predict(sample)
    ours = answers[[f"probability_{name}" for name in spec.classes]].to_numpy()
    difference = float(np.abs(ours - np.stack(sample["probability"].tolist())).max())
    others = int((answers["prediction"].to_numpy() != sample["prediction"].to_numpy()).sum())
    if others or not difference <= PARITY_TOLERANCE:
        raise ModelError(
            f"The JVM-free twin doesn't answer as the Spark model does: of {len(sample)} test rows {others} get "
            f"another prediction, and probabilities differ by up to {difference:.1e} (allowed: {PARITY_TOLERANCE:g})."
        )
    return difference


def load_spark(model_uri: str) -> PipelineModel:
    """The Spark model of a run, a registry URI or a path; needs a Spark session. Raises ModelError if there is none."""
    import mlflow.spark

    with _told(model_uri):
        return cast("PipelineModel", mlflow.spark.load_model(model_uri))


def load_python_function(model_uri: str) -> PyFuncModel:
    """The JVM-free twin of a run, a registry URI or a path, as MLflow serves it. Raises ModelError if there is none."""
    import mlflow.pyfunc

    with _told(model_uri):
        loaded: PyFuncModel = mlflow.pyfunc.load_model(model_uri)
    return loaded


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


@contextmanager
def _told(model_uri: str) -> Iterator[None]:
    """Turn what keeps a model from being loaded within the block into one sentence."""
    try:
        yield
    except ImportError as error:
        raise ModelError(
            f"{model_uri} can't be loaded ({first_sentence(error)}): install what is missing; for models in Unity "
            'Catalog that is `pip install "penguins[databricks]"`.'
        ) from error
    except Exception as error:  # each of the libraries has its own words for files that are broken
        raise ModelError(f"{model_uri} can't be loaded: {first_sentence(error)}") from error


def _copy_scorer(folder: Path) -> str:
    """Put the scorer into the model, and return its module name.

    The name says what the file contains, so that two models of different versions load in one process, and
    neither hides this package.
    """
    source = Path(__file__).with_name("scorer.py").read_bytes()
    module = f"penguins_scorer_{hashlib.sha256(source).hexdigest()[:12]}"
    folder.mkdir()
    (folder / f"{module}.py").write_bytes(source)
    return module
