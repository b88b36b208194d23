"""The champion's alias: moved by one at a time, never to nothing, and back."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import mlflow
import pytest

from penguins import champion, process
from penguins.errors import ModelError, StoreError
from penguins.flavor import load_scorer
from penguins.registry import Version
from tests.conftest import point_at_nothing

NAME = "penguin_predictor"
ONE, TWO, THREE = (Version(NAME, number) for number in (1, 2, 3))

pytestmark = [pytest.mark.spark, pytest.mark.slow]


def aliases() -> dict[str, int]:
    found = mlflow.MlflowClient().get_registered_model(NAME).aliases
    return {alias: int(number) for alias, number in found.items()}


def claims() -> list[str]:
    return [tag for tag in mlflow.MlflowClient().get_registered_model(NAME).tags if tag.startswith(champion.CLAIM)]


def test_the_first_champion_has_no_previous_one(models: Path) -> None:
    assert champion.version_of(NAME) is None
    assert champion.move(TWO, instead_of=None)
    assert aliases() == {"champion": 2}
    assert champion.version_of(NAME) == TWO
    assert claims() == []


def test_the_one_before_becomes_the_previous_champion(models: Path) -> None:
    assert champion.move(ONE, instead_of=None)
    assert champion.move(THREE, instead_of=ONE)
    assert aliases() == {"champion": 3, "previous_champion": 1}
    assert champion.move(TWO, instead_of=THREE)
    assert aliases() == {"champion": 2, "previous_champion": 3}


def test_nothing_moves_when_the_decision_rests_on_another_champion(models: Path) -> None:
    assert champion.move(ONE, instead_of=None)
    assert not champion.move(THREE, instead_of=None)
    assert not champion.move(THREE, instead_of=TWO)
    assert aliases() == {"champion": 1}
    assert claims() == []


def test_rolling_back_swaps_the_two(models: Path) -> None:
    champion.move(ONE, instead_of=None)
    champion.move(THREE, instead_of=ONE)
    assert champion.roll_back(NAME) == (ONE, THREE)
    assert aliases() == {"champion": 1, "previous_champion": 3}
    assert champion.roll_back(NAME) == (THREE, ONE)


def test_there_is_no_way_back_from_the_first_champion(models: Path) -> None:
    with pytest.raises(ModelError, match=f"^{NAME} has no champion: `penguins promote` makes one.$"):
        champion.roll_back(NAME)
    champion.move(TWO, instead_of=None)
    with pytest.raises(ModelError, match=f"^{NAME} has no previous champion: version 2 is the first.$"):
        champion.roll_back(NAME)
    with pytest.raises(ModelError, match=r"^There is no registered model emperors: `penguins train` makes one.$"):
        champion.roll_back("emperors")


def test_a_previous_champion_that_cant_be_loaded_is_no_way_back(models: Path) -> None:
    champion.move(ONE, instead_of=None)
    champion.move(THREE, instead_of=ONE)
    mlflow.MlflowClient().set_registered_model_alias(NAME, "previous_champion", "2")
    point_at_nothing(models, version=2)
    with pytest.raises(ModelError, match=r"^models:/penguin_predictor/2 can't be loaded: "):
        champion.roll_back(NAME)
    assert aliases() == {"champion": 3, "previous_champion": 2}


def test_of_many_who_read_the_same_champion_one_moves_it(models: Path) -> None:
    champion.move(ONE, instead_of=None)
    with ThreadPoolExecutor(4) as pool:
        for before, after in ((ONE, THREE), (THREE, TWO), (TWO, ONE)):
            moved = list(pool.map(lambda _, to=after, of=before: champion.move(to, instead_of=of), range(4)))
            assert sorted(moved) == [False, False, False, True]
            assert aliases() == {"champion": after.number, "previous_champion": before.number}
    assert claims() == []


def claim(who: str, *, made_at: float | None = None, former: int | None = None) -> str:
    """What a process writes on the registered model while it moves the champion."""
    return json.dumps([time.time() if made_at is None else made_at, who, former])


def lay(name: str, value: str) -> None:
    mlflow.MlflowClient().set_registered_model_tag(NAME, champion.CLAIM + name, value)


def as_of(identity: str, **parts: str) -> str:
    values = dict(zip(("pid", "start", "boot", "space", "home", "host"), identity.split("_", 5), strict=True))
    return "_".join((values | parts).values())


def test_a_claim_of_a_process_that_is_gone_holds_nobody_up(models: Path) -> None:
    gone = subprocess.run(
        [sys.executable, "-c", "from penguins import process; print(process.identity())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    mine = process.identity()
    lay("here", claim(gone))
    lay("elsewhere", claim("1_1_1_1_1_far", made_at=time.time() - 601))
    # A container that starts again has the host name and the PIDs that it had.
    lay("this_pid", claim(as_of(mine, start="1")))
    lay("earlier_version", json.dumps([time.time() - 601, socket.gethostname(), os.getpid(), None]))
    assert champion.move(ONE, instead_of=None, patience=0)
    assert claims() == []


@pytest.mark.parametrize(
    "parts",
    [{"boot": "0", "space": "0", "home": "0"}, {"space": "0", "home": "0"}, {"pid": "999999999", "host": "far"}],
    ids=["a machine of this name", "a container of this name", "another machine"],
)
def test_a_claim_from_elsewhere_isnt_taken_for_abandoned(models: Path, parts: dict[str, str]) -> None:
    lay("other", claim(as_of(process.identity(), **parts)))
    with pytest.raises(
        StoreError, match=r"^Process \d+ on \S+ has been moving the champion of penguin_predictor since"
    ):
        champion.move(ONE, instead_of=None, patience=0)
    assert claims() == [f"{champion.CLAIM}other"]


def test_a_claim_of_an_earlier_version_of_this_package_counts(models: Path) -> None:
    lay("other", json.dumps([time.time(), "far", 4711, None]))
    with pytest.raises(StoreError, match=r"^Process 4711 on far has been moving the champion of penguin_predictor"):
        champion.move(ONE, instead_of=None, patience=0)


def test_a_tag_of_somebody_else_that_begins_like_a_claim_is_nobodys_claim(models: Path) -> None:
    others = {
        "policy": "see the wiki",
        "on": "",
        "since": "2026",
        "list": "[1, 2]",
        "pair": '["a", "b", "c"]',
        "of": "{}",
    }
    for name, value in others.items():
        lay(name, value)
    assert champion.move(ONE, instead_of=None, patience=0)
    assert champion.move(TWO, instead_of=ONE, patience=0)
    assert champion.roll_back(NAME) == (ONE, TWO)
    assert sorted(claims()) == sorted(champion.CLAIM + name for name in others), "and stays"


def test_a_claim_of_a_process_that_works_is_waited_for_and_then_told(models: Path) -> None:
    lay("other", claim(process.identity(), made_at=datetime(2100, 1, 2, 3, 4, tzinfo=UTC).timestamp()))
    with pytest.raises(StoreError) as raised:
        champion.move(ONE, instead_of=None, patience=0.5)
    assert str(raised.value) == (
        f"Process {os.getpid()} on {socket.gethostname()} has been moving the champion of {NAME} since 03:04 UTC: "
        "try again later, or, if it is gone, "
        f"remove the tag {champion.CLAIM}other of the registered model."
    )
    assert aliases() == {}
    assert claims() == [f"{champion.CLAIM}other"]


def test_killed_between_the_two_aliases_the_way_back_is_the_one_there_was(models: Path) -> None:
    client = mlflow.MlflowClient()
    # What whoever promotes version 2 in place of 3, with 1 as the way back, has written at that moment.
    for alias in ("champion", "previous_champion"):
        client.set_registered_model_alias(NAME, alias, "3")
    lay("gone", claim("1_1_1_1_1_far", made_at=time.time() - 601, former=1))
    now, before = champion.roll_back(NAME)
    assert (now.number, before.number) == (1, 3)
    assert aliases() == {"champion": 1, "previous_champion": 3}
    assert claims() == []


def test_killed_between_the_two_aliases_a_way_back_that_is_deleted_meanwhile_is_none(models: Path) -> None:
    client = mlflow.MlflowClient()
    for alias in ("champion", "previous_champion"):
        client.set_registered_model_alias(NAME, alias, "3")
    lay("gone", claim("1_1_1_1_1_far", made_at=time.time() - 601, former=1))
    client.delete_model_version(NAME, "1")
    with pytest.raises(ModelError, match=rf"^{NAME} has no previous champion: version 3 is the first\.$"):
        champion.roll_back(NAME)
    assert aliases() == {"champion": 3, "previous_champion": 3}
    assert claims() == []


def test_a_champion_that_cant_be_loaded_is_no_way_back(models: Path) -> None:
    champion.move(ONE, instead_of=None)
    champion.move(TWO, instead_of=ONE)
    point_at_nothing(models, version=2)
    champion.move(THREE, instead_of=TWO)
    assert aliases() == {"champion": 3, "previous_champion": 1}
    assert champion.roll_back(NAME) == (ONE, THREE)


KILLED_AGAIN_AND_AGAIN = """
import os, random, signal, sys, time
import mlflow
from penguins import champion, process
from penguins.flavor import load_scorer
from penguins.registry import Version
from penguins.tracking import Tracking

