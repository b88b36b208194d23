"""What a table of observations looks like: a value, so that another table is another value and no other change."""

from __future__ import annotations

import re
from dataclasses import dataclass

from penguins.errors import ParameterError, listed


@dataclass(frozen=True)
class Numeric:
    """A numeric column: its name, its unit, and the range (inclusive) outside of which a value is a mistake."""

    name: str
    unit: str
    minimum: float
    maximum: float

    def __post_init__(self) -> None:
        if not self.minimum < self.maximum:
            raise ParameterError(f"The range of {self.name} is {self.minimum} to {self.maximum}: it must go upwards.")


@dataclass(frozen=True)
class Spec:
    """What a table of observations looks like; every function here takes one and defaults to PENGUINS.

    `classes` are the names of the label's codes: code 0 is the first name, code 1 the second, and so on.
    Raises ParameterError for fewer than two classes, no numeric column, a name that stands twice, a column's name that
    Spark or this package needs for itself, or a class's name that MLflow doesn't take.
    """

    categorical: tuple[str, ...]
    numeric: tuple[Numeric, ...]
    label: str
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise ParameterError(f"The spec has {len(self.classes)} classes: a classifier needs at least two.")
        if not self.numeric:
            raise ParameterError("The spec has no numeric column: it needs at least one.")
        for names in (self.columns, self.classes):
            if len({name.lower() for name in names}) < len(names):
                raise ParameterError(f"Every name in a spec must be its own, but one stands twice in {listed(names)}.")
        if strange := [name for name in self.columns if re.search(r"[.`]", name)]:
            raise ParameterError(f"Spark reads a dot or backtick as syntax: give {listed(strange)} another name.")
        # What the package adds to a table for a moment begins with an underscore; `check` adds the reasons.
        if ours := [name for name in self.columns if name.startswith("_") or name.lower() == "reasons"]:
            raise ParameterError(
                "Columns that begin with an underscore, and `reasons`, are added here: "
                f"give {listed(ours)} another name."
            )
        if self.name_column == "prediction":
            raise ParameterError(f"The label can't be called {self.label}: an answer's class code has that name.")
        # The measures of a class have its name in theirs.
        if strange := [name for name in self.classes if not re.fullmatch(r"[/\w.\- :]+", name)]:
            raise ParameterError(
                f"MLflow takes only letters, digits and / _ . - : and spaces: give the class {listed(strange)} "
                "another name."
            )

    @property
    def features(self) -> tuple[str, ...]:
        """The columns a model is asked with: the categorical ones, then the numeric ones."""
        return (*self.categorical, *(numeric.name for numeric in self.numeric))

    @property
    def columns(self) -> tuple[str, ...]:
        """The feature columns and the label."""
        return (*self.features, self.label)

    @property
    def name_column(self) -> str:
        """Where an answer holds the name of the predicted class: the label in lower case, `species` for PENGUINS."""
        return self.label.lower()


# A value below half of the smallest bird's, or above one and a half times the largest one's, is taken for a mistake.
PENGUINS = Spec(
    categorical=("Island",),
    numeric=(
        Numeric("CulmenLength", "mm", 16, 90),
        Numeric("CulmenDepth", "mm", 6.5, 32.5),
        Numeric("FlipperLength", "mm", 86, 347),
        Numeric("BodyMass", "g", 1350, 9450),
    ),
    label="Species",
    classes=("Adelie", "Gentoo", "Chinstrap"),
)

LAB_REQUEST = {"Island": "Biscoe", "CulmenLength": 48.7, "CulmenDepth": 14.1, "FlipperLength": 210, "BodyMass": 4450}
"""The bird that the lab's notebook asks about: a Gentoo."""
