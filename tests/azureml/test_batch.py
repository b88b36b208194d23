"""Batch endpoints: the real client against an Azure on this machine, whose jobs run the script that they are sent."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from penguins import azure_batch_scoring, champion, delimited, registry
from penguins.cli import main
from penguins.registry import Version
from tests.azureml.arm import CLUSTER, HOME, SECRETS, TOKEN, Azure, configure, refused, running
from tests.azureml.endless import interrupted
from tests.azureml.tls import Authority

pytestmark = [pytest.mark.azureml, pytest.mark.slow]

NAME = "score-penguins"
FAIR, GOOD = Version("penguin_predictor", 1), Version("penguin_predictor", 3)
BIRDS = "Island,CulmenLength,CulmenDepth,FlipperLength,BodyMass\nBiscoe,48.7,14.1,210,4450\nDream,39.5,16.7,178,3250\n"


@pytest.fixture
def azure(models: Path, trusted: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Azure]:
    """An Azure that the environment names, with a cluster, beside a registry in which the fair model is champion."""
    champion.move(FAIR, None)
    azure = Azure()
    azure.things["computes/rookery"] = CLUSTER
    with running(azure, trusted):
        configure(azure, monkeypatch)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{models}")
        yield azure


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments])


def deploy(*arguments: str) -> Result:
    return command("deploy", "--to", "azureml", "--kind", "batch", *arguments)


def undeploy(*arguments: str) -> Result:
    return command("undeploy", "--to", "azureml", "--kind", "batch", *arguments)


def score(data: str, output: Path, *arguments: str) -> Result:
    return command("azureml", "score", "--data", data, "--output", str(output), *arguments)


def answers(output: Path) -> list[tuple[str, ...]]:
    """The class of each row of a file of answers, and the reasons why there is none."""
    with output.open(newline="") as file:
        return [(row["species"], row["reasons"]) for row in csv.DictReader(file)]


SCORED = [("Gentoo", ""), ("Adelie", "")]


def test_a_file_is_scored_from_here_to_here(
    azure: Azure, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    result = deploy("--compute", "rookery")
    assert (result.exit_code, result.stdout) == (
        0, f"{NAME} scores with version 1 of penguin_predictor.\n",
    ), result.output  # fmt: skip
    made = azure.things[f"batchEndpoints/{NAME}"]
    assert made["tags"] == {"made_by": "penguins"}
    assert made["properties"]["defaults"]["deploymentName"] == "penguin-predictor-1"
    deployment = azure.things[f"batchEndpoints/{NAME}/deployments/penguin-predictor-1"]["properties"]
    assert deployment["compute"] == f"{HOME}/computes/rookery"
    assert deployment["model"]["assetId"] == f"{HOME}/models/penguin_predictor-serving/versions/1"
    assert (deployment["errorThreshold"], deployment["outputAction"]) == (0, "SummaryOnly")
    (tmp_path / "birds.csv").write_text(BIRDS)
    result = score(str(tmp_path / "birds.csv"), tmp_path / "scored.csv")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[1] == "2 rows: 2 scored, 0 with reasons why not."
    assert result.stdout.splitlines()[-1] == f"Written  {tmp_path / 'scored.csv'}"
    header, *_ = (tmp_path / "scored.csv").read_text().splitlines()
    assert header == (
        "Island,CulmenLength,CulmenDepth,FlipperLength,BodyMass,prediction,species,probability_Adelie,"
        "probability_Gentoo,probability_Chinstrap,reasons"
    )
    assert answers(tmp_path / "scored.csv") == SCORED
    shown = capfd.readouterr().err
    assert "birds.csv: 2 rows, 2 scored" in shown
    for secret in (*SECRETS, TOKEN):
        assert secret not in result.output + shown + caplog.text


def test_a_folder_for_the_answers_is_made_before_the_job(azure: Azure, tmp_path: Path) -> None:
    deploy("--compute", "rookery")
    (tmp_path / "birds.csv").write_text(BIRDS)
    output = tmp_path / "year" / "2026" / "scored.csv"
    result = score(str(tmp_path / "birds.csv"), output)
    assert result.exit_code == 0, result.output
    assert answers(output) == SCORED
    assert [path.name for path in output.parent.iterdir()] == ["scored.csv"]
    azure.asked.clear()
    within = tmp_path / "birds.csv" / "scored.csv"
    result = score(str(tmp_path / "birds.csv"), within)
    assert (result.exit_code, result.stderr) == (
        1, f"Error: {within} can't be written ({within.parent}: File exists): give another --output.\n",
    )  # fmt: skip
    assert not [line for line in azure.asked if line.startswith("POST /batch/")]


class _Jobs(dict[str, list[str]]):
    """The logs of jobs; something happens while a job runs."""

    def __init__(self, happens: Callable[[], object]) -> None:
        super().__init__()
        self.happens = happens

    def __setitem__(self, job: str, log: list[str]) -> None:
        super().__setitem__(job, log)
        self.happens()


def test_answers_that_get_no_place_are_not_lost(azure: Azure, tmp_path: Path) -> None:
    deploy("--compute", "rookery")
    (tmp_path / "birds.csv").write_text(BIRDS)
    output = tmp_path / "year" / "scored.csv"
    no_secrets = refused(403, "AuthorizationFailed", "You may not read the storage.")
    while_it_runs: list[tuple[Callable[[], object], str]] = [
        (lambda: shutil.rmtree(output.parent), f"{output} can't be written: No such file or directory."),
        (lambda: output.write_text("mine"), f"{output} exists already: give a path that doesn't, or remove it first."),
        (lambda: azure.fail("POST .*/listSecrets", no_secrets), "The answers: You may not read the storage; ask for"),
    ]
    for happens, said in while_it_runs:
        output.unlink(missing_ok=True)
        azure.logs = _Jobs(happens)
        result = score(str(tmp_path / "birds.csv"), output)
        assert result.exit_code == 1
        last = result.stderr.splitlines()[-1]
        sentence, _, place = last.partition(" Look for the answers in the workspace's storage: ")
        assert sentence.startswith(f"Error: {said}")
        kept = place.removeprefix("azureml://datastores/workspaceblobstore/paths/")
        [written] = [blob for name, blob in azure.blobs.items() if name.startswith(kept) and name.endswith(".jsonl")]
        assert written.endswith(b'{"rows": 2}\n')
        assert [path.read_text() for path in tmp_path.glob("year/*")] == (["mine"] if "exists" in said else [])


def test_ctrl_c_tells_which_job_goes_on_and_where_its_answers_will_be(azure: Azure, tmp_path: Path) -> None:
    deploy("--compute", "rookery")
    (tmp_path / "birds.csv").write_text(BIRDS)
    arguments = ["azureml", "score", "--data", str(tmp_path / "birds.csv"), "--output", str(tmp_path / "scored.csv")]
    *ended, told = interrupted(azure, *arguments)
    [name] = azure.of_kind("jobs")
    assert ended == [1, ""]
    assert (
        f"Error: The job {name} goes on, and costs, until it is done or cancelled. Look for the answers in the " in told
    )
    assert not (tmp_path / "scored.csv").exists()


def test_a_folder_is_scored_whole(azure: Azure, tmp_path: Path) -> None:
    deploy("--compute", "rookery")
    (tmp_path / "birds").mkdir()
    for year in ("2025", "2026"):
        (tmp_path / "birds" / f"{year}.csv").write_text(BIRDS)
    result = score(str(tmp_path / "birds"), tmp_path / "scored.csv")
    assert result.exit_code == 0, result.output
    assert answers(tmp_path / "scored.csv") == SCORED * 2


def test_every_row_comes_out_answered_or_with_reasons(azure: Azure, tmp_path: Path) -> None:
    """As `penguins predict` says it; a bad row costs no other row its answer."""
    registry.describe(GOOD, {"gate_verdict": "yes", "gate_champion": "1"})
    result = deploy("--compute", "rookery", "--version", "3")
    assert result.exit_code == 0, result.output
    rows = [
        "Biscoe,48.7,14.1,210,4450,Pip",
        "Atlantis,48.7,14.1,210,4450,Pop",
        ",48.7,,210,heavy,Pup",
        'Dream,39.5,16.7,178,3250,"Pü;p, the\n""second"""',
        "Dream,39.5,inf,178,3250,",
        "Dream,-1.7e308,1.7e308,1.7e308,1.7e308,",
        "Biscoe,48.7,14.1,210",
        "Biscoe,48.7,14.1,210,4450,Pep,7",
        "Torgersen,39.5, 16.7 ,178,3_250,Pap",
        "NA,39.5,16.7,nan,3250,NA",
    ]
    (tmp_path / "birds.csv").write_text(f"{BIRDS.splitlines()[0]},Species\n" + "\n".join(rows) + "\n\n", "utf-8-sig")
    result = score(str(tmp_path / "birds.csv"), tmp_path / "scored.csv")
    assert result.exit_code == 0, result.output
    with (tmp_path / "scored.csv").open(newline="", encoding="utf-8") as file:
        scored = list(csv.DictReader(file))
    assert [(row["predicted_species"], row["reasons"]) for row in scored] == [
        ("Gentoo", ""),
        ("", "Island is unknown to the model"),
        ("", "Island is missing; CulmenDepth is missing; BodyMass is not a number"),
        ("Adelie", ""),
        ("", "CulmenDepth is not finite"),
        ("", "a number is too large to compute with"),
        ("", "the line does not fit the header: it has 4 fields, and the header 6"),
        ("", "the line does not fit the header: it has 7 fields, and the header 6"),
        ("", "BodyMass is not a number"),
        ("", "Island is missing; FlipperLength is missing"),
    ]
    assert scored[9]["Species"] == "NA"
    assert (scored[3]["Species"], scored[3]["BodyMass"]) == ('Pü;p, the\n"second"', "3250")
    assert float(scored[0]["probability_Gentoo"]) == pytest.approx(0.979873, abs=1e-6)
    assert {row["prediction"] for row in scored} == {"1", "0", ""}
    shown = result.stdout.splitlines()
    assert shown[1:3] == ["10 rows: 2 scored, 8 with reasons why not.", "  2 × BodyMass is not a number"]


