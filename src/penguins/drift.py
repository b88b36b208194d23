"""How far two sets of rows are apart, column by column: statistics on counts, and what is too far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from penguins.bins import Bins, Counts, count, find_bins, observe, total
from penguins.config import Thresholds
from penguins.spec import PENGUINS, Spec

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame


@dataclass(frozen=True)
class Drift:
    """How far a column of the current rows is from the reference."""

    bins: Bins
    reference: Counts
    current: Counts

    @property
    def column(self) -> str:
        """The column's name."""
        return self.bins.column

    @property
    def psi(self) -> float | None:
        """The population stability index; None where one side has no values."""
        return psi(self.reference.bins, self.current.bins) if self._is_comparable else None

    @property
    def js(self) -> float | None:
        """The Jensen-Shannon distance; None where one side has no values."""
        return js_distance(self.reference.bins, self.current.bins) if self._is_comparable else None

    @property
    def new(self) -> int:
        """The number of current rows with a category that the reference doesn't have."""
        return self.current.bins[-1] if self.bins.values is not None else 0

    def chance(self, significance: float) -> float | None:
        """The PSI that chance alone exceeds with the probability `significance`; None where one side has no values."""
        return psi_by_chance(self.reference.bins, self.current.bins, significance) if self._is_comparable else None

    def shares(self) -> dict[str, float]:
        """The shares of the current rows, 0 to 1, that are missing, out of range, and new; 0 where there are none."""
        counts = {"missing": self.current.missing, "out_of_range": self.current.outside, "new": self.new}
        return {name: count / max(self.current.rows, 1) for name, count in counts.items()}

    @property
    def _is_comparable(self) -> bool:
        return self.reference.values > 0 and self.current.values > 0


def psi(reference: Sequence[int], current: Sequence[int]) -> float:
    """The population stability index of two rows of counts over the same bins: the sum of (p - q) ln(p / q).

    p and q are a bin's shares of the reference and of the current values (Siddiqi, Credit Risk Scorecards, 2006).
    0 is no difference; there is no upper bound. A bin that is empty on one side would make it infinite, and counts
    there as half a value, the usual continuity correction; a fixed floor such as 0.0001 would make one empty
    decile worth 0.69, also where it is empty by chance. A bin that is empty on both sides counts for nothing.
    """
    p, q = _shares(reference, current, floor=0.5)
    return float(((p - q) * np.log(p / q)).sum())


def js_distance(reference: Sequence[int], current: Sequence[int]) -> float:
    """The Jensen-Shannon distance with base 2 of two rows of counts: from 0, the same, to 1, nothing in common.

    It is the square root of (KL(p, m) + KL(q, m)) / 2 with m = (p + q) / 2 (Lin, 1991; Endres and Schindelin, 2003).
    """
    from scipy.spatial.distance import jensenshannon

    p, q = _shares(reference, current, floor=0.0)
    return float(jensenshannon(p, q, base=2))


def psi_by_chance(reference: Sequence[int], current: Sequence[int], significance: float) -> float:
    """The PSI that two sets of one and the same population exceed with the probability `significance`.

    With n and m values and B bins that aren't empty on both sides, PSI / (1/n + 1/m) follows the chi-squared
    distribution with B - 1 degrees of freedom (Yurdakul and Naranjo, Statistical properties of the population
    stability index, Journal of Risk Model Validation 14, 2020).
    """
    from scipy.stats import chi2

    freedom = len(_shares(reference, current, floor=0.0)[0]) - 1
    if freedom == 0:
        return 0.0
    return float((1 / sum(reference) + 1 / sum(current)) * chi2.isf(significance, freedom))


def verdict(drift: Drift, thresholds: Thresholds) -> str:
    """`drift`, `watch` or `stable` by the PSI; `too few` where a side has values, but fewer than can be judged."""
    index, chance = drift.psi, drift.chance(thresholds.significance)
    if index is None or chance is None:
        return "no values"
    if min(drift.reference.values, drift.current.values) < thresholds.minimum_rows:
        return "too few"
    if index <= chance:
        return "stable"
    if index >= thresholds.psi_drift:
        return "drift"
    return "watch" if index >= thresholds.psi_watch else "stable"


