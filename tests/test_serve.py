"""The scoring server: a real one of a really trained model, asked over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import json
import math
import os
import platform
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import mlflow
import pandas as pd
import psutil
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penguins import flavor, http_app, query, serve
from penguins.config import CHAMPION, DEFAULT_MODEL_URI
from penguins.errors import ModelError, ServerError, StoreError
from penguins.limits import Limits
from penguins.registry import Version
from penguins.scoring_process import ScoringProcess, Task
from penguins.spec import LAB_REQUEST
from penguins.tracking import Tracking
from penguins.train import train_from_source
from tests.conftest import PENGUINS_CSV, ROOT

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.slow]

PENGUINS = str(Path(sys.executable).with_name("penguins"))
JSON = "application/json"
COLUMNS = ["Island", "CulmenLength", "CulmenDepth", "FlipperLength", "BodyMass"]
GENTOO = ["Biscoe", 48.7, 14.1, 210, 4450]
ADELIE = ["Torgersen", 39.1, 18.7, 181, 3750]


@pytest.fixture(scope="module")
def folder(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a store has one version, the champion."""
    place = tmp_path_factory.mktemp("served")
    Tracking.local(place).activate()
    train_from_source(spark, PENGUINS_CSV, register_as="penguin_predictor")
    mlflow.MlflowClient().set_registered_model_alias("penguin_predictor", CHAMPION, "1")
    return place


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with serve.serving() as address:
        yield address


@pytest.fixture(autouse=True)
def active(folder: Path) -> None:
    """A test may use another store; the next one begins with this one again."""
    Tracking.local(folder).activate()


def server_of_the_module() -> psutil.Process:
    """The process behind the address `url`."""
    [server] = [child for child in psutil.Process().children() if "--until-stdin-ends" in child.cmdline()]
    return server


def ask(url: str, body: object, content_type: str | None = JSON) -> requests.Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {} if content_type is None else {"Content-Type": content_type}
    with requests.Session() as session:
        session.trust_env = False
        return session.post(f"{url}/invocations", data, headers=headers, timeout=60)


def species(answer: requests.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [prediction["species"] for prediction in answer.json()["predictions"]]


def sentence(answer: requests.Response) -> str:
    """What the server says, which is one line and nothing that a terminal would obey."""
    said = answer.json()
    assert set(said) == {"error_code", "message"}
    assert said["message"].isprintable()
    assert len(said["message"]) < 1_010
    return str(said["message"])


def records(*rows: list[Any]) -> list[dict[str, Any]]:
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows]


# What the server answers.


def test_the_answer_has_the_class_its_name_and_every_probability(url: str) -> None:
    [prediction] = ask(url, {"dataframe_records": [LAB_REQUEST]}).json()["predictions"]
    assert prediction == {
        "prediction": 1,
        "species": "Gentoo",
        "probability_Adelie": pytest.approx(0.000012, abs=1e-6),
        "probability_Gentoo": pytest.approx(0.979873, abs=1e-6),
        "probability_Chinstrap": pytest.approx(0.020114, abs=1e-6),
    }


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_records": records(GENTOO, ADELIE)},
        {"dataframe_split": {"columns": COLUMNS, "data": [GENTOO, ADELIE]}},
        {"dataframe_split": {"columns": COLUMNS, "data": [GENTOO, ADELIE], "index": [7, 7]}},
        {"inputs": records(GENTOO, ADELIE)},
        {"inputs": dict(zip(COLUMNS, map(list, zip(GENTOO, ADELIE, strict=True)), strict=True))},
        {"instances": records(GENTOO, ADELIE)},
        {"dataframe_records": [dict(reversed(list(row.items()))) for row in records(GENTOO, ADELIE)]},
        {"dataframe_split": {"columns": COLUMNS[::-1], "data": [GENTOO[::-1], ADELIE[::-1]]}},
        {"dataframe_records": [{**row, "Colour": [None]} for row in records(GENTOO, ADELIE)]},
    ],
)
def test_every_form_of_json_in_any_order_gets_the_same_answer(url: str, body: object) -> None:
    assert species(ask(url, body)) == ["Gentoo", "Adelie"]


def test_csv_gets_the_same_answer(url: str) -> None:
    frame = pd.DataFrame(records(GENTOO, ADELIE))[COLUMNS[::-1]]
    for kind in ("text/csv", 'Text/CSV;Charset="UTF-8"'):
        assert species(ask(url, frame.to_csv(index=False).encode(), kind)) == ["Gentoo", "Adelie"]


