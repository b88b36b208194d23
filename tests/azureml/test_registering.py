"""Versions in an Azure Machine Learning workspace: from a run, from a folder, from another store, and the champion."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pytest
from click.testing import CliRunner
from mlflow.exceptions import MlflowException

from penguins import champion, dialect, flavor, record, registry
from penguins.cli import main
from penguins.errors import ModelError, StoreError, first_sentence
from penguins.registry import Version
from penguins.tracking import Tracking, experiment_id, run_page
from penguins.train import train_from_source
from tests.azureml.mlflow_workspace import HANG_UP, ID, Answer, MlflowWorkspace, as_json, refused
from tests.conftest import LAB_BIRD, PENGUINS_CSV

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.azureml, pytest.mark.spark, pytest.mark.slow]


@pytest.fixture(scope="session")
def saved(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """The folder of a model, and a local store beside it in which it is version 1 of `penguin_predictor`."""
    folder = tmp_path_factory.mktemp("saved")
    shutil.copy(empty_store, folder)
    Tracking.local(folder).activate()
    # By name: an earlier test may have left MLflow with an experiment of another store.
    trained = train_from_source(spark, PENGUINS_CSV, experiment="penguins", register_as="penguin_predictor")
    flavor.save(trained.model, folder / "model", trained.input_example)
    mlflow.set_tracking_uri("")
    mlflow.set_registry_uri("")
    return folder / "model"


@pytest.fixture
def store(workspace: MlflowWorkspace) -> Tracking:
    store = Tracking(workspace.uri)
    store.activate()
    return store


def names() -> list[str]:
    return [found.name for found in mlflow.MlflowClient().search_registered_models()]


def species(model_uri: str) -> list[str]:
    answers: list[str] = flavor.load_scorer(model_uri).predict(LAB_BIRD)["species"].tolist()
    return answers


def test_a_folder_and_its_run_become_versions(store: Tracking, workspace: MlflowWorkspace, saved: Path) -> None:
    run_id, first = registry.register_folder(saved, "from_folder", description="a folder", tags={"colour": "black"})
    again, second = registry.register_run(run_id, "from_folder", tags={"colour": "white"})
    assert (first, second, again) == (Version("from_folder", 1), Version("from_folder", 2), run_id)
    client = mlflow.MlflowClient()
    found = [client.get_model_version("from_folder", number) for number in ("1", "2")]
    assert [one.tags["colour"] for one in found] == ["black", "white"]
    assert [one.tags["made_by"] for one in found] == ["penguins", "penguins"], "clean-up finds them by that"
    assert [one.run_id for one in found] == [run_id, run_id]
    assert found[0].description == "a folder"
    assert species(first.uri) == species(second.uri) == ["Gentoo"]
    assert run_page(run_id) == f"https://ml.azure.com/runs/{run_id}?wsid={ID}"


def test_the_command_registers_both(store: Tracking, workspace: MlflowWorkspace, saved: Path) -> None:
    def command(*arguments: str) -> str:
        options = ["--register-as", "commanded", "--tracking-uri", workspace.uri]
        done = CliRunner().invoke(main, ["register", *arguments, *options])
        assert done.exit_code == 0, done.output
        return done.stdout

    answer = json.loads(command(str(saved), "--tag", "island=Biscoe", "--tag", "note=a=b", "--json"))
    assert answer == {"run_id": answer["run_id"], "registered_model": "commanded", "version": 1}
    tags = mlflow.MlflowClient().get_model_version("commanded", "1").tags
    assert (tags["island"], tags["note"]) == ("Biscoe", "a=b")
    run_id = answer["run_id"]
    outputs = f"runs:/{run_id}/model", f"azureml://jobs/{run_id}/outputs/artifacts/paths/model/"
    for number, output in enumerate(outputs, start=2):
        assert command(output) == f"Run      {run_id}\nVersion  models:/commanded/{number}\n"
    malformed = CliRunner().invoke(main, ["register", str(saved), "--tag", "Biscoe"])
    assert (malformed.exit_code, "The tag is 'Biscoe': give it as NAME=VALUE." in malformed.stderr) == (2, True)


def test_what_is_no_model_registers_nothing(store: Tracking, tmp_path: Path) -> None:
    before = names()
    with pytest.raises(ModelError, match=r" holds no MLflow model: it must be a folder with a file MLmodel\.$"):
        registry.register_folder(tmp_path, "nothing")
    with pytest.raises(ModelError, match=r"^There is no run 0{32}, and no folder of that name: give one of them\.$"):
        registry.register_run("0" * 32, "nothing")
    with mlflow.start_run() as run:
        mlflow.log_metric("beaks", 1)
    with pytest.raises(ModelError, match=rf"^runs:/{run.info.run_id}/model can't be loaded: "):
        registry.register_run(run.info.run_id, "nothing")
    assert names() == before


@pytest.mark.parametrize("can_delete", [True, False])
def test_a_version_that_is_refused_leaves_no_empty_name(
    store: Tracking, workspace: MlflowWorkspace, saved: Path, can_delete: bool
) -> None:
    conflict = refused(409, "Conflict", "The model is being changed.")
    workspace.fail("model-versions/create", conflict)
    if not can_delete:
        workspace.fail("DELETE .*registered-models/delete", Answer(404))
    name = f"refused_{can_delete}"
    with pytest.raises(StoreError) as e:
        registry.register_folder(saved, name)
    assert (name in names()) is not can_delete
    [run] = mlflow.search_runs(
        experiment_names=["penguins"], filter_string=f"attributes.run_name = '{name} from model'", output_format="list"
    )
    assert run.info.status == "FAILED"
    command = f"penguins register {run.info.run_id} --register-as {name}"
    assert str(e.value) == (
        f"The model can't be registered as {name}: The model is being changed; "
        f"the run {run.info.run_id} has it, and `{command}` registers it."
    )


def test_a_name_that_was_there_stays(store: Tracking, workspace: MlflowWorkspace, saved: Path) -> None:
    registry.register_folder(saved, "established")
    workspace.fail("model-versions/create", refused(500, "InternalError", "Something broke."))
    with pytest.raises(StoreError, match=r"^The model can't be registered as established: "):
        registry.register_folder(saved, "established")
    assert registry.newest("established") == Version("established", 1)


def test_a_run_takes_one_model(store: Tracking, saved: Path) -> None:
    with mlflow.start_run() as run:
        registry.log_folder(str(saved))
        with pytest.raises(ModelError) as raised:
            registry.log_folder(str(saved))
    sentence = f"The run {run.info.run_id} has a model already, and can't get another: start a new run."
    assert str(raised.value) == sentence


def test_copied_from_this_machine_and_back(store: Tracking, saved: Path, tmp_path: Path) -> None:
    here, back = Tracking.local(saved.parent), Tracking.local(tmp_path)
    number = registry.copy_version("penguin_predictor", 1, here, store, copy_as="travelled")
    assert number == 1
    assert mlflow.get_tracking_uri() == store.tracking_uri, "the store in use stays as it was"
    copied = mlflow.MlflowClient().get_model_version("travelled", "1")
    assert copied.tags["copied_from"] == "models:/penguin_predictor/1"
    assert copied.description == here.client().get_model_version("penguin_predictor", "1").description
    run = mlflow.get_run(copied.run_id or "")
    assert run.data.params["maxIter"] == "100"
    assert {one.dataset.name for one in dialect.inputs(run)} == {"training", "test"}
    assert species("models:/travelled/1") == ["Gentoo"]

    assert registry.copy_version("travelled", 1, store, back, copy_as="returned") == 1
    back.activate()
    assert species("models:/returned/1") == ["Gentoo"]
    returned = back.client().get_model_version("returned", "1")
    metrics = back.client().get_run(returned.run_id or "").data.metrics
    assert metrics["accuracy"] == pytest.approx(115 / 116)


def test_copied_between_a_plain_server_and_the_workspace(
    store: Tracking, workspace: MlflowWorkspace, mlflow_behind: str, saved: Path, tmp_path: Path
) -> None:
    """As between Databricks and Azure Machine Learning: two servers, each with its own way to keep models."""
    workspace.has_inputs = workspace.has_aliases = False
    plain, here = Tracking(mlflow_behind), Tracking.local(saved.parent)
    registry.copy_version("penguin_predictor", 1, here, plain, copy_as="plain")
    assert registry.copy_version("plain", 1, plain, store, copy_as="azures") == 1
    run = mlflow.get_run(mlflow.MlflowClient().get_model_version("azures", "1").run_id or "")
    assert run.inputs is None or not run.inputs.dataset_inputs, "the store keeps none"
    original = here.client().get_run(here.client().get_model_version("penguin_predictor", "1").run_id or "")
    assert {one.dataset.name: one.dataset.digest for one in dialect.inputs(run)} == {
        one.dataset.name: one.dataset.digest for one in dialect.inputs(original)
    }
    assert registry.copy_version("azures", 1, store, plain, copy_as="plain") == 2
    plain.activate()
    assert species("models:/plain/2") == ["Gentoo"]


def test_a_version_that_cant_be_read_is_not_copied(store: Tracking, workspace: MlflowWorkspace, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^models:/nobody/7 can't be read from azureml://"):
        registry.copy_version("nobody", 7, store, Tracking.local(tmp_path))
    workspace.fail("model-versions/get", HANG_UP)
    with pytest.raises(ModelError, match=r"^models:/nobody/7 can't be read from azureml://") as raised:
        registry.copy_version("nobody", 7, store, Tracking.local(tmp_path))
    assert not [secret for secret in workspace.secrets() if secret in str(raised.value)]


def versions(store: Tracking, saved: Path, name: str, count: int) -> list[Version]:
    run_id, first = registry.register_folder(saved, name)
    return [first, *(registry.register_run(run_id, name)[1] for _ in range(count - 1))]


def marks(name: str, mark: str = "champion") -> dict[str, str]:
    found = mlflow.MlflowClient().search_model_versions(f"name='{name}'")
    return {one.version: one.tags[mark] for one in found if mark in one.tags}


def test_without_aliases_a_tag_marks_the_champion(store: Tracking, workspace: MlflowWorkspace, saved: Path) -> None:
    workspace.has_aliases = False
    one, two, three = versions(store, saved, "tagged", 3)
    assert champion.version_of("tagged") is None
    assert champion.move(two, instead_of=None)
    assert not champion.move(three, instead_of=one)
    assert champion.move(three, instead_of=two)
    assert (marks("tagged"), marks("tagged", "previous_champion")) == ({"3": "2"}, {"2": "1"})
    assert champion.roll_back("tagged") == (two, three)
    assert (champion.version_of("tagged"), champion.version_of("tagged", "previous_champion")) == (two, three)
    assert registry.resolve("models:/tagged@champion") == two
    with pytest.raises(ModelError, match=r"^tagged doesn't have the alias bird: "):
        registry.resolve("models:/tagged@bird")
    # The previous champion is deleted, and with it its tag.
    mlflow.MlflowClient().delete_model_version("tagged", "3")
    with pytest.raises(ModelError, match=r"^tagged has no previous champion: version 2 is the first\.$"):
        champion.roll_back("tagged")


NOT_THERE = (
    Answer(404),
    refused(404, "NotFound", "There is no such route."),
    refused(400, "UserError", "The request is not valid."),
    as_json(404, {"error_code": "ENDPOINT_NOT_FOUND", "message": "No API found"}),
    as_json(400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "No such operation"}),
    refused(405, "MethodNotAllowed", "The method is not allowed."),
    Answer(501, b"Not implemented"),
)
"""How a server may say that it doesn't know a request."""


