"""Settings: what they allow, and the sentence for what they don't."""

from __future__ import annotations

import dataclasses
import math
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penguins.config import (
    Policy,
    RetrainRule,
    SearchParameters,
    SearchSpace,
    Thresholds,
    TrainingParameters,
    window_length,
)
from penguins.errors import ParameterError, PenguinsError


def test_the_defaults_stand_under_mllibs_names_in_a_run() -> None:
    assert TrainingParameters().as_mlflow() == {
        "maxIter": 100,
        "regParam": 0.001,
        "elasticNetParam": 0.0,
        "seed": 42,
        "testFraction": 0.3,
    }


def test_the_labs_parameters_and_the_edges_are_accepted() -> None:
    lab = TrainingParameters(max_iter=5, reg_param=0.5)
    assert (lab.max_iter, lab.reg_param) == (5, 0.5)
    edges = TrainingParameters(max_iter=1, reg_param=0, elastic_net_param=1, seed=-1, test_fraction=0.999)
    assert edges.as_mlflow() == {"maxIter": 1, "regParam": 0, "elasticNetParam": 1, "seed": -1, "testFraction": 0.999}


@pytest.mark.parametrize(
    ("given_value", "sentence"),
    [
        ({"max_iter": 0}, "max_iter is 0: it must be a whole number from 1 to 2147483647."),
        ({"max_iter": -3}, "max_iter is -3: it must be a whole number from 1 to 2147483647."),
        ({"max_iter": True}, "max_iter is True: it must be a whole number from 1 to 2147483647."),
        ({"max_iter": 10.0}, "max_iter is 10.0: it must be a whole number from 1 to 2147483647."),
        ({"max_iter": "10"}, "max_iter is '10': it must be a whole number from 1 to 2147483647."),
        ({"max_iter": None}, "max_iter is None: it must be a whole number from 1 to 2147483647."),
        ({"reg_param": -0.1}, "reg_param is -0.1: it must be a number at least 0."),
        ({"reg_param": math.nan}, "reg_param is nan: it must be a number at least 0."),
        ({"reg_param": math.inf}, "reg_param is inf: it must be a number at least 0."),
        ({"reg_param": True}, "reg_param is True: it must be a number at least 0."),
        ({"reg_param": "0.2"}, "reg_param is '0.2': it must be a number at least 0."),
        ({"elastic_net_param": 1.1}, "elastic_net_param is 1.1: it must be a number from 0 to 1."),
        ({"elastic_net_param": -0.1}, "elastic_net_param is -0.1: it must be a number from 0 to 1."),
        ({"elastic_net_param": math.nan}, "elastic_net_param is nan: it must be a number from 0 to 1."),
        ({"test_fraction": 0}, "test_fraction is 0: it must be a number between 0 and 1."),
        ({"test_fraction": 1.0}, "test_fraction is 1.0: it must be a number between 0 and 1."),
        ({"test_fraction": -math.inf}, "test_fraction is -inf: it must be a number between 0 and 1."),
        ({"seed": 1.5}, "seed is 1.5: it must be a whole number of at most 64 bits."),
        ({"seed": False}, "seed is False: it must be a whole number of at most 64 bits."),
    ],
)
def test_a_parameter_outside_of_what_it_allows_is_refused(given_value: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ParameterError) as refused:
        TrainingParameters(**given_value)
    assert str(refused.value) == sentence


@pytest.mark.parametrize(("name", "value"), [("seed", 2**63), ("max_iter", 2**31)])
def test_a_number_that_spark_can_not_hold_is_refused_before_it_gets_there(name: str, value: int) -> None:
    with pytest.raises(ParameterError, match=f"^{name} is {value}: it must be a whole number"):
        TrainingParameters(**{name: value})


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    # What a parameter search over a numpy range passes in.
    assert TrainingParameters(max_iter=np.int64(20), reg_param=np.float64(0.2)).as_mlflow()["maxIter"] == 20  # type: ignore[arg-type]  # numpy's are no int to mypy


