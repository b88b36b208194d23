"""Rows that training can't use: it says why there are too few, and shows a few of many values."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from penguins import train
from penguins.data import Profile
from penguins.errors import DataError, listed, printable
from tests.conftest import PENGUINS_CSV

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.mark.spark
def test_names_in_place_of_codes_are_told(spark: SparkSession, tmp_path: Path) -> None:
    birds = pd.read_csv(PENGUINS_CSV)
    names = birds.assign(Species=birds["Species"].map({0: "Adelie", 1: "Gentoo", 2: "Chinstrap"}))
    names.to_csv(tmp_path / "names.csv", index=False)
    with pytest.raises(DataError) as refused, train.split_source(spark, tmp_path / "names.csv", 0.3, 42):
        pass
    assert str(refused.value) == (
        "A test fraction of 0.3 leaves a class without rows on one side: 0 Adelie, 0 Gentoo, 0 Chinstrap in training "
        "and 0 Adelie, 0 Gentoo, 0 Chinstrap in test. 344 rows were set aside: Species is not a class code (0 to 2) "
        "(344), BodyMass is missing (2), CulmenDepth is missing (2), CulmenLength is missing (2), FlipperLength is "
        "missing (2). The codes of Species are 0 Adelie, 1 Gentoo, 2 Chinstrap."
    )


def test_of_thousands_of_values_five_are_shown() -> None:
    classes = {"Adelie": 9, "Gentoo": 9, "Chinstrap": 9}
    many = frozenset(f"{place:04}" for place in range(4000))
    profiles = {
        "training": Profile(classes, {"Island": many}, ""),
        "test": Profile(classes, {"Island": frozenset(["x", "y" * 100])}, ""),
    }
    with pytest.raises(DataError) as refused:
        train._require_trainable(profiles)
    assert str(refused.value) == (
        f"Island is x, {'y' * 60}… in the test set, but only 0000, 0001, 0002, 0003, 0004 and 3,995 more in the "
        "training set: give more rows, another seed, or a smaller test fraction."
    )


def test_lists_and_texts_are_safe_to_show() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed(range(6)) == "0, 1, 2, 3, 4 and 1 more"
    assert listed(range(6), 10) == "0, 1, 2, 3, 4, 5"
    assert printable("a\x1b[31m\r\nb\u202eç\x85") == "a\\x1b[31m\\r\\nb\\u202eç\\x85"
    assert printable("a\n\tb\x07", but="\n\t") == "a\n\tb\\x07"
    assert str(DataError("Island is \x1b[2J")) == "Island is \\x1b[2J"
