"""What the server makes of a body before anything costly is done with it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penguins import request_body
from penguins.errors import ParameterError
from penguins.limits import Limits
from penguins.request_body import CSV, JSON, RefusedError

TIGHT = Limits(max_rows=3, max_columns=2)


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ("application/json", JSON),
        ("Application/JSON", JSON),
        ("application/json;charset=utf-8", JSON),
        ('application/json ; Charset="UTF-8"', JSON),
        ("application/json;", JSON),
        ("text/csv; charset=us-ascii; header=present", CSV),
        ("TEXT/CSV ;; charset=utf-8", CSV),
    ],
)
def test_the_same_content_type_is_written_in_many_ways(header: str, kind: str) -> None:
    assert request_body.content_type(header) == kind


@pytest.mark.parametrize(
    "header",
    [
        *("", ";", "json", "text/xml", "application/json, text/csv", "application/vnd.apache.parquet"),
        *("application/json; charset=latin1", "application/json; x=1", "application/json; charset"),
        "text/csv; header=absent",
    ],
)  # fmt: skip
def test_another_content_type_is_refused(header: str) -> None:
    with pytest.raises(RefusedError, match=r"^This server only supports .* Got ") as refused:
        request_body.content_type(header)
    assert refused.value.status == 415


@pytest.mark.parametrize(
    ("content", "rows", "columns"),
    [
        ({"dataframe_records": [{"a": 1}, {"a": 1, "b": 2}]}, 2, 2),
        ({"dataframe_split": {"columns": ["a"], "data": [[1], [2], [3]]}}, 3, 1),
        ({"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2]], "index": ["x"]}}, 1, 2),
        ({"inputs": {"a": [1, 2, 3], "b": [4, 5, 6]}}, 3, 2),
        ({"inputs": {"a": 1, "b": 2}, "client_request_id": "7", "usage_context": {}, "params": {}}, 1, 2),
        ({"instances": [[1, 2], [3]]}, 2, 2),
    ],
)
def test_a_table_is_measured_in_every_form(content: dict[str, Any], rows: int, columns: int) -> None:
    body = request_body.read(json.dumps(content).encode(), JSON, TIGHT)
    assert (body.rows, body.columns) == (rows, columns)
    assert isinstance(body.content, dict)
    assert len(body.content) == 1


def test_a_csv_is_measured() -> None:
    body = request_body.read(b'\xef\xbb\xbfa,b\r\n1,"x\ny"\r\n\r\n3,\r\n', CSV, TIGHT)
    assert (body.rows, body.columns, body.content) == (2, 2, 'a,b\r\n1,"x\ny"\r\n\r\n3,\r\n')


@pytest.mark.parametrize(
    ("content", "kind", "status", "said"),
    [
        (b'{"inputs": [1, 2, 3, 4]}', JSON, 413, "The body has 4 rows: send at most 3 at a time."),
        (b'{"inputs": [{"a": 1, "b": 2}, {"c": 3}]}', JSON, 413, "The body has 3 columns: send at most 2,"),
        (b"a\n1\n2\n3\n4\n", CSV, 413, "The body has 4 rows: send at most 3 at a time."),
        (b'a,"\n",c\n1,2,3\n', CSV, 413, "The body has 3 columns: send at most 2,"),
        (b"a,b\n1,2\n1,2,3\n", CSV, 400, "Row 2 has 3 values, and the header has 2 columns."),
        (b"a,a\n1,2\n", CSV, 400, "The CSV has the column a twice: each must stand once."),
        (b'{"inputs": [{"a": 1, "a": 1}]}', JSON, 400, "The body has a twice in one object."),
        (b'{"inputs": [], "inputs": []}', JSON, 400, "The body has inputs twice in one object."),
        (b'{"inputs": [], "params": {"x": 1}}', JSON, 400, "The model takes no params: leave them out."),
        (b'{"inputs": [], "parms": {}}', JSON, 400, "The body has the unknown field parms: send inputs alone."),
        (b'{"inputs": [], "instances": []}', JSON, 400, "exactly one of the input fields dataframe_records, "),
        (b'{"messages": []}', JSON, 400, "It has messages."),
        (b"[]", JSON, 400, "The body is no JSON object: it must have exactly one of the input fields"),
        (b'{"dataframe_split": {"data": [[1]], "index": [1, 2, 3]}}', JSON, 400,
         "The index of dataframe_split has 3 entries, and data has 1 rows: give one for each."),
        (b'{"dataframe_split": {"data": [[1], [2]], "index": "ab"}}', JSON, 400, "has no list, and data has 2 rows"),
        (b'{"inputs": "\x1b[31m\xff"}', JSON, 400, "The body can't be read ('utf-8' codec can't decode byte 0xff"),
        (b"{'a'}", JSON, 400, "The body can't be read (Expecting property name enclosed in double quotes"),
        (b"[" * 100_000, JSON, 400, "The body can't be read (it is nested too deeply): send one of"),
        (b"9" * 5_000, JSON, 400, "The body can't be read (Exceeds the limit (4300 digits)"),
        (b"a\n" + b"x" * 200_000, CSV, 400, "The body can't be read (field larger than field limit"),
    ],
)  # fmt: skip
def test_what_is_too_much_or_can_be_read_in_two_ways_is_refused(
    content: bytes, kind: str, status: int, said: str
) -> None:
    with pytest.raises(RefusedError) as refused:
        request_body.read(content, kind, TIGHT)
    assert said in str(refused.value)
    assert refused.value.status == status


def test_the_models_own_columns_are_never_too_many() -> None:
    assert request_body.read(b"a,b,c\n1,2,3\n", CSV, TIGHT, needed=3).columns == 3


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b",".join(b"c%d" % i for i in range(100)) + b"\n" + b"1\n" * 1000, CSV),
        (json.dumps({"inputs": [{f"c{i % 100}": 1} for i in range(1000)]}).encode(), JSON),
    ],
)
def test_a_body_makes_no_table_of_more_cells_than_it_has_bytes(content: bytes, kind: str) -> None:
    with pytest.raises(RefusedError, match=r"^1,000 rows lack most of the 100 columns: give every row all columns\.$"):
        request_body.read(content, kind, Limits())


def test_what_is_quoted_fits_into_a_line_that_a_terminal_shows() -> None:
    assert request_body.one_line("a\x1b[31m\n\tb\u202ec\x00") == "a [31m b c"
    long = request_body.one_line("ab" * 10**6)
    assert (len(long), long[-4:]) == (1003, "b...")
    assert request_body.one_line("\n" * 10**6 + "a") == "..."


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"max_rows": 0}, "max_rows is 0: it must be a number above 0."),
        ({"max_columns": 1.5}, "max_columns is 1.5: it must be a whole number."),
        ({"header_timeout": float("nan")}, "header_timeout is nan: it must be a number above 0."),
        ({"max_body_mb": "16"}, "max_body_mb is '16': it must be a number above 0."),
    ],
)
def test_a_limit_that_is_none_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ParameterError) as refused:
        Limits(**values)
    assert str(refused.value) == said
