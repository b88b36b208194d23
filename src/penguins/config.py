"""Settings: frozen values that refuse what they can't work with."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from numbers import Integral
from typing import Any

from penguins.errors import ParameterError

DEFAULT_DATA = "data/penguins.csv"
DEFAULT_EXPERIMENT = "penguins"
DEFAULT_MODEL = "penguin_predictor"
CHAMPION = "champion"
"""The alias of the version that is served and scores; it moves only through the gate, or back by a rollback."""

PREVIOUS_CHAMPION = "previous_champion"
"""The alias of the version that was champion before, to which a rollback goes."""

DEFAULT_MODEL_URI = f"models:/{DEFAULT_MODEL}@{CHAMPION}"

MOST_QUARANTINED = 0.1
"""The share of bad rows up to which a training job goes on; our choice: of the 344 birds 0.6 % are bad."""

WORKLOAD_SIZES = ("Small", "Medium", "Large")

DEFAULT_URL = "http://127.0.0.1:5000"
"""Where `penguins serve` answers and `penguins query` asks, unless they are told otherwise."""

DEFAULT_ENDPOINT = "predict-penguin"
"""The serving endpoint, named as in the lab."""

DEFAULT_BATCH_ENDPOINT = "score-penguins"

ONLINE_KINDS = ("managed", "kubernetes")
"""Where an Azure Machine Learning endpoint answers: on Azure's machines, or on a Kubernetes cluster of one's own."""

AZURE_KINDS = (*ONLINE_KINDS, "batch")
"""What can be deployed there; a batch endpoint scores files, in jobs."""

AZURE_AUTH = ("key", "aad_token")
"""How an Azure Machine Learning endpoint knows who asks."""

Report = Callable[[str], None]
"""Called with the name of each step that begins, so that a command line or a notebook can show it."""


def silent(step: str) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class TrainingParameters:
    """What a training run can be told.

    The defaults give every species a recall of at least 0.95 on average; the lab's own values
    (`max_iter=5, reg_param=0.5` and `max_iter=10, reg_param=0.2`) underfit the small class, Chinstrap.

    Raises ParameterError when a value is outside of what MLlib's LogisticRegression accepts.
    """

    max_iter: int = 100
    reg_param: float = 0.001
    elastic_net_param: float = 0.0
    seed: int = 42
    test_fraction: float = 0.3

    def __post_init__(self) -> None:
        # MLlib keeps the one in 32 bits, Spark's hash takes the other in 64.
        object.__setattr__(self, "max_iter", _whole(self.max_iter, "max_iter", 1, 2**31 - 1, "from 1 to 2147483647"))
        object.__setattr__(self, "seed", _whole(self.seed, "seed", -(2**63), 2**63 - 1, "of at most 64 bits"))
        _between(self.reg_param, "reg_param", 0.0, math.inf)
        _between(self.elastic_net_param, "elastic_net_param", 0.0, 1.0)
        _between(self.test_fraction, "test_fraction", 0.0, 1.0, inclusive=False)
        # MLflow keeps parameters as text, and autologging would say 0.0 where 0 was given.
        for name in ("reg_param", "elastic_net_param", "test_fraction"):
            object.__setattr__(self, name, float(getattr(self, name)))

    def as_mlflow(self) -> dict[str, int | float]:
        """The parameters under MLlib's names, as they stand in an MLflow run."""
        return {
            "maxIter": self.max_iter,
            "regParam": self.reg_param,
            "elasticNetParam": self.elastic_net_param,
            "seed": self.seed,
            "testFraction": self.test_fraction,
        }


@dataclass(frozen=True)
class Policy:
    """What the gate asks of a challenger before it becomes champion.

    The floors come from the ten hash splits with seeds 0 to 9: the default parameters reach an accuracy of 0.98 and a
    recall of 0.94 of every species in all of them, the lab's stay below 0.95 and 0.75 in all.
    `tolerance` is how much lower than the champion's a class's recall may be, because a test set is a sample: one bird
    of the smallest class is about 0.04, and a single bird should not decide. `min_test_rows` keeps the gate from
    judging on a handful of rows.

    Raises ParameterError when a share is outside of 0 to 1, or the number of rows is no positive whole number.
    """

    min_accuracy: float = 0.95
    min_recall: float = 0.85
    tolerance: float = 0.05
    min_test_rows: int = 50

    def __post_init__(self) -> None:
        for name in ("min_accuracy", "min_recall", "tolerance"):
            _between(getattr(self, name), name, 0.0, 1.0)
        rows = _whole(self.min_test_rows, "min_test_rows", 1, 2**63 - 1, "of at least 1")
        object.__setattr__(self, "min_test_rows", rows)


