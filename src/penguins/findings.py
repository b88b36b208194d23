"""What current rows show against a reference: drift and quality, over all rows and by window, judged."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Any

import numpy as np

from penguins import data, drift, evaluate, export, pipeline
from penguins.bins import MISSING, OUTSIDE, Bins, Counts, count, find_bins, flaw_of, observe, total
from penguins.config import RetrainRule, Thresholds, window_length
from penguins.drift import Drift
from penguins.errors import DataError, ParameterError, listed
from penguins.evaluate import Confusion
from penguins.pipeline import PREDICTION
from penguins.spec import PENGUINS, Numeric, Spec

if TYPE_CHECKING:
    from pyspark.ml import PipelineModel
    from pyspark.sql import Column, DataFrame

CONFIDENCE = "confidence"
WINDOW = "window:start"
MAX_WINDOWS = 1000
DEFAULT_WINDOW = "1 day"
DEFAULT_RULE = "2 of 3"

EARLIEST, LATEST = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (1900, 2200))
"""Seconds since 1970. A date outside, such as 9999-12-31, stands for no time at all."""

EPOCH_UNITS = ((1e8, 1), (1e11, 1e3), (1e14, 1e6), (1e17, 1e9))
"""From which number on one counts seconds, milli-, micro- and nanoseconds since 1970, each from March 1973 on; what is
smaller, such as 202611 or 20261101, is no count."""

DATE = r"^\s*\d{4}-\d{1,2}(-\d{1,2}([ T].*)?)?\s*$"
"""What a text must begin like to be a time; Spark takes a clock without a date for today's."""


@dataclass(frozen=True)
class Windows:
    """How current rows fall into windows of time: by which column, and how long one is; counted from 1970 in UTC."""

    timestamp: str
    length: timedelta


@dataclass(frozen=True)
class Settings:
    """What `examine` goes by; `windows` None is one window, all rows."""

    thresholds: Thresholds
    windows: Windows | None
    rule: RetrainRule

    @classmethod
    def of(
        cls,
        thresholds: Thresholds | None = None,
        timestamp: str | None = None,
        window: str | None = None,
        rule: str | None = None,
    ) -> Settings:
        """The settings from texts, as a command line has them.

        Windows last a day where nothing else is said. The rule is `2 of 3`, without a timestamp `1 of 1`.
        Raises ParameterError.
        """
        if window is not None and timestamp is None:
            raise ParameterError(f"A window of {window} needs times: name the column that has them as the timestamp.")
        windows = None if timestamp is None else Windows(timestamp, window_length(window or DEFAULT_WINDOW))
        parsed = RetrainRule.parse(rule or (DEFAULT_RULE if windows else "1 of 1"))
        return cls(thresholds or Thresholds(), windows, parsed)


@dataclass(frozen=True)
class Period:
    """The current rows of one window, or all of them, and what they break.

    `start` and `end` (in UTC, the end exclusive) are None where rows have no window; `confusion` is None without a
    model or without a labelled row that it could answer.
    """

    start: datetime | None
    end: datetime | None
    drifts: tuple[Drift, ...]
    confusion: Confusion | None
    breaches: tuple[str, ...]

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.drifts[0].current.rows

    @property
    def metrics(self) -> dict[str, float]:
        """The measures of `evaluate.metrics`, without those of classes that no row has; none without labels."""
        if self.confusion is None:
            return {}
        absent = {
            name
            for name, rows in zip(self.confusion.classes, self.confusion.counts.sum(axis=1), strict=True)
            if not rows
        }
        measures = evaluate.metrics(self.confusion)
        return {name: value for name, value in measures.items() if name.partition("_")[2] not in absent}

    def as_dict(self, thresholds: Thresholds) -> dict[str, Any]:
        """The period as JSON has it: times in ISO 8601, shares from 0 to 1."""
        return {
            "start": self.start and self.start.isoformat(),
            "end": self.end and self.end.isoformat(),
            "rows": self.rows,
            "columns": {found.column: column_as_dict(found, thresholds) for found in self.drifts},
            "metrics": self.metrics,
            "breaches": list(self.breaches),
        }


