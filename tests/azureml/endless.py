"""A job that never ends, and a person who stops looking at it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from tests.azureml.arm import Azure


class EndlessLogs(dict[str, list[str]]):
    """The logs of jobs that go on, whatever they were to say."""

    def __setitem__(self, job: str, log: list[str]) -> None:
        super().__setitem__(job, [str(number) for number in range(10**6)])


def interrupted(azure: Azure, *arguments: str, stdin: int = subprocess.DEVNULL) -> tuple[int, str, str]:
    """Exit code, output and errors of a command that meets Ctrl-C once it follows a job."""
    azure.logs = EndlessLogs()
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "penguins", *arguments],
        env={**os.environ, "PYTHONUNBUFFERED": "1"}, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    ) as process:  # fmt: skip
        for _ in range(600):
            if [line for line in azure.asked if line.endswith("/details")]:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        printed, told = process.communicate(timeout=60)
    return process.returncode, printed, told
