"""The gate: both models on the same rows, made again and checked; whatever can't be judged is refused."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pytest

from penguins import champion, data, registry
from penguins.config import Policy, TrainingParameters
from penguins.errors import ModelError
from penguins.promote import Promotion, held_out, promote
from penguins.registry import Version
from penguins.tracking import Tracking
from penguins.train import train_from_source, train_model
from tests.conftest import PENGUINS_CSV, point_at_nothing
from tests.test_cli import here

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NAME = "penguin_predictor"
FAIR, LABS, GOOD = (Version(NAME, number) for number in (1, 2, 3))

pytestmark = [pytest.mark.spark, pytest.mark.slow]


def aliases() -> dict[str, int]:
    found = mlflow.MlflowClient().get_registered_model(NAME).aliases
    return {alias: int(number) for alias, number in found.items()}


def tags_of(version: Version) -> dict[str, str]:
    tags = mlflow.MlflowClient().get_model_version(version.name, str(version.number)).tags
    return {name: value for name, value in tags.items() if name.startswith("gate_")}


def kept(promotion: Promotion) -> dict[str, Any]:
    verdict: dict[str, Any] = mlflow.artifacts.load_dict(f"runs:/{promotion.run_id}/verdict.json")
    return verdict


def test_a_good_first_model_becomes_champion(spark: SparkSession, models: Path) -> None:
    promotion = promote(spark, GOOD)
    assert promotion.moved
    assert (promotion.champion, promotion.rows) == (None, 116)
    assert set(promotion.metrics) == {"challenger"}
    assert aliases() == {"champion": 3}
    reason = "no champion stands against it, and its accuracy of 0.991 and every recall reach the floors"
    assert promotion.verdict.reasons == (reason,)
    tags = tags_of(GOOD)
    assert tags.pop("gate_moved_at") > "2026"
    assert tags == {
        "gate_verdict": "yes",
        "gate_reasons": reason,
        "gate_champion": "none",
        "gate_challenger_accuracy": "0.9914",
        "gate_rows": "116",
        "gate_run_id": promotion.run_id,
    }
    run = mlflow.get_run(promotion.run_id or "")
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "gate: penguin_predictor 3"
    assert run.data.tags["promote"] == "yes"
    assert run.data.metrics["challenger_recall_Chinstrap"] == pytest.approx(27 / 28)


def test_the_labs_model_is_refused_and_the_reasons_are_kept(spark: SparkSession, models: Path) -> None:
    promote(spark, FAIR)
    promotion = promote(spark, LABS)
    assert not promotion.verdict.promote
    assert not promotion.moved
    assert aliases() == {"champion": 1}
    reasons = [
        "its accuracy of 0.931 is below 0.95",
        "its recall of Chinstrap, 0.714, is below 0.85",
        "its accuracy of 0.931 is not higher than the champion's 0.974",
        "its recall of Chinstrap, 0.714, is lower than the champion's 0.893 by more than 0.05",
    ]
    verdict = kept(promotion)
    assert verdict["reasons"] == reasons
    assert (verdict["challenger"], verdict["champion"], verdict["promote"]) == (2, 1, False)
    assert verdict["policy"] == {"min_accuracy": 0.95, "min_recall": 0.85, "tolerance": 0.05, "min_test_rows": 50}
    assert verdict["metrics"]["champion"]["recall_Chinstrap"] == pytest.approx(25 / 28)
    tags = tags_of(LABS)
    assert (tags["gate_verdict"], tags["gate_champion"]) == ("no", "1")
    assert tags["gate_reasons"] == "; ".join(reasons)
    assert "gate_moved_at" not in tags


def test_a_better_model_replaces_the_champion_and_a_tie_does_not(spark: SparkSession, models: Path) -> None:
    promote(spark, FAIR)
    assert promote(spark, GOOD).moved
    assert aliases() == {"champion": 3, "previous_champion": 1}
    model = mlflow.MlflowClient().get_model_version(NAME, "3").source
    twin = Version(NAME, registry.register(str(model), NAME))
    reasons = tags_of(GOOD)
    tied = promote(spark, twin)
    assert tied.verdict.reasons == ("its accuracy of 0.991 is not higher than the champion's 0.991",)
    assert promote(spark, GOOD).verdict.reasons == ("it is the champion already",)
    assert aliases() == {"champion": 3, "previous_champion": 1}
    assert tags_of(GOOD) == reasons, "what made it champion"


def test_the_policy_decides(spark: SparkSession, models: Path) -> None:
    assert not promote(spark, GOOD, policy=Policy(min_recall=0.97)).moved
    assert promote(spark, LABS, policy=Policy(min_accuracy=0.9, min_recall=0.7)).moved


def test_a_dry_run_judges_and_writes_nothing(spark: SparkSession, models: Path) -> None:
    before = contents(models)
    promotion = promote(spark, GOOD, dry_run=True)
    assert promotion.verdict.promote
    assert (promotion.moved, promotion.run_id) == (False, None)
    assert contents(models) == before


def test_rows_that_changed_since_are_refused(spark: SparkSession, models: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copy(PENGUINS_CSV, tmp_path / "changed.csv"))
    changed.write_text(changed.read_text().replace("Biscoe,46.1,13.2,211,4500,1", "Biscoe,46.1,13.2,211,4501,1"))
    test = data.split(data.check(data.read(spark, changed))[0])[1]
    promotion = promote(spark, GOOD, source=changed)
    run = training_run(GOOD)
    assert run.inputs is not None
    logged = next(item.dataset.digest for item in run.inputs.dataset_inputs if item.dataset.name == "test")
    sentence = (
        f"The test rows of the run {run.info.run_id} can't be made again: those of {changed} now have the digest "
        f"{data.profile(test).digest}, those of the run had {logged}."
    )
    assert promotion.verdict.reasons == (sentence,)
    assert (promotion.rows, promotion.metrics) == (0, {})
    assert aliases() == {}
    assert kept(promotion)["reasons"] == [sentence]


def test_a_source_that_moved_is_judged_where_it_is_now(spark: SparkSession, models: Path, tmp_path: Path) -> None:
    moved = shutil.copy(PENGUINS_CSV, tmp_path / "moved.csv")
    assert promote(spark, GOOD, source=moved).moved
    gone = promote(spark, FAIR, source=tmp_path / "gone.csv").verdict
    assert gone.reasons == (
        f"{tmp_path / 'gone.csv'} doesn't exist: give a .csv or .parquet file, a folder of them, or a table.",
    )


def test_the_held_out_rows_are_the_runs_test_rows(spark: SparkSession, models: Path) -> None:
    expected = data.split(data.check(data.read(spark, PENGUINS_CSV))[0])[1]
    assert sorted(held_out(spark, training_run(GOOD)).collect()) == sorted(expected.collect())


def test_a_run_that_doesnt_say_its_rows_is_refused(spark: SparkSession, models: Path) -> None:
    training, test = data.split(data.check(data.read(spark, PENGUINS_CSV))[0])
    silent = train_model(training, test, register_as=NAME)
    promotion = promote(spark, Version(NAME, silent.version or 0))
    sentence = f"The run {silent.run_id} doesn't say which rows were its test rows, so it can't be judged."
    assert promotion.verdict.reasons == (sentence,)
    half = train_model(training, test, test_fraction=0.3, register_as=NAME)
    promotion = promote(spark, Version(NAME, half.version or 0))
    sentence = f"The run {half.run_id} doesn't say where its rows came from: name the source."
    assert promotion.verdict.reasons == (sentence,)
    assert promote(spark, Version(NAME, half.version or 0), source=PENGUINS_CSV).moved


@pytest.mark.parametrize("broken", ["a version that isn't there", "files that aren't there"])
def test_a_broken_champion_is_told_and_replaced_only_on_request(spark: SparkSession, models: Path, broken: str) -> None:
    champion.move(LABS, instead_of=None)
    if broken == "a version that isn't there":
        execute(models, "UPDATE registered_model_aliases SET version = 99")
    else:
        point_at_nothing(models, version=2)
    number = aliases()["champion"]
    refused = promote(spark, GOOD)
    assert not refused.verdict.promote
    [reason] = refused.verdict.reasons
    assert reason.startswith(f"models:/penguin_predictor/{number} can't be ")
    assert reason.endswith("; --replace-broken-champion judges as if there were no champion")
    assert aliases() == {"champion": number}
    assert not promote(spark, LABS, replace_broken_champion=True).moved, "the floors hold for a replacement, too"
    replaced = promote(spark, GOOD, replace_broken_champion=True)
    assert replaced.moved
    broken_one, praise = replaced.verdict.reasons
    assert (
        broken_one
        == f"{reason.removesuffix('; --replace-broken-champion judges as if there were no champion')}, "
        + ("and it is to be replaced")
    )
    assert praise.startswith("no champion stands against it, and ")
    assert aliases() == {"champion": 3}, "what can't be loaded is no way back"


def test_a_champion_that_knows_fewer_islands_cant_be_compared(
    spark: SparkSession, models: Path, tmp_path: Path
) -> None:
    header, *birds = PENGUINS_CSV.read_text().splitlines(keepends=True)
    few = tmp_path / "few.csv"
    few.write_text("".join([header, *(bird for bird in birds if not bird.startswith("Torgersen"))]))
    trained = train_from_source(spark, few, register_as=NAME)
    assert champion.move(Version(NAME, trained.version or 0), instead_of=None)
    [reason] = promote(spark, GOOD).verdict.reasons
    assert reason.startswith(f"models:/penguin_predictor/{trained.version} can't be asked about the test rows: ")
    assert "Torgersen" in reason
    assert promote(spark, GOOD, replace_broken_champion=True).moved


def test_a_later_verdict_leaves_no_tag_of_an_earlier_one(spark: SparkSession, models: Path) -> None:
    champion.move(Version(NAME, 1), instead_of=None)
    registry.describe(GOOD, {"gate_moved_at": "2026-01-01", "gate_older": "yes", "colour": "black"})
    point_at_nothing(models, version=3)
    assert not promote(spark, GOOD).moved
    tags = mlflow.MlflowClient().get_model_version(NAME, "3").tags
    assert tags["gate_verdict"] == "no"
    assert tags["colour"] == "black"
    assert {tag for tag in tags if tag.startswith("gate_")} == {
        "gate_verdict", "gate_reasons", "gate_champion", "gate_rows", "gate_run_id"
    }  # fmt: skip


def test_a_challenger_that_cant_be_loaded_is_refused(spark: SparkSession, models: Path) -> None:
    point_at_nothing(models, version=3)
    promotion = promote(spark, GOOD)
    assert not promotion.moved
    assert promotion.verdict.reasons[0].startswith("models:/penguin_predictor/3 can't be ")


def test_a_version_that_isnt_there_cant_be_judged(spark: SparkSession, models: Path) -> None:
    with pytest.raises(ModelError, match=r"^penguin_predictor doesn't have a version 9: "):
        promote(spark, Version(NAME, 9))
    with pytest.raises(ModelError, match=r"^There is no version of emperors: `penguins train` makes one.$"):
        registry.newest("emperors")
    assert registry.newest(NAME) == GOOD


def test_what_nobody_expects_moves_nothing(spark: SparkSession, models: Path) -> None:
    def pull_the_plug(step: str) -> None:
        if step == "Judging":
            raise RuntimeError("the plug was pulled")

    with pytest.raises(RuntimeError, match="the plug was pulled"):
        promote(spark, GOOD, report=pull_the_plug)
    assert aliases() == {}
    [run] = mlflow.search_runs(search_all_experiments=True, filter_string="tags.step = 'promote'", output_format="list")
    assert run.info.status == "FAILED"
    assert run.data.tags["failure"] == "the plug was pulled"


def test_a_champion_that_changes_meanwhile_is_judged_against_anew(spark: SparkSession, models: Path) -> None:
    champion.move(LABS, instead_of=None)
    steps: list[str] = []

    def somebody_else_promotes(step: str) -> None:
        steps.append(step)
        if steps.count("Judging") == 1 and step == "Judging":
            assert champion.move(GOOD, instead_of=LABS)

    promotion = promote(spark, FAIR, report=somebody_else_promotes)
    assert steps.count("Judging") == 2
    assert promotion.champion == GOOD
    assert promotion.verdict.reasons == (
        "its accuracy of 0.974 is not higher than the champion's 0.991",
        "its recall of Chinstrap, 0.893, is lower than the champion's 0.964 by more than 0.05",
    )
    assert aliases() == {"champion": 3, "previous_champion": 2}


def test_a_copied_version_can_be_judged_in_its_new_store(spark: SparkSession, models: Path, tmp_path: Path) -> None:
    from penguins.tracking import Tracking

    other = tmp_path / "other"
    other.mkdir()
    copied = registry.copy_version(NAME, 3, Tracking.local(tmp_path), Tracking.local(other))
    Tracking.local(other).activate()
    assert promote(spark, Version(NAME, copied)).moved


def test_the_newest_parameters_and_the_seed_of_the_run_count(spark: SparkSession, store: Path) -> None:
    parameters = TrainingParameters(seed=7, test_fraction=0.4)
    trained = train_from_source(spark, PENGUINS_CSV, parameters, register_as=NAME)
    promotion = promote(spark, Version(NAME, trained.version or 0))
    assert promotion.rows == trained.rows["test"]
    assert promotion.metrics["challenger"]["accuracy"] == pytest.approx(trained.metrics["accuracy"])


def training_run(version: Version) -> mlflow.entities.Run:
    run_id = mlflow.MlflowClient().get_model_version(version.name, str(version.number)).run_id
    return mlflow.get_run(run_id or "")


def execute(database: Path, statement: str) -> None:
    connection = sqlite3.connect(database)
    with connection:
        connection.execute(statement)
    connection.close()


def contents(database: Path) -> str:
    connection = sqlite3.connect(database)
    text = json.dumps(list(connection.iterdump()))
    connection.close()
    return text


def test_the_commands_options_are_the_policy(spark: SparkSession, models: Path) -> None:
    floors = ["--min-accuracy", "0.91", "--min-recall", "0.72", "--tolerance", "0.03", "--min-test-rows", "200"]
    asked = ["promote", "--version", "1", *floors, "--json", "--tracking-uri", f"sqlite:///{models}"]
    tried = here(*asked, "--dry-run")
    assert tried.exit_code == 3, tried.stderr
    assert [json.loads(tried.stdout)[name] for name in ("version", "moved", "run_id")] == [1, False, None]
    Tracking.local(models.parent).activate()
    assert tags_of(FAIR) == {}
    refused = here(*asked)
    assert refused.exit_code == 3, refused.stderr
    answer = json.loads(refused.stdout)
    assert answer["reasons"] == json.loads(tried.stdout)["reasons"]
    Tracking.local(models.parent).activate()
    policy = mlflow.artifacts.load_dict(f"runs:/{answer['run_id']}/verdict.json")["policy"]
    assert policy == {"min_accuracy": 0.91, "min_recall": 0.72, "tolerance": 0.03, "min_test_rows": 200}
    assert tags_of(FAIR)["gate_verdict"] == "no"
