"""A store behind an address, an MLflow server or a database: does it answer, whom does it let in, is it new enough."""

from __future__ import annotations

import re
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from penguins import local_store
from penguins.errors import StoreError, first_sentence

if TYPE_CHECKING:
    from requests import Response

SCHEMES = ("http://", "https://")

DATABASES = ("postgresql", "mysql", "mssql")
"""The databases that MLflow keeps a store in, beside SQLite."""

OLDEST_MAJOR = 3
"""Of the servers that know logged models, which training logs."""

BUSY = {429, 500, 502, 503, 504}
"""What a server answers that may do better in a moment."""

CREDENTIALS = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"


def require_server(uri: str, patience: float) -> None:
    """Raise StoreError unless an MLflow server of this client's kind answers within `patience` seconds.

    It is asked with MLflow's own function, so that all that MLflow honours counts here as well: certificates,
    credentials, proxies, and the file ~/.mlflow/credentials.
    """
    deadline = time.monotonic() + patience
    answer = _ask(uri, "POST", "/api/2.0/mlflow/experiments/search", deadline, json={"max_results": 1})
    status = answer.status_code
    if status == 401:
        raise StoreError(f"The MLflow server {uri} wants to know who asks (401): set {CREDENTIALS}.")
    if status == 403:
        raise StoreError(
            f"The MLflow server {uri} doesn't allow this (403): check {CREDENTIALS}, or ask whoever runs it."
        )
    if status in BUSY:
        raise StoreError(f"The MLflow server {uri} can't answer at the moment ({status}): try again later.")
    said = _json(answer)
    if status != 200 or said is None or not said.keys() <= {"experiments", "next_page_token"}:
        raise StoreError(
            f"{uri} answers, but not as an MLflow server does ({status}): check the address (--tracking-uri, "
            "MLFLOW_TRACKING_URI)."
        )
    _require_new_enough(uri, _ask(uri, "GET", "/version", deadline))


def require_database(uri: str, patience: float) -> None:
    """Raise StoreError unless the database can be opened within `patience` seconds, and has this MLflow's schema.

    MLflow would upgrade an older one, which others may be working with.
    """
    import sqlalchemy
    from mlflow.store.db import utils

    # MLflow's functions have no types.
    engine_of: Any = utils.create_sqlalchemy_engine
    try:
        address = sqlalchemy.make_url(uri)
        if not uri.startswith("mssql"):
            address = address.update_query_dict({"connect_timeout": str(int(patience)), **address.query})
        engine = engine_of(address.render_as_string(hide_password=False))
        try:
            with engine.connect() as connection:
                made = sqlalchemy.inspect(connection).has_table("alembic_version")
                found = connection.scalar(sqlalchemy.text("SELECT version_num FROM alembic_version")) if made else None
        finally:
            engine.dispose()
    except ImportError as error:
        raise StoreError(
            f"For {uri} a package is missing ({first_sentence(error)}): install it, such as psycopg2-binary for "
            "PostgreSQL or PyMySQL for MySQL."
        ) from error
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise StoreError(
            f"The database {uri} can't be opened ({first_sentence(getattr(error, 'orig', None) or error)}): check the "
            "address, the user and the password (--tracking-uri, MLFLOW_TRACKING_URI)."
        ) from error
    known, newest = local_store.revisions()
    if found is not None and known and found != newest:
        what = "an older" if found in known else "a newer"
        way = "`mlflow db upgrade` upgrades it, best after a copy" if found in known else "install that one"
        raise StoreError(f"The database {uri} has the schema of {what} MLflow than {version('mlflow')}: {way}.")


def _ask(uri: str, method: str, path: str, deadline: float, **options: Any) -> Response:
    """The server's answer; a server that is busy is asked again while there is time."""
    from mlflow.exceptions import MlflowException
    from mlflow.utils import credentials, rest_utils

    request: Any = rest_utils.http_request
    signed_in: Any = credentials.get_default_host_creds
    asking = {"max_retries": 0, "raise_on_status": False, **options}
    while True:
        try:
            # A second at least, for what comes after a slow first answer.
            left = max(1.0, deadline - time.monotonic())
            answer: Response = request(signed_in(uri), path, method, timeout=left, **asking)
        except MlflowException as error:
            raise StoreError(_failure(uri, error)) from error
        if answer.status_code not in BUSY or time.monotonic() + 1 > deadline:
            return answer
        time.sleep(1)


def _failure(uri: str, error: Exception) -> str:
    """What it means that there was no answer."""
    import requests

    cause = error.__cause__ or error.__context__
    if isinstance(cause, requests.exceptions.SSLError):
        return (
            f"The certificate of the MLflow server {uri} isn't trusted ({_reason(cause)}): name its authority's in "
            "MLFLOW_TRACKING_SERVER_CERT_PATH."
        )
    if isinstance(cause, requests.RequestException):
        return (
            f"The MLflow server {uri} doesn't answer ({type(cause).__name__}): "
            "start it, or name another one (--tracking-uri, MLFLOW_TRACKING_URI)."
        )
    # Such as a certificate's file that isn't there, and variables that contradict each other.
    return f"The MLflow server {uri} can't be asked: {first_sentence(cause or error)}"


def _reason(error: Exception) -> str:
    """What OpenSSL says, such as `self-signed certificate`, out of what is wrapped around it."""
    found = re.search(r"certificate verify failed: ([^(]+?) \(_ssl", str(error)) or re.search(r"SSL: (\w+)", str(error))
    return found[1] if found else type(error).__name__


def _json(answer: Response) -> dict[str, Any] | None:
    try:
        found = answer.json()
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _require_new_enough(uri: str, answer: Response) -> None:
    """Raise StoreError for a server of MLflow 2; what tells no version, such as a gateway, may be new enough."""
    found = re.fullmatch(r"(\d+)\.\d+\S*", answer.text.strip()) if answer.ok else None
    if found is not None and int(found[1]) < OLDEST_MAJOR:
        raise StoreError(
            f"The server {uri} has MLflow {found[0]}, which keeps no logged models: it needs MLflow {OLDEST_MAJOR}; "
            "upgrade it, or name another one (--tracking-uri, MLFLOW_TRACKING_URI)."
        )
