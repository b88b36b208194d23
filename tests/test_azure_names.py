"""The rules of Azure for names: what fits, what doesn't, and a name that would."""

from __future__ import annotations

import pytest

from penguins import azure_names, serving_copy
from penguins.errors import ParameterError
from penguins.online_endpoint import deployment_name
from penguins.registry import Version

FITS = {
    "model": ["penguin_predictor", "3birds", "a", "main.penguins.model", "A-b_c.d", "x" * 255],
    "endpoint": ["predict-penguin", "abc", "Ab1", "x" * 32, "a--b"],
    "deployment": ["penguin-predictor-3", "blue"],
    "experiment": ["penguins", "3-birds_x", "x" * 256],
    "schedule": ["penguins-monitor", "3", "x" * 255],
    "workspace": ["penguins-ws", "abc", "3_a", "x" * 33],
    "databricks-workspace": ["weddell-sea", "-ab", "x" * 64],
}
LIKE = {
    ("model", "Pronosticador de pingüinos"): "Pronosticador-de-pinguinos",
    ("model", ".hidden"): "hidden",
    ("model", "dot."): "dot",
    ("model", "a/b"): "a-b",
    ("model", "x" * 256): "x" * 255,
    ("model", "line\nend"): "line-end",
    ("endpoint", "3birds"): "m-3birds",
    ("endpoint", "predict_penguin"): "predict-penguin",
    ("endpoint", "ab"): "m-ab",
    ("endpoint", "ends-"): "ends",
    ("endpoint", "x" * 33): "x" * 32,
    ("deployment", "größer"): "groer",
    ("experiment", "/Users/me@example.org/penguins"): "Users-me-example-org-penguins",
    ("experiment", "penguins\n"): "penguins",
    ("schedule", "every day"): "every-day",
    ("workspace", "_ab"): "m-ab",
    ("workspace", "пингвины"): None,
    ("databricks-workspace", "weddell sea"): "weddell-sea",
}


def test_every_rule_is_tried() -> None:
    assert set(FITS) == set(azure_names.RULES)
    assert {kind for kind, _ in LIKE} == set(azure_names.RULES)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in FITS.items() for name in names])
def test_a_name_that_azure_takes(kind: str, name: str) -> None:
    azure_names.require(kind, name)
    assert azure_names.alike(kind, name) == name


@pytest.mark.parametrize(("kind", "name"), LIKE, ids=lambda value: str(value)[:20])
def test_a_name_that_azure_refuses_and_one_that_is_like_it(kind: str, name: str) -> None:
    with pytest.raises(ParameterError) as raised:
        azure_names.require(kind, name)
    said = str(raised.value)
    assert said.startswith(f"{name!r} can't be the name of a")
    like = LIKE[kind, name]
    if like is None:
        assert "such as" not in said
    else:
        assert said.endswith(f", such as {like}.")
        azure_names.require(kind, like)
        assert azure_names.alike(kind, name) == like


def test_the_sentence_says_the_rule() -> None:
    with pytest.raises(ParameterError) as raised:
        azure_names.require("endpoint", "3birds")
    assert str(raised.value) == (
        "'3birds' can't be the name of an endpoint of Azure Machine Learning: give 3 to 32 letters from a to z, digits "
        "and hyphens, the first one a letter, the last one no hyphen, such as m-3birds."
    )


@pytest.mark.parametrize(
    ("model", "deployment", "copy"),
    [
        ("penguin_predictor", "penguin-predictor-12", "penguin_predictor-serving"),
        ("main.penguins.predictor", "main-penguins-predictor-12", "main-penguins-predictor-serving"),
        ("3birds", "m-3birds-12", "3birds-serving"),
        ("3" * 40, "m-" + "3" * 27 + "-12", "3" * 40 + "-serving"),
        ("Pronosticador de pingüinos", "pronosticador-de-ping-inos-12", "Pronosticador-de-pinguinos-serving"),
        ("ペンギン", "m-12", "serving"),
    ],
)
def test_what_is_named_after_a_model_fits(model: str, deployment: str, copy: str) -> None:
    version = Version(model, 12)
    assert (deployment_name(version), serving_copy.name_of(version)) == (deployment, copy)
    azure_names.require("deployment", deployment)
    azure_names.require("model", copy)
