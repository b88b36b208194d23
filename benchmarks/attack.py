"""How long an honest question takes while somebody attacks the server, beside how long it takes in peace."""

from __future__ import annotations

import contextlib
import http.client
import json
import multiprocessing
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil

HOST = "127.0.0.1"
WIDE = ",".join(f"c{number}" for number in range(20_000))
MANY = "Island,CulmenLength,CulmenDepth,FlipperLength,BodyMass\n" + "Biscoe,48.7,14.1,210,4450\n" * 50_000
HEAD = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"

BODIES = {
    "many columns": (f"{WIDE}\n{WIDE}\n".encode(), "text/csv"),
    "many columns in JSON": (json.dumps({"inputs": [dict.fromkeys(WIDE.split(","), 1)]}).encode(), "application/json"),
    "a million empty lists": (b'{"inputs": [' + b"[]," * 10**6 + b"[]]}", "application/json"),
    "many rows": (MANY.encode(), "text/csv"),
    "too large": (b"x" * (17 * 2**20), "application/json"),
    "Parquet": (b"PAR1" * 50_000, "application/vnd.apache.parquet"),
}

PAUSE = 0.05
"""Seconds between two attacks of one side. Attackers, honest clients and server share this machine, and an attacker
that never rests would take the processor from both, which says nothing about the server."""


REST = 15
"""Seconds after the attack, until it is looked what is left of it."""


def measure(process: psutil.Process, port: int, record: dict[str, Any], questions: int) -> dict[str, Any]:
    """Median and p99 of a question, in peace and under attack, and the server's memory and open files before and after.

    Seconds and GiB; p99 is what 99 of 100 questions don't exceed.
    """
    body = json.dumps({"dataframe_records": [record]})
    _send(port, MANY, "text/csv")  # the server's second process is there from now on
    quiet = _ask(port, body, questions)
    before = _weigh(process)
    with _attacked(port):
        attacked = _ask(port, body, questions)
    time.sleep(REST)
    after = _weigh(process)
    return {"quiet": quiet, "attacked": attacked, "before": before, "after": after}


def _ask(port: int, body: str, questions: int) -> dict[str, float]:
    connection = http.client.HTTPConnection(HOST, port, timeout=120)
    seconds = []
    for _ in range(questions):
        start = time.perf_counter()
        connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        said = answer.read()
        seconds.append(time.perf_counter() - start)
        if answer.status != http.HTTPStatus.OK:
            raise RuntimeError(f"{answer.status}: {said.decode()}")
    connection.close()
    return {"median": statistics.median(seconds), "p99": statistics.quantiles(seconds, n=100)[98]}


@contextlib.contextmanager
def _attacked(port: int) -> Iterator[None]:
    """Every kind of attack at once, each from a process of its own, until the block ends."""
    attacks: list[tuple[Callable[..., None], tuple[Any, ...]]] = [(_repeat, (port, *body)) for body in BODIES.values()]
    attacks += [(_never_end, (port,)), (_half_open, (port,))]
    processes = [multiprocessing.Process(target=attack, args=arguments, daemon=True) for attack, arguments in attacks]
    for process in processes:
        process.start()
    time.sleep(1)
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _repeat(port: int, body: bytes, kind: str) -> None:
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            _send(port, body, kind)
        time.sleep(PAUSE)


def _send(port: int, body: bytes | str, kind: str) -> None:
    connection = http.client.HTTPConnection(HOST, port, timeout=120)
    try:
        connection.request("POST", "/invocations", body, {"Content-Type": kind})
        connection.getresponse().read()
    finally:
        connection.close()


def _never_end(port: int) -> None:
    while True:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port)) as connection:
            connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
            while True:
                connection.sendall(b"10000\r\n" + b"x" * 2**16 + b"\r\n")
                time.sleep(PAUSE / 10)
        time.sleep(PAUSE)


def _half_open(port: int) -> None:
    connections: list[socket.socket] = []
    while True:
        with contextlib.suppress(OSError):
            connections.append(socket.create_connection((HOST, port)))
            connections[-1].sendall(HEAD)
        if len(connections) >= 500:
            connections.pop(0).close()
        time.sleep(PAUSE / 10)


def _weigh(process: psutil.Process) -> dict[str, float]:
    everything = [process, *process.children(recursive=True)]
    return {"gib": sum(one.memory_info().rss for one in everything) / 2**30, "files": process.num_fds()}