def breaches(drift: Drift, thresholds: Thresholds) -> tuple[str, ...]:
    """A sentence for each threshold that the column breaks, beyond what chance explains."""
    name, now, before = drift.column, drift.current, drift.reference
    found = []
    if verdict(drift, thresholds) == "drift":
        found.append(
            f"{name} has drifted: its PSI is {drift.psi:.2f} (allowed: less than {thresholds.psi_drift:g}; "
            f"by chance: up to {drift.chance(thresholds.significance):.2f})."
        )
    was_missing = before.missing / max(before.rows, 1)
    if exceeds(now.missing, now.rows, was_missing + thresholds.missing_increase, thresholds):
        found.append(
            f"{name} is missing in {now.missing:,} of {now.rows:,} rows ({now.missing / now.rows:.1%}; "
            f"in the reference: {was_missing:.1%}; allowed increase: {thresholds.missing_increase:.1%})."
        )
    if exceeds(now.outside, now.rows, thresholds.out_of_range, thresholds):
        found.append(
            f"{name} is out of range or no number in {now.outside:,} of {now.rows:,} rows "
            f"({now.outside / now.rows:.1%}; allowed: {thresholds.out_of_range:.1%})."
        )
    if exceeds(drift.new, now.rows, thresholds.new_categories, thresholds):
        found.append(
            f"{name} has values unknown to the reference, such as {now.example}, in {drift.new:,} of {now.rows:,} rows "
            f"({drift.new / now.rows:.1%}; allowed: {thresholds.new_categories:.1%})."
        )
    return tuple(found)


def exceeds(hits: int, rows: int, allowed: float, thresholds: Thresholds) -> bool:
    """Whether the share of `hits` is above what is allowed, and further than chance explains.

    That is, whether the one-sided exact binomial test refutes that the true share is the allowed one.
    """
    from scipy.stats import binomtest

    if rows == 0 or hits / rows <= allowed:
        return False
    return bool(binomtest(hits, rows, allowed, alternative="greater").pvalue < thresholds.significance)


def compare(reference: DataFrame, current: DataFrame, spec: Spec = PENGUINS) -> tuple[Drift, ...]:
    """Compare two sets of rows as `data.read` gives them, column by column; three Spark jobs.

    Raises DataError when the reference is empty, or a column is missing or can't have values of the spec.
    """
    observed = observe(reference, spec)
    bins = find_bins(observed, spec)
    sides = (total(count(rows, bins), bins) for rows in (observed, observe(current, spec)))
    return tuple(map(Drift, bins, *sides))


def lean_season(birds: pd.DataFrame) -> pd.DataFrame:
    """Six days of a season in which food gets scarce, made of real birds: for the demo, the docs and tests.

    Each bird is measured on one of the days, drawn with a fixed seed; the column `MeasuredAt` has the time. From the
    fourth day on all birds weigh a fifth less than they did.
    """
    import pandas as pd

    # Not in turn: the birds are listed by species, island and couple.
    day = pd.Series(np.random.default_rng(42).permutation(len(birds)) % 6, index=birds.index)
    weight = birds["BodyMass"].where(day < 3, (birds["BodyMass"] * 0.8).round())
    noon = pd.Timestamp("2026-11-01 12:00") + pd.to_timedelta(day, unit="D")
    return birds.assign(BodyMass=weight, MeasuredAt=noon.dt.strftime("%Y-%m-%d %H:%M"))


def _shares(
    reference: Sequence[int], current: Sequence[int], floor: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Each bin's share on both sides, with `floor` values in an empty one, without the bins that nothing falls into."""
    counts = np.array([reference, current], dtype=np.float64)
    used = np.where(counts == 0, floor, counts)[:, counts.sum(axis=0) > 0]
    p, q = used / counts.sum(axis=1, keepdims=True)
    return p, q
