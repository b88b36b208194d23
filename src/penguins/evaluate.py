"""How good predictions are: one grouped count, and every measure from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from penguins.config import Policy
from penguins.errors import DataError
from penguins.spec import PENGUINS, Spec

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

SMALLEST_PROBABILITY = 1e-15
"""What a log loss takes a smaller probability for; MLlib's MulticlassClassificationEvaluator has the same `eps`."""


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
    return _confusion(predictions.groupBy(spec.label, "prediction").count().collect(), spec)


def confusion_and_loss(predictions: DataFrame, spec: Spec = PENGUINS) -> tuple[Confusion, float]:
    """The confusion matrix and the balanced log loss of `predictions`, which has `probability` too; one pass.

    The log loss of a class is the mean over its rows of -ln(p), p being the probability given to the true class and
    at least SMALLEST_PROBABILITY; balanced is the mean over the classes that have rows, so that each counts the same.
    From 0 (certain and right), a guess among n classes has ln(n).
    Raises DataError when there are no rows, or a probability is not a number.
    """
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import functions as F

    given = F.get(vector_to_array(F.col("probability")), F.col(spec.label).cast("int"))
    loss = -F.log(F.greatest(given, F.lit(SMALLEST_PROBABILITY)))
    found = predictions.groupBy(spec.label, "prediction").agg(F.count("*"), F.sum(loss)).collect()
    confusion = _confusion([(label, prediction, count) for label, prediction, count, _ in found], spec)
    rows, losses = confusion.counts.sum(axis=1), np.zeros(len(spec.classes))
    for label, _, _, lost in found:
        losses[int(label)] += lost
    if np.isnan(losses).any():
        raise DataError("The model gives probabilities that are not numbers: try a larger regularization.")
    return confusion, float(_share(losses, rows)[rows > 0].mean())


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


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a challenger, and why: every reason against it, or what speaks for it."""

    promote: bool
    reasons: tuple[str, ...]


def judge(challenger: Confusion, champion: Confusion | None, policy: Policy) -> Verdict:
    """Whether the challenger should take the champion's place, both judged on the same rows (None: there is none).

    A first model has to reach the policy's floors. Any later one also has to have a higher accuracy than the champion
    (a tie keeps the champion), and in no class a recall that is lower by more than the tolerance.
    """
    ours = metrics(challenger)
    against = _below_floors(challenger, ours, policy)
    if champion is None:
        reached = f"its accuracy of {ours['accuracy']:.3f} and every recall reach the floors"
        praise = f"no champion stands against it, and {reached}"
    else:
        theirs = metrics(champion)
        against += _worse_than(challenger, champion, ours, theirs, policy)
        praise = f"its accuracy of {ours['accuracy']:.3f} is higher than the champion's {theirs['accuracy']:.3f}"
    return Verdict(not against, tuple(against) or (praise,))


def _below_floors(challenger: Confusion, ours: dict[str, float], policy: Policy) -> list[str]:
    against = []
    if challenger.rows < policy.min_test_rows:
        against.append(f"{challenger.rows} test rows are fewer than {policy.min_test_rows}")
    if not ours["accuracy"] >= policy.min_accuracy:
        against.append(f"its accuracy of {ours['accuracy']:.3f} is below {policy.min_accuracy:g}")
    for name, rows in zip(challenger.classes, challenger.counts.sum(axis=1), strict=True):
        recall = ours[f"recall_{name}"]
        if rows == 0:
            against.append(f"no test row is {name}")
        elif not recall >= policy.min_recall:
            against.append(f"its recall of {name}, {recall:.3f}, is below {policy.min_recall:g}")
    return against


def _worse_than(
    challenger: Confusion, champion: Confusion, ours: dict[str, float], theirs: dict[str, float], policy: Policy
) -> list[str]:
    same = challenger.classes == champion.classes
    if not same or (challenger.counts.sum(axis=1) != champion.counts.sum(axis=1)).any():
        return ["the champion was not judged on the same rows"]
    against = []
    if not ours["accuracy"] > theirs["accuracy"]:
        against.append(
            f"its accuracy of {ours['accuracy']:.3f} is not higher than the champion's {theirs['accuracy']:.3f}"
        )
    for name in challenger.classes:
        recall, before = ours[f"recall_{name}"], theirs[f"recall_{name}"]
        # Recalls are quotients of small whole numbers: a difference of exactly the tolerance is allowed.
        if before - recall > policy.tolerance + 1e-12:
            against.append(
                f"its recall of {name}, {recall:.3f}, is lower than the champion's {before:.3f} "
                f"by more than {policy.tolerance:g}"
            )
    return against


def _confusion(found: Iterable[tuple[Any, ...]], spec: Spec) -> Confusion:
    """From label, prediction and count."""
    size = len(spec.classes)
    counts = np.zeros((size, size), dtype=np.int64)
    for label, prediction, count in found:
        counts[int(label), int(prediction)] = count
    if not counts.any():
        raise DataError("There are no rows to evaluate: give at least one test row.")
    return Confusion(spec.classes, counts)


def _share(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The quotient, and 0 where there is nothing to divide by."""
    quotient = np.zeros(len(part))
    np.divide(part, whole, out=quotient, where=whole != 0)
    return quotient