@dataclass(frozen=True)
class Findings:
    """What a comparison found: all current rows together, window by window (the oldest first), and the advice.

    Without a timestamp there is one window, all rows; without rows there is none.
    `breaches` has those of all rows together and, named as such, of the latest window.
    """

    whole: Period
    windows: tuple[Period, ...]
    breaches: tuple[str, ...]
    settings: Settings

    @property
    def verdicts(self) -> tuple[str, ...]:
        """`drift.verdict` on each column of all rows together."""
        return tuple(drift.verdict(found, self.settings.thresholds) for found in self.whole.drifts)

    @property
    def drifted(self) -> bool:
        """Whether all rows together, or those of the latest window, break a threshold."""
        return bool(self.breaches)

    @property
    def retrain(self) -> bool:
        """Whether the rule advises a retraining."""
        return self.settings.rule.advises([bool(window.breaches) for window in self.windows])

    def as_dict(self) -> dict[str, Any]:
        """The findings as JSON has them."""
        thresholds = self.settings.thresholds
        whole = self.whole.as_dict(thresholds)
        return {
            "drifted": self.drifted,
            "retrain": self.retrain,
            "retrain_rule": str(self.settings.rule),
            "breaches": list(self.breaches),
            "rows": {"reference": self.whole.drifts[0].reference.rows, "current": self.whole.rows},
            "columns": whole["columns"],
            "metrics": whole["metrics"],
            "windows": [window.as_dict(thresholds) for window in self.windows],
            "thresholds": asdict(thresholds),
        }


def examine(
    reference: DataFrame,
    current: DataFrame,
    settings: Settings | None = None,
    *,
    model: PipelineModel | None = None,
    spec: Spec = PENGUINS,
) -> Findings:
    """Compare two sets of rows as `data.read` gives them, and judge; the label may be absent.

    With a model, the class that it predicts and its confidence (the highest probability) are compared like
    columns; a row that it can't answer has a missing prediction. With a model and labels in the current rows, quality
    is measured too, on rows that have both. A fixed number of Spark jobs, whatever the columns and windows.
    Raises DataError when the reference is empty, a column is missing or no row has a time, ParameterError for too many
    windows.
    """
    settings = settings or Settings.of()
    before = observe(reference, spec)
    now = _in_windows(current, settings.windows, spec)
    if model is not None:
        before, now = ask(before, model, spec), ask(now, model, spec)
        measured = replace(
            spec, categorical=(*spec.categorical, PREDICTION), numeric=(*spec.numeric, Numeric(CONFIDENCE, "", 0, 1))
        )
    else:
        measured = spec
    with data.cached(before), data.cached(now):
        _require_few_windows(now, settings.windows)
        # The model's answers last, though the prediction is a category.
        bins = sorted(find_bins(before, measured), key=lambda one: one.column in (PREDICTION, CONFIDENCE))
        past = total(count(before, bins), bins)
        found = count(now, bins, WINDOW)
        _require_times(current, settings.windows, found)
        labelled = model is not None and spec.label in now.columns
        confusions, strange = _confusions(now, spec) if labelled else ({}, 0)
    judged = _judged(bins, past, found, confusions, settings)
    return replace(judged, breaches=(*judged.breaches, *_strange_labels(strange, judged.whole.rows, spec, settings)))


def ask(observed: DataFrame, model: PipelineModel, spec: Spec = PENGUINS) -> DataFrame:
    """Observed rows with `prediction`, the name of the class that the model gives, and `confidence`, its probability.

    Both are null, and `prediction:flaw` says `missing`, in rows that the model can't answer: where a value is null or
    too large to compute with (above about 1e307), or a category is one that it doesn't know.
    Raises ModelError when the model was made for another table.
    """
    from pyspark.sql import functions as F

    known = export.known_categories(model, spec)
    usable = reduce(
        and_,
        [
            *(F.coalesce(F.col(name).isin(known[name]), F.lit(False)) for name in spec.categorical),
            *(F.col(numeric.name).isNotNull() for numeric in spec.numeric),
        ],
    )
    answered = pipeline.answer(observed, model, known, usable, spec)
    code = F.col(PREDICTION)
    # Not `element_at`, which in Spark 4 takes no index for the last one.
    name = F.get(F.array(*map(F.lit, spec.classes)), code)
    return answered.select(
        f"`{pipeline.ROW}`.*",
        name.alias(PREDICTION),
        F.when(code.isNull(), MISSING).alias(flaw_of(PREDICTION)),
        F.array_max(pipeline.PROBABILITY).alias(CONFIDENCE),
        # Said of the prediction already.
        F.lit(None).cast("string").alias(flaw_of(CONFIDENCE)),
    )


