"""Which process did something, and whether it is still there: what signs locks, runs and temporary folders."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import uuid
from dataclasses import astuple, dataclass
from pathlib import Path

import psutil

PROC = Path("/proc")

FIRST_NAMESPACE = 0xEFFFFFFC
"""The inode of the PID namespace that a Linux machine starts with (PROC_PID_INIT_INO in the kernel)."""

HIDDEN = "hidden"
"""The start of a process that is there, of which the system tells this user nothing more."""

LONGEST_HOST = 64
"""Characters; what Linux allows."""


@dataclass(frozen=True)
class _Identity:
    pid: str
    start: str
    """On Linux in clock ticks since the machine's start, which no correction of the clock changes."""
    boot: str
    """This start of the machine; where nothing tells that, the machine."""
    space: str
    """The PID namespace, within which a PID means one process at a time, and when its first process started."""
    home: str
    """The machine or the container, if it has one PID namespace at a time: an earlier one of it is gone. Or empty."""
    host: str

    def __str__(self) -> str:
        return "_".join(astuple(self))


def identity() -> str:
    """Say which process this is, in at most 130 characters that fit into a tag, a file's name and a URI.

    A number that the system gives to another process later is told from it by the time when the process started,
    and a machine or a container that has the same name as another by the start of the machine and the PID namespace.
    """
    pid = os.getpid()
    return str(_Identity(str(pid), _start(pid) or "", *_place()))


def is_alive(identity: str) -> bool | None:
    """Whether the process of that `identity()` is still there; None where that can't be known from here.

    It can't be known of a process in another container or on another machine, and of a text that is no identity.
    """
    parts = identity.split("_", 5)
    if len(parts) != 6 or not parts[0].isdecimal():
        return None
    other, here = _Identity(*parts), _Identity("", "", *_place())
    if other.host != here.host:
        return None
    if (other.boot, other.space) == (here.boot, here.space):
        start = _start(int(other.pid))
        return None if start == HIDDEN else start == other.start
    # The same machine or container, started anew.
    return False if here.home and other.home == here.home else None


def in_words(identity: str) -> str:
    """The process of an identity for a person: its PID and its host."""
    pid, *_, host = identity.split("_", 5)
    return f"process {pid} on {host}"


def _start(pid: int) -> str | None:
    """When a process started, or HIDDEN; None if it is gone, also where its parent hasn't asked for its end yet."""
    if (PROC / "stat").exists():
        try:
            # The name, in parentheses, can hold anything.
            state, *fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            return HIDDEN if psutil.pid_exists(pid) else None
        return None if state in "ZX" else fields[18]
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time() * 1e6:.0f}"
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:
        return HIDDEN


def _place() -> tuple[str, str, str, str]:
    """Boot, space, home and host of this process."""
    host = re.sub(r"[^\w.-]", "-", socket.gethostname())[:LONGEST_HOST]
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text()
        namespace = (PROC / "self/ns/pid").stat().st_ino
        space = f"{namespace}-{_start(1)}"
    except OSError:
        # No Linux: there are no containers, and a process's start is a time of the clock.
        return _digest(uuid.getnode()), "", "", host
    return _digest(boot), _digest(space), _home(namespace, boot), host


def _home(namespace: int, boot: str) -> str:
    """The machine, by its id; or the container, by the folder to which its files are written. Empty where unknown.

    Runtimes give each container a folder of its own, and use it again when the same container starts again. Within
    a container there can be more PID namespaces; whoever makes one mounts /proc anew, on top of the container's.
    """
    if namespace == FIRST_NAMESPACE:
        machine = Path("/etc/machine-id")
        return _digest(machine.read_text(encoding="utf-8")) if machine.is_file() else ""
    mounts = [line.split() for line in (PROC / "self/mountinfo").read_text().splitlines()]
    written = re.findall(r"\bupperdir=([^,]+)", next((mount[-1] for mount in mounts if mount[4] == "/"), ""))
    is_own = [mount[4] for mount in mounts].count("/proc") == 1
    return _digest(boot, written[0]) if written and is_own else ""


def _digest(*parts: object) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:12]
