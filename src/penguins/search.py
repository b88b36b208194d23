"""Search for parameters: Optuna proposes, a function measures, and every trial is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penguins.config import SearchParameters, SearchSpace, TrainingParameters
from penguins.errors import first_sentence

if TYPE_CHECKING:
    import optuna

FINISHED, TIMED_OUT, INTERRUPTED = "finished", "timed out", "interrupted"
"""How a search ends: with all its trials, by its timeout, by a person."""


@dataclass(frozen=True)
class Trial:
    """Parameters that were tried (MLlib's names), and what was measured, or in one sentence why it failed.

    `number` counts from 0 in the order in which trials began, `value` is the objective, None of a failed trial, and
    `began` is in seconds since 1970.
    """

    number: int
    params: dict[str, int | float]
    metrics: dict[str, float]
    value: float | None
    began: float
    seconds: float
    failure: str | None = None


def best_of(trials: Iterable[Trial]) -> Trial | None:
    """The trial with the smallest value, of equal ones the first; None when none finished."""
    finished = [(trial.value, trial.number, trial) for trial in trials if trial.value is not None]
    return min(finished)[2] if finished else None


def search(
    measure: Callable[[TrainingParameters], dict[str, float]],
    settings: SearchParameters,
    *,
    objective: str,
    keep: Callable[[Trial], None],
) -> tuple[tuple[Trial, ...], str]:
    """Try parameters for the smallest `objective` among the measures, and return all trials and how the search ended.

    The first trial has the defaults of a training run where the space holds them, so that a search can't do worse;
    Optuna's tree-structured Parzen estimator proposes the others. `keep` is called with each trial as it ends, never
    with two at once. A trial whose measuring raises has failed, and the search goes on; what `keep` raises ends it.
    After Ctrl-C (KeyboardInterrupt) the trials that have ended are returned.
    """
    import optuna

    trials: list[Trial] = []
    one_at_a_time = threading.Lock()

    def attempt(proposal: optuna.Trial) -> float:
        parameters = _parameters(proposal, settings.space)
        trial = _tried(proposal.number, parameters, measure, objective)
        with one_at_a_time:
            trials.append(trial)
            keep(trial)
        # Optuna takes a NaN for a failed trial, learns nothing from it, and goes on.
        return float("nan") if trial.value is None else trial.value

    with _quiet():
        # NumPy takes seeds of 32 bits, ours has 64.
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=settings.seed % 2**32))
        if settings.space.holds(TrainingParameters()):
            study.enqueue_trial(_tunable(TrainingParameters()))
        ended = FINISHED
        try:
            study.optimize(attempt, settings.trials, settings.timeout, settings.parallelism)
        except KeyboardInterrupt:
            ended = INTERRUPTED
    if ended == FINISHED and len(trials) < settings.trials:
        ended = TIMED_OUT
    return tuple(sorted(trials, key=lambda trial: trial.number)), ended


def _parameters(proposal: optuna.Trial, space: SearchSpace) -> TrainingParameters:
    return TrainingParameters(
        max_iter=proposal.suggest_int("maxIter", *space.max_iter, log=True),
        reg_param=proposal.suggest_float("regParam", *space.reg_param, log=True),
        elastic_net_param=proposal.suggest_float("elasticNetParam", *space.elastic_net_param),
    )


def _tunable(parameters: TrainingParameters) -> dict[str, int | float]:
    return {name: value for name, value in parameters.as_mlflow().items() if name not in {"seed", "testFraction"}}


def _tried(
    number: int,
    parameters: TrainingParameters,
    measure: Callable[[TrainingParameters], dict[str, float]],
    objective: str,
) -> Trial:
    began, start = time.time(), time.monotonic()
    metrics: dict[str, float] = {}
    failure = None
    try:
        metrics = measure(parameters)
    except Exception as error:
        failure = first_sentence(error)
    seconds = time.monotonic() - start
    return Trial(number, _tunable(parameters), metrics, metrics.get(objective), began, seconds, failure)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from logging a line per trial, and leave its logging as it was."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
