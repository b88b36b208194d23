"""What a version needs before an endpoint gives it all the traffic: the gate's yes, and the right answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penguins import champion, registry
from penguins.errors import ModelError, ServerError, listed
from penguins.registry import Version

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE = 1e-6
"""How far a probability may be from the expected one: another processor may round the sixteenth digit differently."""


def accepted_against(version: Version) -> Version | None:
    """The present champion, which the gate compared `version` with, or which `version` is. Raises ModelError."""
    import mlflow

    registry.resolve(version.uri)
    reading = champion.version_of(version.name)
    if reading == version:
        return reading
    with registry.asking(version.name):
        tags = mlflow.MlflowClient().get_model_version(version.name, str(version.number)).tags
    if tags.get("gate_verdict") != "yes":
        raise ModelError(
            f"The gate hasn't accepted version {version.number} of {version.name}: run `penguins promote --judge-only`."
        )
    judged_against, present = tags.get("gate_champion"), "none" if reading is None else str(reading.number)
    if judged_against != present:
        raise ModelError(
            f"The gate compared version {version.number} of {version.name} with champion {judged_against}, and the "
            f"champion is {present} now: run `penguins promote --judge-only` again."
        )
    return reading


def require_right(who: str, answers: pd.DataFrame, expected: pd.DataFrame, *, exact: bool = True) -> None:
    """Raise ServerError when the answers aren't the expected ones; with `exact` False, when they lack their columns."""
    import numpy as np
    import pandas as pd

    if missing := [column for column in expected if column not in answers]:
        raise ServerError(f"{who} answers without {listed(missing)}: it doesn't serve the version.")
    if not exact:
        return
    for column in expected:
        given, right = answers[column], expected[column]
        if right.dtype.kind == "f":
            # What is no number is as wrong as a wrong one.
            numbers = pd.to_numeric(given, errors="coerce").to_numpy(dtype=float)
            fits = np.isclose(numbers, right.to_numpy(), rtol=0, atol=TOLERANCE)
        else:
            fits = given.to_numpy(dtype=object) == right.to_numpy(dtype=object)
        if not fits.all():
            place = int(np.argmin(fits))
            raise ServerError(
                f"{who} answers wrong: in known row {place + 1} of {len(expected)} {column} is "
                f"{given.iloc[place]}, expected {right.iloc[place]}."
            )


def make_champion(version: Version, reading: Version | None) -> bool:
    """Make the version champion if it isn't; False if it is.

    `reading` is the champion that the gate compared it with. Raises ModelError when somebody else moved it meanwhile.
    """
    if reading == version:
        return False
    if not champion.move(version, instead_of=reading):
        raise ModelError(f"The champion of {version.name} has changed meanwhile: let the gate judge again.")
    return True
