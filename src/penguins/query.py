"""Ask a scoring server about rows, and say in one sentence why it doesn't answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from penguins import config
from penguins.errors import DataError, ParameterError, ServerError, first_sentence
from penguins.spec import LAB_REQUEST

if TYPE_CHECKING:
    import pandas as pd
    import requests

TIMEOUT = 60.0
"""Seconds: as long as MLflow's scoring server gives itself for a request."""


def ask(url: str, rows: pd.DataFrame, *, timeout: float = TIMEOUT) -> pd.DataFrame:
    """What the scoring server at `url` answers to each of the `rows`, with their index.

    A model of this package answers with `prediction` (the label's code), `species` and `probability_<class>`; a
    server that gives bare values answers with `prediction` alone. `timeout` is in seconds.
    Raises ServerError when the server can't be reached in time, refuses the rows (with its own sentence), or isn't a
    scoring server.
    """
    address = f"{url.rstrip('/').removesuffix('/invocations')}/invocations"
    try:
        response = _post(address, json.dumps(body(rows)), {}, timeout)
    except ConnectionError as error:
        raise ServerError(f"Nothing answers at {url}: run `penguins serve`, or give another --url.") from error
    except TimeoutError as error:
        raise ServerError(f"{url} didn't answer within {timeout:g} seconds: ask for fewer rows, or later.") from error
    except ValueError as error:
        raise ServerError(f"{url} can't be asked: give an address such as {config.DEFAULT_URL}.") from error
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if response.ok:
        return answers(url, answer, rows)
    if isinstance(answer, dict) and isinstance(answer.get("message"), str):
        raise ServerError(without_input(answer["message"]))
    raise ServerError(_no_predictions(url, f"{response.status_code} {response.reason}".strip()))


def post(url: str, body: str, *, headers: Mapping[str, str], timeout: float = TIMEOUT) -> tuple[int, str]:
    """The status and the text that `url` answers to a JSON body. Raises ServerError when it doesn't answer in time."""
    try:
        response = _post(url, body, headers, timeout)
    except (ConnectionError, ValueError) as error:
        raise ServerError(f"Nothing answers at {url}: check the network, try again.") from error
    except TimeoutError as error:
        raise ServerError(f"{url} didn't answer within {timeout:g} seconds: ask for fewer rows, or later.") from error
    return response.status_code, response.text


def body(rows: pd.DataFrame) -> dict[str, Any]:
    """What a scoring server is sent to be asked about the rows."""
    # Not `to_json`, which rounds; and a gap is null, because JSON knows no NaN.
    null: Any = None
    gapless = rows.astype(object).where(rows.notna(), null)
    split = gapless.to_dict("split", index=False)
    return {"dataframe_split": json.loads(json.dumps(split, default=str))}


def answers(who: str, answer: Any, rows: pd.DataFrame) -> pd.DataFrame:
    """The predictions in what a scoring server answered to the rows, one row each. Raises ServerError without them."""
    import pandas as pd

    predictions = answer.get("predictions") if isinstance(answer, dict) else None
    if not isinstance(predictions, list):
        raise ServerError(_no_predictions(who, "200 OK"))
    if len(predictions) != len(rows):
        raise ServerError(f"{who} answered {len(predictions)} predictions to {len(rows)} rows: is it a scoring server?")
    if all(isinstance(prediction, dict) for prediction in predictions):
        return pd.DataFrame(predictions, index=rows.index)
    return pd.DataFrame({"prediction": predictions}, index=rows.index)


def without_input(message: str) -> str:
    """A scoring server's message as one line, without the whole input that MLflow puts in front of what is wrong."""
    return " ".join(re.sub(r"^Failed to (predict|enforce) .*Error: ", "", message, flags=re.DOTALL).split())


def read(file: str | Path) -> pd.DataFrame:
    """The rows of a CSV file, of a JSON file with an object or a list of them, or of one with an object per line.

    Columns and their values are as they stand in the file. Raises DataError when there are none, or when it can't be
    read.
    """
    import pandas as pd

    path = Path(file)
    if not path.is_file():
        raise DataError(f"{path} is no file: give one that ends in .csv, .json or .jsonl.")
    try:
        if path.suffix == ".csv":
            rows = pd.read_csv(path)
        elif path.suffix == ".json":
            rows = _frame(json.loads(path.read_text()))
        elif path.suffix in {".jsonl", ".ndjson"}:
            rows = _frame([json.loads(line) for line in path.read_text().splitlines() if line.strip()])
        else:
            raise DataError(
                f"{path} ends in {path.suffix or 'nothing'}: give a file that ends in .csv, .json or .jsonl."
            )
    except (ValueError, OSError, RecursionError) as error:
        raise DataError(f"{path} can't be read: {first_sentence(error)}") from error
    if rows.empty:
        raise DataError(f"{path} has no rows: give at least one.")
    return rows


def parse(record: str) -> pd.DataFrame:
    """The row that a JSON object says, or the rows of a list of them. Raises ParameterError when it says none."""
    try:
        rows = _frame(json.loads(record))
        if rows.empty:
            raise ValueError("it has no rows")
        return rows
    except (ValueError, RecursionError) as error:
        example = json.dumps(LAB_REQUEST)
        raise ParameterError(
            f"The record can't be read ({first_sentence(error)}): give one such as {example}"
        ) from error


def _frame(records: Any) -> pd.DataFrame:
    import pandas as pd

    rows = records if isinstance(records, list) else [records]
    if not all(isinstance(row, dict) and row for row in rows):
        raise ValueError("it must be a JSON object with a value for each column, or a list of such objects")
    return pd.DataFrame(rows)


def _post(url: str, body: str, headers: Mapping[str, str], timeout: float) -> requests.Response:
    """Post JSON. Raises TimeoutError, ConnectionError, ValueError (no address), or ServerError (half an answer)."""
    import requests

    with requests.Session() as session:
        try:
            host = urlsplit(url).hostname
            # A proxy for the world outside knows nothing of this machine's own servers.
            direct = {"no_proxy": host} if host in {"127.0.0.1", "localhost", "::1"} else None
            kind = {"Content-Type": "application/json"}
            return session.post(url, body, headers={**kind, **headers}, proxies=direct, timeout=timeout)
        except requests.Timeout as error:
            raise TimeoutError from error
        except requests.ConnectionError as error:
            raise ConnectionError from error
        except requests.RequestException as error:
            if isinstance(error, ValueError):  # as requests has it for an address that is none
                raise
            raise ServerError(f"{url} gave no whole answer: ask again, and look what the server says.") from error


def _no_predictions(who: str, status: str) -> str:
    return f"{who} answered without predictions ({status}): is it a scoring server?"
