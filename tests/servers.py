"""Real MLflow servers on this machine, with SQLite or PostgreSQL behind them; whoever starts one stops it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests

POSTGRES_TOOLS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
"""Where Debian's package puts what a server needs, one folder per version."""


@dataclass(frozen=True)
class Server:
    """A running MLflow server."""

    uri: str
    process: subprocess.Popen[bytes]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def mlflow_server(folder: Path, database: str | None = None) -> Iterator[Server]:
    """An MLflow server that keeps artifacts in `folder`, and all else in `database` or an SQLite file there."""
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", database or f"sqlite:///{folder / 'server.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(f"{uri}/health", process, folder / "server.log")
        yield Server(uri, process)
    finally:
        stop(process, signal.SIGTERM)


def stop(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Send the signal to the process and to all that it started, and wait until they are gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        processes = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for one in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(how)
        _, alive = psutil.wait_procs(processes, timeout=20)
        for one in alive:
            one.kill()
    process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        with contextlib.suppress(requests.ConnectionError, requests.Timeout):
            if requests.get(url, timeout=5).ok:
                return
        assert process.poll() is None, log.read_text()
        time.sleep(0.2)
    raise TimeoutError(f"{url}: {log.read_text()}")


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A PostgreSQL server with its files in `folder`; the URI of its database."""
    tools, port = POSTGRES_TOOLS[-1], free_port()
    # PostgreSQL refuses to run as root, and the other user has to reach its files.
    user = "postgres" if os.getuid() == 0 else None
    files = folder / "postgres"
    files.mkdir()
    if user:
        shutil.chown(files, user, user)
        for parent in (folder, *folder.parents):
            parent.chmod(parent.stat().st_mode | 0o011)
    init: list[str | Path] = [
        tools / "initdb",
        "--pgdata",
        files,
        "--username",
        "penguins",
        "--auth",
        "trust",
        "--no-sync",
    ]
    subprocess.run(init, check=True, capture_output=True, cwd=files, user=user, group=user)
    command: list[str | Path] = [tools / "postgres", "-D", files, "-p", str(port), "-h", "127.0.0.1", "-k", files, "-F"]
    process = subprocess.Popen(
        command, cwd=files, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=user, group=user
    )
    try:
        ready: list[str | Path] = [tools / "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-q"]
        while subprocess.run(ready).returncode != 0:
            assert process.poll() is None
            time.sleep(0.1)
        yield f"postgresql+psycopg2://penguins@127.0.0.1:{port}/postgres"
    finally:
        stop(process, signal.SIGINT)