@dataclass(frozen=True)
class ServingParameters:
    """How a Databricks serving endpoint runs a version.

    `workload_size` is Model Serving's own (Small is up to 4 requests at a time); `traffic` is the version's share in
    percent; `timeout` is in seconds, for each change of the endpoint (a version's first start builds an image).

    Raises ParameterError when a value can't be worked with.
    """

    workload_size: str = "Small"
    scale_to_zero: bool = True
    traffic: int = 100
    timeout: float = 1800.0

    def __post_init__(self) -> None:
        if self.workload_size not in WORKLOAD_SIZES:
            sizes = ", ".join(WORKLOAD_SIZES)
            raise ParameterError(f"workload_size is {self.workload_size!r}: it must be one of {sizes}.")
        object.__setattr__(self, "traffic", _whole(self.traffic, "traffic", 1, 100, "from 1 to 100"))
        _between(self.timeout, "timeout", 0.0, math.inf, inclusive=False)


@dataclass(frozen=True)
class AzureServing:
    """How an Azure Machine Learning endpoint runs a version.

    `kind` is one of ONLINE_KINDS: managed for development and test, kubernetes for production. `compute` is the
    attached Kubernetes cluster. `instance_type` is the size of a machine, on Kubernetes one of the cluster's own
    instance types; None leaves it to Azure there, and means Standard_DS3_v2 on Azure's machines. `instances` is how
    many of them; None keeps the number that serves now, which autoscaling may have set, and is 1 at first. `auth` is
    one of AZURE_AUTH. With `own_script` the deployment answers through this package's scoring script, and not through
    Azure's, which has no sentence for a bad row. With `collect` Azure keeps what the deployment is asked and answers,
    for monitoring. `traffic` is the version's share in percent; `timeout` is in seconds, for each change: a first
    deployment builds an image and takes minutes.

    Raises ParameterError when a value can't be worked with.
    """

    kind: str = "managed"
    compute: str | None = None
    instance_type: str | None = None
    instances: int | None = None
    auth: str = "key"
    app_insights: bool = True
    own_script: bool = True
    collect: bool = True
    traffic: int = 100
    timeout: float = 3600.0

    def __post_init__(self) -> None:
        for name, allowed in (("kind", ONLINE_KINDS), ("auth", AZURE_AUTH)):
            if getattr(self, name) not in allowed:
                raise ParameterError(f"{name} is {getattr(self, name)!r}: it must be one of {', '.join(allowed)}.")
        if self.kind == "kubernetes" and self.compute is None:
            raise ParameterError("A kubernetes endpoint runs on a compute of the workspace: name it (--compute).")
        if self.kind == "kubernetes" and self.auth == "aad_token":
            raise ParameterError("A kubernetes endpoint knows who asks by its key: only a managed one takes aad_token.")
        if self.kind == "managed" and self.compute is not None:
            raise ParameterError("A managed endpoint runs on Azure's machines: leave the compute out (--compute).")
        if self.kind == "managed" and self.instance_type is None:
            object.__setattr__(self, "instance_type", "Standard_DS3_v2")
        if self.instances is not None:
            object.__setattr__(self, "instances", _whole(self.instances, "instances", 1, 1000, "from 1 to 1000"))
        object.__setattr__(self, "traffic", _whole(self.traffic, "traffic", 1, 100, "from 1 to 100"))
        _between(self.timeout, "timeout", 0.0, math.inf, inclusive=False)


@dataclass(frozen=True)
class BatchServing:
    """How an Azure Machine Learning batch endpoint scores files with a version.

    `compute` is a compute cluster of the workspace, `instances` how many of its machines a job takes, `timeout` is in
    seconds, for each change of the endpoint.

    Raises ParameterError when a value can't be worked with.
    """

    compute: str
    instances: int = 1
    timeout: float = AzureServing.timeout

    def __post_init__(self) -> None:
        object.__setattr__(self, "instances", _whole(self.instances, "instances", 1, 1000, "from 1 to 1000"))
        _between(self.timeout, "timeout", 0.0, math.inf, inclusive=False)


