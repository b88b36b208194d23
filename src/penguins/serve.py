"""Serve a registered version over HTTP: MLflow's own scoring server, in front of a model that needs no JVM."""

from __future__ import annotations

import errno
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from penguins import config, flavor, registry
from penguins.errors import ServerError
from penguins.registry import Version
from penguins.tracking import Tracking

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response
    from mlflow.pyfunc import PyFuncModel
    from starlette.types import ASGIApp, Receive, Scope, Send

SECONDS_TO_FINISH = 5
"""How long requests under way may take once the server is told to stop."""


def serve(
    store: Tracking,
    model: str,
    host: str,
    port: int,
    ready: Callable[[Version, str], None],
    *,
    verbose: bool = False,
    until_stdin_ends: bool = False,
) -> None:
    """Serve the version that `model` stands for at this moment in the store, until SIGINT or SIGTERM.

    `ready` is called with the version and the address as soon as the server answers; port 0 is any free one.
    With `until_stdin_ends` the end of standard input stops the server too. Everything happens in this process, so
    nothing can be left behind. MLflow uses the store from then on. Raises ServerError when the port can't be used,
    ModelError when there is no such model or version, StoreError when the registry can't be asked.
    """
    with _stopped_by_signals(), listen(host, port) as listener:
        if until_stdin_ends:
            threading.Thread(target=_stop_when_stdin_ends, daemon=True).start()
        Tracking(store.registry_uri or store.tracking_uri).require()
        store.require_reachable()
        store.activate()
        version = registry.resolve(model)
        app = application(flavor.load_python_function(version.uri))
        announce = threading.Thread(target=_announce, args=(listener, lambda url: ready(version, url)), daemon=True)
        announce.start()
        _run(app, listener, verbose)


@contextmanager
def serving(model: str = config.DEFAULT_MODEL_URI, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """The address of a server for `model` of the active store, in a process of its own that ends with the block.

    It ends with this process too, even if that is killed. Raises ServerError with the server's own sentence when it
    doesn't start.
    """
    import mlflow

    command = [sys.executable, "-m", "penguins", "serve", "--model", model, "--host", host, "--port", str(port)]
    store = {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(), "MLFLOW_REGISTRY_URI": mlflow.get_registry_uri()}
    with (
        tempfile.TemporaryFile("w+") as said,
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
            yield _address(server, said)
        finally:
            server.terminate()
            try:
                server.wait(2 * SECONDS_TO_FINISH)
            except subprocess.TimeoutExpired:
                server.kill()


def application(model: PyFuncModel) -> FastAPI:
    """MLflow's scoring server for `model`, which answers with 400 what MLflow by itself answers with 500.

    These are a body nested too deeply for Python's JSON parser, a number with more than 4,300 digits and, with the
    MLflow of Azure's plugin, a body that isn't UTF-8; a request without a content type gets MLflow's own 415. Any
    other ValueError is a fault of the server, and stays a 500.
    """
    from mlflow.pyfunc import scoring_server

    app: FastAPI = scoring_server.init(model)
    app.add_exception_handler(RecursionError, _unreadable)
    app.add_exception_handler(ValueError, _unreadable)
    app.add_middleware(_ContentType)
    return app


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


class _ContentType:
    """Gives a request without a content type an empty one: MLflow refuses that, but fails on none."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not any(name == b"content-type" for name, _ in scope["headers"]):
            scope["headers"] = [*scope["headers"], (b"content-type", b"")]
        await self.app(scope, receive, send)


async def _unreadable(_: Request, error: Exception) -> Response:
    from fastapi.responses import JSONResponse

    # Python has no class of its own for a number of too many digits.
    unreadable = isinstance(error, RecursionError | UnicodeDecodeError) or str(error).startswith("Exceeds the limit")
    if not unreadable:
        raise error
    reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    sentence = f"The body can't be read ({reason}): send one of dataframe_records, dataframe_split, inputs, instances."
    return JSONResponse({"error_code": "BAD_REQUEST", "message": sentence}, status_code=400)


def _run(app: FastAPI, listener: socket.socket, verbose: bool) -> None:
    import uvicorn

    settings: dict[str, Any] = {"log_level": "info" if verbose else "error", "access_log": verbose}
    server = uvicorn.Server(uvicorn.Config(app, timeout_graceful_shutdown=SECONDS_TO_FINISH, **settings))
    server.run(sockets=[listener])


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
