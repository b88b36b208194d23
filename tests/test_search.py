"""The search: what is tried, what is kept, and how it ends; on a function that needs neither Spark nor MLflow."""

from __future__ import annotations

import math
import signal
import threading
import time

import optuna
import pytest

from penguins.config import SearchParameters, SearchSpace, TrainingParameters
from penguins.search import Trial, best_of, search


def bowl(parameters: TrainingParameters) -> dict[str, float]:
    """Smallest, 0, at regParam 0.01 and elasticNetParam 0.25."""
    distance = abs(math.log10(parameters.reg_param) + 2) + abs(parameters.elastic_net_param - 0.25)
    return {"distance": distance, "other": -distance}


def searched(settings: SearchParameters) -> tuple[tuple[Trial, ...], str]:
    return search(bowl, settings, objective="distance", keep=lambda trial: None)


def test_the_first_trial_has_the_defaults_and_the_others_come_nearer() -> None:
    trials, ended = searched(SearchParameters(trials=40))
    assert ended == "finished"
    assert [trial.number for trial in trials] == list(range(40))
    assert trials[0].params == {"maxIter": 100, "regParam": 0.001, "elasticNetParam": 0.0}
    assert trials[0].value == pytest.approx(1.25)
    best = best_of(trials)
    assert best is not None
    assert best.value is not None
    assert best.value < 0.3
    assert best.value == min(trial.metrics["distance"] for trial in trials)


def test_every_trial_is_within_the_space_and_defaults_outside_of_it_are_not_tried() -> None:
    space = SearchSpace(max_iter=(3, 7), reg_param=(0.01, 0.1), elastic_net_param=(0.5, 0.5))
    trials, _ = searched(SearchParameters(trials=30, space=space))
    assert {trial.params["maxIter"] for trial in trials} == {3, 4, 5, 6, 7}
    assert all(0.01 <= trial.params["regParam"] <= 0.1 for trial in trials)
    assert {trial.params["elasticNetParam"] for trial in trials} == {0.5}


def test_one_seed_is_one_search_and_another_seed_another() -> None:
    first, again, other = (
        [trial.params for trial in searched(SearchParameters(trials=15, seed=seed))[0]] for seed in (-7, -7, 2**62)
    )
    assert first == again
    assert first[1:] != other[1:]


def test_of_equal_trials_the_first_is_the_best_and_failed_ones_are_none() -> None:
    def trial(number: int, value: float | None) -> Trial:
        return Trial(number, {}, {}, value, 0.0, 0.0, None if value is not None else "it broke")

    assert best_of([trial(3, 0.5), trial(1, 0.5), trial(0, None), trial(2, 0.7)]) == trial(1, 0.5)
    assert best_of([trial(0, None), trial(1, None)]) is None
    assert best_of([]) is None


def test_a_trial_that_fails_is_kept_with_its_reason_and_the_search_goes_on() -> None:
    def fails_at_the_defaults(parameters: TrainingParameters) -> dict[str, float]:
        if parameters.max_iter == 100:
            raise ArithmeticError("it doesn't converge\nat line 7")
        return bowl(parameters)

    kept: list[Trial] = []
    trials, ended = search(fails_at_the_defaults, SearchParameters(trials=3), objective="distance", keep=kept.append)
    assert ended == "finished"
    assert list(trials) == kept
    assert [(trial.value is None, trial.failure) for trial in trials] == [
        (True, "it doesn't converge"),
        (False, None),
        (False, None),
    ]


def test_what_keeping_raises_ends_the_search() -> None:
    kept: list[Trial] = []

    def keep(trial: Trial) -> None:
        kept.append(trial)
        if trial.number == 1:
            raise OSError("the store is gone")

    with pytest.raises(OSError, match=r"^the store is gone$"):
        search(bowl, SearchParameters(trials=10), objective="distance", keep=keep)
    assert len(kept) == 2


def test_a_timeout_begins_no_further_trial() -> None:
    def slow(parameters: TrainingParameters) -> dict[str, float]:
        time.sleep(0.3)
        return bowl(parameters)

    trials, ended = search(slow, SearchParameters(trials=50, timeout=0.5), objective="distance", keep=lambda _: None)
    assert ended == "timed out"
    assert 1 <= len(trials) <= 2


@pytest.mark.parametrize("parallelism", [1, 2])
def test_ctrl_c_keeps_the_trials_that_have_ended(parallelism: int) -> None:
    def keep(trial: Trial) -> None:
        if trial.number == 3:
            signal.raise_signal(signal.SIGINT)

    def slow(parameters: TrainingParameters) -> dict[str, float]:
        time.sleep(0.02)
        return bowl(parameters)

    settings = SearchParameters(trials=200, parallelism=parallelism)
    trials, ended = search(slow, settings, objective="distance", keep=keep)
    assert ended == "interrupted"
    assert [trial.number for trial in trials[:4]] == [0, 1, 2, 3]
    assert len(trials) < 20


def test_parallel_trials_overlap_but_are_kept_one_at_a_time() -> None:
    meet = threading.Barrier(2, timeout=30)
    inside = []

    def measure(parameters: TrainingParameters) -> dict[str, float]:
        meet.wait()  # nobody gets past it alone
        return bowl(parameters)

    def keep(trial: Trial) -> None:
        inside.append("in")
        time.sleep(0.05)
        inside.append("out")

    trials, ended = search(measure, SearchParameters(trials=4, parallelism=2), objective="distance", keep=keep)
    assert (ended, [trial.failure for trial in trials]) == ("finished", [None] * 4)
    assert inside == ["in", "out"] * 4


def test_optuna_says_nothing_and_its_logging_is_left_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    searched(SearchParameters(trials=2))
    assert capfd.readouterr().err == ""
    assert optuna.logging.get_verbosity() == before == optuna.logging.INFO
