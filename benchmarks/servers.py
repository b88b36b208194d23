"""Start a scoring server, see how soon it answers and how fast, and weigh it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

BETWEEN_LOOKS = 0.05
"""Seconds between two looks at whether a server is ready."""

DISCARDED = 10
"""Requests at the beginning, for which a JVM loads and compiles."""


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def measure(command: list[str], port: int, record: dict[str, Any], requests: int) -> dict[str, Any]:
    """Seconds until `command` answers on `port`, seconds of each request, and GiB of all its processes after them."""
    start = time.perf_counter()
    with running(command, port) as process:
        ready = time.perf_counter() - start
        seconds = _ask(port, record, requests)
        gib = sum(one.memory_info().rss for one in [process, *process.children(recursive=True)]) / 2**30
    return {"ready": ready, "requests": seconds, "gib": gib}


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[psutil.Process]:
    """The process of `command`, from when it answers on `port` to the end of the block."""
    # `mlflow models serve` calls uvicorn by its name.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with (
        Path(f"server-{port}.txt").open("w") as log,
        subprocess.Popen(
            command, env={**os.environ, "PATH": path}, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        ) as server,
    ):
        try:
            while not _is_ready(port):
                if server.poll() is not None:
                    raise RuntimeError(f"{command} ended: {Path(log.name).read_text()[-4000:]}")
                time.sleep(BETWEEN_LOOKS)
            yield psutil.Process(server.pid)
        finally:
            os.killpg(server.pid, signal.SIGTERM)


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def _ask(port: int, record: dict[str, Any], requests: int) -> list[float]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    body = json.dumps({"dataframe_split": {"columns": list(record), "data": [list(record.values())]}})
    seconds = []
    for _ in range(DISCARDED + requests):
        start = time.perf_counter()
        connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        said = answer.read()
        seconds.append(time.perf_counter() - start)
        if answer.status != http.HTTPStatus.OK:
            raise RuntimeError(f"{answer.status}: {said.decode()}")
    connection.close()
    return seconds[DISCARDED:]
