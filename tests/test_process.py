"""Whether another process is still there: one's own, one that ended, and those that can't be known from here."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys

import pytest

from penguins import process

TELL = """
import sys
from penguins import process
print(process.identity(), flush=True)
for line in sys.stdin:
    print(process.is_alive(line.strip()), flush=True)
"""


def start(*before: str) -> subprocess.Popen[str]:
    command = [*before, sys.executable, "-c", TELL]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def line_of(other: subprocess.Popen[str]) -> str:
    assert other.stdout is not None
    return other.stdout.readline().strip()


def changed(identity: str, **parts: str) -> str:
    """The identity with other values in some of its parts."""
    values = dict(zip(("pid", "start", "boot", "space", "home", "host"), identity.split("_", 5), strict=True))
    assert values.keys() >= parts.keys()
    return "_".join((values | parts).values())


def test_a_process_is_alive_until_it_ends_also_before_its_parent_asks() -> None:
    mine = process.identity()
    assert process.is_alive(mine) is True
    with start() as other:
        theirs = line_of(other)
        assert theirs != mine
        assert process.is_alive(theirs) is True
        assert other.stdin is not None
        print(mine, file=other.stdin, flush=True)
        assert line_of(other) == "True", "and it says the same of this one"
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert process.is_alive(theirs) is False, "a zombie"
    assert other.returncode == -signal.SIGKILL
    assert process.is_alive(theirs) is False


def test_a_child_made_by_fork_is_a_process_of_its_own() -> None:
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.write(write, process.identity().encode())
        os._exit(0)
    theirs = os.read(read, 1000).decode()
    os.waitpid(child, 0)
    assert theirs.split("_")[0] == str(child)
    assert process.is_alive(theirs) is False


def test_the_same_number_given_to_a_later_process_is_another_process() -> None:
    mine = process.identity()
    begun = int(mine.split("_")[1])
    assert process.is_alive(changed(mine, start=str(begun - 1))) is False
    assert process.is_alive(changed(mine, start=str(begun + 1))) is False


def test_what_is_elsewhere_cant_be_known() -> None:
    mine = process.identity()
    assert process.is_alive(changed(mine, host="far")) is None
    assert process.is_alive(changed(mine, boot="0", home="0")) is None, "another machine of the same name"
    assert process.is_alive(changed(mine, space="0", home="0")) is None, "another container of the same name"
    assert process.is_alive(changed(mine, space="0", home="")) is None, "a namespace of its own within this container"
    assert [process.is_alive(text) for text in ("", "4711", "a_b_c_d_e_f", "1 2 3 4 5 6")] == [None] * 4


@pytest.mark.skipif(not process.identity().split("_")[4], reason="this place may have several PID namespaces at a time")
def test_what_ran_before_this_machine_or_container_started_anew_is_gone() -> None:
    mine = process.identity()
    assert process.is_alive(changed(mine, boot="0", space="0")) is False
    assert process.is_alive(changed(mine, space="0")) is False


def test_an_identity_fits_into_a_tag_and_a_files_name() -> None:
    mine = process.identity()
    assert len(mine) <= 130
    assert set("/:?#%&*@<>|\\ '\"\n").isdisjoint(mine)
    assert process.in_words(mine) == f"process {os.getpid()} on {socket.gethostname()}"


def can_unshare() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not can_unshare(), reason="needs the right to make a PID namespace")
def test_a_container_with_this_host_name_isnt_taken_for_this_one_nor_this_one_for_it() -> None:
    with start("unshare", "--pid", "--fork", "--mount-proc") as contained:
        theirs = line_of(contained)
        assert theirs.split("_")[0] == "1", "a number that some other process has here"
        assert theirs.split("_")[5] == process.identity().split("_")[5]
        assert process.is_alive(theirs) is None
        assert contained.stdin is not None
        print(process.identity(), file=contained.stdin, flush=True)
        assert line_of(contained) == "None"
        contained.stdin.close()
