"""How good predictions are: one grouped count, and every measure from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from penguins.data import PENGUINS, Spec
from penguins.errors import DataError

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

    def as_weighted_rows(self) -> dict[str, Any]:
        """The counts as scikit-learn's metrics take them: one row per cell, weighted by its count."""
        truth, predicted = np.indices(self.counts.shape).reshape(2, -1)
        return {"y_true": truth, "y_pred": predicted, "sample_weight": self.counts.ravel()}


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
    from sklearn.metrics import precision_recall_fscore_support

    weighted_rows = confusion.as_weighted_rows()
    labels = range(len(confusion.classes))
    precision, recall, f_measure, _ = precision_recall_fscore_support(**weighted_rows, labels=labels, zero_division=0)
    share = confusion.counts.sum(axis=1) / confusion.rows
    measures = {
        "accuracy": np.trace(confusion.counts) / confusion.rows,
        "weightedPrecision": precision @ share,
        "weightedRecall": recall @ share,
        "weightedFMeasure": f_measure @ share,
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