def test_gaps_are_the_same_words_for_all_readers() -> None:
    """The script can't import them."""
    assert azure_batch_scoring.GAPS == delimited.GAPS


def test_columns_without_a_name_and_names_that_stand_twice(azure: Azure, tmp_path: Path) -> None:
    """As pandas' index and a trailing comma make them; the model's own columns stand once."""
    deploy("--compute", "rookery")
    header, *birds = BIRDS.splitlines()
    lines = [f",{header},Note,Note", *(f"{place},{bird},a,b" for place, bird in enumerate(birds))]
    (tmp_path / "birds.csv").write_text("\n".join(lines))
    result = score(str(tmp_path / "birds.csv"), tmp_path / "scored.csv")
    assert result.exit_code == 0, result.output
    with (tmp_path / "scored.csv").open(newline="") as file:
        scored = list(csv.DictReader(file))
    assert [(row["_c0"], row["Note"], row["Note_2"], row["species"]) for row in scored] == [
        ("0", "a", "b", "Gentoo"), ("1", "a", "b", "Adelie"),
    ]  # fmt: skip


def test_parquet_and_csv_in_one_folder(azure: Azure, tmp_path: Path) -> None:
    deploy("--compute", "rookery")
    (tmp_path / "birds" / "old").mkdir(parents=True)
    (tmp_path / "birds" / "old" / "1.csv").write_text(BIRDS)
    columns = BIRDS.splitlines()[0].split(",")
    values = [["Dream", None], [39.5, 39.5], [16.7, 16.7], [178, 178], [3250, None]]
    birds = pa.table(dict(zip(columns, values, strict=True)))
    pq.write_table(birds, tmp_path / "birds" / "2.parquet")
    (tmp_path / "birds" / "_SUCCESS").touch()
    result = score(str(tmp_path / "birds"), tmp_path / "scored.csv", "--json")
    assert result.exit_code == 0, result.output
    assert answers(tmp_path / "scored.csv") == [
        ("Adelie", ""), ("", "Island is missing; BodyMass is missing"), *SCORED,
    ]  # fmt: skip
    told = json.loads(result.stdout.splitlines()[-1])
    assert (told["rows"], told["scored"], told["unscored"], told["classes"]) == (4, 3, 1, {"Adelie": 2, "Gentoo": 1})
    assert told["reasons"] == {"BodyMass is missing": 1, "Island is missing": 1}


