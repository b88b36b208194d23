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
from typing import TYPE_CHECKING

import psutil

from penguins.config import CHAMPION, PREVIOUS_CHAMPION
from penguins.errors import ModelError, StoreError
from penguins.flavor import load_scorer
from penguins.registry import Version, asking, resolve

if TYPE_CHECKING:
    from mlflow import MlflowClient

CLAIM = "moving_champion_"
"""How the tags begin that say that somebody is moving the champion."""

CLAIM_LIFETIME = 600.0
"""Seconds after which a claim from another machine is taken for left behind; a move takes about one."""

CLAIM_PATIENCE = 30.0
"""Seconds to wait for others who move the champion."""


def version_of(name: str, alias: str = CHAMPION) -> Version | None:
    """The version that carries the alias, whether or not that version is still there; None where none does."""
    import mlflow

    with asking(name):
        number = mlflow.MlflowClient().get_registered_model(name).aliases.get(alias)
    return None if number is None else Version(name, int(number))


def move(version: Version, instead_of: Version | None, *, patience: float = CLAIM_PATIENCE) -> bool:
    """Give `version` the alias `champion`, and the one before it `previous_champion`; False if that one has changed.

    `instead_of` is the champion that the decision rests on. MLflow can't compare and set an alias in one step, so
    whoever moves one first lays a claim, a tag with a name of its own on the registered model. It moves the alias
    only when it then finds no other claim, and the champion still the same: of two who read the same champion,
    the later one sees the claim of the earlier, or its result.
    Raises StoreError when others hold claims for longer than `patience` seconds.
    """
    import mlflow

    client = mlflow.MlflowClient()
    with _claim(version.name, patience), asking(version.name):
        if version_of(version.name) != instead_of:
            return False
        # In this order: killed in between, the champion is still the old one, and no way back is wrong.
        if instead_of is not None and _exists(instead_of):
            client.set_registered_model_alias(version.name, PREVIOUS_CHAMPION, str(instead_of.number))
        client.set_registered_model_alias(version.name, CHAMPION, str(version.number))
    return True


def roll_back(name: str) -> tuple[Version, Version]:
    """Make the previous champion champion again, and the champion the previous one: the new one and the old one.

    Raises ModelError when there is no way back, or the previous champion can't be loaded; nothing has moved then.
    """
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
    import mlflow

    client = mlflow.MlflowClient()
    key = f"{CLAIM}{uuid.uuid4().hex}"
    deadline = time.monotonic() + patience
    while True:
        try:
            with asking(name):
                client.set_registered_model_tag(name, key, json.dumps([time.time(), socket.gethostname(), os.getpid()]))
                claims = client.get_registered_model(name).tags
            others = {other: value for other, value in claims.items() if other.startswith(CLAIM) and other != key}
            for other in [other for other, value in others.items() if _is_abandoned(value)]:
                del others[other]
                _withdraw(client, name, other)
            if not others:
                yield
                return
        finally:
            _withdraw(client, name, key)
        if time.monotonic() > deadline:
            other, value = others.popitem()
            raise StoreError(
                f"Another process ({value}) is moving the champion of {name}: try again later, or, if it is gone, "
                f"remove the tag {other} of the registered model."
            )
        # Two who see each other's claims both step back, and not in step.
        time.sleep(random.uniform(0.1, 1.0))


def _is_abandoned(value: str) -> bool:
    """Whether the process that made a claim is gone: it was killed on this machine, or much time has passed."""
    made_at, host, process = json.loads(value)
    if host == socket.gethostname() and not psutil.pid_exists(process):
        return True
    return bool(time.time() - made_at > CLAIM_LIFETIME)


def _withdraw(client: MlflowClient, name: str, key: str) -> None:
    from mlflow.exceptions import MlflowException

    # Somebody else may have removed it as abandoned, and one that stays behind is abandoned soon.
    with suppress(MlflowException):
        client.delete_registered_model_tag(name, key)


def _exists(version: Version) -> bool:
    try:
        resolve(version.uri)
    except ModelError:
        return False
    return True
