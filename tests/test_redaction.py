"""No secret in text that leaves the process, whatever form it has, and ordinary text as it was."""

from __future__ import annotations

import logging
import sys
import traceback

import click
import pytest
from click.testing import CliRunner

from penguins.commands import Commands, verbose_option
from penguins.errors import StoreError, first_sentence
from penguins.redaction import without_secrets

JWT = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJodHRwczovL20ifQ.c2lnbmF0dXJl_-x"
KEY = "Zm9v" * 21 + "Yg=="
ENTRA = "aBc8Q~" + "x1_y2~z3.-" * 3 + "ab"

HIDDEN = {
    f"The token is {JWT}, which has expired": "The token is ***, which has expired",
    f"Expected Bearer, got bearer {JWT}.": "Expected Bearer, got bearer ***",
    f"cut off: {JWT[:40]}": "cut off: ***",
    "{'Authorization': 'Bearer abc.def-x=='}": "{'Authorization': 'Bearer ***'}",
    "Authorization: Basic dXNlcjpwYXNz": "Authorization: Basic ***",
    "sig=AbC%2Fd%3D": "sig=***",
    "(sig=AbC%2Fd%3D)": "(sig=***)",
    "GET https://a/b?sv=1&sig=AbC%2Fd%3D&se=2 failed": "GET https://a/b?sv=1&sig=***&se=2 failed",
    "next=https%3A%2F%2Fa%3Fsv%3D1%26sig%3DAbC%252Fd&page=2": "next=https%3A%2F%2Fa%3Fsv%3D1%26sig%3D***&page=2",
    "BlobEndpoint=https://a;SharedAccessSignature=sv=1&sig=AbC;x=1": "BlobEndpoint=https://a;SharedAccessSignature=***;x=1",
    f"AccountName=a;AccountKey={KEY};EndpointSuffix=b": "AccountName=a;AccountKey=***;EndpointSuffix=b",
    "Endpoint=sb://a/;SharedAccessKeyName=root;SharedAccessKey=abc=": (
        "Endpoint=sb://a/;SharedAccessKeyName=root;SharedAccessKey=***"
    ),
    f"the key {KEY} is old": "the key *** is old",
    "dapi0123456789abcdef0123456789abcdef-2 is wrong": "*** is wrong",
    "dose0123456789abcdef0123456789abcdef is wrong": "*** is wrong",
    f"secret {ENTRA} of the app": "secret *** of the app",
    "client_id=bird&client_secret=a~b.c&grant_type=x": "client_id=bird&client_secret=***&grant_type=x",
    '{"client_secret": "a b, c", "client_id": "bird"}': '{"client_secret": "***", "client_id": "bird"}',
    r"body: {\"access_token\": \"abc\", \"n\": 1}": r"body: {\"access_token\": \"***\", \"n\": 1}",
    "export AZURE_CLIENT_SECRET='it is' MORE=1": "export AZURE_CLIENT_SECRET='***' MORE=1",
    "token = dapi_x in ~/.databrickscfg": "token = *** in ~/.databrickscfg",
    "http://me:secret@host/": "http://***@host/",
    "postgresql://me:p@ss@host:5432/db": "postgresql://***@host:5432/db",
    "mssql://host/db?user=me&password=p%40ss&x=1": "mssql://host/db?user=me&password=***&x=1",
}

AS_IT_IS = [
    "a beak of 3.1 cm",
    "Bearer token not provided, or not valid.",
    "abfss://birds@antarctica.dfs.core.windows.net/penguins.csv",
    "wasbs://birds@antarctica.blob.core.windows.net/penguins.csv can't be read",
    "set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET to a service principal's.",
    "there is none of AZURE_CLIENT_SECRET, AZURE_FEDERATED_TOKEN_FILE: set one of them.",
    "AZURE_CLIENT_SECRET is a reference to a secret that was not resolved: check the scope and the key.",
    "There is no token for Azure (nobody is signed in): run `az login`.",
    "The tag is 'Biscoe': give it as NAME=VALUE.",
    "models:/penguin_predictor@champion and m-23d9e5c9ddb94945a9f054af6c0ae0fc",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "the regression's sigma=3, design=4, Basic authentication",
    "http://127.0.0.1:5000 doesn't answer; write to keeper@example.org",
]


@pytest.mark.parametrize(("text", "shown"), HIDDEN.items())
def test_secrets_are_hidden_in_every_form(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    assert without_secrets(shown) == shown, "what is hidden stays as it is"


@pytest.mark.parametrize("text", AS_IT_IS)
def test_ordinary_text_stays(text: str) -> None:
    assert without_secrets(text) == text


def test_what_the_environment_holds_is_hidden_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "two words/ofmine")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "ice")
    text = "said two words/ofmine, two%20words%2Fofmine and nice"
    assert without_secrets(text) == "said ***, *** and nice"


def test_an_error_and_its_first_line_have_none() -> None:
    assert str(StoreError(f"refused: {JWT}")) == "refused: ***"
    assert first_sentence(ValueError(f"refused: {JWT}\nand more")) == "refused: ***"


@pytest.mark.parametrize("text", ["a" * 300_000, "secret" * 50_000, "-eyJ" * 75_000, "://" * 100_000])
def test_long_text_takes_no_time_that_grows_with_its_square(text: str) -> None:
    """It would be hours."""
    assert without_secrets(text).strip("*-") in {text, ""}


@click.group(cls=Commands)
def main() -> None:
    pass


@main.command()
@verbose_option
def chatter() -> None:
    """What libraries print and log in a command that is told to show it."""
    print(f"connecting with {JWT}", file=sys.stderr)  # noqa: T201
    handler = logging.StreamHandler()
    logging.getLogger("chatter").addHandler(handler)
    logging.getLogger("chatter").warning("Retrying /container/file?sv=1&sig=AbC after a broken connection")
    logging.getLogger("chatter").removeHandler(handler)
    try:
        raise ValueError("http://me:hunter2@host/")
    except ValueError:
        traceback.print_exc()
    raise ValueError("client_secret=abc")


def test_what_libraries_print_in_a_verbose_command_has_none() -> None:
    done = CliRunner().invoke(main, ["chatter", "--verbose"])
    assert done.exit_code == 1
    lines = done.stderr.splitlines()
    assert lines[:2] == ["connecting with ***", "Retrying /container/file?sv=1&sig=*** after a broken connection"]
    assert "ValueError: http://***@host/" in lines
    assert lines[-1] == "Error: The command failed (ValueError): client_secret=*** (--verbose shows where)."
    assert not [secret for secret in ("eyJ", "AbC", "hunter2", "=abc") if secret in done.stderr]
    assert len(lines) > 10, "the tracebacks are there"
