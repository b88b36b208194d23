"""The scoring server as an ASGI application: what it answers at which address, and what it doesn't let in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from penguins import request_body, scoring
from penguins.limits import Limits
from penguins.request_body import RefusedError
from penguins.scoring import Answer
from penguins.scoring_process import ScoringProcess

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel
    from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, HTTPScope

SMALL = 32 * 1024
"""Bytes of a body that are answered here: the worst of them costs a few times what one row costs, and can't last."""

FEW_COLUMNS = 100
"""How many columns more than the model's own such a body may have: parsing costs most by the column."""

SHARE_OF_LARGE = 8
"""One of so many requests may be a large one: their bodies are held in memory, while one at a time is answered."""

LINGER = 1.0
"""Seconds that go on being read from a sender who is told to stop: closed at once, he might not see the answer."""


class DisconnectedError(Exception):
    """The sender has gone, so there is nobody to answer."""


class Application:
    """Answers `/ping`, `/health`, `/version` and `/invocations` as MLflow's scoring server does, within limits."""

    def __init__(self, model: PyFuncModel, limits: Limits, process: ScoringProcess) -> None:
        self._model, self._limits, self._process = model, limits, process
        self._needed = scoring.columns_of(model)
        self._free_small = limits.max_requests
        self._free_large = max(1, limits.max_requests // SHARE_OF_LARGE)

    async def __call__(self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer one request."""
        request = _Request(scope, receive)
        try:
            answer = await self._answer(request)
        except RefusedError as error:
            answer = scoring.refusal(error.status, str(error))
        except DisconnectedError:
            return
        except asyncio.CancelledError:
            answer = scoring.refusal(503, "The server is stopping: ask again when it runs.")
        except Exception:
            # Whatever it is, it is for who runs the server, and not for the sender.
            await _send(
                request,
                send,
                scoring.refusal(500, "The server failed to answer: started with --verbose, it shows why."),
            )
            raise
        await _send(request, send, answer)

    async def _answer(self, request: _Request) -> Answer:
        path, method = request.scope["path"], request.scope["method"]
        allowed = {"/invocations": ("POST",)}.get(path, ("GET", "HEAD"))
        if path not in {"/invocations", "/ping", "/health", "/version"}:
            raise RefusedError(404, f"There is no {path}: ask /invocations, /ping, /health or /version.")
        if method not in allowed:
            raise RefusedError(405, f"{path} doesn't take {method}: send {allowed[0]}.")
        if path == "/invocations":
            return await self._invocations(request)
        if path == "/version":
            from mlflow.version import VERSION

            return Answer(200, VERSION.encode())
        return Answer(200, b"\n")

    async def _invocations(self, request: _Request) -> Answer:
        kind = request_body.content_type(request.header(b"content-type"))
        if (coding := request.header(b"content-encoding")).lower() not in {"", "identity"}:
            raise RefusedError(415, f"This server takes no content encoding. Got '{coding}'.")
        with contextlib.ExitStack() as places:
            content = await self._receive(request, places)
            try:
                async with asyncio.timeout(self._limits.answer_timeout):
                    return await self._score(content, kind, places)
            except TimeoutError:
                sentence = (
                    f"There was no answer within {self._limits.answer_timeout:g} seconds: send fewer rows, or later."
                )
                raise RefusedError(504, sentence) from None
            except EOFError:
                raise RefusedError(503, "The body was too much for the server's process: send fewer rows.") from None

    async def _score(self, content: bytes, kind: str, places: contextlib.ExitStack) -> Answer:
        if len(content) > SMALL:
            return await self._process.answer(content, kind)
        places.enter_context(self._small())
        body = request_body.read(content, kind, self._limits, needed=self._needed)
        if body.columns > self._needed + FEW_COLUMNS:
            places.enter_context(self._large())
            return await self._process.answer(content, kind)
        return await asyncio.to_thread(scoring.answer, self._model, body)

    async def _receive(self, request: _Request, places: contextlib.ExitStack) -> bytes:
        """The whole body, which takes a place from `places` as soon as it is a large one."""
        length, allowed = request.header(b"content-length"), self._limits.body_bytes
        if length.isdecimal() and int(length) > allowed:
            raise self._too_large()
        content = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_timeout):
                async for part in request.body():
                    if len(content) <= SMALL < len(content) + len(part):
                        places.enter_context(self._large())
                    content += part
                    if len(content) > allowed:
                        raise self._too_large()
        except TimeoutError:
            sentence = (
                f"The body didn't arrive within {self._limits.body_timeout:g} seconds: send it faster, or in parts."
            )
            raise RefusedError(408, sentence) from None
        return bytes(content)

    def _too_large(self) -> RefusedError:
        return RefusedError(413, f"The body is larger than {self._limits.max_body_mb:g} MB: send fewer rows at a time.")

    @contextlib.contextmanager
    def _small(self) -> Iterator[None]:
        if self._free_small == 0:
            raise _busy()
        self._free_small -= 1
        try:
            yield
        finally:
            self._free_small += 1

    @contextlib.contextmanager
    def _large(self) -> Iterator[None]:
        if self._free_large == 0:
            raise _busy()
        self._free_large -= 1
        try:
            yield
        finally:
            self._free_large += 1


def _busy() -> RefusedError:
    return RefusedError(503, "The server has as many requests as it answers at a time: ask again in a second.")


class _Request:
    """A request, and whether all of it has been read."""

    def __init__(self, scope: HTTPScope, receive: ASGIReceiveCallable) -> None:
        self.scope, self._receive = scope, receive
        has_body = self.header(b"content-length") not in {"", "0"} or bool(self.header(b"transfer-encoding"))
        self.is_read = not has_body

    def header(self, name: bytes) -> str:
        """The header's value; of several their list, as RFC 9110 has it."""
        return ", ".join(value.decode("latin-1") for key, value in self.scope["headers"] if key == name)

    async def body(self) -> Any:
        """The parts of the body as they come. Raises DisconnectedError when they end too early."""
        while not self.is_read:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise DisconnectedError
            self.is_read = not message.get("more_body", False)
            yield message.get("body", b"")


async def _send(request: _Request, send: ASGISendCallable, answer: Answer) -> None:
    """Send the answer; if the request isn't read to its end, nothing more can be asked on its connection."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer.content)).encode())]
    if answer.status == 503:
        headers.append((b"retry-after", b"1"))
    if not request.is_read:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers, "trailers": False})
    await send({"type": "http.response.body", "body": answer.content, "more_body": not request.is_read})
    if not request.is_read:
        with contextlib.suppress(TimeoutError, DisconnectedError):
            async with asyncio.timeout(LINGER):
                async for _ in request.body():
                    pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})
