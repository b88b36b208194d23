"""Ask a scoring server about rows, and say in one sentence why it doesn't answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from penguins import config, delimited
from penguins.errors import DataError, ParameterError, ServerError, first_sentence
from penguins.spec import LAB_REQUEST

if TYPE_CHECKING:
    import pandas as pd
    import requests

ENDINGS = ".csv, .parquet, .json or .jsonl"
"""What the file's names end in that `read` takes."""

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)

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
    """The rows of a CSV or Parquet file, of a JSON file with an object or a list of them, or of one with one per line.

    A CSV is taken as training takes it (`delimited`), but for a line that doesn't fit its header, which is refused; a
    column is numbers where all its values are. Names may be in capitals, and all but Parquet compressed (.gz, .bz2).
    Raises DataError when there are no rows, or when they can't be read.
    """
    import pandas as pd

    path = Path(file)
    if not path.is_file():
        raise DataError(f"{path} is no file: give one that ends in {ENDINGS}.")
    kind, packed = delimited.suffixes(path.name)
    try:
        if packed not in delimited.OPENERS:
            raise DataError(f"{path} ends in {packed}: give a file that isn't compressed, or one that ends in .gz.")
        if kind == ".csv":
            rows = _table(path)
        elif kind == ".parquet" and not packed:
            rows = pd.read_parquet(path)
        elif kind == ".json":
            rows = _frame(json.loads(_text(path)))
        elif kind in {".jsonl", ".ndjson"}:
            rows = _frame([json.loads(line) for line in _text(path).splitlines() if line.strip()])
        else:
            raise DataError(f"{path} ends in {kind or 'nothing'}: give a file that ends in {ENDINGS}.")
    except (ValueError, OSError, RecursionError) as error:
        raise DataError(f"{path} can't be read: {first_sentence(error)}") from error
    if rows.empty:
        raise DataError(f"{path} has no rows: give at least one.")
    return rows


def _table(path: Path) -> pd.DataFrame:
    import pandas as pd

    layout = delimited.scan(path)
    if not layout.header:
        raise ValueError("No columns to parse from file")
    delimited.require_commas(layout, str(path))
    names = delimited.column_names(layout.header)
    rows = list(delimited.records(path, layout))
    for number, row in enumerate(rows, 1):
        if len(row) != len(names):
            raise DataError(
                f"Row {number:,} of {path} has {len(row)} values, and its header {len(names)}: correct that row."
            )
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    return pd.DataFrame({name: _values(cells) for name, cells in zip(names, columns, strict=True)})


def _values(cells: Sequence[str]) -> pd.Series[Any]:
    """A column's values, with None for gaps: numbers where all others are."""
    import pandas as pd

    texts = [None if cell in ("", *delimited.GAPS) else cell for cell in cells]
    given = [text for text in texts if text is not None]
    if not given or not all(NUMBER.fullmatch(text) for text in given):
        return pd.Series(texts, dtype=object)
    if len(given) == len(texts) and all(re.fullmatch(r"[-+]?\d{1,18}", text) for text in given):
        return pd.Series([int(text) for text in given])
    return pd.Series([None if text is None else float(text) for text in texts], dtype=float)


def _text(path: Path) -> str:
    with delimited.OPENERS[delimited.suffixes(path.name)[1]](path, "rb") as file:
        found: bytes = file.read()
    delimited.require_one_byte_units(found[:1000], str(path))
    return found.decode("utf-8-sig")


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