def test_however_the_store_says_that_it_has_no_aliases_and_inputs_it_does_without(
    store: Tracking, workspace: MlflowWorkspace, saved: Path
) -> None:
    one, two = versions(store, saved, "without", 2)
    before, after = None, one
    for count, answer in enumerate(NOT_THERE, 1):
        workspace.failures.clear()
        workspace.fail("POST .*registered-models/alias", answer)
        workspace.fail("POST .*runs/log-inputs", answer)
        assert champion.move(after, instead_of=before)
        assert champion.version_of("without") == after
        assert marks("without") == {str(after.number): str(count)}
        before, after = after, two if after == one else one
        with mlflow.start_run(experiment_id=experiment_id("without")) as run:
            record.log_inputs({"test": record.Input("abc", 116)}, "birds.csv")
        [logged] = dialect.inputs(mlflow.get_run(run.info.run_id))
        assert (logged.dataset.name, logged.dataset.digest) == ("test", "abc")


def test_a_store_that_refuses_isnt_taken_for_one_without_aliases(
    store: Tracking, workspace: MlflowWorkspace, saved: Path
) -> None:
    [one] = versions(store, saved, "refusing", 1)
    for status, told in ((403, "Not you"), (500, "API request to .* failed")):
        workspace.fail("POST .*registered-models/alias", refused(status, "Forbidden", "Not you."), times=9)
        with pytest.raises(StoreError, match=rf"^The model registry can't be asked for refusing: {told}"):
            champion.move(one, instead_of=None)
        assert marks("refusing") == {}
        workspace.failures.clear()


