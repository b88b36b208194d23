"""The scoring script of a batch deployment in Azure Machine Learning: every row comes out, answered or with reasons.

It runs on the deployment's cluster, with the model's own requirements and no wheel of this package, and must import
nothing else of it. Azure calls `init` once and `run` for every few files. For each input file one file of JSON lines is
written: first what its columns are, then a list of values for each row, in order, and last how many rows there were, so
that a file that was torn off is told from a whole one.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

SUFFIX = ".penguins.jsonl"
"""How the files end that this script writes; Azure puts others beside them."""

ROWS = 50_000
"""How many rows are scored at a time."""

GAPS = (
    *("NA", "N/A", "n/a", "<NA>", "#N/A", "#N/A N/A", "#NA"),
    *("NaN", "nan", "-NaN", "-nan", "NULL", "null", "None"),
    *("1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
)
"""Words that stand for a missing value in a CSV, as in the package's own readers; a test compares them."""

NO_FIT = "the line does not fit the header"
TOO_LARGE = "a number is too large to compute with"

scorer: Any = None


def init() -> None:
    """Load the model that Azure has put on the machine; called once, before the first files."""
    global scorer
    import mlflow.pyfunc

    folder = Path(os.environ["AZUREML_MODEL_DIR"])
    # Azure puts the model into a folder of its own name, at a depth that it doesn't tell.
    found = min(folder.rglob("MLmodel"), key=lambda file: len(file.parts)).parent
    # Not MLflow's own `predict`, whose check of the signature refuses a whole table for one value.
    scorer = mlflow.pyfunc.load_model(str(found))._model_impl


def run(mini_batch: Sequence[str]) -> list[str]:
    """Score files, and say for each how that went. Raises ValueError for a file that can't be read at all."""
    return [_score(Path(name)) for name in mini_batch]


def _score(file: Path) -> str:
    if file.name.startswith(("_", ".")):
        return f"{file.name}: no data"
    columns, rows = read(file)
    gaps = () if file.name.lower().endswith(".parquet") else GAPS
    features = [*scorer.categories, *scorer.numbers]
    if missing := [name for name in features if name not in columns]:
        raise ValueError(f"{file.name} lacks {', '.join(missing)}; it has {', '.join(columns)}.")
    if twice := [name for name in features if columns.count(name) > 1]:
        raise ValueError(f"{file.name} has {', '.join(twice)} more than once: name each column once.")
    count = scored = 0
    # Two files of one name may lie in different folders, and are scored at the same time.
    name = f"{file.stem}-{hashlib.sha256(str(file).encode()).hexdigest()[:12]}{SUFFIX}"
    with Path(os.environ["AZUREML_BI_OUTPUT_PATH"], name).open("w", encoding="utf-8") as output:
        _write(output, {"file": str(file), "columns": columns, "added": [*_answer_columns(), "reasons"]})
        while chunk := list(islice(rows, ROWS)):
            for row, answer, reasons in _answered(columns, chunk, gaps):
                _write(output, [*row, *answer, reasons or None])
                scored += not reasons
            count += len(chunk)
        _write(output, {"rows": count})
    return f"{file.name}: {count} rows, {scored} scored"


def _write(output: Any, value: Any) -> None:
    output.write(json.dumps(value, default=str) + "\n")


def _answer_columns() -> list[str]:
    return ["prediction", scorer.name_column, *(f"probability_{name}" for name in scorer.classes)]


Row = list[Any]


def read(file: Path) -> tuple[list[str], Iterator[Row]]:
    """The columns of a file, and its rows; of a CSV all values as text, and None where there is nothing.

    A row of a CSV may be narrower or wider than the columns. Raises ValueError for a file that can't be read, for what
    comes late in it while the rows are read.
    """
    name = file.name.lower()
    if name.endswith(".parquet"):
        return _read_parquet(file)
    if name.endswith((".csv", ".csv.gz")):
        return _read_csv(file)
    raise ValueError(f"{file.name} can't be read: give files that end in .csv, .csv.gz or .parquet.")


def _read_parquet(file: Path) -> tuple[list[str], Iterator[Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{file.name} can't be read as Parquet: {error}.") from error
    columns = list(table.schema_arrow.names)
    batches = (batch.to_pydict() for batch in table.iter_batches(ROWS))
    return columns, (list(row) for batch in batches for row in zip(*(batch[name] for name in columns), strict=True))


def _read_csv(file: Path) -> tuple[list[str], Iterator[Row]]:
    records = _records(file)
    header = next(records, None)
    if header is None:
        raise ValueError(f"{file.name} is empty: its first line must name the columns.")
    return [name.strip() for name in header], ([value.strip() or None for value in row] for row in records)


def _records(file: Path) -> Iterator[list[str]]:
    """The records of a CSV file that aren't blank. Raises ValueError for what is no CSV file in UTF-8."""
    # A field may be as long as it likes.
    csv.field_size_limit(sys.maxsize)
    opened = gzip.open if file.name.lower().endswith(".gz") else open
    try:
        with opened(file, "rt", encoding="utf-8-sig", newline="") as lines:
            yield from (record for record in csv.reader(lines) if record)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file.name} can't be read as CSV in UTF-8: {error}.") from error


def _answered(columns: list[str], rows: list[Row], gaps: Sequence[str]) -> Iterator[tuple[Row, Row, list[str]]]:
    """Each row as wide as the header, with the model's answer or with reasons why there is none."""
    import pandas as pd

    none: Row = [None] * len(_answer_columns())
    checked = [_checked(columns, row, gaps) for row in rows]
    good = [values for values, reasons in checked if not reasons]
    answers = iter(_ask(pd.DataFrame(good)) if good else ())
    for row, (_, reasons) in zip(rows, checked, strict=True):
        answer = None if reasons else next(answers)
        whole = (row + [None] * len(columns))[: len(columns)]
        yield whole, answer or none, reasons or ([] if answer else [TOO_LARGE])


def _ask(rows: pd.DataFrame) -> list[Row | None]:
    """The model's answer to each row; None where a number is too large, which the model tells of all rows at once."""
    from mlflow.exceptions import MlflowException

    try:
        answers: list[Row | None] = scorer.predict(rows).astype(object).to_numpy().tolist()
        return answers
    except MlflowException:
        if len(rows) == 1:
            return [None]
        half = len(rows) // 2
        return _ask(rows[:half]) + _ask(rows[half:])


def _checked(columns: list[str], row: Row, gaps: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The features of a row as the model takes them, or the reasons why it can't."""
    if len(row) != len(columns):
        return {}, [f"{NO_FIT}: it has {len(row)} fields, and the header {len(columns)}"]
    given = {name: None if value in gaps else value for name, value in zip(columns, row, strict=True)}
    values: dict[str, Any] = {}
    reasons = []
    for name, known in scorer.categories.items():
        values[name], reason = _category(given[name], known)
        reasons += [f"{name} {reason}"] if reason else []
    for name in scorer.numbers:
        values[name], reason = _number(given[name])
        reasons += [f"{name} {reason}"] if reason else []
    return values, reasons


def _category(value: Any, known: Sequence[str]) -> tuple[str | None, str | None]:
    if value is None:
        return None, "is missing"
    text = str(value)
    if text in known:
        return text, None
    return None, "is unknown to the model" if text.strip() else "is empty"


def _number(value: Any) -> tuple[float, str | None]:
    if value is None or not str(value).strip():
        return math.nan, "is missing"
    try:
        # Python would read 1_000 and True as numbers.
        number = None if isinstance(value, bool) or "_" in str(value) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None:
        return math.nan, "is not a number"
    return number, None if math.isfinite(number) else "is not finite"
