"""Which version is the champion: look it up, move it, take it back."""

from __future__ import annotations

import json
import os
import random
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import psutil

from penguins import dialect
from penguins.config import CHAMPION, PREVIOUS_CHAMPION
from penguins.errors import ModelError, StoreError
from penguins.flavor import load_scorer
from penguins.registry import Version, asking

CLAIM = "moving_champion_"
"""How the tags begin that say that somebody is moving the champion."""

CLAIM_LIFETIME = 600.0
"""Seconds after which a claim from another machine is taken for left behind; a move takes about one."""

CLAIM_PATIENCE = 30.0
"""Seconds to wait for others who move the champion."""


def version_of(name: str, alias: str = CHAMPION) -> Version | None:
    """The version that carries the alias, whether or not that version is still there; None where none does."""
    with asking(name):
        number = dialect.marked(name, alias)
    return None if number is None else Version(name, number)


def move(version: Version, instead_of: Version | None, *, patience: float = CLAIM_PATIENCE) -> bool:
    """Give `version` the alias `champion`, and the one before it `previous_champion`; False if that one has changed.

    `instead_of` is the champion that the decision rests on. MLflow can't compare and set an alias in one step, so
    whoever moves one first lays a claim, a tag with a name of its own on the registered model. It moves the alias
    only when it then finds no other claim, and the champion still the same: of two who read the same champion,
    the later one sees the claim of the earlier, or its result. A champion that can't be loaded is no way back, so
    `previous_champion` then stays where it is.
    Raises StoreError when others hold claims for longer than `patience` seconds.
    """
    leads_back = instead_of is not None and _loads(instead_of)
    with _claim(version.name, patience), asking(version.name):
        if version_of(version.name) != instead_of:
            return False
        # In this order: killed in between, the champion is still the old one, and `_put_right` knows the way back.
        if instead_of is not None and leads_back:
            dialect.mark(version.name, instead_of.number, PREVIOUS_CHAMPION)
        dialect.mark(version.name, version.number, CHAMPION)
    return True


def roll_back(name: str) -> tuple[Version, Version]:
    """Make the previous champion champion again, and the champion the previous one: the new one and the old one.

    Raises ModelError when there is no way back, or the previous champion can't be loaded; nothing has moved then.
    """
    with _claim(name, CLAIM_PATIENCE):  # puts right what a killed process has left
        champion, previous = version_of(name), version_of(name, PREVIOUS_CHAMPION)
    if champion is None:
        raise ModelError(f"{name} has no champion: `penguins promote` makes one.")
    if previous is None or previous == champion:
        raise ModelError(f"{name} has no previous champion: version {champion.number} is the first.")
    load_scorer(previous.uri)
    if not move(previous, instead_of=champion):
        raise ModelError(f"The champion of {name} has just changed: look at it, and roll back again if you still want.")
    return previous, champion


@contextmanager
def _claim(name: str, patience: float) -> Iterator[None]:
    """Hold the only claim on moving the aliases of a registered model."""
    key = f"{CLAIM}{uuid.uuid4().hex}"
    deadline = time.monotonic() + patience
    while True:
        try:
            with asking(name):
                former = dialect.marked(name, PREVIOUS_CHAMPION)
                dialect.note(name, key, json.dumps([time.time(), socket.gethostname(), os.getpid(), former]))
                claims = dialect.notes(name)
            others = {other: value for other, value in claims.items() if other.startswith(CLAIM) and other != key}
            for other in [other for other, value in others.items() if _is_abandoned(value)]:
                _put_right(name, others.pop(other))
                _withdraw(name, other)
            if not others:
                yield
                return
        finally:
            _withdraw(name, key)
        if time.monotonic() > deadline:
            other, value = others.popitem()
            made_at, host, process, _ = json.loads(value)
            since = datetime.fromtimestamp(made_at, UTC).strftime("%H:%M UTC")
            raise StoreError(
                f"Process {process} on {host} has been moving the champion of {name} since {since}: "
                "try again later, or, if it is gone, "
                f"remove the tag {other} of {dialect.notes_place(name)}."
            )
        # Two who see each other's claims both step back, and not in step.
        time.sleep(random.uniform(0.1, 1.0))


def _is_abandoned(value: str) -> bool:
    """Whether the process that made a claim is gone: it was killed on this machine, or much time has passed."""
    made_at, host, process, _ = json.loads(value)
    if host == socket.gethostname() and not psutil.pid_exists(process):
        return True
    return bool(time.time() - made_at > CLAIM_LIFETIME)


def _put_right(name: str, value: str) -> None:
    """Take back the first half of a move, if whoever made the claim was killed before the second."""
    former = json.loads(value)[3]
    with asking(name):
        champion = dialect.marked(name, CHAMPION)
        if former is not None and champion is not None and dialect.marked(name, PREVIOUS_CHAMPION) == champion:
            dialect.mark(name, former, PREVIOUS_CHAMPION)


def _withdraw(name: str, key: str) -> None:
    from mlflow.exceptions import MlflowException

    # Somebody else may have removed it as abandoned, and one that stays behind is abandoned soon.
    with suppress(MlflowException):
        dialect.forget(name, key)


def _loads(version: Version) -> bool:
    try:
        load_scorer(version.uri)
    except ModelError:
        return False
    return True
