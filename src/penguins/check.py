"""Look at observations before anything is trained on them: how many are good, and what is wrong with the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from penguins import data
from penguins.config import Report, silent
from penguins.spec import PENGUINS, Spec

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

STEPS = ("Reading and checking the data", "Counting the accepted rows")
"""What `check` reports, in order."""


@dataclass(frozen=True)
class Checked:
    """What a source holds, as far as training goes."""

    accepted: int
    quarantined: int
    reasons: dict[str, int]
    """How many quarantined rows have each reason; a row may have several."""
    classes: dict[str, int]
    """How many accepted rows each class has."""
    digest: str
    """What stands for the values of the accepted rows, in whatever order they come."""

    @property
    def share(self) -> float:
        """The share of the rows that are quarantined; 0 of none."""
        return self.quarantined / max(1, self.accepted + self.quarantined)


def check(
    spark: SparkSession,
    source: str | Path,
    *,
    spec: Spec = PENGUINS,
    quarantine: str | Path | None = None,
    report: Report = silent,
) -> Checked:
    """Read the observations at `source`, and count the good rows by class and the others by reason.

    Quarantined rows are written to the CSV file `quarantine` if one is named. Raises DataError.
    """
    report(STEPS[0])
    with accepted_rows(spark, source, spec, quarantine) as (accepted, set_aside, reasons):
        report(STEPS[1])
        profile = data.profile(accepted, spec)
    return Checked(profile.rows, set_aside, reasons, profile.classes, profile.digest)


@contextmanager
def accepted_rows(
    spark: SparkSession, source: str | Path, spec: Spec, quarantine: str | Path | None
) -> Iterator[tuple[DataFrame, int, dict[str, int]]]:
    """The good rows at `source`, cached for the `with` block; how many rows are quarantined, and how many per reason.

    Quarantined rows are written to the CSV file `quarantine` if one is named. Raises DataError.
    """
    with data.cached(data.read(spark, source, spec)) as observations:
        accepted, quarantined = data.check(observations, spec)
        # The first look at every line: a file that turns out to be unreadable does so here.
        set_aside, reasons = data.told(lambda: data.count_reasons(quarantined), str(source))
        if quarantine is not None:
            data.write_reasons(quarantined, Path(quarantine))
        yield accepted, set_aside, reasons
