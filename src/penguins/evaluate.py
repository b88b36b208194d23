"""How good predictions are: one grouped count, and every measure from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from penguins.errors import DataError
from penguins.spec import PENGUINS, Spec

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True)
class Confusion:
    """Row counts by true class (rows) and predicted class (columns), both in the order of `classes`."""

    classes: tuple[str, ...]
    counts: npt.NDArray[np.int64]

    @property
    def rows(self) -> int:
        """The number of rows that were predicted."""
        return int(self.counts.sum())


def confusion(predictions: DataFrame, spec: Spec = PENGUINS) -> Confusion:
    """Count `predictions`, which has the label and the column `prediction`, in one pass.

    Raises DataError when there are no rows.
    """
    size = len(spec.classes)
    counts = np.zeros((size, size), dtype=np.int64)
    for label, prediction, count in predictions.groupBy(spec.label, "prediction").count().collect():
        counts[int(label), int(prediction)] = count
    if not counts.any():
        raise DataError("There are no rows to evaluate: give at least one test row.")
    return Confusion(spec.classes, counts)


def metrics(confusion: Confusion) -> dict[str, float]:
    """The measures under MLlib's names, and per class `precision_`, `recall_` and `fMeasure_` with the class name.

    All from 0 to 1. As MulticlassClassificationEvaluator has it, the weighted ones weigh each class by its true
    rows, and a class that is never predicted has precision 0.
    """
    right = np.diag(confusion.counts)
    true, predicted = confusion.counts.sum(axis=1), confusion.counts.sum(axis=0)
    precision, recall = _share(right, predicted), _share(right, true)
    f_measure = _share(2 * precision * recall, precision + recall)
    weight = true / confusion.rows
    measures = {
        "accuracy": right.sum() / confusion.rows,
        "weightedPrecision": precision @ weight,
        "weightedRecall": recall @ weight,
        "weightedFMeasure": f_measure @ weight,
    }
    for place, name in enumerate(confusion.classes):
        measures[f"precision_{name}"] = precision[place]
        measures[f"recall_{name}"] = recall[place]
        measures[f"fMeasure_{name}"] = f_measure[place]
    return {name: float(value) for name, value in measures.items()}


def report(confusion: Confusion) -> str:
    """A classification table to read: precision, recall, F-measure and rows per class."""
    import pandas as pd

    measures = metrics(confusion)
    columns = {"precision": "precision", "recall": "recall", "F-measure": "fMeasure"}
    rows: dict[str, list[float]] = {
        heading: [measures[f"{name}_{label}"] for label in confusion.classes]
        + [measures[f"weighted{name[0].upper()}{name[1:]}"]]
        for heading, name in columns.items()
    }
    table = pd.DataFrame(rows, index=[*confusion.classes, "weighted"])
    table["rows"] = [*confusion.counts.sum(axis=1), confusion.rows]
    return f"{table.to_string(float_format='{:.3f}'.format)}\n\naccuracy {measures['accuracy']:.3f}\n"


def _share(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The quotient, and 0 where there is nothing to divide by."""
    quotient = np.zeros(len(part))
    np.divide(part, whole, out=quotient, where=whole != 0)
    return quotient
