"""Asking a scoring server: a real one, and the many things that can answer in its place."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from penguins import query, serve
from penguins.cli import main
from penguins.errors import DataError, ParameterError, ServerError

GENTOO = {"Island": "Biscoe", "CulmenLength": 48.7, "CulmenDepth": 14.1, "FlipperLength": 210, "BodyMass": 4450}
ADELIE = {"Island": "Dream", "CulmenLength": 39.1, "CulmenDepth": 18.7, "FlipperLength": 181, "BodyMass": 3750}
ANSWERS = [
    {"prediction": 1, "species": "Gentoo", "probability_Adelie": 0.25, "probability_Gentoo": 0.75},
    {"prediction": 0, "species": "Adelie", "probability_Adelie": 1.0, "probability_Gentoo": 0.0},
]


class Anything(BaseHTTPRequestHandler):
    """A server that answers whatever a test wants, and keeps what it was asked."""

    status, body, pause = 200, b"", 0.0
    headers_sent: tuple[tuple[str, str], ...] = ()
    asked: tuple[str, dict[str, Any]] = ("", {})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).asked = (self.path, asked)
        time.sleep(self.pause)
        self.send_response(self.status)
        for header in self.headers_sent:
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(self.body)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Say nothing."""


class Quiet(HTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away isn't worth a traceback."""


@pytest.fixture
def server() -> Iterator[type[Anything]]:
    handler = type("Once", (Anything,), {"body": json.dumps({"predictions": ANSWERS}).encode()})
    with Quiet(("127.0.0.1", 0), handler) as http:
        handler.url = f"http://127.0.0.1:{http.server_port}"  # type: ignore[attr-defined]  # made here
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield handler
        http.shutdown()
        thread.join()


def url_of(server: type[Anything]) -> str:
    return str(server.url)  # type: ignore[attr-defined]  # the fixture's


def birds() -> pd.DataFrame:
    return pd.DataFrame([GENTOO, ADELIE], index=[7, 3])


def complaint(url: str, rows: pd.DataFrame | None = None, **options: float) -> str:
    with pytest.raises(ServerError) as told:
        query.ask(url, birds() if rows is None else rows, **options)
    return str(told.value)


def test_each_row_gets_its_answer_under_its_index(server: type[Anything]) -> None:
    expected = pd.DataFrame(ANSWERS, index=[7, 3])
    pd.testing.assert_frame_equal(query.ask(url_of(server), birds()), expected)
    assert server.asked == (
        "/invocations",
        {
            "dataframe_split": {
                "columns": ["Island", "CulmenLength", "CulmenDepth", "FlipperLength", "BodyMass"],
                "data": [["Biscoe", 48.7, 14.1, 210, 4450], ["Dream", 39.1, 18.7, 181, 3750]],
            }
        },
    )


@pytest.mark.parametrize("ending", ["/", "/invocations", "/invocations/"])
def test_the_address_may_end_as_it_likes(server: type[Anything], ending: str) -> None:
    query.ask(url_of(server) + ending, birds())
    assert server.asked[0] == "/invocations"


def test_numbers_arrive_whole_and_gaps_as_null(server: type[Anything]) -> None:
    query.ask(url_of(server), pd.DataFrame({"x": [1 / 3, None], "y": ["a", None]}))
    assert server.asked[1]["dataframe_split"]["data"] == [[1 / 3, "a"], [None, None]]


def test_bare_values_are_predictions_too(server: type[Anything]) -> None:
    server.body = b'{"predictions": [1.0, 0.0]}'
    assert query.ask(url_of(server), birds())["prediction"].to_dict() == {7: 1.0, 3: 0.0}


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("Failed to predict data '  Island\n0  X'. \nError: Island in row 1 of 1 is 'X': it must be one of A, B.",
         "Island in row 1 of 1 is 'X': it must be one of A, B."),
        ("Failed to enforce schema of data ' Island\n0 X' with schema '[]'. Error: Model is missing inputs ['Depth'].",
         "Model is missing inputs ['Depth']."),
        ("Failed to convert column Depth.\nError: 'ValueError(1)'",
         "Failed to convert column Depth. Error: 'ValueError(1)'"),
        ("Too many birds.", "Too many birds."),
    ],
)  # fmt: skip
def test_what_the_server_says_is_told(server: type[Anything], message: str, said: str) -> None:
    server.status, server.body = 400, json.dumps({"error_code": "BAD_REQUEST", "message": message}).encode()
    assert complaint(url_of(server)) == said


