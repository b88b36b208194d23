"""Which version is the champion: look it up, move it, take it back."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from penguins import dialect, process
from penguins.config import CHAMPION, PREVIOUS_CHAMPION
from penguins.errors import ModelError, StoreError
from penguins.flavor import load_scorer
from penguins.registry import Version, asking, resolve

CLAIM = "moving_champion_"
"""How the tags begin that say that somebody is moving the champion."""

CLAIM_LIFETIME = 600.0
"""Seconds after which a claim is taken for left behind, whoever made it; a move takes about one."""

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


@dataclass(frozen=True)
class _Claim:
    made_at: float
    """Seconds since 1970, by the clock of whoever made it."""
    who: str
    """The process that made it: `process.identity()`."""
    former: int | None
    """Which version was the previous champion then."""

    @classmethod
    def of(cls, value: str) -> _Claim | None:
        """The claim that a tag's value holds; None for a tag that means something else to somebody else."""
        try:
            made_at, *who, former = json.loads(value)
            # Of an earlier version of this package, which wrote a host and a PID, nothing more can be known.
            identity = str(who[0]) if len(who) == 1 else f"{int(who[1])}_____{who[0]}"
            claim = cls(float(made_at), identity, None if former is None else int(former))
        except (ValueError, TypeError, IndexError):
            return None
        return claim if identity.count("_") >= 5 else None

    def __str__(self) -> str:
        return json.dumps([self.made_at, self.who, self.former])

    @property
    def is_abandoned(self) -> bool:
        """Whether the process that made it is gone, or must be, because much time has passed."""
        return process.is_alive(self.who) is False or time.time() - self.made_at > CLAIM_LIFETIME


@contextmanager
def _claim(name: str, patience: float) -> Iterator[None]:
    """Hold the only claim on moving the aliases of a registered model."""
    key = f"{CLAIM}{uuid.uuid4().hex}"
    deadline = time.monotonic() + patience
    while True:
        try:
            with asking(name):
                former = dialect.marked(name, PREVIOUS_CHAMPION)
                dialect.note(name, key, str(_Claim(time.time(), process.identity(), former)))
                others = _claims(name)
            # A server may show what was written a moment later.
            others.pop(key, None)
            for other in [other for other, claim in others.items() if claim.is_abandoned]:
                _put_right(name, others.pop(other))
                _withdraw(name, other)
            if not others:
                yield
                return
        finally:
            _withdraw(name, key)
        if time.monotonic() > deadline:
            other, claim = others.popitem()
            since = datetime.fromtimestamp(claim.made_at, UTC).strftime("%H:%M UTC")
            who = process.in_words(claim.who)
            raise StoreError(
                f"{who[0].upper()}{who[1:]} has been moving the champion of {name} since {since}: "
                "try again later, or, if it is gone, "
                f"remove the tag {other} of {dialect.notes_place(name)}."
            )
        # Two who see each other's claims both step back, and not in step.
        time.sleep(random.uniform(0.1, 1.0))


def _claims(name: str) -> dict[str, _Claim]:
    """All claims on moving the aliases of a registered model, by their tags."""
    tags = ((key, _Claim.of(value)) for key, value in dialect.notes(name).items() if key.startswith(CLAIM))
    return {key: claim for key, claim in tags if claim is not None}


def _put_right(name: str, claim: _Claim) -> None:
    """Take back the first half of a move, if whoever made the claim was killed before the second."""
    with asking(name):
        champion, previous = (dialect.marked(name, alias) for alias in (CHAMPION, PREVIOUS_CHAMPION))
        if claim.former is None or champion is None or champion != previous:
            return
        # One that is deleted meanwhile is no way back.
        with suppress(ModelError):
            dialect.mark(name, resolve(f"models:/{name}/{claim.former}").number, PREVIOUS_CHAMPION)


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