@dataclass(frozen=True)
class SearchSpace:
    """Where a parameter search looks: the smallest and the largest value (both inclusive) of each parameter.

    `max_iter` and `reg_param` are drawn on a logarithmic scale, because what counts for them is the factor between two
    values. On the birds the default parameters converge after 33 iterations.

    Raises ParameterError when an end is outside of what MLlib's LogisticRegression accepts, or a range goes downwards.
    """

    max_iter: tuple[int, int] = (5, 100)
    reg_param: tuple[float, float] = (1e-5, 1.0)
    elastic_net_param: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        for name in ("max_iter", "reg_param", "elastic_net_param"):
            low, high = getattr(self, name)
            for end in (low, high):
                TrainingParameters(**{name: end})
            if low > high:
                raise ParameterError(f"The range of {name} is {low:g} to {high:g}: it must go upwards.")
        if self.reg_param[0] == 0:
            raise ParameterError("The range of reg_param starts at 0: its scale is logarithmic, start above 0.")

    def holds(self, parameters: TrainingParameters) -> bool:
        """Whether the search could come upon these values."""
        names = ("max_iter", "reg_param", "elastic_net_param")
        return all(getattr(self, name)[0] <= getattr(parameters, name) <= getattr(self, name)[1] for name in names)


@dataclass(frozen=True)
class SearchParameters:
    """What a parameter search can be told; `timeout` is in seconds, None means none.

    Without `folds` every trial is measured on one validation part, a quarter of the training rows; with them, on each
    of so many parts in turn, which takes so many fits. Several trials at a time (`parallelism`) make the choice of
    parameters depend on which trial ends first; one at a time, the same seed and rows give the same search.

    Raises ParameterError when a value can't be worked with.
    """

    trials: int = 20
    timeout: float | None = None
    parallelism: int = 1
    seed: int = 42
    test_fraction: float = 0.3
    folds: int | None = None
    space: SearchSpace = field(default_factory=SearchSpace)

    def __post_init__(self) -> None:
        object.__setattr__(self, "trials", _whole(self.trials, "trials", 1, 10**6, "from 1 to 1000000"))
        object.__setattr__(self, "parallelism", _whole(self.parallelism, "parallelism", 1, 256, "from 1 to 256"))
        if self.timeout is not None:
            _between(self.timeout, "timeout", 0.0, math.inf, inclusive=False)
        if self.folds is not None:
            object.__setattr__(self, "folds", _whole(self.folds, "folds", 2, 100, "from 2 to 100"))
        TrainingParameters(seed=self.seed, test_fraction=self.test_fraction)

    def as_mlflow(self) -> dict[str, int | float | str]:
        """What the parent run of a search says of it."""
        ranges = ("maxIter", self.space.max_iter), ("regParam", self.space.reg_param)
        said: dict[str, int | float | str] = {
            "trials": self.trials,
            "timeout": "none" if self.timeout is None else self.timeout,
            "parallelism": self.parallelism,
            "seed": self.seed,
            "testFraction": self.test_fraction,
            "folds": "none" if self.folds is None else self.folds,
        }
        for name, (low, high) in (*ranges, ("elasticNetParam", self.space.elastic_net_param)):
            said[f"{name}Range"] = f"{low:g} to {high:g}"
        return said


