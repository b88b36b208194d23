"""A process beside the scoring server that answers what takes long, and can be killed: a thread can't."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING

from penguins import flavor, scoring
from penguins.limits import Limits
from penguins.scoring import Answer
from penguins.tracking import Tracking

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel

IDLE = 60.0
"""Seconds without work after which the process ends, and gives its memory back."""


@dataclass(frozen=True)
class Task:
    """What the process is started for."""

    store: Tracking
    model_uri: str
    limits: Limits
    verbose: bool = False


class ScoringProcess:
    """Answers one body after the other in a process of its own, which is started when the first one comes."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._turn = asyncio.Lock()
        self._process: Process | None = None
        self._end: asyncio.TimerHandle | None = None

    async def answer(self, content: bytes, kind: str) -> Answer:
        """What `scoring.read_and_answer` says, over there.

        Cancelled, the process is killed, and with it the work. Raises EOFError when it ends without an answer.
        """
        async with self._turn:
            if self._end is not None:
                self._end.cancel()
            try:
                return await self._ask(content, kind)
            except BaseException:
                self.stop()
                raise
            finally:
                self._end = asyncio.get_running_loop().call_later(IDLE, self.stop)

    def stop(self) -> None:
        """Kill the process, if there is one; the next body gets a new one."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process = None

    async def close(self) -> None:
        """Kill the process, and wait until it has gone."""
        process = self._process
        if self._end is not None:
            self._end.cancel()
        self.stop()
        if process is not None:
            await process.wait()

    async def _ask(self, content: bytes, kind: str) -> Answer:
        if self._process is None or self._process.returncode is not None:
            self._process = await self._start()
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None  # they are pipes
        assert stdout is not None
        try:
            stdin.write(_head(kind=kind, length=len(content)))
            stdin.write(content)
            await stdin.drain()
            head = json.loads(await stdout.readuntil())
            return Answer(head["status"], await stdout.readexactly(head["length"]))
        except ConnectionError as error:
            raise EOFError from error

    async def _start(self) -> Process:
        task = json.dumps(asdict(self._task))
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", __name__, task),
            stdin=PIPE,
            stdout=PIPE,
            stderr=None if self._task.verbose else DEVNULL,
            # A Ctrl-C in the terminal is for the server, which then ends this one.
            start_new_session=True,
        )


def _head(**values: str | int) -> bytes:
    """What stands in front of a body and of an answer: a line of JSON that says how long it is."""
    return json.dumps(values).encode() + b"\n"


def main(argument: str) -> None:
    """Answer the bodies on standard input until it ends, as it does with the server."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    given = json.loads(argument)
    Tracking(**given["store"]).activate()
    model = flavor.load_python_function(given["model_uri"])
    _answer_all(model, Limits(**given["limits"]), sys.stdin.buffer, answers)


def _answer_all(model: PyFuncModel, limits: Limits, bodies: IO[bytes], answers: IO[bytes]) -> None:
    for line in bodies:
        head = json.loads(line)
        answer = scoring.read_and_answer(model, bodies.read(head["length"]), head["kind"], limits)
        answers.write(_head(status=answer.status, length=len(answer.content)) + answer.content)
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