def test_fewer_answers_than_rows_are_a_failure(azure: Azure, tmp_path: Path) -> None:
    deploy("--compute", "rookery")
    (tmp_path / "birds.csv").write_text(BIRDS)
    output = tmp_path / "scored.csv"

    def written() -> str:
        return next(name for name in azure.blobs if name.endswith(".penguins.jsonl"))

    def lose_a_row() -> None:
        header, first, _, _ = azure.blobs[written()].splitlines()
        azure.blobs[written()] = b"\n".join([header, first, b'{"rows": 1}'])

    def tear_off() -> None:
        azure.blobs[written()] = azure.blobs[written()][:-40]

    def lose_all() -> None:
        del azure.blobs[written()]

    for happens, said in (
        (lose_a_row, f"2 rows were handed in, and 1 came back: nothing is written to {output}."),
        (tear_off, "The answers to birds.csv end after 1 rows, and that isn't all."),
        (lose_all, f"{NAME} wrote nothing that this version understands: deploy the version again"),
    ):
        azure.blobs = {name: blob for name, blob in azure.blobs.items() if not name.endswith(".jsonl")}
        azure.logs = _Jobs(happens)
        result = score(str(tmp_path / "birds.csv"), output)
        assert result.exit_code == 1
        last = result.stderr.splitlines()[-1]
        assert last.startswith(f"Error: {said}")
        assert " Look for the answers in the workspace's storage: azureml://datastores/" in last
        assert not [path for path in tmp_path.iterdir() if "scored" in path.name]