def test_a_large_body_gets_the_same_answer(url: str) -> None:
    """It is answered in another process."""
    body = {"dataframe_records": records(*[GENTOO, ADELIE] * 300)}
    assert len(json.dumps(body)) > http_app.SMALL
    assert species(ask(url, body)) == ["Gentoo", "Adelie"] * 300
    body["dataframe_records"][401]["Island"] = "Atlantis"
    answer = ask(url, body)
    assert (answer.status_code, sentence(answer)) == (400, f"Island in row 402 of 600 is 'Atlantis': {ISLANDS}")


def test_parquet_is_refused_because_a_few_bytes_of_it_can_be_millions_of_rows(url: str) -> None:
    parquet = io.BytesIO()
    pd.DataFrame(records(GENTOO, ADELIE)).to_parquet(parquet)
    answer = ask(url, parquet.getvalue(), "application/vnd.apache.parquet")
    assert (answer.status_code, sentence(answer)) == (
        415,
        "This server only supports the following content types: application/json, text/csv. "
        "Got 'application/vnd.apache.parquet'.",
    )


def test_query_asks_it(url: str) -> None:
    answers = query.ask(url, pd.DataFrame(records(GENTOO, ADELIE), index=[7, 3]))
    assert answers["species"].to_dict() == {7: "Gentoo", 3: "Adelie"}
    with pytest.raises(ServerError) as refused:
        query.ask(url, pd.DataFrame(records(GENTOO, ["Atlantis", *ADELIE[1:]])))
    assert str(refused.value) == ("Island in row 2 of 2 is 'Atlantis': it must be one of Biscoe, Dream, Torgersen.")
    with pytest.raises(ServerError) as refused:
        query.ask(url, pd.DataFrame({"Island": ["Dream", "Dream"]}))
    assert str(refused.value) == (
        "Model is missing inputs ['CulmenLength', 'CulmenDepth', 'FlipperLength', 'BodyMass']."
    )


NUMBER = "it must be a finite number."
ISLANDS = "it must be one of Biscoe, Dream, Torgersen."


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("BodyMass", None, f"BodyMass in row 2 of 3 is nan: {NUMBER}"),
        ("BodyMass", math.nan, f"BodyMass in row 2 of 3 is nan: {NUMBER}"),
        ("CulmenDepth", math.inf, f"CulmenDepth in row 2 of 3 is inf: {NUMBER}"),
        ("CulmenDepth", -math.inf, f"CulmenDepth in row 2 of 3 is -inf: {NUMBER}"),
        ("Island", None, f"Island in row 2 of 3 is null: {ISLANDS}"),
        ("Island", "Atlantis", f"Island in row 2 of 3 is 'Atlantis': {ISLANDS}"),
        ("Island", ["Dream"], f"Island in row 2 of 3 is ['Dream']: {ISLANDS}"),
    ],
)  # fmt: skip
def test_one_bad_row_names_itself(url: str, column: str, value: object, said: str) -> None:
    answer = ask(url, {"dataframe_records": [LAB_REQUEST, {**LAB_REQUEST, column: value}, LAB_REQUEST]})
    assert (answer.status_code, sentence(answer)) == (400, said)


def test_numbers_too_large_to_compute_with_are_refused(url: str) -> None:
    huge = ["Dream", -1.7e308, 1.7e308, 1.7e308, 1.7e308]
    answer = ask(url, {"dataframe_records": records(GENTOO, huge, ADELIE)})
    assert answer.status_code == 400
    assert sentence(answer) == (
        "CulmenLength in row 2 of 3 is -1.7e+308: it must be a number small enough to compute with."
    )


NESTED = b"[" * 5000 + b"]" * 5000