@pytest.mark.parametrize(
    ("status", "body", "shown"),
    [
        (200, b"<html>", "200 OK"),
        (200, b"[1, 2]", "200 OK"),
        (200, b'{"predictions": "two"}', "200 OK"),
        (404, b'{"detail": "Not Found"}', "404 Not Found"),
        (502, b"", "502 Bad Gateway"),
        (599, b"\xff", "599"),
    ],
)
def test_what_is_no_scoring_server_is_told(server: type[Anything], status: int, body: bytes, shown: str) -> None:
    server.status, server.body = status, body
    url = url_of(server)
    assert complaint(url) == f"{url} answered without predictions ({shown}): is it a scoring server?"


def test_another_number_of_answers_is_told(server: type[Anything]) -> None:
    url = url_of(server)
    said = complaint(url, pd.DataFrame([GENTOO, ADELIE, GENTOO]))
    assert said == f"{url} answered 2 predictions to 3 rows: is it a scoring server?"


def test_a_server_that_takes_too_long_is_told(server: type[Anything]) -> None:
    server.pause = 0.5
    url = url_of(server)
    said = complaint(url, timeout=0.05)
    assert said == f"{url} didn't answer within 0.05 seconds: ask for fewer rows, or later."


@pytest.mark.parametrize("header", [("Content-Length", "1000"), ("Transfer-Encoding", "chunked")])
def test_a_server_that_ends_in_the_middle_of_its_answer_is_told(
    server: type[Anything], header: tuple[str, str]
) -> None:
    server.headers_sent = (header,)
    url = url_of(server)
    assert complaint(url) == (f"{url}/invocations gave no whole answer: ask again, and look what the server says.")


def test_an_address_where_nobody_is_is_told() -> None:
    with serve.listen("127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    assert complaint(url) == f"Nothing answers at {url}: run `penguins serve`, or give another --url."


def test_a_password_in_an_address_is_not_told() -> None:
    with serve.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
    said = complaint(f"http://me:secret@127.0.0.1:{port}")
    assert said.startswith(f"Nothing answers at http://***@127.0.0.1:{port}: ")


@pytest.mark.parametrize(
    "url", ["penguins", "127.0.0.1:5000", "ftp://127.0.0.1", "http://", "http://[::1", "http://:80"]
)
def test_what_is_no_address_is_told(url: str) -> None:
    assert complaint(url) == f"{url} can't be asked: give an address such as http://127.0.0.1:5000."


# Files and records.


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("birds.csv", "Island,BodyMass\nDream,3750\nBiscoe,4450\n"),
        ("birds.json", '[{"Island": "Dream", "BodyMass": 3750}, {"Island": "Biscoe", "BodyMass": 4450}]'),
        ("birds.jsonl", '{"Island": "Dream", "BodyMass": 3750}\n\n{"Island": "Biscoe", "BodyMass": 4450}\n'),
        ("birds.ndjson", '{"Island": "Dream", "BodyMass": 3750}\n{"BodyMass": 4450, "Island": "Biscoe"}'),
    ],
)
def test_rows_come_from_csv_and_json_files(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    expected = pd.DataFrame({"Island": ["Dream", "Biscoe"], "BodyMass": [3750, 4450]})
    pd.testing.assert_frame_equal(query.read(tmp_path / name), expected)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("birds.csv", "Island,BodyMass\n", "{} has no rows: give at least one."),
        ("birds.csv", "", "{} can't be read: No columns to parse from file"),
        ("birds.json", "[]", "{} has no rows: give at least one."),
        ("birds.json", "[1]", "{} can't be read: it must be a JSON object with a value for each column, "
         "or a list of such objects"),
        ("birds.jsonl", '{"a": 1}\n{', "{} can't be read: Expecting property name enclosed in double quotes: "
         "line 1 column 2 (char 1)"),
        ("birds.xlsx", "x", "{} ends in .xlsx: give a file that ends in .csv, .parquet, .json or .jsonl."),
        ("birds", "x", "{} ends in nothing: give a file that ends in .csv, .parquet, .json or .jsonl."),
    ],
)  # fmt: skip
def test_a_file_without_rows_is_told(tmp_path: Path, name: str, text: str, said: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(DataError) as told:
        query.read(file)
    assert str(told.value) == said.format(file)


def test_a_file_that_isnt_there_or_has_other_bytes_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError) as told:
        query.read(tmp_path)
    assert str(told.value) == f"{tmp_path} is no file: give one that ends in .csv, .parquet, .json or .jsonl."
    (tmp_path / "x.json").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"x\.json can't be read: 'utf-8' codec can't decode byte 0xff"):
        query.read(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ("Biscoe", "Expecting value: line 1 column 1 (char 0)"),
        ("3", "it must be a JSON object with a value for each column, or a list of such objects"),
        ("{}", "it must be a JSON object with a value for each column, or a list of such objects"),
        ("[]", "it has no rows"),
    ],
)
def test_a_record_that_is_none_is_told(record: str, reason: str) -> None:
    with pytest.raises(ParameterError) as told:
        query.parse(record)
    assert str(told.value) == (
        f'The record can\'t be read ({reason}): give one such as {{"Island": "Biscoe", "CulmenLength": 48.7, '
        '"CulmenDepth": 14.1, "FlipperLength": 210, "BodyMass": 4450}'
    )