def test_one_file_that_fails_is_a_failure_of_all(
    azure: Azure, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Azure's own threshold of -1 would leave the file out and call the job a success."""
    deploy("--compute", "rookery")
    (tmp_path / "birds").mkdir()
    (tmp_path / "birds" / "1.csv").write_text(BIRDS)
    (tmp_path / "birds" / "2.csv").write_text("Island\nDream\n")
    result = score(str(tmp_path / "birds"), tmp_path / "scored.csv")
    assert result.exit_code == 1
    shown = capfd.readouterr().err
    assert "ValueError: 2.csv lacks CulmenLength, CulmenDepth, FlipperLength, BodyMass; it has Island." in shown
    assert result.stderr.endswith(" ended as Failed: its log says why.\n")
    assert not (tmp_path / "scored.csv").exists()


def test_what_can_not_be_read_is_told_before_a_job_costs(azure: Azure, tmp_path: Path) -> None:
    deploy("--compute", "rookery")
    azure.asked.clear()
    (tmp_path / "nest").mkdir()
    result = score(str(tmp_path / "nest"), tmp_path / "scored.csv")
    assert result.stderr == f"Error: {tmp_path}/nest holds no files: give a CSV or Parquet file, or a folder of them.\n"
    for name, content, said in (
        ("birds.txt", b"", "birds.txt can't be read: give files that end in .csv, .csv.gz or .parquet."),
        ("latin.csv", BIRDS.replace("Dream", "Dröm").encode("latin-1"), f"{tmp_path}/latin.csv isn't UTF-8: line 3 "),
        ("empty.csv", b"", "empty.csv is empty: its first line must name the columns."),
        ("no.parquet", b"PAR", "no.parquet can't be read as Parquet: "),
    ):
        (tmp_path / name).write_bytes(content)
        result = score(str(tmp_path / name), tmp_path / "scored.csv")
        assert result.exit_code == 1
        assert result.stderr.splitlines()[-1].startswith(f"Error: {said}")
    assert not [line for line in azure.asked if line.startswith("POST /batch/")]


def test_a_job_that_fails_leaves_no_file(azure: Azure, tmp_path: Path) -> None:
    deploy("--compute", "rookery")
    (tmp_path / "birds.csv").write_text(BIRDS.replace("BodyMass", "Weight"))
    result = score(str(tmp_path / "birds.csv"), tmp_path / "scored.csv")
    assert result.exit_code == 1
    assert result.stderr.endswith(" ended as Failed: its log says why.\n")
    assert not (tmp_path / "scored.csv").exists()


def test_what_is_wrong_is_told_before_anything_is_sent(azure: Azure, tmp_path: Path) -> None:
    result = deploy("--compute", "roockery")
    assert result.exit_code == 1
    assert "Error: The workspace has no compute roockery: there are rookery" in result.stderr
    taken = tmp_path / "scored.csv"
    taken.write_text("")
    result = score("birds.csv", taken)
    assert result.stderr == f"Error: {taken} exists already: give a path that doesn't, or remove it first.\n"
    result = score("birds.csv", tmp_path / "free.csv")
    assert result.stderr.startswith("Error: There is no birds.csv here: give a file, a folder, or data in Azure")
    for wrong, said in (
        (deploy(), "A batch endpoint runs on a compute cluster of the workspace: name it (--compute)."),
        (deploy("--compute", "rookery", "--traffic", "10"), "--traffic is not for --kind batch."),
        (command("undeploy", "--to", "databricks", "--kind", "batch"), "--kind is not for --to databricks."),
    ):
        assert (wrong.exit_code, wrong.stderr.splitlines()[-1]) == (2, f"Error: {said}")
    assert azure.changes() == []


def test_a_version_that_was_not_judged_scores_nothing(azure: Azure) -> None:
    result = deploy("--compute", "rookery", "--version", "2")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: The gate hasn't accepted version 2 of penguin_predictor: run")
    assert azure.changes() == []


def test_refusals_and_the_end(azure: Azure, tmp_path: Path) -> None:
    (tmp_path / "birds.csv").write_text(BIRDS)
    result = score(str(tmp_path / "birds.csv"), tmp_path / "scored.csv")
    assert result.exit_code == 1
    assert f"Error: {NAME}: batchEndpoint {NAME} can't be found; check the subscription" in result.stderr
    deploy("--compute", "rookery")
    azure.fail("DELETE", refused(403, "AuthorizationFailed", "You may not delete."), times=1)
    result = undeploy()
    assert result.exit_code == 1
    assert f"Error: {NAME}: You may not delete; ask for a role" in result.stderr
    assert undeploy().stdout == f"{NAME} is deleted.\n"
    assert json.loads(undeploy("--json").stdout) == {"endpoint": NAME, "deleted": False}
    assert azure.of_kind("batchEndpoints") == []
