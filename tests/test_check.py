"""`penguins check` and what is behind it: what a source holds, before anything is trained on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from penguins.check import Checked, check
from penguins.cli import main
from penguins.errors import DataError
from tests.conftest import PENGUINS_CSV

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

MISSING = {f"{name} is missing": 2 for name in ("BodyMass", "CulmenDepth", "CulmenLength", "FlipperLength")}


def test_the_birds(spark: SparkSession, tmp_path: Path) -> None:
    checked = check(spark, PENGUINS_CSV, quarantine=tmp_path / "aside.csv")
    assert (checked.accepted, checked.quarantined, checked.reasons) == (342, 2, MISSING)
    assert checked.classes == {"Adelie": 151, "Gentoo": 123, "Chinstrap": 68}
    assert checked.share == pytest.approx(2 / 344)
    assert len((tmp_path / "aside.csv").read_text().splitlines()) == 3


def test_a_source_that_is_not_there(spark: SparkSession) -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv"):
        check(spark, "nowhere.csv")


def test_the_share_of_no_rows_is_none() -> None:
    assert Checked(0, 0, {}, {}, "").share == 0


def test_the_command(spark: SparkSession) -> None:
    result = CliRunner().invoke(main, ["check", "--data", str(PENGUINS_CSV)])
    assert result.exit_code == 0, result.output
    assert "344 rows: 342 accepted, 2 set aside (0.6%).\n  2 × BodyMass is missing\n" in result.stdout
    assert "│ Chinstrap │   68 │" in result.stdout


def test_too_many_bad_rows_are_a_no(spark: SparkSession) -> None:
    result = CliRunner().invoke(main, ["check", "--data", str(PENGUINS_CSV), "--max-quarantined", "0.005", "--json"])
    assert result.exit_code == 3
    assert json.loads(result.stdout)["quarantined"] == 2
    result = CliRunner().invoke(main, ["check", "--data", str(PENGUINS_CSV), "--max-quarantined", "5"])
    assert result.exit_code == 2
