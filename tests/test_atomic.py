"""What is put in place is whole, what it replaces is never lost, and what killed processes leave is cleared away."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from penguins import atomic
from penguins.process import identity

FILES = 20

BEGIN = """
import os, sys
from pathlib import Path
from penguins import atomic
target = Path(sys.argv[1])

def written(folder, text):
    new = folder / "new"
    new.mkdir()
    for number in range(20):
        (new / str(number)).write_text(text)
    return new
"""

AGAIN_AND_AGAIN = """
number = 0
while True:
    number += 1
    with atomic.beside(target) as folder:
        atomic.put(written(folder, str(number)), target, overwrite=True)
    print(number, flush=True)
"""

IN_TWO_STEPS = AGAIN_AND_AGAIN.replace(
    "put(written(folder, str(number)), target, overwrite=True)",
    "replace_in_two_steps(written(folder, str(number)), target)",
)

# Python tells of each rename before it is done: Ctrl-C comes right before the second.
STOPPED_BETWEEN = """
renames = []

def on_event(event, arguments):
    if event == "os.rename":
        renames.append(arguments)
        if len(renames) == 2:
            raise KeyboardInterrupt

with atomic.beside(target) as folder:
    new = written(folder, "new")
    sys.addaudithook(on_event)
    atomic.replace_in_two_steps(new, target)
"""


SWAPPED = STOPPED_BETWEEN.replace("len(renames) == 2", "True").replace(
    "replace_in_two_steps(new, target)", "put(new, target, overwrite=True)"
)


def run(script: str, target: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BEGIN + script, str(target)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def folder_of(path: Path, text: str) -> Path:
    path.mkdir()
    for number in range(FILES):
        (path / str(number)).write_text(text)
    return path


def texts(path: Path) -> set[str]:
    files = list(path.iterdir())
    assert len(files) == FILES
    return {file.read_text() for file in files}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def put(target: Path, *, is_folder: bool, overwrite: bool) -> None:
    with atomic.beside(target) as folder:
        new = folder / "new"
        folder_of(new, "new") if is_folder else new.write_text("new")
        atomic.put(new, target, overwrite=overwrite)


@pytest.mark.parametrize("is_folder", [False, True])
@pytest.mark.parametrize("stands_there", ["file", "folder", "link", "link to nothing"])
def test_only_with_overwrite_anything_is_replaced_and_a_link_is_never_followed(
    tmp_path: Path, stands_there: str, is_folder: bool
) -> None:
    target, other = tmp_path / "out", tmp_path / "other"
    other.write_text("other")
    if stands_there == "file":
        target.write_text("old")
    elif stands_there == "folder":
        folder_of(target, "old")
    else:
        target.symlink_to(other if stands_there == "link" else tmp_path / "nothing")
    with pytest.raises(FileExistsError) as told:
        put(target, is_folder=is_folder, overwrite=False)
    assert (told.value.errno, told.value.filename) == (errno.EEXIST, str(target))
    assert target.is_symlink() == ("link" in stands_there)
    put(target, is_folder=is_folder, overwrite=True)
    assert not target.is_symlink()
    assert (texts(target) if is_folder else {target.read_text()}) == {"new"}
    assert other.read_text() == "other"
    assert names(tmp_path) == ["other", "out"]


def test_a_new_place_gets_its_folder_and_a_name_may_be_as_long_as_any(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / ("x" * 255)
    put(target, is_folder=True, overwrite=False)
    assert texts(target) == {"new"}
    assert len(names(target.parent)) == 1


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("script", [AGAIN_AND_AGAIN, IN_TWO_STEPS])
def test_stopped_at_any_moment_the_old_or_the_new_is_there(tmp_path: Path, script: str, stop: signal.Signals) -> None:
    target = folder_of(tmp_path / "out", "0")
    with run(script, target) as process:
        assert process.stdout is not None
        for _ in range(3 + stop):
            last = int(process.stdout.readline())
        process.send_signal(stop)
    if script is AGAIN_AND_AGAIN:
        assert target.exists(), "not for a moment is there nothing"
    atomic.clear(tmp_path)
    [text] = texts(target)
    assert int(text) >= last
    assert names(tmp_path) == ["out"]


def test_ctrl_c_between_two_renames_puts_back_what_was_there(tmp_path: Path) -> None:
    target = folder_of(tmp_path / "out", "old")
    with run(STOPPED_BETWEEN, target) as process:
        pass
    assert process.returncode == -signal.SIGINT
    assert texts(target) == {"old"}
    assert names(tmp_path) == ["out"]


@pytest.mark.skipif(sys.platform != "linux", reason="swapped in one step on Linux")
def test_a_folder_takes_a_folders_place_in_one_step(tmp_path: Path) -> None:
    target = folder_of(tmp_path / "out", "old")
    with run(SWAPPED, target) as process:
        pass
    assert process.returncode == 0, "there is no rename to be stopped at"
    assert texts(target) == {"new"}
    assert names(tmp_path) == ["out"]


def test_what_a_killed_process_had_moved_away_is_put_back_and_a_living_ones_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "from penguins.process import identity; print(identity())"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        gone = process.communicate()[0].strip()
    folder_of(tmp_path / f"{atomic.PREFIX}{gone}-a", "half of it")
    (tmp_path / f"{atomic.PREFIX}{gone}-b" / atomic.BEFORE).mkdir(parents=True)
    folder_of(tmp_path / f"{atomic.PREFIX}{gone}-b" / atomic.BEFORE / "scored.parquet", "old")
    mine, elsewhere = f"{atomic.PREFIX}{identity()}-c", f"{atomic.PREFIX}{gone[:-1]}-d"
    for name in (mine, elsewhere):
        (tmp_path / name).mkdir()
    (tmp_path / f"{atomic.PREFIX}{gone}-link").symlink_to(tmp_path / mine)
    assert [path.name[-1] for path in sorted(atomic.leftovers(tmp_path))] == ["a", "b"]
    with atomic.beside(tmp_path / "other.csv"):
        assert texts(tmp_path / "scored.parquet") == {"old"}
    assert names(tmp_path) == sorted([mine, elsewhere, f"{atomic.PREFIX}{gone}-link", "scored.parquet"])


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_what_another_user_left_is_not_ours_to_clear(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "from penguins.process import identity; print(identity())"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        gone = process.communicate()[0].strip()
    theirs = tmp_path / f"{atomic.PREFIX}{gone}-a"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    assert atomic.leftovers(tmp_path) == []