@pytest.mark.parametrize("inner", [None, ValueError("deep")])
def test_an_error_of_the_plugin_without_a_message_tells_what_it_can(inner: Exception | None) -> None:
    from azureml.mlflow._common.exceptions import AzureMLException

    assert first_sentence(AzureMLException("boom", inner_exception=inner)) == "boom"
    assert first_sentence(AzureMLException("", inner_exception=inner)) == ("deep" if inner else "AzureMLException")


def test_a_move_that_was_killed_has_happened_or_not(store: Tracking, workspace: MlflowWorkspace, saved: Path) -> None:
    workspace.has_aliases = False
    one, two = versions(store, saved, "killed", 2)
    champion.move(one, instead_of=None)
    client = mlflow.MlflowClient()
    # What is there when the new tag is written and the old one not yet removed.
    client.set_model_version_tag("killed", "2", "champion", "2")
    assert champion.version_of("killed") == two
    assert champion.move(one, instead_of=two)
    assert marks("killed") == {"1": "3"}
    # A tag that a person has set by hand counts for less than any move.
    client.set_model_version_tag("killed", "2", "champion", "yes")
    assert champion.version_of("killed") == one


def test_a_tag_that_cant_be_removed_doesnt_undo_a_move(
    store: Tracking, workspace: MlflowWorkspace, saved: Path
) -> None:
    workspace.has_aliases = False
    one, two = versions(store, saved, "stuck", 2)
    champion.move(one, instead_of=None)
    workspace.fail("model-versions/delete-tag", refused(503, "Unavailable", "Try again later."), times=2)
    assert champion.move(two, instead_of=one)
    assert champion.version_of("stuck") == two


