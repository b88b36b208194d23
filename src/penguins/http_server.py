"""Run an ASGI application on uvicorn: no connection lasts for nothing, and the end comes when it is asked for."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import threading
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from penguins.limits import Limits

SECONDS_TO_FINISH = 5
"""Seconds from the signal to stop to the end of the process, whatever it is doing."""

RESERVED_FILES = 128
"""Open files that are left for everything that isn't a connection."""

ACCEPTED_AT_ONCE = 16
"""asyncio accepts so many connections before it lets any of them be counted."""

WAITING_TO_BE_ACCEPTED = 1024

CLOSING = 2.0
"""Seconds that a peer has to take the last bytes."""

FREE_CHUNKS, BYTES_PER_CHUNK = 1000, 256
"""A body in chunks may have so many small ones; beyond them they must hold so much on average. A chunk costs the same
whether it holds a byte or a page, so that a body of single bytes would keep the server from all others."""

NO_HEADER = b"The header of the request didn't arrive in time.\n"
NO_ROOM = b"The server has as many connections as it can have: connect again in a second.\n"


class Connection(H11Protocol):
    """uvicorn's connection, which knows since when it has waited for its peer."""

    config: Config

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, at the cost of the one that has waited longest if there are too many."""
        self.waits_since: float | None = self.loop.time()
        self._idle_since = self._stuck_since = self.loop.time()
        self.conn = _CountingChunks(h11.SERVER)
        super().connection_made(transport)
        others = cast("set[Connection]", self.connections) - {self}
        if len(others) >= self.config.most_connections:
            waiting = [other for other in others if not other.is_answering and not other.transport.is_closing()]
            if waiting:
                min(waiting, key=lambda other: (not other.is_idle, other._idle_since)).transport.abort()
            else:
                self._refuse(503, NO_ROOM)

    def data_received(self, data: bytes) -> None:
        """Take what the peer sends."""
        super().data_received(data)
        if not self.is_idle:
            self.waits_since = None
        elif self.waits_since is None:
            self.waits_since = self.loop.time()

    def on_response_complete(self) -> None:
        """An answer is sent."""
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Say that this is no HTTP, or why it isn't taken."""
        super().send_400_response(cast("_CountingChunks", self.conn).refused or msg)

    @property
    def is_idle(self) -> bool:
        """Whether no request has begun since the last answer."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def is_answering(self) -> bool:
        """Whether the peer has sent a whole request, and has a right to its answer."""
        return not self.is_idle and not self.cycle.more_body

    def look(self, now: float) -> None:
        """End the connection if its peer keeps it waiting: with its header, or to take what is sent."""
        is_stuck = self.transport.is_closing() or self.flow.write_paused
        if not is_stuck:
            self._stuck_since = now
        patience = CLOSING if self.transport.is_closing() else self.config.limits.answer_timeout
        if now - self._stuck_since > patience:
            self.transport.abort()
        elif self.waits_since is not None and now - self.waits_since > self.config.limits.header_timeout:
            self.waits_since = None
            self._refuse(408, NO_HEADER)

    def _refuse(self, status: int, sentence: bytes) -> None:
        """Answer without a request, and close."""
        lines = [f"HTTP/1.1 {status} {'Request Timeout' if status == 408 else 'Service Unavailable'}"]
        lines += ["content-type: text/plain; charset=utf-8", f"content-length: {len(sentence)}", "connection: close"]
        lines += ["retry-after: 1"] if status == 503 else []
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + sentence)
        self.transport.close()


class _CountingChunks(h11.Connection):
    """Refuses a body in chunks so small that taking them apart is most of the work."""

    _chunks = _bytes = 0
    refused = ""

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._bytes = 0
        elif isinstance(event, h11.Data):
            self._chunks, self._bytes = self._chunks + event.chunk_end, self._bytes + len(event.data)
            if self._chunks > FREE_CHUNKS + self._bytes / BYTES_PER_CHUNK:
                self.refused = f"The chunks of the body are too small: send at least {BYTES_PER_CHUNK} bytes in each."
                raise h11.RemoteProtocolError(self.refused)
        return event


class Config(uvicorn.Config):
    """uvicorn's settings, and our limits."""

    def __init__(self, app: Callable[..., Awaitable[None]], limits: Limits, *, verbose: bool) -> None:
        super().__init__(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_level="info" if verbose else "error",
            access_log=verbose,
            server_header=False,
            backlog=ACCEPTED_AT_ONCE,
            timeout_keep_alive=max(1, round(limits.idle_timeout)),
            timeout_graceful_shutdown=SECONDS_TO_FINISH - 1,
        )
        self.limits = limits
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        most = limits.max_connections if files == resource.RLIM_INFINITY else files - RESERVED_FILES
        self.most_connections = max(1, min(limits.max_connections, most))


class HardEnd:
    """Ends the process some seconds after it was told to, if it hasn't ended by itself."""

    def __init__(self, first: Callable[[], None], seconds: float = SECONDS_TO_FINISH) -> None:
        self._first, self._seconds = first, seconds
        self._timer: threading.Timer | None = None

    def start(self) -> None:
        """Begin to count; a second time changes nothing."""
        if self._timer is None:
            self._timer = threading.Timer(self._seconds, self._end)
            self._timer.daemon = True
            self._timer.start()

    def cancel(self) -> None:
        """The process may live on: the server has stopped."""
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        self._first()
        os._exit(0)


class Server(uvicorn.Server):
    """uvicorn's server, which looks after its connections and ends in time; `close` is awaited when it has stopped."""

    def __init__(self, config: Config, end: HardEnd, close: Callable[[], Awaitable[None]]) -> None:
        super().__init__(config)
        self._end, self._close = end, close

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept."""
        await super().startup(sockets)
        for listener in sockets or []:
            # How many may wait and how many asyncio takes at once are one number there.
            listener.listen(WAITING_TO_BE_ACCEPTED)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop to accept, wait for the requests under way, and close."""
        await super().shutdown(sockets)
        await self._close()

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second."""
        now = asyncio.get_running_loop().time()
        for connection in list(self.server_state.connections):
            cast("Connection", connection).look(now)
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop, because of a signal."""
        self._end.start()
        super().handle_exit(sig, frame)
