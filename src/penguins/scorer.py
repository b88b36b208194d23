"""The `python_function` of a logged model: an input check in front of the ONNX graph.

This file travels inside every model, under a name made from its content, and is all that a serving container
needs beside mlflow, numpy, pandas and onnxruntime; it must import nothing else of this package.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

LONGEST_SHOWN = 60
MOST_LISTED = 20
LARGEST = int(np.finfo(np.float64).max)


class Scorer:
    """Answer with the class, its name and every class's probability, or say which value can't be used.

    `onnx` is a path or the bytes of a graph that `penguins.export.to_onnx` made.
    """

    def __init__(self, onnx: str | bytes) -> None:
        options = onnxruntime.SessionOptions()
        # The graph is tiny: handing its nodes to a thread pool costs more than computing them.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        description = json.loads(self._session.get_modelmeta().custom_metadata_map["penguins"])
        self.categories: dict[str, list[str]] = description["categories"]
        self.numbers: list[str] = description["numbers"]
        self.classes: list[str] = description["classes"]
        self.name_column: str = description["name_column"]

    def predict(self, data: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Score each row.

        Takes the feature columns in any order (other columns are ignored; whole numbers and decimals are as good as
        doubles).
        Returns `prediction` (the label's code), the class name under the label's name in lower case (`species`),
        and `probability_<class>` for each class, with the index of `data`.
        Raises MlflowException with INVALID_PARAMETER_VALUE, which a scoring server answers with 400, for a missing
        column, no rows, an unknown category, a value that is no finite number, or one so large (above about 1e307) that
        the probabilities can't be computed.
        """
        if missing := [name for name in (*self.categories, *self.numbers) if name not in data.columns]:
            needed = ", ".join((*self.categories, *self.numbers))
            raise _invalid(f"The input lacks {_columns(missing)}: the model needs {needed}.")
        if data.columns.has_duplicates:
            twice = ", ".join(sorted({str(name) for name in data.columns[data.columns.duplicated()]}))
            raise _invalid(f"The input has {twice} more than once: each column must stand once.")
        if data.empty:
            raise _invalid("The input has no rows: give at least one.")
        feed: dict[str, npt.NDArray[Any]]
        feed = {name: _category(data[name], allowed) for name, allowed in self.categories.items()}
        feed |= {name: _number(data[name]) for name in self.numbers}
        prediction, probabilities = self._session.run(["prediction", "probabilities"], feed)
        if not (computed := np.isfinite(probabilities).all(axis=1)).all():
            largest = max(self.numbers, key=lambda name: abs(feed[name][np.argmin(computed), 0]))
            raise _invalid(_bad_value(data[largest], computed, "a number small enough to compute with"))
        answer = {"prediction": prediction, self.name_column: np.array(self.classes, dtype=object)[prediction]}
        answer |= {f"probability_{name}": probabilities[:, place] for place, name in enumerate(self.classes)}
        return pd.DataFrame(answer, index=data.index)


def _load_pyfunc(path: str) -> Scorer:
    """What MLflow calls to load the `python_function` flavor."""
    return Scorer(path)


def _category(column: pd.Series[Any], allowed: Sequence[str]) -> npt.NDArray[np.object_]:
    values = column.to_numpy(dtype=object)
    # Not `isin`: JSON can put a list or an object where text belongs, and those have no hash.
    labels = frozenset(allowed)
    known = np.array([isinstance(value, str) and value in labels for value in values])
    if not known.all():
        more = f" and {len(allowed) - MOST_LISTED} more" if len(allowed) > MOST_LISTED else ""
        raise _invalid(_bad_value(column, known, f"one of {', '.join(allowed[:MOST_LISTED])}{more}"))
    return values.reshape(-1, 1)


def _number(column: pd.Series[Any]) -> npt.NDArray[np.float64]:
    if column.dtype.kind not in "fiu":
        is_number = np.array([_is_number(value) for value in column])
        if not is_number.all():
            raise _invalid(_bad_value(column, is_number, "a finite number"))
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    finite = np.isfinite(values)
    if not finite.all():
        raise _invalid(_bad_value(column, finite, "a finite number"))
    return values.reshape(-1, 1)


def _is_number(value: object) -> bool:
    """Text that looks like a number is still text, True is no 1, and a whole number can be too large for a double."""
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) <= LARGEST
    if isinstance(value, Decimal):
        return value.is_finite()
    return isinstance(value, float | np.integer | np.floating)


def _bad_value(column: pd.Series[Any], good: npt.NDArray[np.bool_], allowed: str) -> str:
    """Name the first bad value and its row, counted from 1, and how many more there are."""
    place = int(np.argmin(good))
    more = int((~good).sum()) - 1
    also = f" (and {more} more)" if more else ""
    shown = _shown(column.iloc[place])
    return f"{column.name} in row {place + 1} of {len(column)} is {shown}{also}: it must be {allowed}."


def _shown(value: Any) -> str:
    if value is None or value is pd.NA:
        return "null"
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _columns(names: Sequence[str]) -> str:
    return f"the column{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _invalid(sentence: str) -> MlflowException:
    return MlflowException(sentence, error_code=INVALID_PARAMETER_VALUE)
