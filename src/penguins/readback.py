"""Load a model back from its files, in each of its flavors, and ask it: what can't answer isn't logged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penguins import integrity
from penguins.errors import ModelError, first_sentence
from penguins.spec import Numeric, Spec

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.pyfunc import PyFuncModel
    from pyspark.ml import PipelineModel

PARITY_TOLERANCE = 1e-9


def require_answers(model_uri: str | Path, sample: pd.DataFrame | None = None, *, what: str | None = None) -> None:
    """Load a model in each flavor that can be loaded here, and ask it.

    `sample` are rows with the fitted model's answers, as `flavor.collect_sample` gives them; without one the model is
    asked about its own input example, if it has one, and flavors of one fit are compared with each other. `spark` is
    loaded where a Spark session is active, and asked through the graph of what was read; flavors other than
    `python_function`, `onnx` and `spark` are left alone. Errors call the model `what`. Raises ModelError for a flavor
    that can't be loaded, can't answer, or answers otherwise.
    """
    with integrity.checked_copy(str(model_uri)) as folder:
        require_folder(folder, what or str(model_uri), sample)


def require_folder(folder: Path, what: str, sample: pd.DataFrame | None = None) -> None:
    """The same for a folder that nobody else uses, such as `integrity.fetch` makes."""
    flavors = _loadable(folder, what)
    scorer, rows = None, None
    original = "its flavor python_function" if sample is None else "the fitted Spark model"
    if "python_function" in flavors:
        with _told(what, "python_function"):
            served = _python_function(folder)
            # Only this package's models have a scorer, whose answers can be compared.
            scorer = served._model_impl if hasattr(served._model_impl, "name_column") else None
            rows = sample if sample is not None else _with_answers(scorer, served.input_example)
        _compare(scorer, rows, what, "python_function", original)
    if "onnx" in flavors:
        with _told(what, "onnx"):
            graph = _onnx(folder)
            read_back = None if scorer is None else type(scorer)(graph)
        _compare(read_back, rows, what, "onnx", original)
    if "spark" in flavors:
        with _told(what, "spark"):
            pipeline = _spark(folder)
            read_back = None if scorer is None else _as_scorer(pipeline, scorer)
        _compare(read_back, rows, what, "spark", original)


def difference(answers: pd.DataFrame, expected: pd.DataFrame, who: str, original: str) -> float:
    """The largest difference between the probabilities in two frames, each with `prediction` and `probability`.

    The expected ones are those of `original`. Raises ModelError when a prediction differs, or a probability by more
    than PARITY_TOLERANCE.
    """
    import numpy as np

    ours, theirs = (np.stack(frame["probability"].tolist()) for frame in (answers, expected))
    largest = float(np.abs(ours - theirs).max())
    others = int((answers["prediction"].to_numpy() != expected["prediction"].to_numpy()).sum())
    if others or not largest <= PARITY_TOLERANCE:
        raise ModelError(
            f"{who} doesn't answer as {original} does: of {len(expected)} test rows {others} get "
            f"another prediction, and probabilities differ by up to {largest:.1e} (allowed: {PARITY_TOLERANCE:g})."
        )
    return largest


def answers_of(scorer: Any, rows: pd.DataFrame) -> pd.DataFrame:
    """What a scorer answers, as `prediction` and `probability`, an array in the order of the classes."""
    import pandas as pd

    answers = scorer.predict(rows)
    probabilities = answers[[f"probability_{name}" for name in scorer.classes]].to_numpy()
    return pd.DataFrame({"prediction": answers["prediction"].to_numpy(), "probability": list(probabilities)})


def _loadable(folder: Path, what: str) -> set[str]:
    """Which of the flavors that can be checked the model has, and can be loaded in this process."""
    with _told(what):
        flavors = integrity.describe(folder)["flavors"]
        found = {name for name in ("python_function", "onnx", "spark") if name in flavors}
        for name in found:
            integrity.require_flavor(folder, name)
    if not _has_spark():
        found.discard("spark")
        if flavors.get("python_function", {}).get("loader_module") == "mlflow.spark":
            found.discard("python_function")
    return found


def _python_function(folder: Path) -> PyFuncModel:
    """The model as MLflow serves it, once it has answered its own input example."""
    import mlflow.pyfunc

    served: PyFuncModel = mlflow.pyfunc.load_model(str(folder))
    if (example := served.input_example) is not None:
        served.predict(example)
    elif served.metadata.saved_input_example_info is not None:
        raise ModelError("its input example can't be read")
    return served


def _onnx(folder: Path) -> bytes:
    import mlflow.onnx

    graph: bytes = mlflow.onnx.load_model(str(folder)).SerializeToString()
    return graph


def _spark(folder: Path) -> PipelineModel:
    import mlflow.spark

    pipeline: PipelineModel = mlflow.spark.load_model(str(folder))
    return pipeline


def _has_spark() -> bool:
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        return False
    return SparkSession.getActiveSession() is not None


def _with_answers(scorer: Any, example: pd.DataFrame | None) -> pd.DataFrame | None:
    """Example rows with the answers to them; None where there are none, or nobody whose answers can be compared."""
    if scorer is None or example is None:
        return None
    answers = answers_of(scorer, example)
    return example.assign(prediction=answers["prediction"].to_numpy(), probability=answers["probability"].to_numpy())


def _as_scorer(pipeline: PipelineModel, scorer: Any) -> Any:
    """The pipeline's arithmetic, without a Spark job, which would cost as much as reading it back."""
    from penguins.export import to_onnx

    spec = Spec(
        categorical=tuple(scorer.categories),
        # The ranges are for checking rows, which have been checked.
        numeric=tuple(Numeric(name, "", 0, 1) for name in scorer.numbers),
        label=scorer.name_column,
        classes=tuple(scorer.classes),
    )
    return type(scorer)(to_onnx(pipeline, spec).SerializeToString())


def _compare(scorer: Any, rows: pd.DataFrame | None, what: str, flavor: str, original: str) -> None:
    if scorer is None or rows is None:
        return
    with _told(what, flavor):
        answers = answers_of(scorer, rows)
    difference(answers, rows, f"{what} can't be served: its flavor {flavor}", original)


@contextmanager
def _told(what: str, flavor: str | None = None) -> Iterator[None]:
    """Turn whatever a library says of a model that it can't load or ask into one sentence."""
    try:
        yield
    except Exception as error:  # each flavor has its own library, and that its own words
        named = "" if flavor is None else f" as {flavor}"
        raise ModelError(f"{what} can't be served{named}: {first_sentence(error).rstrip('.')}.") from error