@dataclass(frozen=True)
class Thresholds:
    """From where on `penguins monitor` calls a difference between the current and the reference data a breach.

    psi_watch, psi_drift: a population stability index below 0.1 means little change, from 0.25 on a major one, and
        what lies between is worth a look (Siddiqi, Credit Risk Scorecards, 2006); only psi_drift makes a breach.
    significance: the probability, under no change at all, of a difference as large as the one found, below which it is
        a breach; for the PSI after Yurdakul and Naranjo (2020), for shares the exact binomial test. 0.001 because
        a look at seven columns in thirty windows is 210 tests: a false alarm in five such looks.
    minimum_rows: with fewer values than this on either side a PSI is shown, but not judged; two per decile.
    missing_increase, out_of_range, new_categories: how much the share of missing values may exceed the reference's, and
        the shares of values out of range and of unknown categories that are allowed; our choice: a fifth of all rows
        lost over four columns is much, and no bird should be out of range or on an unknown island.
    accuracy, recall: the floors of quality, recall that of each class; our choice, below what the default
        model reaches on birds of the same kind (0.99 and 0.96).

    Raises ParameterError when a value is outside of what it can be.
    """

    psi_watch: float = 0.1
    psi_drift: float = 0.25
    significance: float = 0.001
    minimum_rows: int = 20
    missing_increase: float = 0.05
    out_of_range: float = 0.01
    new_categories: float = 0.01
    accuracy: float = 0.9
    recall: float = 0.8

    @classmethod
    def of(cls, texts: Mapping[str, str]) -> Thresholds:
        """The thresholds from texts by name, as a notebook's widgets have them; an empty one is the default's.

        Raises ParameterError for one that is no number.
        """
        given: dict[str, Any] = {}
        for name, text in texts.items():
            if text.strip():
                try:
                    number = float(text)
                except ValueError:
                    raise ParameterError(
                        f"{name} is {text!r}: it must be a number, or empty for the default."
                    ) from None
                given[name] = int(number) if number.is_integer() else number
        return cls(**given)

    def __post_init__(self) -> None:
        for name in ("psi_watch", "psi_drift"):
            _between(getattr(self, name), name, 0.0, math.inf)
        _between(self.significance, "significance", 0.0, 1.0, inclusive=False)
        whole = _whole(self.minimum_rows, "minimum_rows", 1, 2**31 - 1, "from 1 to 2147483647")
        object.__setattr__(self, "minimum_rows", whole)
        for name in ("missing_increase", "out_of_range", "new_categories", "accuracy", "recall"):
            _between(getattr(self, name), name, 0.0, 1.0)


@dataclass(frozen=True)
class RetrainRule:
    """Advise retraining when at least `breached` of the last `windows` windows breached, the latest among them."""

    breached: int
    windows: int

    @classmethod
    def parse(cls, rule: str) -> RetrainRule:
        """The rule that a text such as `2 of 3` means. Raises ParameterError for any other."""
        parts = re.fullmatch(r"\s*(\d{1,9}) of (\d{1,9})\s*", rule)
        if parts is None or not 1 <= int(parts[1]) <= int(parts[2]):
            raise ParameterError(
                f"The retrain rule is {rule!r}: it must be like '2 of 3', the first number from 1 to the second."
            )
        return cls(int(parts[1]), int(parts[2]))

    def advises(self, breached: list[bool]) -> bool:
        """Whether windows that breached or didn't, the oldest first, ask for a retraining; no window never does."""
        return bool(breached) and breached[-1] and sum(breached[-self.windows :]) >= self.breached

    def __str__(self) -> str:
        return f"{self.breached} of {self.windows}"


def window_length(window: str) -> timedelta:
    """The length that a text such as `1 day` or `12 hours` means, from one second on. Raises ParameterError."""
    parts = re.fullmatch(r"\s*(\d{1,6}) (second|minute|hour|day|week)s?\s*", window)
    if parts is None or int(parts[1]) == 0:
        raise ParameterError(
            f"The window is {window!r}: it must be a whole number of seconds, minutes, hours, days or weeks, "
            "like '1 day'."
        )
    return timedelta(**{f"{parts[2]}s": int(parts[1])})


def _whole(value: object, name: str, low: int, high: int, allowed: str) -> int:
    """The value as Python's own int, whichever kind of whole number it is."""
    if not isinstance(value, Integral) or isinstance(value, bool) or not low <= int(value) <= high:
        raise ParameterError(f"{name} is {value!r}: it must be a whole number {allowed}.")
    return int(value)


def _between(value: object, name: str, low: float, high: float, *, inclusive: bool = True) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        fits = False
    else:
        fits = low <= value <= high if inclusive else low < value < high
    if not fits:
        edge = "from" if inclusive else "between"
        least = "at least" if inclusive else "above"
        allowed = f"{least} {low:g}" if high == math.inf else f"{edge} {low:g} {'to' if inclusive else 'and'} {high:g}"
        raise ParameterError(f"{name} is {value!r}: it must be a number {allowed}.")