@pytest.mark.parametrize(
    ("body", "content_type", "status", "said"),
    [
        (b'{"dataframe_records": ' + NESTED + b"}", JSON, 400, "(it is nested too deeply): send one of"),
        (b'{"inputs": [{"BodyMass": ' + b"9" * 5000 + b"}]}", JSON, 400, "(Exceeds the limit (4300 digits)"),
        (json.dumps({"dataframe_records": [LAB_REQUEST]}).encode(), None, 415, "only supports the following content"),
        (b"", JSON, 400, "Expecting value: line 1 column 1"),
        (b"Island\nBiscoe\n\xff", "text/csv", 400, "invalid start byte"),
        (b"{}", JSON, 400, "exactly one of the input fields"),
        (b"{}", "text/xml", 415, "Got 'text/xml'"),
    ],
    ids=["nested", "digits", "no content type", "empty", "not UTF-8", "no field", "XML"],
)
def test_what_cant_be_read_is_the_senders_mistake(
    url: str, body: bytes, content_type: str | None, status: int, said: str
) -> None:
    answer = ask(url, body, content_type)
    assert answer.status_code == status
    assert said in answer.text
    assert species(ask(url, {"dataframe_records": [LAB_REQUEST]})) == ["Gentoo"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"dataframe_records": "' + b"\x1b[31m" + b"x" * 2**20 + b'"}', "Invalid control character"),
        (json.dumps({"inputs": "\x1b[31m" + "x" * 2**20}).encode(), ""),
        (json.dumps({"\x1b[31m" + "x" * 2**20: 1}).encode(), "exactly one of the input fields"),
        (json.dumps({"dataframe_records": [{**LAB_REQUEST, "Island": "\x1b" * 2**20}]}).encode(), "Island in row 1"),
        (json.dumps({"dataframe_records": [{"\x1b[31m" + "x" * 2**20: 1}]}).encode(), "Model is missing inputs"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_whatever_was_sent(url: str, body: bytes, said: str) -> None:
    answer = ask(url, body)
    assert answer.status_code == 400
    assert said in sentence(answer)


def test_only_what_is_served_has_an_address(url: str) -> None:
    with requests.Session() as session:
        session.trust_env = False
        found = {path: session.get(f"{url}{path}") for path in ("/ping", "/health", "/version", "/invocations")}
        assert [answer.status_code for answer in found.values()] == [200, 200, 200, 405]
        assert found["/version"].text == mlflow.__version__
        for path in ("/", "/docs", "/redoc", "/openapi.json", "/invocations/"):
            answer = session.get(f"{url}{path}")
            assert answer.status_code == 404
            assert sentence(answer).startswith(f"There is no {path}: ask /invocations")


def application(limits: Limits, process: Any) -> http_app.Application:
    model = flavor.load_python_function("models:/penguin_predictor/1")
    return http_app.Application(model, limits, process)


async def post(app: http_app.Application, body: bytes, sent: list[Any]) -> tuple[int, str]:
    """The status and the sentence that the application sends for a CSV, without a server."""

    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"text/csv"), (b"content-length", str(len(body)).encode())]
    scope: Any = {"type": "http", "method": "POST", "path": "/invocations", "headers": headers}
    await app(scope, receive, send)
    return sent[-2]["status"], json.loads(sent[-1]["body"]).get("message", "")


LARGE_CSV = (",".join(COLUMNS) + "\n" + "Biscoe,48.7,14.1,210,4450\n" * 50_000).encode()


def test_a_fault_of_the_server_is_not_blamed_on_the_sender(folder: Path) -> None:
    sent: list[Any] = []
    with pytest.raises(AttributeError, match="answer"):
        asyncio.run(post(application(Limits(), "no process"), LARGE_CSV, sent))
    assert sent[0]["status"] == 500
    said = json.loads(sent[1]["body"])["message"]
    assert said == "The server failed to answer: started with --verbose, it shows why."


def test_after_the_deadline_nothing_goes_on_and_the_next_body_is_answered(folder: Path) -> None:
    task = Task(Tracking.local(folder), "models:/penguin_predictor/1", Limits())

    async def ask_three_times() -> list[Any]:
        process = ScoringProcess(task)
        hurried = application(Limits(answer_timeout=0.02), process)
        patient = application(Limits(answer_timeout=600), process)
        try:
            first = await post(patient, LARGE_CSV, [])
            working = [child for child in psutil.Process().children() if "penguins.scoring_process" in child.cmdline()]
            second = await post(hurried, LARGE_CSV, [])
            assert (await asyncio.to_thread(psutil.wait_procs, working, 60))[1] == []
            return [len(working), first, second, await post(patient, LARGE_CSV, [])]
        finally:
            await process.close()

    too_late = "There was no answer within 0.02 seconds: send fewer rows, or later."
    assert asyncio.run(ask_three_times()) == [1, (200, ""), (504, too_late), (200, "")]


# Bodies that nobody would send, by the hundreds.

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**30), 1e308, -1.7e308, 5e-324, math.nan, math.inf, -math.inf])
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["Biscoe", "Dream", "\ud800", "\x00", "𝔅𝔦𝔯𝔡", "x" * 100_000, "1e5", "NaN", ""])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
names = st.sampled_from([*COLUMNS, "Colour", "", "island", "0"]) | st.text(max_size=5)


@st.composite
def broken_records(draw: st.DrawFn) -> dict[str, Any]:
    record: dict[str, Any] = dict(LAB_REQUEST)
    for name in draw(st.sets(st.sampled_from(COLUMNS), max_size=2)):
        del record[name]
    return {**record, **draw(st.dictionaries(names, values, min_size=1, max_size=4))}