def column_as_dict(found: Drift, thresholds: Thresholds) -> dict[str, Any]:
    """One row of the findings: PSI and Jensen-Shannon distance (None without values), shares, verdict, bins."""
    return {
        "psi": found.psi,
        "psi_by_chance": found.chance(thresholds.significance),
        "js": found.js,
        **found.shares(),
        "verdict": drift.verdict(found, thresholds),
        "bins": list(found.bins.labels),
        "reference": list(found.reference.bins),
        "current": list(found.current.bins),
    }


def _in_windows(current: DataFrame, windows: Windows | None, spec: Spec) -> DataFrame:
    """Observed rows, with the second at which their window starts; null where there are no windows or no time."""
    from pyspark.sql import functions as F

    if windows is None:
        return observe(current, spec).withColumn(WINDOW, F.lit(None).cast("bigint"))
    data.require_columns(current, (windows.timestamp,), "The current data")
    seconds = int(windows.length.total_seconds())
    time = F.floor(_seconds(current, windows.timestamp))
    start = (F.floor(time / seconds) * seconds).cast("bigint")
    return observe(current.withColumn(WINDOW, F.when(time.between(EARLIEST, LATEST - 1), start)), spec, keep=[WINDOW])


def _column(name: str) -> Column:
    """The column of that name, which may have a dot."""
    from pyspark.sql import functions as F

    return F.col(f"`{name.replace('`', '``')}`")


def _seconds(df: DataFrame, name: str) -> Column:
    """The time in a column as seconds since 1970; null where there is none.

    A time is a timestamp, a date, a text that begins with a year and a month, or a count of seconds, milli-, micro- or
    nanoseconds since 1970, as a number or as a text.
    """
    from pyspark.sql import functions as F

    column, kind = _column(name), df.schema[name].dataType.typeName()
    if kind in ("timestamp", "timestamp_ntz", "date"):
        return column.cast("timestamp").cast("bigint")
    count = column.try_cast("double")
    since = F.lit(None).cast("double")
    for least, per_second in EPOCH_UNITS:
        since = F.when(count >= least, count / per_second).otherwise(since)
    if kind != "string":
        return since
    return F.when(column.rlike(DATE), column.try_cast("timestamp").cast("bigint")).otherwise(since)


def _require_times(current: DataFrame, windows: Windows | None, starts: Collection[int | None]) -> None:
    """Raise DataError when a column that has values has a time in no row: it is the wrong one, or of another form."""
    if windows is None or any(start is not None for start in starts):
        return
    column = _column(windows.timestamp)
    example = current.select(column.cast("string").alias("text")).where(column.isNotNull()).first()
    if example is not None:
        raise DataError(
            f"{windows.timestamp} has a time in no row of the current data, but values such as {example['text']!r}: "
            "give dates like 2026-11-01 10:30, or a number of seconds or milliseconds since 1970."
        )


def _require_few_windows(now: DataFrame, windows: Windows | None) -> None:
    if windows is None:
        return
    if now.select(WINDOW).distinct().limit(MAX_WINDOWS + 1).count() > MAX_WINDOWS:
        raise ParameterError(
            f"The current data has more than {MAX_WINDOWS:,} windows of {windows.length} by {windows.timestamp}: "
            "give a longer window."
        )


def _confusions(answered: DataFrame, spec: Spec) -> tuple[dict[int | None, Confusion], int]:
    """The confusion matrix of each window, from the rows with both a label and a prediction; one Spark job.

    The second figure is the number of rows whose label is there, but is no class code.
    """
    size, strange = len(spec.classes), 0
    found: dict[int | None, Confusion] = {}
    groups = answered.groupBy(WINDOW, spec.label, PREDICTION, flaw_of(spec.label)).count()
    for start, label, name, flaw, rows in groups.collect():
        if flaw == OUTSIDE:
            strange += rows
        if label is not None and name is not None:
            empty = Confusion(spec.classes, np.zeros((size, size), dtype=np.int64))
            found.setdefault(start, empty).counts[label, spec.classes.index(name)] += rows
    return found, strange