versions = [Version("penguin_predictor", number) for number in (1, 2, 3)]
for moment in range(int(sys.argv[1])):
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        Tracking.local().activate()
        load_scorer(versions[0].uri)
        os.write(tell, b"connected")
        while True:
            champion.move(random.choice(versions), instead_of=champion.version_of("penguin_predictor"))
    os.read(told, 9)
    # From the first step of a move to the middle of a later one.
    time.sleep(moment * 0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print("killed", flush=True)
    sys.stdin.readline()
"""


def test_killed_at_any_moment_the_champion_loads_and_the_next_move_works(models: Path) -> None:
    champion.move(ONE, instead_of=None)
    kills, left_behind = 10, 0
    mover = subprocess.Popen(
        [sys.executable, "-c", KILLED_AGAIN_AND_AGAIN, str(kills)],
        cwd=models.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert mover.stdin is not None
    assert mover.stdout is not None
    with mover:
        for _ in range(kills):
            assert mover.stdout.readline() == "killed\n"
            left_behind += len(claims())
            for alias in aliases():
                load_scorer(f"models:/{NAME}@{alias}")
            if len(set(aliases().values())) == 2:
                champion.roll_back(NAME)
            now = champion.version_of(NAME)
            assert champion.move(THREE if now != THREE else TWO, instead_of=now)
            assert claims() == []
            mover.stdin.write("\n")
            mover.stdin.flush()
    assert mover.returncode == 0
    assert left_behind > 0, "some were killed in the middle of a move"
