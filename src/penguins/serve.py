"""Serve a registered version over HTTP, here or in a process of its own: a model that needs no JVM, as MLflow does."""

from __future__ import annotations

import errno
import gc
import http.client
import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from penguins import config, flavor, registry
from penguins.errors import ServerError
from penguins.limits import Limits
from penguins.registry import Version
from penguins.scoring_process import ScoringProcess, Task
from penguins.tracking import Tracking

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel

SECONDS_TO_END = 10
"""How long a server is waited for that was told to stop; it takes half of it at most."""


def serve(
    store: Tracking,
    model: str,
    host: str,
    port: int,
    ready: Callable[[Version, str], None],
    *,
    warn: Callable[[str], None] = warnings.warn,
    limits: Limits | None = None,
    verbose: bool = False,
    until_stdin_ends: bool = False,
) -> None:
    """Serve the version that `model` stands for at this moment in the store, until SIGINT or SIGTERM.

    `ready` is called with the version and the address as soon as the server answers; port 0 is any free one.
    With `until_stdin_ends` the end of standard input stops the server too. A process beside this one is started for
    the first large body, and ends with it. MLflow uses the store from then on. `warn` gets a sentence when the address
    isn't this machine's own: nobody is asked for a password. Raises ServerError when the port can't be used,
    ModelError when there is no such model or version, StoreError when the registry can't be asked.
    """
    with _stopped_by_signals(), listen(host, port) as listener:
        if until_stdin_ends:
            threading.Thread(target=_stop_when_stdin_ends, daemon=True).start()
        if sentence := exposure(listener.getsockname()[0]):
            warn(sentence)
        Tracking(store.registry_uri or store.tracking_uri).require()
        store.require_reachable()
        store.activate()
        version = registry.resolve(model)
        loaded = flavor.load_python_function(version.uri)
        announce = threading.Thread(target=_announce, args=(listener, lambda url: ready(version, url)), daemon=True)
        announce.start()
        _run(loaded, Task(store, version.uri, limits or Limits(), verbose), listener)


@contextmanager
def serving(
    model: str = config.DEFAULT_MODEL_URI, *, host: str = "127.0.0.1", port: int = 0, limits: Limits | None = None
) -> Iterator[str]:
    """The address of a server for `model` of the active store, in a process of its own that ends with the block.

    It ends with this process too, even if that is killed. Without `limits` it has those of the command. Raises
    ServerError with the server's own sentence when it doesn't start.
    """
    import mlflow

    command = [sys.executable, "-m", "penguins", "serve", "--model", model, "--host", host, "--port", str(port)]
    command += (
        [] if limits is None else [f"--{name.replace('_', '-')}={value}" for name, value in asdict(limits).items()]
    )
    store = {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(), "MLFLOW_REGISTRY_URI": mlflow.get_registry_uri()}
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said,
        subprocess.Popen(
            [*command, "--json", "--until-stdin-ends"],
            env={**os.environ, **store},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            # A Ctrl-C in the terminal is for this process, which then stops the server in its own time.
            start_new_session=True,
        ) as server,
    ):
        try:
            address = _address(server, said)
            if sentence := exposure(urlsplit(address).hostname or ""):
                warnings.warn(sentence, stacklevel=3)
            yield address
        finally:
            server.terminate()
            try:
                server.wait(SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                server.kill()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on `host`, and on a free port if `port` is 0. Raises ServerError when it can't."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # TCP by name: asyncio sends small answers at once, and not 40 ms later, on such sockets only.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        # Now and not later: two sockets can be bound to one port as long as neither listens.
        listener.listen()
    except (OSError, OverflowError, TypeError, ValueError) as error:
        listener.close()
        reason, option = _refusal(error)
        raise ServerError(f"{host}:{port} can't be used ({reason}): give another {option}.") from error
    return listener


def _refusal(error: Exception) -> tuple[str, str]:
    """Why nothing can listen there, and the option that is to blame."""
    if isinstance(error, OSError):
        is_host = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        return error.strerror or str(error), "--host" if is_host else "--port"
    if isinstance(error, OverflowError):
        return "a port is a number from 0 to 65535", "--port"
    # A TypeError or a ValueError, by the version of Python, says that a name can't be encoded.
    return "no host has such a name", "--host"


def exposure(host: str) -> str | None:
    """What to warn of when others than this machine can ask a server that listens on the address `host`."""
    if ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        return None
    return (
        f"{host} is open to the network, and nobody is asked for a password: put something in front of the server that "
        "does, or leave --host out."
    )


def _run(model: PyFuncModel, task: Task, listener: socket.socket) -> None:
    from penguins.http_app import Application
    from penguins.http_server import Config, HardEnd, Server  # with uvicorn, which only a server needs

    # What is there now stays to the end: neither an answer nor the end waits while the collector looks through it.
    gc.freeze()
    process = ScoringProcess(task)
    end = HardEnd(process.stop)
    app = Application(model, task.limits, process)
    try:
        Server(Config(app, task.limits, verbose=task.verbose), end, process.close).run(sockets=[listener])
    finally:
        end.cancel()
        process.stop()


def _announce(listener: socket.socket, ready: Callable[[str], None]) -> None:
    """Call `ready` with the address once the server answers; it listens already, so asking once is enough."""
    host, port = listener.getsockname()[:2]
    connection = http.client.HTTPConnection(host, port)
    connection.request("GET", "/ping")
    if connection.getresponse().status == http.HTTPStatus.OK:
        ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
    connection.close()


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Make SIGTERM mean what Ctrl-C means, and let both end the block without an error."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop_when_stdin_ends() -> None:
    # Not `sys.stdin`: its lock, held by a thread that waits, breaks the interpreter's shutdown.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _address(server: subprocess.Popen[str], said: Any) -> str:
    """Where the server is, as soon as it says so; ServerError with its last words when it ends instead."""
    assert server.stdout is not None  # it is a pipe
    if line := server.stdout.readline():
        return str(json.loads(line)["url"])
    server.wait()
    said.seek(0)
    last = ([f"The server ended at its start with exit code {server.returncode}.", *said.read().splitlines()])[-1]
    raise ServerError(last.removeprefix("Error: "))