def test_the_first_of_two_bad_parameters_is_named_and_it_is_an_error_a_user_can_catch() -> None:
    with pytest.raises(PenguinsError, match=r"^max_iter is 0: it must be a whole number from 1 to 2147483647\.$"):
        TrainingParameters(max_iter=0, reg_param=-1.0)


@given(
    st.integers(1, 10_000),
    st.floats(0, 1e6),
    st.floats(0, 1),
    st.integers(-(2**31), 2**31),
    st.floats(0, 1, exclude_min=True, exclude_max=True),
)
def test_every_value_within_the_ranges_is_kept_as_it_is(
    max_iter: int, reg_param: float, elastic_net_param: float, seed: int, test_fraction: float
) -> None:
    parameters = TrainingParameters(max_iter, reg_param, elastic_net_param, seed, test_fraction)
    assert list(parameters.as_mlflow().values()) == [max_iter, reg_param, elastic_net_param, seed, test_fraction]


def test_settings_are_frozen_and_unknown_ones_refused() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainingParameters().max_iter = 5  # type: ignore[misc]  # the point of the test
    with pytest.raises(TypeError, match="maxIter"):
        TrainingParameters(maxIter=5)  # type: ignore[call-arg]  # the point of the test


@pytest.mark.parametrize(
    ("given_value", "sentence"),
    [
        ({"trials": 0}, "trials is 0: it must be a whole number from 1 to 1000000."),
        ({"timeout": 0}, "timeout is 0: it must be a number above 0."),
        ({"timeout": math.nan}, "timeout is nan: it must be a number above 0."),
        ({"parallelism": 0}, "parallelism is 0: it must be a whole number from 1 to 256."),
        ({"folds": 1}, "folds is 1: it must be a whole number from 2 to 100."),
        ({"seed": 2**63}, f"seed is {2**63}: it must be a whole number of at most 64 bits."),
        ({"test_fraction": 1}, "test_fraction is 1: it must be a number between 0 and 1."),
    ],
)
def test_a_search_refuses_what_it_can_not_do(given_value: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ParameterError) as refused:
        SearchParameters(**given_value)
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("given_value", "sentence"),
    [
        ({"max_iter": (0, 5)}, "max_iter is 0: it must be a whole number from 1 to 2147483647."),
        ({"max_iter": (9, 5)}, "The range of max_iter is 9 to 5: it must go upwards."),
        ({"reg_param": (0, 1)}, "The range of reg_param starts at 0: its scale is logarithmic, start above 0."),
        ({"reg_param": (1.0, 0.5)}, "The range of reg_param is 1 to 0.5: it must go upwards."),
        ({"elastic_net_param": (0, 1.5)}, "elastic_net_param is 1.5: it must be a number from 0 to 1."),
    ],
)
def test_a_search_space_has_ranges_that_mllib_accepts(given_value: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ParameterError) as refused:
        SearchSpace(**given_value)
    assert str(refused.value) == sentence


def test_a_search_space_knows_what_it_holds() -> None:
    assert SearchSpace().holds(TrainingParameters())
    assert not SearchSpace(max_iter=(2, 99)).holds(TrainingParameters())
    assert not SearchSpace(elastic_net_param=(0.1, 1)).holds(TrainingParameters())


def test_a_search_says_its_settings_in_a_run() -> None:
    settings = SearchParameters(trials=5, timeout=60, folds=3, space=SearchSpace(reg_param=(1e-4, 0.5)))
    assert settings.as_mlflow() == {
        "trials": 5,
        "timeout": 60,
        "parallelism": 1,
        "seed": 42,
        "testFraction": 0.3,
        "folds": 3,
        "maxIterRange": "5 to 100",
        "regParamRange": "0.0001 to 0.5",
        "elasticNetParamRange": "0 to 1",
    }