def test_aliases_that_come_later_take_over(store: Tracking, workspace: MlflowWorkspace, saved: Path) -> None:
    workspace.has_aliases = False
    one, two = versions(store, saved, "later", 2)
    champion.move(one, instead_of=None)
    workspace.has_aliases = True
    assert champion.version_of("later") == one
    assert champion.move(two, instead_of=one)
    assert mlflow.MlflowClient().get_registered_model("later").aliases["champion"] == "2"
    # A server that had aliases and doesn't know them for a moment is a failure.
    workspace.has_aliases = False
    with pytest.raises(StoreError, match=r"^The model registry can't be asked for later: "):
        champion.move(one, instead_of=two)
    assert champion.version_of("later") == two
    assert marks("later") == {"1": "1"}


def test_without_aliases_a_claim_of_somebody_who_works_is_waited_for(
    store: Tracking, workspace: MlflowWorkspace, saved: Path
) -> None:
    workspace.has_aliases = False
    [one] = versions(store, saved, "claimed", 1)
    import os
    import socket
    import time

    value = json.dumps([time.time(), socket.gethostname(), os.getpid(), None])
    dialect.note("claimed", f"{champion.CLAIM}other", value)
    with pytest.raises(StoreError) as raised:
        champion.move(one, instead_of=None, patience=0.2)
    assert str(raised.value).endswith(f"remove the tag {champion.CLAIM}other of version 1.")
    dialect.forget("claimed", f"{champion.CLAIM}other")
    assert champion.move(one, instead_of=None)


def test_the_workspace_is_as_strict_as_it_should_be(store: Tracking, workspace: MlflowWorkspace, saved: Path) -> None:
    """What Azure Machine Learning doesn't know fails here as well."""
    with mlflow.start_run(), pytest.raises(MlflowException, match="404"):
        mlflow.MlflowClient().create_logged_model("0")
    registry.register_folder(saved, "strict")
    with pytest.raises(MlflowException, match="404"):
        mlflow.MlflowClient().set_registered_model_tag("strict", "colour", "black")
    workspace.has_aliases = False
    with pytest.raises(MlflowException, match="404"):
        mlflow.MlflowClient().set_registered_model_alias("strict", "champion", "1")
