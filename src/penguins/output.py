"""Standard output and error that take every character, and that a command outlasts when they can't be written."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import click

SPELLED = {"×": "x", "✗": "x", "—": "-", "–": "-", "…": "..."}
"""What the package itself prints, where an encoding lacks it; all other characters become escapes such as \\xfc."""


class _Lasting(io.RawIOBase):
    """A file descriptor to write to; what can't be written is dropped, and `lost` says why."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.lost: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.descriptor

    def isatty(self) -> bool:
        return os.isatty(self.descriptor)

    def write(self, data: Any) -> int:
        if self.lost is None:
            try:
                return os.write(self.descriptor, data)
            except OSError as error:
                self.lost = error
        return memoryview(data).nbytes


@contextmanager
def lasting() -> Iterator[None]:
    """Within the block stdout and stderr take what their encoding lacks, and no work is lost because they are gone.

    A reader that has enough, such as `head`, changes nothing. Where the result is lost for another reason, such as a
    full disk, stderr says so, and a block that would succeed ends with SystemExit 1.
    """
    _open_standard_files()
    codecs.register_error("penguins", _spelled)
    before = sys.stdout, sys.stderr, sys.__stderr__
    sys.stdout, written = _replaced(sys.stdout)
    sys.stderr, _ = _replaced(sys.stderr)
    sys.__stderr__ = sys.stderr  # type: ignore[misc, assignment]
    try:
        yield
        if _lost(written):
            raise SystemExit(1)
    finally:
        if reason := _lost(written):
            click.echo(f"Error: The work is done, but its result can't be printed: {reason}.", err=True)
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        sys.stdout, sys.stderr, sys.__stderr__ = before  # type: ignore[misc]


def _lost(written: _Lasting | None) -> str | None:
    """Why something couldn't be written that somebody may wait for; None when all was, or when the reader has gone."""
    if written is None or written.lost is None or written.lost.errno == errno.EPIPE:
        return None
    return written.lost.strerror


def _replaced(stream: TextIO) -> tuple[TextIO, _Lasting | None]:
    """A stream that lasts in place of one of a process, and its descriptor; any other stream as it is."""
    # The second is what PYTHONUNBUFFERED makes of it.
    if type(stream) is not io.TextIOWrapper or not isinstance(stream.buffer, io.BufferedWriter | io.FileIO):
        return stream, None
    stream.flush()
    raw = _Lasting(stream.fileno())
    text = io.TextIOWrapper(
        io.BufferedWriter(raw), stream.encoding, "penguins", line_buffering=stream.line_buffering, write_through=True
    )
    return text, raw


def _spelled(error: UnicodeError) -> tuple[str | bytes, int]:
    """What stands for characters that an encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(SPELLED.get(one, ascii(one)[1:-1]) for one in lacking), error.end


def _open_standard_files() -> None:
    """Open what was closed of the first three descriptors: the next file that is opened would take its place."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