rows = st.lists(broken_records() | st.just(dict(LAB_REQUEST)) | values, max_size=4)
columns_of_values = st.dictionaries(names, st.lists(values, max_size=3) | values, max_size=6)
splits = st.fixed_dictionaries(
    {"data": st.lists(st.lists(values, max_size=6) | st.just(list(GENTOO)), max_size=3) | values},
    optional={
        "columns": st.permutations(COLUMNS) | st.lists(names, max_size=7) | st.just([*COLUMNS, "BodyMass"]) | values,
        "index": st.lists(scalars, max_size=3) | values,
        "more": values,
    },
)
fields = st.sampled_from(["dataframe_records", "dataframe_split", "inputs", "instances", "params", "messages", "input"])
documents = (
    st.builds(lambda field, value: {field: value}, fields, rows | splits | columns_of_values | values)
    | st.builds(lambda given: {"dataframe_records": given}, rows)
    | st.builds(lambda given: {"dataframe_split": given}, splits)
    | st.dictionaries(fields, rows | splits | values, max_size=3)
    | values
)
json_bodies = documents.map(lambda document: json.dumps(document).encode())


@st.composite
def damaged_bodies(draw: st.DrawFn) -> bytes:
    """A body with bytes cut off, put in, written in another encoding, nested too deeply or with a key twice."""
    body = draw(json_bodies)
    at = draw(st.integers(0, len(body)))
    junk = draw(
        st.binary(max_size=6)
        | st.sampled_from([b"\xff\xfe", b"NaN", b"1" * 5000, b"[" * 3000, b'"a":1,"a":2', b"\x00"])
    )
    return draw(
        st.sampled_from([body[:at], body[:at] + junk + body[at:], junk, body.decode().encode("utf-16"), b"[" * 100_000])
    )


cells = st.sampled_from(
    ["Biscoe", "48.7", "210", "", "NaN", "inf", "-1e999", "true", '"', "x,y", "\x00", "é", "1" * 5000]
)
csv_bodies = st.builds(
    lambda header, lines: "\n".join(",".join(line) for line in [header, *lines]).encode(),
    st.permutations(COLUMNS) | st.lists(st.sampled_from([*COLUMNS, "x"]), max_size=7),
    st.lists(st.lists(cells, max_size=7), max_size=4),
)
wide_bodies = st.builds(
    lambda names, line, count: (",".join(names) + ("\n" + ",".join(map(str, line))) * count).encode(),
    st.integers(90, 1500).map(lambda count: [*COLUMNS, *(f"c{number}" for number in range(count))]),
    st.integers(0, 1500).map(lambda count: [*GENTOO, *range(count)]),
    st.integers(0, 3),
)
content_types = st.sampled_from(
    [None, "", JSON, "APPLICATION/JSON;;", 'text/csv; Charset="utf-8"', "text/csv; header=present",
     "application/json; charset=latin1", "application/json; x=1", "text/csv", "text/xml", ";", "é",
     "application/vnd.apache.parquet"]
)  # fmt: skip
questions = st.one_of(
    st.tuples(json_bodies, st.just(JSON)),
    st.tuples(json_bodies, st.just(JSON)),
    st.tuples(damaged_bodies(), st.just(JSON)),
    st.tuples(csv_bodies, st.just("text/csv")),
    st.tuples(wide_bodies, st.just("text/csv")),
    st.tuples(csv_bodies | damaged_bodies() | st.binary(), content_types),
)


def rows_of(body: bytes) -> int:
    """How many rows a body that was answered has."""
    if not body.lstrip().startswith(b"{"):
        return len([line for line in body.decode().splitlines() if line]) - 1
    [table] = [value for name, value in json.loads(body).items() if name != "params"]
    table = table["data"] if isinstance(table, dict) and "data" in table else table
    if isinstance(table, list):
        return len(table)
    return max(len(column) if isinstance(column, list) else 1 for column in table.values())