@pytest.mark.parametrize(
    ("given_value", "sentence"),
    [
        ({"min_accuracy": 1.1}, "min_accuracy is 1.1: it must be a number from 0 to 1."),
        ({"min_recall": -0.1}, "min_recall is -0.1: it must be a number from 0 to 1."),
        ({"tolerance": float("nan")}, "tolerance is nan: it must be a number from 0 to 1."),
        ({"min_test_rows": 0}, "min_test_rows is 0: it must be a whole number of at least 1."),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(given_value: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ParameterError) as raised:
        Policy(**given_value)
    assert str(raised.value) == sentence


@pytest.mark.parametrize(
    ("given_value", "sentence"),
    [
        ({"psi_watch": -0.1}, "psi_watch is -0.1: it must be a number at least 0."),
        ({"psi_drift": math.nan}, "psi_drift is nan: it must be a number at least 0."),
        ({"significance": 0}, "significance is 0: it must be a number between 0 and 1."),
        ({"significance": 1}, "significance is 1: it must be a number between 0 and 1."),
        ({"minimum_rows": 0}, "minimum_rows is 0: it must be a whole number from 1 to 2147483647."),
        ({"missing_increase": 1.1}, "missing_increase is 1.1: it must be a number from 0 to 1."),
        ({"out_of_range": "1 %"}, "out_of_range is '1 %': it must be a number from 0 to 1."),
        ({"new_categories": -1}, "new_categories is -1: it must be a number from 0 to 1."),
        ({"accuracy": 95}, "accuracy is 95: it must be a number from 0 to 1."),
        ({"recall": None}, "recall is None: it must be a number from 0 to 1."),
    ],
)
def test_a_threshold_outside_of_what_it_can_be_is_refused(given_value: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ParameterError) as refused:
        Thresholds(**given_value)
    assert str(refused.value) == sentence


def test_a_retrain_rule_looks_at_the_last_windows_and_the_latest() -> None:
    rule = RetrainRule.parse("2 of 3")
    assert (rule, str(rule)) == (RetrainRule(2, 3), "2 of 3")
    assert rule.advises([True, False, True])
    assert rule.advises([True, True])
    assert not rule.advises([True, True, False]), "the latest is fine again"
    assert not rule.advises([True, True, False, False, True]), "too long ago"
    assert not rule.advises([True]), "one window can't be two"
    assert not rule.advises([])
    assert RetrainRule.parse(" 1 of 1 ").advises([False, True])


@pytest.mark.parametrize("rule", ["3 of 2", "0 of 3", "2 out of 3", "2", "", "-1 of 3", "2 of 3 of 4"])
def test_a_rule_that_is_none_is_refused(rule: str) -> None:
    with pytest.raises(ParameterError) as refused:
        RetrainRule.parse(rule)
    assert str(refused.value) == (
        f"The retrain rule is {rule!r}: it must be like '2 of 3', the first number from 1 to the second."
    )


def test_a_window_has_a_length() -> None:
    assert window_length("1 day") == timedelta(days=1)
    assert window_length("12 hours") == timedelta(hours=12)
    assert window_length(" 2 weeks ") == timedelta(days=14)


@pytest.mark.parametrize("window", ["0 days", "1 month", "day", "1.5 days", "-1 day", "", "1 dayy"])
def test_a_window_that_is_none_is_refused(window: str) -> None:
    with pytest.raises(ParameterError) as refused:
        window_length(window)
    assert str(refused.value) == (
        f"The window is {window!r}: it must be a whole number of seconds, minutes, hours, days or weeks, like '1 day'."
    )


def test_thresholds_from_texts_leave_empty_ones_to_the_default() -> None:
    given_texts = {"accuracy": "0.78", "recall": " ", "minimum_rows": "30", "psi_drift": ""}
    assert Thresholds.of(given_texts) == Thresholds(accuracy=0.78, minimum_rows=30)
    assert Thresholds.of({}) == Thresholds()
    with pytest.raises(ParameterError) as raised:
        Thresholds.of({"accuracy": "high"})
    assert str(raised.value) == "accuracy is 'high': it must be a number, or empty for the default."
    with pytest.raises(ParameterError, match="recall is 80"):
        Thresholds.of({"recall": "80"})