def _strange_labels(strange: int, rows: int, spec: Spec, settings: Settings) -> list[str]:
    """A sentence where so many labels are no class codes that quality can't be trusted, or measured at all."""
    allowed = settings.thresholds.out_of_range
    if not drift.exceeds(strange, rows, allowed, settings.thresholds):
        return []
    codes = listed(f"{code} for {name}" for code, name in enumerate(spec.classes))
    return [
        f"{spec.label} is not a class code in {strange:,} of {rows:,} rows "
        f"({strange / rows:.1%}; allowed: {allowed:.1%}), so quality isn't measured there: give the codes, {codes}."
    ]


def _judged(
    bins: Sequence[Bins],
    past: Sequence[Counts],
    found: Mapping[int | None, tuple[Counts, ...]],
    confusions: Mapping[int | None, Confusion],
    settings: Settings,
) -> Findings:
    together = list(confusions.values())
    confusion = Confusion(together[0].classes, sum(one.counts for one in together)) if together else None  # type: ignore[arg-type]  # no sum of none
    whole = _period(None, bins, past, total(found, bins), confusion, settings)
    starts = sorted(start for start in found if start is not None)
    windows = tuple(_period(start, bins, past, found[start], confusions.get(start), settings) for start in starts)
    if settings.windows is None:
        return Findings(whole, (whole,) if whole.rows else (), whole.breaches, settings)
    breaches = [*whole.breaches, *_untimed(found, whole.rows, settings)]
    if windows:
        latest = f"{windows[-1].start:%Y-%m-%d %H:%M}"
        breaches += [f"In the latest window, from {latest} UTC: {sentence}" for sentence in windows[-1].breaches]
    return Findings(whole, windows, tuple(breaches), settings)


def _period(
    start: int | None,
    bins: Sequence[Bins],
    past: Sequence[Counts],
    counts: Sequence[Counts],
    confusion: Confusion | None,
    settings: Settings,
) -> Period:
    drifts = tuple(map(Drift, bins, past, counts))
    begins = None if start is None else datetime.fromtimestamp(start, UTC)
    ends = None if begins is None or settings.windows is None else begins + settings.windows.length
    if drifts[0].current.rows == 0:
        return Period(begins, ends, drifts, None, ("There are no current rows: nothing arrived that could be judged.",))
    found = [sentence for one in drifts for sentence in drift.breaches(one, settings.thresholds)]
    return Period(begins, ends, drifts, confusion, (*found, *_quality(confusion, settings.thresholds)))


def _quality(confusion: Confusion | None, thresholds: Thresholds) -> list[str]:
    """A sentence for each floor of quality that is missed, by more than chance explains."""
    if confusion is None:
        return []
    right, true = np.diag(confusion.counts), confusion.counts.sum(axis=1)
    asked = [("Accuracy", int(right.sum()), confusion.rows, thresholds.accuracy)]
    for name, hits, rows in zip(confusion.classes, right, true, strict=True):
        asked.append((f"Recall of {name}", int(hits), int(rows), thresholds.recall))
    return [
        f"{what} is {hits / rows:.3f} on {rows:,} rows (at least: {floor:g})."
        for what, hits, rows, floor in asked
        # The share that is wrong must not be above what the floor leaves for it.
        if drift.exceeds(rows - hits, rows, 1 - floor, thresholds)
    ]


def _untimed(found: Mapping[int | None, tuple[Counts, ...]], rows: int, settings: Settings) -> list[str]:
    """A sentence where so many rows have no time that the windows can't be trusted."""
    without = found[None][0].rows if None in found else 0
    allowed = settings.thresholds.missing_increase
    if settings.windows is None or not drift.exceeds(without, rows, allowed, settings.thresholds):
        return []
    return [
        f"{settings.windows.timestamp} is missing or no time in {without:,} of {rows:,} rows "
        f"({without / rows:.1%}; allowed: {allowed:.1%})."
    ]
