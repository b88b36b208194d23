"""What a scoring server allows each request, each connection, and all of them together."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from penguins.errors import ParameterError


def _limit(default: float, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Limits:
    """The limits of `penguins serve`; each is an option of the command, and docs/serving.md has what follows from it.

    Counts are whole numbers, times are seconds. 16 MB (of 2**20 bytes) is what Databricks Model Serving takes, and 60
    seconds is what MLflow's own server gives an answer. `max_columns` never keeps out a model's own columns.

    Raises ParameterError when a value is no number above 0, or a count is not whole.
    """

    max_body_mb: float = _limit(16.0, "MB of a request's body.")
    max_rows: int = _limit(100_000, "Rows in a request.")
    max_columns: int = _limit(1_000, "Columns in a request, or as many as the model has.")
    max_requests: int = _limit(64, "Requests answered at a time; one more gets 503.")
    max_connections: int = _limit(1_000, "Connections; fewer where the system allows fewer open files.")
    header_timeout: float = _limit(10.0, "Seconds for a request's header to arrive.")
    body_timeout: float = _limit(30.0, "Seconds for its body to arrive.")
    answer_timeout: float = _limit(60.0, "Seconds for the answer, and for the client to take it.")
    idle_timeout: float = _limit(60.0, "Seconds that a connection is kept between two requests.")

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not 0 < value < math.inf:
                raise ParameterError(f"{each.name} is {value!r}: it must be a number above 0.")
            if isinstance(each.default, int) and value != int(value):
                raise ParameterError(f"{each.name} is {value!r}: it must be a whole number.")

    @property
    def body_bytes(self) -> int:
        """`max_body_mb` in bytes."""
        return int(self.max_body_mb * 2**20)
