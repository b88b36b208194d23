"""What is told of a store behind an address before anything is computed; `test_server` has MLflow's own server."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow
import pytest

from penguins.errors import StoreError
from penguins.tracking import Tracking
from tests.azureml.tls import Authority
from tests.servers import POSTGRES_TOOLS, free_port, postgres

EXPERIMENTS = json.dumps({"experiments": [{"experiment_id": "0", "name": "Default"}]})

VARIABLES = ("USERNAME", "PASSWORD", "TOKEN", "INSECURE_TLS", "SERVER_CERT_PATH", "CLIENT_CERT_PATH", "URI")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


class Handler(BaseHTTPRequestHandler):
    """Answers as it is told to: a status and a body for each path; the last ones again and again."""

    answers: dict[str, list[tuple[int, str]]]
    asked: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked.append((self.path, self.headers.get("Authorization")))
        left = self.answers[self.path]
        status, body = left.pop(0) if len(left) > 1 else left[0]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def server(
    *found: tuple[int, str], version: tuple[int, str] = (200, "3.8.0"), authority: Authority | None = None
) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """A server that answers the search for experiments with `found`; its address, and what it was asked by whom."""
    answers = {"/api/2.0/mlflow/experiments/search": list(found) or [(200, EXPERIMENTS)], "/version": [version]}
    asked: list[tuple[str, str | None]] = []
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Told", (Handler,), {"answers": answers, "asked": asked})
    ) as listening:
        if authority is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(authority.server)
            listening.socket = context.wrap_socket(listening.socket, server_side=True)
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http{'s' if authority else ''}://127.0.0.1:{listening.server_address[1]}", asked
        finally:
            listening.shutdown()
            thread.join()


def refusal(uri: str, patience: float = 5) -> str:
    with pytest.raises(StoreError) as refused:
        Tracking(uri).require_reachable(patience)
    return str(refused.value)


@pytest.mark.parametrize("version", [(200, "3.8.0"), (200, "4.0.0rc1"), (404, "no such page"), (200, "<html>")])
def test_a_server_that_answers_may_be_asked(version: tuple[int, str]) -> None:
    with server(version=version) as (uri, asked):
        Tracking(uri).require_reachable()
    assert asked == [("/api/2.0/mlflow/experiments/search", None), ("/version", None)]


def test_a_server_of_mlflow_2_is_refused() -> None:
    with server(version=(200, "2.22.1\n")) as (uri, _):
        assert refusal(uri) == (
            f"The server {uri} has MLflow 2.22.1, which keeps no logged models: it needs MLflow 3; upgrade it, or name "
            "another one (--tracking-uri, MLFLOW_TRACKING_URI)."
        )


def test_who_is_not_let_in_is_told_how_to_say_who_asks() -> None:
    with server((401, "You are not authenticated.")) as (uri, _):
        assert refusal(uri) == (
            f"The MLflow server {uri} wants to know who asks (401): set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
        )
    with server((403, "Permission denied")) as (uri, _):
        assert refusal(uri) == (
            f"The MLflow server {uri} doesn't allow this (403): check MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, or ask whoever runs it."
        )


def test_credentials_are_mlflows_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with server() as (uri, asked):
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
        Tracking(uri).require_reachable()
        (tmp_path / ".mlflow").mkdir()
        (tmp_path / ".mlflow" / "credentials").write_text(
            "[mlflow]\nmlflow_tracking_username = gentoo\nmlflow_tracking_password = s3cret\n"
        )
        Tracking(uri).require_reachable()
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "adelie")
        Tracking(uri).require_reachable()
    shown = [given or "" for path, given in asked if path == "/version"]
    assert shown[0] == "Bearer t0ken"
    assert [base64.b64decode(given.removeprefix("Basic ")) for given in shown[1:]] == [
        b"gentoo:s3cret",
        b"adelie:s3cret",
    ]


def test_certificates_are_mlflows_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority = Authority.new(tmp_path)
    with server(authority=authority) as (uri, _):
        assert refusal(uri) == (
            f"The certificate of the MLflow server {uri} isn't trusted (unable to get local issuer certificate): name "
            "its authority's in MLFLOW_TRACKING_SERVER_CERT_PATH."
        )
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(authority.bundle))
        Tracking(uri).require_reachable()
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(tmp_path / "gone.pem"))
        assert refusal(uri).startswith(f"The MLflow server {uri} can't be asked: ")
        assert f"invalid path: {tmp_path}/gone.pem" in refusal(uri)
        monkeypatch.delenv("MLFLOW_TRACKING_SERVER_CERT_PATH")
        monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
        with pytest.warns(match="Unverified HTTPS request"):
            Tracking(uri).require_reachable()


def test_a_server_that_is_busy_is_asked_again_while_there_is_time() -> None:
    with server((503, "starting"), (429, "slowly"), (200, EXPERIMENTS)) as (uri, asked):
        Tracking(uri).require_reachable(5)
    assert [path for path, _ in asked].count("/api/2.0/mlflow/experiments/search") == 3
    with server((503, "starting")) as (uri, _):
        assert refusal(uri, 0.5) == f"The MLflow server {uri} can't answer at the moment (503): try again later."


@pytest.mark.parametrize("answer", [(200, "<html>Sign in</html>"), (404, "nothing"), (200, '{"predictions": []}')])
def test_what_is_no_mlflow_server_is_told(answer: tuple[int, str]) -> None:
    with server(answer) as (uri, _):
        assert refusal(uri) == (
            f"{uri} answers, but not as an MLflow server does ({answer[0]}): check the address (--tracking-uri, "
            "MLFLOW_TRACKING_URI)."
        )


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("127.0.0.1:5000", "127.0.0.1:5000 has no scheme: give http://127.0.0.1:5000, or https://127.0.0.1:5000."),
        ("localhost:5000/ml", "localhost:5000/ml has no scheme: give http://localhost:5000/ml, or https://localhost:"),
        ("my-server.example:443", "my-server.example:443 has no scheme: give http://my-server.example:443, or https:"),
        ("./mlruns", "./mlruns is a folder, in which MLflow no longer keeps stores: give a file such as sqlite:///"),
        (
            "mlruns",
            "mlruns is a folder, in which MLflow no longer keeps stores: give a file such as sqlite:///mlflow.d",
        ),
        ("file:///tmp/mlruns", "file:///tmp/mlruns is a folder, in which MLflow no longer keeps stores: give a file"),
        ("sqlite:///:memory:", "sqlite:///:memory: names no file, so nothing would be kept: give one, such as sqlite:"),
        ("htps://server", "MLflow knows no store of the kind htps:// in htps://server: it knows azureml, databricks, "),
        ("mysql://me:secret@server/runs", "For mysql://***@server/runs a package is missing (No module named 'MySQLdb"),
    ],
)
def test_what_names_no_store_is_told_with_what_is_meant(uri: str, said: str) -> None:
    assert refusal(uri).startswith(said)


def test_a_folder_that_mlflow_is_told_to_allow_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    Tracking("./mlruns").require_reachable()


def test_a_database_that_isnt_there_is_told() -> None:
    address = f"127.0.0.1:{free_port()}/runs"
    assert refusal(f"postgresql+psycopg2://me:secret@{address}").startswith(
        f"The database postgresql+psycopg2://***@{address} can't be opened (connection to server at "
    )


@pytest.mark.skipif(not POSTGRES_TOOLS, reason="Debian's package postgresql isn't installed")
def test_a_database_with_the_schema_of_another_mlflow_is_left_as_it_is(tmp_path: Path) -> None:
    import sqlalchemy

    with postgres(tmp_path) as uri:
        Tracking(uri).require_reachable()
        engine = sqlalchemy.create_engine(uri)
        for schema, said in (("cc1f77228345", "an older"), ("ffff00000000", "a newer")):
            with engine.begin() as connection:
                connection.execute(sqlalchemy.text("CREATE TABLE IF NOT EXISTS alembic_version (version_num TEXT)"))
                connection.execute(sqlalchemy.text("DELETE FROM alembic_version"))
                connection.execute(sqlalchemy.text(f"INSERT INTO alembic_version VALUES ('{schema}')"))
            assert f"has the schema of {said} MLflow than {mlflow.__version__}: " in refusal(uri)
        engine.dispose()