# The command.


def run(*options: str) -> Result:
    return CliRunner().invoke(main, ["query", *options], env={"COLUMNS": "80"})


def test_the_command_asks_about_the_labs_bird_and_shows_a_table(server: type[Anything]) -> None:
    server.body = json.dumps({"predictions": ANSWERS[:1]}).encode()
    result = run("--url", url_of(server))
    assert result.exit_code == 0, result.output
    assert server.asked[1]["dataframe_split"]["data"] == [["Biscoe", 48.7, 14.1, 210, 4450]]
    [line] = [line for line in result.output.splitlines() if "Biscoe" in line]
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    assert cells == ["Biscoe, 48.7, 14.1, 210, 4450", "Gentoo", "0.250000", "0.750000"]


def test_the_command_prints_one_json_object(server: type[Anything], tmp_path: Path) -> None:
    birds().to_csv(tmp_path / "birds.csv", index=False)
    result = run("--url", url_of(server), "--data", str(tmp_path / "birds.csv"), "--json")
    assert json.loads(result.stdout) == {"predictions": ANSWERS}
    assert len(result.stdout.splitlines()) == 1


def test_of_many_rows_the_first_are_shown(server: type[Anything]) -> None:
    server.body = json.dumps({"predictions": ANSWERS * 11}).encode()
    result = run("--url", url_of(server), "--record", json.dumps([GENTOO, ADELIE] * 11))
    assert len([line for line in result.output.splitlines() if "Dream" in line]) == 10
    assert result.output.splitlines()[-1] == "These are the first 20 of 22 rows; --json gives all of them."


def test_a_refusal_is_one_sentence_and_exit_1(server: type[Anything]) -> None:
    server.status, server.body = 400, b'{"message": "Too many birds."}'
    result = run("--url", url_of(server))
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "Error: Too many birds.\n")


def test_a_record_and_a_file_at_once_are_wrong_usage() -> None:
    result = run("--record", "{}", "--data", "birds.csv")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == "Error: Give --record or --data, not both."


def test_what_a_terminal_would_obey_reaches_none(server: type[Anything], tmp_path: Path) -> None:
    (tmp_path / "birds.csv").write_text("Isl\x1b[31mand,BodyMass\nDre\x1b]0;x\x07am,3750\nBiscoe,4450\n")
    result = run("--url", url_of(server), "--data", str(tmp_path / "birds.csv"))
    assert (result.exit_code, set(result.output) & set("\x1b\x07")) == (0, set())
    assert r"Isl\x1b[31mand" in result.stdout
    server.status, server.body = 400, json.dumps({"message": "Island is \x1b[2JDream\nor not."}).encode()
    result = run("--url", url_of(server))
    assert result.stderr == "Error: Island is \\x1b[2JDream or not.\n"
    # What isn't ours is told by its kind, and is as harmless; JSON has escapes of its own.
    server.status, server.body = 200, json.dumps({"predictions": [{"species": "Ade\x1blie"}]}).encode()
    assert run("--url", url_of(server), "--json").stdout == '{"predictions": [{"species": "Ade\\u001blie"}]}\n'
