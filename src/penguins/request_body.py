"""The body of a scoring request: read strictly, and measured before anything costly is done with it."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from penguins.limits import Limits

JSON, CSV = "application/json", "text/csv"

FORMATS = ("dataframe_records", "dataframe_split", "inputs", "instances")
"""Exactly one of these is in a JSON body: MLflow's protocol."""

RECORDED = ("client_request_id", "usage_context")
"""What Databricks Model Serving takes beside them, for its own records; a client of both may send it here."""

ENCODINGS = frozenset({"utf-8", "utf8", "us-ascii"})

LONGEST_LINE = 1_000
"""Characters of a sentence, whatever part of the body it quotes."""


class RefusedError(Exception):
    """The request can't be answered as it is: the status, and a sentence of one line."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(one_line(sentence))
        self.status = status


@dataclass(frozen=True)
class Body:
    """A body that MLflow's parser may have: a JSON object or the text of a CSV, and how large a table it holds."""

    content: dict[str, Any] | str
    content_type: str
    rows: int
    columns: int


def one_line(text: str) -> str:
    """The text as one line of limited length, without characters that a terminal would obey instead of show."""
    start = text[: 10 * LONGEST_LINE]
    shown = "".join(" " if unicodedata.category(character)[0] in "CZ" else character for character in start)
    line = " ".join(shown.split())
    return line if len(line) <= LONGEST_LINE and len(start) == len(text) else f"{line[:LONGEST_LINE]}..."


def content_type(header: str) -> str:
    """JSON or CSV, for every way of writing them that RFC 9110 calls the same; RefusedError (415) for all else."""
    kind, *pairs = (part.strip().lower() for part in header.split(";"))
    if kind not in {JSON, CSV}:
        raise RefusedError(
            415, f"This server only supports the following content types: {JSON}, {CSV}. Got '{header}'."
        )
    for name, _, value in (pair.partition("=") for pair in pairs if pair):
        known = {"charset": ENCODINGS, "header": {"present"} if kind == CSV else set()}
        if _unquoted(value) not in known.get(name, set()):
            raise RefusedError(
                415, f"This server only supports {kind} in UTF-8 with no other parameter. Got '{header}'."
            )
    return kind


def _unquoted(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] == '"'
    return value[1:-1].replace("\\", "") if quoted else value


def read(content: bytes, kind: str, limits: Limits, *, needed: int = 0) -> Body:
    """Read a body of `kind` (see `content_type`), whose model has `needed` columns.

    The work is proportional to the bytes, and so is the table that the body may make: no more cells than bytes.
    Raises RefusedError with 400 for what can't be read, or can be read in two ways, and with 413 for too many rows or
    columns.
    """
    try:
        text = content.decode("utf-8-sig")
        body = _read_json(text) if kind == JSON else _read_csv(text, max(limits.max_columns, needed))
    except RecursionError:
        raise _unreadable("it is nested too deeply") from None
    except (ValueError, csv.Error) as error:
        raise _unreadable(str(error)) from None
    if body.rows > limits.max_rows:
        raise RefusedError(413, f"The body has {body.rows:,} rows: send at most {limits.max_rows:,} at a time.")
    if body.columns > max(limits.max_columns, needed):
        raise _too_wide(body.columns, max(limits.max_columns, needed))
    if body.rows * body.columns > len(content):
        raise RefusedError(
            400, f"{body.rows:,} rows lack most of the {body.columns:,} columns: give every row all columns."
        )
    return body


def _unreadable(reason: str) -> RefusedError:
    return RefusedError(400, f"The body can't be read ({reason}): send one of {', '.join(FORMATS)} as JSON, or CSV.")


def _too_wide(columns: int, allowed: int) -> RefusedError:
    return RefusedError(413, f"The body has {columns:,} columns: send at most {allowed:,}, those of the model will do.")


def _read_json(text: str) -> Body:
    content = json.loads(text, object_pairs_hook=_without_duplicates)
    if not isinstance(content, dict):
        raise RefusedError(
            400, f"The body is no JSON object: it must have exactly one of the input fields {_either()}."
        )
    given = [name for name in FORMATS if name in content]
    if len(given) != 1:
        found = ", ".join(content) or "none"
        raise RefusedError(400, f"The body must have exactly one of the input fields {_either()}. It has {found}.")
    if content.get("params"):
        raise RefusedError(400, "The model takes no params: leave them out.")
    if unknown := [name for name in content if name not in {*given, *RECORDED, "params"}]:
        raise RefusedError(400, f"The body has the unknown field {unknown[0]}: send {given[0]} alone.")
    table = content[given[0]]
    rows, columns = _size_of_split(table) if given == ["dataframe_split"] else _size(table)
    return Body({given[0]: table}, JSON, rows, columns)


def _either() -> str:
    return ", ".join(FORMATS)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise RefusedError(400, f"The body has {_first_twice(name for name, _ in pairs)} twice in one object.")
    return content


def _first_twice(names: Iterable[str]) -> str:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    raise ValueError("no name stands twice")


def _size(table: Any) -> tuple[int, int]:
    """Rows and columns of a list of records or of lists, or of an object with a list for each column."""
    if isinstance(table, dict):
        return max((len(value) for value in table.values() if isinstance(value, list)), default=1), len(table)
    if not isinstance(table, list):
        return 1, 1
    names = set().union(*(row for row in table if isinstance(row, dict)))
    widths = (len(row) for row in table if isinstance(row, list))
    return len(table), max(len(names), max(widths, default=1))


def _size_of_split(table: Any) -> tuple[int, int]:
    if not isinstance(table, dict):
        return _size(table)
    rows, columns = _size(table.get("data"))
    index, names = table.get("index"), table.get("columns")
    if index is not None and not (isinstance(index, list) and len(index) == rows):
        entries = f"{len(index)} entries" if isinstance(index, list) else "no list"
        raise RefusedError(
            400, f"The index of dataframe_split has {entries}, and data has {rows} rows: give one for each."
        )
    return rows, max(columns, len(names) if isinstance(names, list) else 0)


def _read_csv(text: str, most_columns: int) -> Body:
    """Measure a CSV. pandas by itself renames a column that stands twice, and takes values too many for an index."""
    lines = (line for line in csv.reader(io.StringIO(text, newline="")) if line)
    header = next(lines, [])
    if len(header) > most_columns:
        raise _too_wide(len(header), most_columns)
    if len(set(header)) != len(header):
        raise RefusedError(400, f"The CSV has the column {_first_twice(header)} twice: each must stand once.")
    rows = 0
    for rows, line in enumerate(lines, start=1):
        if len(line) > len(header):
            raise RefusedError(400, f"Row {rows} has {len(line):,} values, and the header has {len(header):,} columns.")
    return Body(text, CSV, rows, len(header))
