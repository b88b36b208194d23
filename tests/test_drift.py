"""Statistics of drift: against values worked out by hand, against SciPy, and against chance."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import rel_entr

from penguins.bins import Bins, Counts
from penguins.config import Thresholds
from penguins.drift import Drift, breaches, exceeds, js_distance, lean_season, psi, psi_by_chance, verdict
from tests.conftest import PENGUINS_CSV

MASS = Bins("BodyMass", (3000.0,), None)
ISLAND = Bins("Island", None, ("Biscoe", "Dream"))
THRESHOLDS = Thresholds()

counts = st.lists(st.integers(1, 1000), min_size=2, max_size=12)


def test_psi_by_hand() -> None:
    # 0.3 ln(0.8/0.5) + 0.3 ln(0.5/0.2) = 0.3 ln 4
    assert psi([50, 50], [80, 20]) == pytest.approx(0.3 * math.log(4))
    # Shares 0.2, 0.3, 0.5 and 0.5, 0.3, 0.2: twice 0.3 ln 2.5
    assert psi([20, 30, 50], [500, 300, 200]) == pytest.approx(0.5497744391)


def test_psi_counts_half_a_value_where_one_side_has_none() -> None:
    # (1 - 0.5) ln(1 / 0.5) + (0.05 - 0.5) ln(0.05 / 0.5) = 0.3465736 + 1.0361633
    assert psi([10, 0], [5, 5]) == pytest.approx(1.3827369)
    assert psi([5, 5], [10, 0]) == pytest.approx(1.3827369)


def test_a_bin_that_is_empty_on_both_sides_changes_nothing() -> None:
    assert psi([50, 0, 50], [80, 0, 20]) == pytest.approx(0.3 * math.log(4))
    assert psi_by_chance([50, 0, 50], [80, 0, 20], 0.05) == psi_by_chance([50, 50], [80, 20], 0.05)


def test_js_distance_by_hand() -> None:
    # m = 0.65, 0.35; KL(p, m) = 0.0680306, KL(q, m) = 0.0781766; the root of their mean
    assert js_distance([50, 50], [80, 20]) == pytest.approx(0.2703768, abs=1e-6)
    assert js_distance([10, 0], [0, 7]) == 1
    assert js_distance([10, 30], [1, 3]) == 0


def test_what_chance_gives_is_the_chi_squared_distributions_quantile() -> None:
    # The 95 % quantiles of a printed table: 3.841 with one degree of freedom, 5.991 with two.
    assert psi_by_chance([40, 60], [50, 50], 0.05) == pytest.approx(3.841 * (1 / 100 + 1 / 100), rel=1e-3)
    assert psi_by_chance([10, 20, 20], [100, 50, 50], 0.05) == pytest.approx(5.991 * (1 / 50 + 1 / 200), rel=1e-3)
    assert psi_by_chance([7, 0], [9, 0], 0.05) == 0


@given(counts, counts)
def test_both_agree_with_scipy(one: list[int], other: list[int]) -> None:
    size = min(len(one), len(other))
    one, other = one[:size], other[:size]
    p, q = np.array(one) / sum(one), np.array(other) / sum(other)
    # Siddiqi's index is the symmetric Kullback-Leibler divergence.
    assert psi(one, other) == pytest.approx(float((rel_entr(p, q) + rel_entr(q, p)).sum()), abs=1e-12)
    # Its square is the mean divergence, in bits, from what lies between the two.
    between = (p + q) / 2
    divergence = float((rel_entr(p, between) + rel_entr(q, between)).sum()) / 2 / math.log(2)
    assert js_distance(one, other) == pytest.approx(math.sqrt(max(divergence, 0)), abs=1e-7)
    assert 0 <= js_distance(one, other) <= 1
    assert psi(one, other) == pytest.approx(psi(other, one))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.lists(st.integers(0, 50), min_size=1, max_size=8))
def test_whatever_the_counts_the_numbers_are_finite(one: list[int], other: list[int]) -> None:
    size = min(len(one), len(other))
    found = Drift(
        MASS,
        Counts(sum(one[:size]), 0, 0, tuple(one[:size])),
        Counts(sum(other[:size]), 0, 0, tuple(other[:size])),
    )
    values = [found.psi, found.js, found.chance(0.001)]
    assert values == [None] * 3 or all(value is not None and 0 <= value < math.inf for value in values)


def deciles(values: pd.Series[float]) -> list[float]:
    return sorted(set(np.quantile(values, np.arange(1, 10) / 10, method="inverted_cdf")))


def test_random_halves_and_days_of_the_same_birds_are_no_drift() -> None:
    """What the guard against chance is for; without it, 2 of 10 days would be called drift in a given column."""
    birds = pd.read_csv(PENGUINS_CSV).dropna()
    generator = np.random.default_rng(1)
    called, above = {"halves": 0, "days": 0}, {"halves": 0, "days": 0}
    for turn in range(1000):
        order = generator.permutation(len(birds))
        sets = {"days": (birds, birds.iloc[generator.integers(len(birds), size=57)])}
        if turn < 100:
            sets["halves"] = birds.iloc[order[:171]], birds.iloc[order[171:]]
        for name, (reference, current) in sets.items():
            for column in ("CulmenLength", "CulmenDepth", "FlipperLength", "BodyMass"):
                edges = deciles(reference[column])
                sides = [
                    np.bincount(np.searchsorted(edges, side[column]), minlength=len(edges) + 1)
                    for side in (reference, current)
                ]
                before, now = (Counts(int(side.sum()), 0, 0, tuple(map(int, side))) for side in sides)
                found = Drift(Bins(column, tuple(edges), None), before, now)
                called[name] += verdict(found, THRESHOLDS) == "drift"
                above[name] += (found.psi or 0) >= 0.25
    assert called["halves"] <= 4
    assert called["days"] <= 4, "1 in 1,000 of the 4,000"
    assert above["days"] / 4000 == pytest.approx(0.19, abs=0.01)


@pytest.mark.parametrize(
    ("reference", "current", "expected"),
    [
        ((500, 500), (500, 500), "stable"),
        ((500, 500), (640, 360), "stable"),  # PSI 0.081
        ((500, 500), (660, 340), "watch"),  # PSI 0.106
        ((500, 500), (740, 260), "drift"),  # PSI 0.251
        ((10, 10), (17, 3), "stable"),  # PSI 0.61, and 1.08 by chance
        ((500, 500), (19, 0), "too few"),
        ((19, 0), (500, 500), "too few"),
        ((500, 500), (0, 0), "no values"),
        ((0, 0), (500, 500), "no values"),
        ((500, 0), (0, 500), "drift"),
        ((500, 0), (500, 0), "stable"),
    ],
)
def test_verdicts(reference: tuple[int, ...], current: tuple[int, ...], expected: str) -> None:
    found = Drift(MASS, Counts(sum(reference), 0, 0, reference), Counts(sum(current), 0, 0, current))
    assert verdict(found, THRESHOLDS) == expected
    assert bool(breaches(found, THRESHOLDS)) == (expected == "drift")


def test_a_threshold_below_the_one_for_watching_counts() -> None:
    found = Drift(MASS, Counts(1000, 0, 0, (500, 500)), Counts(1000, 0, 0, (640, 360)))
    assert verdict(found, Thresholds(psi_drift=0.05)) == "drift"


def test_a_breach_is_a_sentence_with_its_numbers() -> None:
    reference = Counts(1000, 20, 0, (500, 480))
    current = Counts(2000, 300, 100, (1500, 200))
    # Shares 0.5102, 0.4898 and 0.8824, 0.1176: 0.3722 (ln(0.8824 / 0.5102) + ln(0.4898 / 0.1176)) = 0.7347
    assert breaches(Drift(MASS, reference, current), THRESHOLDS) == (
        "BodyMass has drifted: its PSI is 0.73 (allowed: less than 0.25; by chance: up to 0.02).",
        "BodyMass is missing in 300 of 2,000 rows (15.0%; in the reference: 2.0%; allowed increase: 5.0%).",
        "BodyMass is out of range or no number in 100 of 2,000 rows (5.0%; allowed: 1.0%).",
    )


def test_new_categories_are_a_breach_of_their_own() -> None:
    found = Drift(ISLAND, Counts(100, 0, 0, (50, 50, 0)), Counts(120, 0, 0, (55, 55, 10), "Anvers"))
    assert breaches(found, THRESHOLDS) == (
        "Island has values unknown to the reference, such as Anvers, in 10 of 120 rows (8.3%; allowed: 1.0%).",
    )
    assert found.shares() == {"missing": 0, "out_of_range": 0, "new": 10 / 120}


def test_a_vanished_category_shows_in_the_psi() -> None:
    found = Drift(ISLAND, Counts(200, 0, 0, (100, 100, 0)), Counts(100, 0, 0, (100, 0, 0)))
    # (0.5 - 1) ln(0.5) + (0.5 - 0.005) ln(0.5 / 0.005)
    assert found.psi == pytest.approx(0.5 * math.log(2) + 0.495 * math.log(100))
    assert verdict(found, THRESHOLDS) == "drift"


def test_all_missing_is_a_breach_without_a_psi() -> None:
    found = Drift(MASS, Counts(100, 0, 0, (50, 50)), Counts(100, 100, 0, (0, 0)))
    assert (found.psi, found.js, found.chance(0.001)) == (None, None, None)
    assert breaches(found, THRESHOLDS) == (
        "BodyMass is missing in 100 of 100 rows (100.0%; in the reference: 0.0%; allowed increase: 5.0%).",
    )


def test_no_rows_break_nothing() -> None:
    found = Drift(MASS, Counts(100, 0, 0, (50, 50)), Counts(0, 0, 0, (0, 0)))
    assert breaches(found, THRESHOLDS) == ()
    assert found.shares() == {"missing": 0, "out_of_range": 0, "new": 0}


def test_a_share_exceeds_only_what_chance_does_not_explain() -> None:
    # One of two rows where 5 % are allowed happens in one of ten cases; two of two in one of 400; three in 8,000.
    assert not exceeds(1, 2, 0.05, THRESHOLDS)
    assert not exceeds(2, 2, 0.05, THRESHOLDS)
    assert exceeds(3, 3, 0.05, THRESHOLDS)
    assert not exceeds(0, 0, 0.05, THRESHOLDS)
    assert not exceeds(5000, 100_000, 0.05, THRESHOLDS)
    assert exceeds(1, 1000, 0.0, THRESHOLDS), "nothing is allowed, so that one is too much"


def test_the_lean_season_is_the_real_birds_with_less_weight_from_the_fourth_day_on() -> None:
    birds = pd.read_csv(PENGUINS_CSV)
    lean = lean_season(birds)
    assert list(lean.columns) == [*birds.columns, "MeasuredAt"]
    assert sorted(lean["MeasuredAt"].unique()) == [f"2026-11-0{day} 12:00" for day in range(1, 7)]
    assert lean["MeasuredAt"].value_counts().between(57, 58).all()
    ratio = lean["BodyMass"] / birds["BodyMass"]
    assert (ratio[lean["MeasuredAt"] < "2026-11-04"].dropna() == 1).all()
    assert ratio[lean["MeasuredAt"] > "2026-11-04"].dropna().between(0.7995, 0.8005).all()
    pd.testing.assert_frame_equal(lean[birds.columns[:4]], birds[birds.columns[:4]])
