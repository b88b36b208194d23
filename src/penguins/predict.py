"""Score many rows with the Spark model: every row comes out, with an answer or with the reasons why there is none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from penguins import config, data, export, flavor, pipeline, registry, target
from penguins.config import Report, silent
from penguins.data import REASONS
from penguins.errors import DataError, listed
from penguins.pipeline import PREDICTION, PROBABILITY, ROW
from penguins.registry import Version
from penguins.spec import PENGUINS, Spec

if TYPE_CHECKING:
    from pyspark.ml import PipelineModel
    from pyspark.sql import DataFrame, SparkSession

STEPS = ("Loading the model", "Scoring and writing", "Counting what was written")
"""What `predict` reports, in order."""

STAMPS = ("model_name", "model_version", "scored_at")

TOO_LARGE = "a number is too large to compute with"


@dataclass(frozen=True)
class Scored:
    """What a batch came to: rows per predicted class, rows per reason why they have no answer, by what and where."""

    rows: int
    classes: dict[str, int]
    reasons: dict[str, int]
    version: Version
    target: str
    scored_at: datetime

    @property
    def scored(self) -> int:
        """The number of rows that have an answer."""
        return sum(self.classes.values())

    @property
    def unscored(self) -> int:
        """The number of rows that have reasons instead."""
        return self.rows - self.scored


def added_columns(columns: Iterable[str], spec: Spec = PENGUINS) -> dict[str, str]:
    """What the columns that scoring adds are called beside the `columns` of the input, which keep their names.

    Spark doesn't tell upper from lower case. Where the name of the class is taken, as `species` is by the label
    `Species`, it becomes `predicted_species`; any other name that is taken gets a number, as `prediction_2`.
    """
    probabilities = (f"probability_{name}" for name in spec.classes)
    return free_names(columns, (PREDICTION, spec.name_column, *probabilities, REASONS, *STAMPS), spec.name_column)


def free_names(columns: Iterable[str], roles: Iterable[str], name_column: str) -> dict[str, str]:
    """What each of the `roles` is called beside the `columns`, as `added_columns` has it."""
    taken = {name.lower() for name in columns}
    added: dict[str, str] = {}
    for role in roles:
        wanted = f"predicted_{role}" if role == name_column and role in taken else role
        name, number = wanted, 1
        while name.lower() in taken:
            number += 1
            name = f"{wanted}_{number}"
        added[role] = name
        taken.add(name.lower())
    return added


def score(df: DataFrame, model: PipelineModel, spec: Spec = PENGUINS) -> DataFrame:
    """Add the model's answer to every row of `df`, in one pass and with every column as it came.

    Adds `prediction` (the label's code, int), the class name under the label's name in lower case (`species`),
    `probability_<class>` for each class, and `reasons`: null where there is an answer, and an array of sentences where
    there is none, because a value is missing, is no finite number, is too large to compute with (above about 1e307),
    or is a category the model doesn't know. A number outside of its range in the spec is scored. A name that `df` has
    already is changed by `added_columns`.
    Raises DataError when a feature is missing, or two columns differ in nothing but case; ModelError when the model
    is one of another table.
    """
    from pyspark.sql import functions as F

    known = export.known_categories(model, spec)
    _require_distinct(df)
    names = added_columns(df.columns, spec)
    explained = df.select("*", data.unscorable(df, spec, known).alias(names[REASONS]))
    answered = pipeline.answer(explained, model, known, F.col(names[REASONS]).isNull(), spec)
    row, code, probability = F.col(f"`{ROW}`"), F.col(PREDICTION), F.col(PROBABILITY)
    # Not `element_at`, which in Spark 4 takes no index for the last one.
    name = F.get(F.array(*map(F.lit, spec.classes)), code)
    return answered.select(
        *(row[name].alias(name) for name in df.columns),
        code.alias(names[PREDICTION]),
        name.alias(names[spec.name_column]),
        *(probability[place].alias(names[f"probability_{name}"]) for place, name in enumerate(spec.classes)),
        F.coalesce(row[names[REASONS]], F.when(code.isNull(), F.array(F.lit(TOO_LARGE)))).alias(names[REASONS]),
    )


def predict(
    spark: SparkSession,
    source: str | Path,
    output: str | Path,
    *,
    model_uri: str = config.DEFAULT_MODEL_URI,
    overwrite: bool = False,
    spec: Spec = PENGUINS,
    report: Report = silent,
) -> Scored:
    """Score the rows at `source`, and write them with all their columns to `output`.

    `source` is what `data.read` takes, `output` what `target.write` takes. An alias in `model_uri` is asked for once;
    the version it stands for is loaded, and stamped on every row: `model_name`, `model_version` and `scored_at`, one
    time in UTC for the whole batch. Of a CSV, the text of a line that didn't fit is kept in `_corrupt_record`.
    Raises ModelError for a model that isn't there, and DataError when the rows can't be read or written, or not as
    many were written as were read; what stood at `output` before then stands there still.
    """
    from pyspark.sql import functions as F

    target.require_free(str(output), overwrite)
    report(STEPS[0])
    version = registry.resolve(model_uri)
    rows = data.read(spark, source, spec, labelled=False)
    target.require_apart(rows, source, str(output))
    model = flavor.load_spark(version.uri)
    report(STEPS[1])
    names = added_columns(rows.columns, spec)
    scored_at = datetime.now(UTC).replace(microsecond=0)
    scored = score(rows, model, spec).select(
        "*",
        F.lit(version.name).alias(names["model_name"]),
        F.lit(version.number).alias(names["model_version"]),
        F.lit(scored_at).alias(names["scored_at"]),
    )

    def counted(written: DataFrame) -> Scored:
        report(STEPS[2])
        answers = _answers(written, names)
        total, there = sum(answers.values()), data.told(rows.count, str(source))
        if total != there:
            raise DataError(
                f"{there:,} rows were read and {total:,} written to {output}: it is left as it was; "
                "on a cluster, write to a table or to a place that all its machines share."
            )
        return Scored(total, _classes(answers, spec), _reasons(answers), version, str(output), scored_at)

    return target.write(scored, str(output), counted, overwrite=overwrite)


Answers = dict[tuple[int | None, tuple[str, ...]], int]
"""Rows by predicted code and reasons, of which each row has one."""


def _answers(written: DataFrame, names: dict[str, str]) -> Answers:
    """Counted from what was written, which a CSV has as text."""
    answers: Answers = {}
    for code, reasons, count in written.groupBy(names[PREDICTION], names[REASONS]).count().collect():
        told = reasons.split(target.SEPARATOR) if isinstance(reasons, str) else reasons or ()
        answers[None if code is None else int(code), tuple(told)] = count
    return answers


def _classes(answers: Answers, spec: Spec) -> dict[str, int]:
    return {
        name: sum(count for (code, _), count in answers.items() if code == place)
        for place, name in enumerate(spec.classes)
    }


def _reasons(answers: Answers) -> dict[str, int]:
    """How many rows have each reason, the most frequent first."""
    counts: dict[str, int] = {}
    for (_, reasons), count in answers.items():
        for reason in reasons:
            counts[reason] = counts.get(reason, 0) + count
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _require_distinct(df: DataFrame) -> None:
    names = [name.lower() for name in df.columns]
    if twice := [name for name in df.columns if names.count(name.lower()) > 1]:
        raise DataError(f"The data has {listed(twice)}, which differ in nothing but upper and lower case: rename one.")