def test_whatever_is_sent_is_answered_or_refused(url: str) -> None:
    refused, answered = set(), set()
    at = urlsplit(url)
    connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=60)

    def no_number(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    @settings(max_examples=750, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(questions)
    def send(question: tuple[bytes, str | None]) -> None:
        body, content_type = question
        headers = {} if content_type is None else {"Content-Type": content_type.encode("latin-1")}
        connection.request("POST", "/invocations", body, headers)
        answer = connection.getresponse()
        said = answer.read().decode()
        assert answer.status in {200, 400, 413, 415}, said
        assert "Traceback" not in said
        assert len(said) < 6 * 1_100
        if answer.headers["Content-Type"] == JSON:
            parsed = json.loads(said, parse_constant=no_number)
        if answer.status != 200:
            refused.add(question)
            return
        answered.add(question)
        assert len(parsed["predictions"]) == rows_of(body)
        for prediction in parsed["predictions"]:
            probabilities = [prediction[f"probability_{name}"] for name in ("Adelie", "Gentoo", "Chinstrap")]
            assert sum(probabilities) == pytest.approx(1)

    send()
    connection.close()
    assert len(refused) >= 500
    assert answered, "some are right by chance, or nothing but the door was tried"
    assert species(ask(url, {"dataframe_records": [LAB_REQUEST]})) == ["Gentoo"]


def test_20000_questions_from_16_sides_leave_memory_as_it_was(url: str, folder: Path) -> None:
    at = urlsplit(url)
    body = json.dumps({"dataframe_records": [LAB_REQUEST]})
    failures: list[bytes] = []

    def send(count: int) -> None:
        connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=60)
        for _ in range(count):
            connection.request("POST", "/invocations", body, {"Content-Type": JSON})
            answer = connection.getresponse()
            said = answer.read()
            if answer.status != 200 or b'"Gentoo"' not in said:
                failures.append(said)
        connection.close()

    def from_16_sides(count: int) -> int:
        threads = [threading.Thread(target=send, args=(count // 16,)) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return int(server.memory_info().rss)

    server = server_of_the_module()
    warm = from_16_sides(2_000)
    end = from_16_sides(20_000)
    assert failures == []
    assert end < 1.1 * warm


# One sender who wants the server for himself.


@pytest.fixture(scope="module")
def tight(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The address and the process of a server that may open 256 files, and waits for nobody."""
    options = ["--header-timeout", "1", "--body-timeout", "1", "--idle-timeout", "1", "--max-requests", "16"]
    with start(folder, "--json", "--port", "0", *options, "--max-body-mb", "1", open_files=256) as server:
        try:
            assert server.stdout is not None
            yield json.loads(server.stdout.readline())["url"], psutil.Process(server.pid)
        finally:
            server.terminate()


def connect(url: str, sent: bytes = b"") -> socket.socket:
    at = urlsplit(url)
    connection = socket.create_connection((at.hostname, at.port), timeout=60)
    connection.sendall(sent)
    return connection


def until_closed(connection: socket.socket) -> str:
    """All that the server says before it closes the connection."""
    with connection, contextlib.suppress(ConnectionResetError):
        said = b""
        while part := connection.recv(65536):
            said += part
    return said.decode()


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
TINY = b"1\r\nx\r\n"
HEAD = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        (b"", 408, "The header of the request didn't arrive in time."),
        (b"POST /invocations HTTP/1.1\r\nHost:", 408, "The header of the request didn't arrive in time."),
        (HEAD + b"Content-Length: 9\r\n\r\nIsland", 408, "The body didn't arrive within 1 seconds"),
        (HEAD + CHUNKED + b"6\r\nIsland", 408, "The body didn't arrive within 1 seconds"),
        (HEAD + b"Content-Length: 9999999999\r\n\r\nIsland", 413, "The body is larger than 1 MB"),
        (HEAD + CHUNKED + TINY * 2000, 400, "The chunks of the body are too small"),
        (HEAD + b"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\nIsland", 415, "takes no content encoding"),
        (b"GET /ping HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx", 200, ""),
        (b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n", 200, ""),
    ],
    ids=["silence", "half a header", "half a body", "half a chunk", "too large", "tiny chunks", "gzip", "ping", "idle"],
)  # fmt: skip
def test_who_keeps_the_server_waiting_is_told_and_left(
    tight: tuple[str, psutil.Process], sent: bytes, status: int, said: str
) -> None:
    heard = until_closed(connect(tight[0], sent))
    assert heard.startswith(f"HTTP/1.1 {status} ")
    assert said in heard


def test_a_body_that_never_ends_is_cut_off(tight: tuple[str, psutil.Process]) -> None:
    _, server = tight
    before = server.memory_info().rss

    def send() -> str:
        connection = connect(tight[0], HEAD + CHUNKED)
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(b"10000\r\n" + b"x" * 2**16 + b"\r\n")
        return until_closed(connection)

    with ThreadPoolExecutor(20) as senders:
        heard = [sender.result() for sender in [senders.submit(send) for _ in range(20)]]
    # Two at a time may send a large body; the others are told so at once.
    assert {said[:12] for said in heard} <= {"HTTP/1.1 413", "HTTP/1.1 503"}
    assert [said for said in heard if "The body is larger than 1 MB" in said]
    assert server.memory_info().rss < before + 100 * 2**20


def test_400_half_open_connections_lock_nobody_out(tight: tuple[str, psutil.Process]) -> None:
    url, server = tight
    with contextlib.ExitStack() as open_connections:
        for _ in range(400):
            open_connections.enter_context(connect(url, b"POST /invocations HTTP/1.1\r\nHost:"))
        for _ in range(5):
            assert species(ask(url, {"dataframe_records": [LAB_REQUEST]})) == ["Gentoo"]
        assert server.num_fds() < 256
    assert has_few_files(server)


def has_few_files(server: psutil.Process) -> bool:
    """Whether the server closes what it had opened, when it has had time to."""
    for _ in range(600):
        if server.num_fds() < 40:
            return True
        threading.Event().wait(0.1)
    return False


def test_beyond_what_it_can_do_at_a_time_the_server_says_so_at_once(url: str) -> None:
    """A large body has a place from its first bytes, so places can be taken by sending no more."""
    with contextlib.ExitStack() as places:
        for _ in range(8):
            places.enter_context(connect(url, HEAD + b"Content-Length: 100000\r\n\r\n" + b"x" * 50_000))
        answers = [ask(url, LARGE_CSV, "text/csv")]
        while answers[-1].status_code == 200:  # the server hasn't read them all yet
            answers.append(ask(url, LARGE_CSV, "text/csv"))
        assert (answers[-1].status_code, answers[-1].headers["Retry-After"]) == (503, "1")
        assert sentence(answers[-1]) == (
            "The server has as many requests as it answers at a time: ask again in a second."
        )
        assert species(ask(url, {"dataframe_records": [LAB_REQUEST]})) == ["Gentoo"]


def test_others_are_answered_while_one_attacks_and_nothing_is_left_of_it(url: str) -> None:
    """What is sent here are the kinds that kept a server from others, each from four sides."""
    server = server_of_the_module()
    wide = ",".join(f"c{number}" for number in range(20_000))
    attacks = [
        (f"{wide}\n{wide}\n".encode(), "text/csv", 413),
        ((",".join(f"c{number}" for number in range(900)) + "\n1\n").encode(), "text/csv", 400),
        (json.dumps({"dataframe_records": [{f"c{number}": 1 for number in range(40_000)}]}).encode(), JSON, 413),
        (b'{"inputs": [' + b"[]," * 1_000_000 + b"[]]}", JSON, 413),
        (b"x" * (17 * 2**20), JSON, 413),
        (LARGE_CSV, "application/vnd.apache.parquet", 415),
        (LARGE_CSV, "text/csv", 200),
    ]  # fmt: skip
    assert species(ask(url, LARGE_CSV, "text/csv"))[-1] == "Gentoo"  # now the other process is there, too
    files, memory = server.num_fds(), memory_of(server)

    def attack(body: bytes, kind: str, status: int) -> set[int]:
        return {ask(url, body, kind).status_code for _ in range(4)} - {status, 503}

    with ThreadPoolExecutor(28) as attackers:
        under_way = [attackers.submit(attack, *one) for one in attacks * 4]
        answers: list[list[str]] = []
        while not all(one.done() for one in under_way) or not answers:
            answers.append(species(ask(url, {"dataframe_records": [LAB_REQUEST]})))
    assert answers == [["Gentoo"]] * len(answers)
    assert [one.result() for one in under_way] == [set()] * 28
    for _ in range(600):
        if server.num_fds() <= files and memory_of(server) < 1.5 * memory:
            break
        threading.Event().wait(0.1)
    assert server.num_fds() <= files
    assert memory_of(server) < 1.5 * memory


def memory_of(server: psutil.Process) -> int:
    return sum(process.memory_info().rss for process in [server, *server.children(recursive=True)])


# Starting and stopping.


def start(folder: Path, *options: str, open_files: int = 1024) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return subprocess.Popen(
        ["sh", "-c", f'ulimit -n {open_files}; exec "$@"', "sh", PENGUINS, "serve", *options],
        cwd=folder,
        env={**environment, "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_the_command_says_how_to_ask_it_and_stops_cleanly(folder: Path, stop: signal.Signals) -> None:
    with start(folder, "--port", "0") as server:
        try:
            assert server.stdout is not None
            first, *rest = (server.stdout.readline() for _ in range(4))
            address = first.split()[6]
            shown = dict(page_commands())["penguins serve"].replace("http://127.0.0.1:5000", address)
            assert shown.splitlines() == [first.rstrip(), *(line.rstrip() for line in rest)]
            asked = subprocess.run(shlex.split(rest[-1]), capture_output=True, text=True)
            assert json.loads(asked.stdout)["predictions"][0]["species"] == "Gentoo"
            children = psutil.Process(server.pid).children(recursive=True)
            loaded = {Path(entry.path).name for entry in psutil.Process(server.pid).memory_maps()}
        finally:
            os.killpg(server.pid, stop)
        assert server.wait(timeout=30) == 0
        assert server.stderr is not None
        assert server.stderr.read() == ""
    assert children == [], "everything happens in the one process, and no JVM is started"
    assert not [name for name in loaded if "jvm" in name]
    with pytest.raises(requests.ConnectionError):
        ask(address, {"dataframe_records": [LAB_REQUEST]})


def test_the_end_comes_whatever_runs_and_an_open_address_is_warned_of(folder: Path) -> None:
    with start(folder, "--json", "--host", "0.0.0.0", "--port", "0", "--body-timeout", "600") as server:
        assert server.stdout is not None
        address = json.loads(server.stdout.readline())["url"].replace("0.0.0.0", "127.0.0.1")
        with connect(address, HEAD + b"Content-Length: 9\r\n\r\nIsland"), ThreadPoolExecutor(1) as asking:
            asked = asking.submit(ask, address, b'{"inputs": [' + b"[]," * 5_000_000 + b"[]]}")
            while not (working := psutil.Process(server.pid).children()):
                assert not asked.done()
            server.terminate()
            assert server.wait(timeout=60) == 0
            assert asked.exception() is not None or asked.result().status_code in {413, 503}
        assert psutil.wait_procs(working, timeout=60)[1] == []
        assert server.stderr is not None
        assert server.stderr.read() == (
            "Warning: 0.0.0.0 is open to the network, and nobody is asked for a password: "
            "put something in front of the server that does, or leave --host out.\n"
        )


def test_a_process_that_goes_on_is_ended() -> None:
    """As one that waits for a thread would."""
    endless = """
import sys
from penguins.http_server import HardEnd
end = HardEnd(lambda: print("first", flush=True), 0.1)
end.start()
while True:
    pass
"""
    ended = subprocess.run([sys.executable, "-c", endless], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "first\n", "")


def test_a_version_is_served_on_when_the_alias_moves(url: str, folder: Path) -> None:
    client = mlflow.MlflowClient()
    client.delete_registered_model_alias("penguin_predictor", CHAMPION)
    try:
        assert species(ask(url, {"dataframe_records": [LAB_REQUEST]})) == ["Gentoo"]
        with pytest.raises(ServerError) as told, serve.serving():
            pass
    finally:
        client.set_registered_model_alias("penguin_predictor", CHAMPION, "1")
    assert str(told.value) == (
        "penguin_predictor doesn't have the alias champion: "
        "`penguins train` makes a version, `penguins promote` the champion."
    )


def test_the_server_ends_with_the_block_and_with_a_process_that_is_killed(folder: Path) -> None:
    holding = """
import sys, time
from penguins import serve, tracking
tracking.Tracking.local(sys.argv[1]).activate()
with serve.serving() as url:
    print(url, flush=True)
    time.sleep(600)
"""
    command = [sys.executable, "-W", "ignore", "-c", holding, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        address = holder.stdout.readline().strip()
        servers = psutil.Process(holder.pid).children(recursive=True)
        assert species(ask(address, {"dataframe_records": [LAB_REQUEST]})) == ["Gentoo"]
        holder.kill()
    assert len(servers) == 1
    assert psutil.wait_procs(servers, timeout=30)[1] == []


def never(version: Version, url: str) -> None:
    raise AssertionError(f"{version} is ready at {url}")


def test_a_busy_port_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    with serve.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with start(tmp_path, "--port", str(port)) as server:
            _, said = server.communicate(timeout=60)
    assert server.returncode == 1
    assert said == f"Error: 127.0.0.1:{port} can't be used (Address already in use): give another --port.\n"
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_none_is_told() -> None:
    with pytest.raises(ServerError) as told:
        serve.listen("127.0.0.1", 70_000)
    assert str(told.value) == (
        "127.0.0.1:70000 can't be used (a port is a number from 0 to 65535): give another --port."
    )


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("192.0.2.1", "Cannot assign requested address"),
        ("ü..b", "no host has such a name"),
        ("a..b", r"[^()]+"),
        ("nowhere.invalid", r"[^()]+"),
    ],
)
def test_a_host_that_isnt_this_machine_is_told_as_such(host: str, reason: str) -> None:
    with pytest.raises(ServerError) as told:
        serve.listen(host, 0)
    assert re.fullmatch(rf"{re.escape(host)}:0 can't be used \({reason}\): give another --host\.", str(told.value))


def test_small_answers_are_sent_at_once() -> None:
    """Held back until the client acknowledges what came before, each would take 40 ms more."""

    async def is_undelayed(listener: socket.socket) -> bool:
        undelayed: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def accepted(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("socket")
            undelayed.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(accepted, sock=listener):
            _, client = await asyncio.open_connection(*listener.getsockname()[:2])
            answer = bool(await undelayed)
            client.close()
            await client.wait_closed()
        return answer

    assert asyncio.run(is_undelayed(serve.listen("127.0.0.1", 0)))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("models:/emperor@champion", "There is no registered model emperor: `penguins train` makes one."),
        ("models:/penguin_predictor/7", "penguin_predictor doesn't have a version 7: "
         "`penguins train` makes a version, `penguins promote` the champion."),
        ("penguin_predictor", "penguin_predictor names no version: give models:/name@alias or models:/name/number."),
    ],
)  # fmt: skip
def test_a_model_that_isnt_there_is_told(folder: Path, model: str, said: str) -> None:
    with pytest.raises(ModelError) as told:
        serve.serve(Tracking.local(folder), model, "127.0.0.1", 0, never)
    assert str(told.value) == said


def test_a_version_without_its_files_is_told(folder: Path) -> None:
    client = mlflow.MlflowClient()
    client.create_model_version("penguin_predictor", f"{folder}/gone")
    with pytest.raises(ModelError) as told:
        serve.serve(Tracking.local(folder), "models:/penguin_predictor/2", "127.0.0.1", 0, never)
    assert str(told.value) == (
        "models:/penguin_predictor/2 can't be loaded: there is no file MLmodel in its folder, or no folder: its files "
        "are gone."
    )


def test_a_store_that_isnt_there_is_told_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as told:
        serve.serve(Tracking.local(tmp_path), DEFAULT_MODEL_URI, "127.0.0.1", 0, never)
    assert str(told.value) == f"There is no mlflow.db in {tmp_path}: run `penguins train` first."
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_down_is_told_in_seconds(tmp_path: Path) -> None:
    with socket.socket() as nobody:  # bound, but it doesn't listen
        nobody.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(StoreError) as told:
            serve.serve(Tracking(address), DEFAULT_MODEL_URI, "127.0.0.1", 0, never)
    assert str(told.value) == (
        f"The MLflow server {address} doesn't answer (ConnectionError): "
        "start it, or name another one (--tracking-uri, MLFLOW_TRACKING_URI)."
    )


# The page about it.

PAGE = (ROOT / "docs" / "serving.md").read_text()


def page_commands() -> list[tuple[str, str]]:
    """The commands of docs/serving.md, each with the output shown below it."""
    console = "".join(re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    return [(command, shown) for command, _, shown in (part.partition("\n") for part in console.split("$ ")[1:])]


def shell(command: str, folder: Path) -> str:
    """What a user of the environment that the tests run in sees."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "80"}
    return subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env={**environment, "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ).stdout


def test_the_page_shows_what_query_and_curl_really_say(url: str, tmp_path: Path) -> None:
    asking = [pair for pair in page_commands() if "query" in pair[0] or "/invocations" in pair[0]]
    assert len(asking) == 4
    for command, shown in asking:
        here = command.replace("http://127.0.0.1:5000", url).replace("penguins query", f"penguins query --url {url}")
        said = shell(here, tmp_path)
        if shown.startswith("{"):
            [expected], [got] = (json.loads(text)["predictions"] for text in (shown, said))
            assert got == {name: pytest.approx(value, abs=1e-8) for name, value in expected.items()}
        else:
            assert said == shown


def test_the_pages_python_runs(folder: Path, tmp_path: Path) -> None:
    [python] = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "page.py").write_text(python)
    store = Tracking.local(folder).tracking_uri
    assert (
        shell(f"MLFLOW_TRACKING_URI={store} python -W ignore {tmp_path}/page.py", tmp_path)
        == "['Gentoo', 'Chinstrap']\n"
    )


# The container.


def test_the_dockerfile_for_the_champion_has_no_java(folder: Path, tmp_path: Path) -> None:
    copying, making = (command for command, _ in page_commands()[-2:])
    store = Tracking.local(folder).tracking_uri
    said = shell(copying.replace("sqlite:///mlflow.db", store), tmp_path) + shell(making, tmp_path)
    image = tmp_path / "image"
    assert image.is_dir(), said
    dockerfile = (image / "Dockerfile").read_text()
    assert f"FROM python:{platform.python_version()}-slim" in dockerfile
    assert "COPY model_dir/champion /opt/ml/model" in dockerfile
    assert not [word for word in ("java", "jdk", "jvm", "maven") if word in dockerfile.lower()]
    inside = image / "model_dir" / "champion"
    assert set(mlflow.models.Model.load(str(inside)).flavors) == {"onnx", "python_function"}
    assert not (inside / "sparkml").exists()
    birds = pd.DataFrame(records(GENTOO, ADELIE))
    assert flavor.load_scorer(str(inside)).predict(birds)["species"].tolist() == ["Gentoo", "Adelie"]


def test_what_is_there_is_not_overwritten_by_a_copy_for_a_container(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as told:
        flavor.save_without_spark(DEFAULT_MODEL_URI, tmp_path)
    assert str(told.value) == f"{tmp_path} exists already: give a path that doesn't, or remove it first."
    with pytest.raises(ModelError, match=r"^models:/emperor/1 can't be loaded: .*emperor"):
        flavor.save_without_spark("models:/emperor/1", tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []
