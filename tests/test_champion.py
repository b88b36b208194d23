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

from penguins import champion
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


def test_a_claim_of_a_process_that_is_gone_holds_nobody_up(models: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left_behind = {
        "here": [time.time(), socket.gethostname(), gone.pid, None],
        "elsewhere": [time.time() - 601, "far", 1, None],
    }
    for name, value in left_behind.items():
        mlflow.MlflowClient().set_registered_model_tag(NAME, champion.CLAIM + name, json.dumps(value))
    assert champion.move(ONE, instead_of=None)
    assert claims() == []


def test_a_claim_of_a_process_that_works_is_waited_for_and_then_told(models: Path) -> None:
    value = json.dumps([datetime(2100, 1, 2, 3, 4, tzinfo=UTC).timestamp(), socket.gethostname(), os.getpid(), None])
    mlflow.MlflowClient().set_registered_model_tag(NAME, f"{champion.CLAIM}other", value)
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
    client.set_registered_model_tag(NAME, f"{champion.CLAIM}gone", json.dumps([time.time() - 601, "far", 1, 1]))
    now, before = champion.roll_back(NAME)
    assert (now.number, before.number) == (1, 3)
    assert aliases() == {"champion": 1, "previous_champion": 3}
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
from penguins import champion
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
