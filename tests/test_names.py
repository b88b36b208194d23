"""What models, tags and runs may be called: whatever is allowed can be used everywhere, all else is refused at once."""

from __future__ import annotations

import string
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner

from penguins import champion, names, registry
from penguins.cli import main
from penguins.errors import ParameterError
from penguins.flavor import load_scorer
from penguins.registry import Version
from tests.conftest import LAB_BIRD

LOCAL, CATALOG, AZURE = "sqlite:////birds/mlflow.db", "databricks-uc", "azureml://westeurope.api.azureml.ms/mlflow/v1.0"

PUNCTUATION = "".join(mark for mark in string.punctuation if mark not in "/:@?'")


def test_what_would_be_registered_and_then_be_unusable_is_refused() -> None:
    refused = ["o'brien", "a@b", "a#b?c", "a/b", "a:b", "", " ", " a", "a ", "a\nb", "a\tb", "a\x00b", "a\u200bb"]
    for name in [*refused, ".", "..", "..a", "x" * 251]:
        with pytest.raises(ParameterError) as raised:
            names.require_model(name, LOCAL)
        assert str(raised.value) == (
            f"The registered model's name is {name!r}: give a name without / : @ ? ' or line breaks, not . or .., "
            "and no more than 250 characters."
        )


def test_catalogs_have_three_levels_and_azure_plain_letters() -> None:
    for name in ("penguins", "main.birds.penguins", "main.birds.größte-№1"):
        names.require_model(name, CATALOG)
    for name in ("birds.penguins", "a.main.birds.penguins", "main..penguins", "main.birds.two words", "main.birds.o'x"):
        with pytest.raises(
            ParameterError, match=r"give catalog\.schema\.model, no blanks, not \. or \.\., and no more"
        ):
            names.require_model(name, CATALOG)
    names.require_model("Penguin_predictor-2.1", AZURE)
    for name in ("pingüinos", "two words", "a+b", ".."):
        with pytest.raises(
            ParameterError, match=r"can't be the name of a registered model of Azure Machine Learning: give "
        ):
            names.require_model(name, AZURE)


def test_tags_and_runs_have_rules_too() -> None:
    names.require_tags(["season", "a.b-c/d: e"], LOCAL)
    names.require_tags(["season 2026"], CATALOG)
    for name, registry_uri in (("a=b", LOCAL), ("", LOCAL), ("a//b", LOCAL), ("x" * 251, LOCAL), ("a.b", CATALOG)):
        with pytest.raises(ParameterError, match=r"^The tag's name is "):
            names.require_tags(["season", name], registry_uri)
    names.require_run("First try, \N{PENGUIN}!")
    for name in ("x" * 251, "two\nlines"):
        with pytest.raises(ParameterError, match=r"^The run's name begins with "):
            names.require_run(name)


@pytest.mark.spark
@pytest.mark.parametrize(
    "name",
    [PUNCTUATION, f"{PUNCTUATION[::-1]}%41%2F", "größte Pinguine 企鹅 \N{PENGUIN}", "x" * 250, "1", "main.birds.all"],
)
def test_what_is_allowed_is_registered_found_promoted_loaded_and_rolled_back(models: Path, name: str) -> None:
    names.require_model(name, LOCAL)
    client = mlflow.MlflowClient()
    for number in (1, 2):
        source = client.get_model_version("penguin_predictor", str(number)).source
        assert source is not None
        assert registry.register(source, name, description="Birds", tags={"season": "2026"}) == number
    one, two = Version(name, 1), Version(name, 2)
    assert registry.newest(name) == two
    assert champion.move(one, instead_of=None)
    assert champion.move(two, instead_of=one)
    assert champion.roll_back(name) == (one, two)
    assert registry.resolve(f"models:/{name}@champion") == registry.resolve(f"models:/{name}/1") == one
    registry.describe(one, {"colour": "black"})
    assert client.get_model_version(name, "1").tags["colour"] == "black"
    assert load_scorer(f"models:/{name}@champion").predict(LAB_BIRD)["species"].tolist() == ["Gentoo"]
    assert mlflow.pyfunc.load_model(f"models:/{name}/2").predict(LAB_BIRD)["species"].tolist() == ["Gentoo"]


@pytest.mark.spark
def test_a_name_of_an_earlier_time_is_found(models: Path) -> None:
    client = mlflow.MlflowClient()
    client.create_registered_model("o'brien")
    source = client.get_model_version("penguin_predictor", "1").source
    assert source is not None
    client.create_model_version("o'brien", source)
    assert registry.newest("o'brien").number == 1


@pytest.mark.parametrize("command", [["train"], ["tune"], ["register", "."]])
def test_the_command_refuses_a_name_before_it_starts_anything(store: Path, command: list[str]) -> None:
    where = ["--tracking-uri", f"sqlite:///{store}/mlflow.db"]
    done = CliRunner().invoke(main, [*command, "--register-as", "o'brien", *where])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("Error: The registered model's name is \"o'brien\": give ")
    assert "Reading" not in done.stderr
    assert mlflow.search_runs(search_all_experiments=True, output_format="list") == []
