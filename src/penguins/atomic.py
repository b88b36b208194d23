"""Put a file or a folder in place whole or not at all, whatever ends the process meanwhile."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from penguins.process import identity, is_alive

PREFIX = ".penguins-"
"""How the folders begin that are written into beside what they are for; the process that made one comes next."""

BEFORE = "before"
"""Where such a folder keeps what stood at the target, under its own name, while nothing stands there."""

NEW, SWAP = 1, 2
"""Linux's RENAME_NOREPLACE and RENAME_EXCHANGE."""


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """A new folder of a random name, on the file system of `target`, to write into; it is gone after the block.

    Makes the folder that `target` lies in, and clears away there what killed processes have left. Raises OSError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    clear(target.parent)
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f"{PREFIX}{identity()}-"))
    try:
        yield folder
    finally:
        remove(folder)


def put(new: Path, target: Path, *, overwrite: bool = False) -> None:
    """Move `new`, which lies in `beside(target)`, to `target`; what stood there is gone with that folder.

    Where the system can swap two names (Linux, but not every network's file system), and for a file in a file's place,
    there is no moment without the one or the other. Elsewhere what stood there is put back when the process is stopped
    in between, and by the next `clear` when it was killed. A link at `target` is replaced, and never followed.
    Raises FileExistsError when there is something at `target` and not `overwrite`, and OSError.
    """
    if not os.path.lexists(target) or not overwrite:
        _rename(new, target)
    elif new.is_file() and (target.is_symlink() or not target.is_dir()):
        new.replace(target)
    elif not _rename_with(SWAP, new, target):
        replace_in_two_steps(new, target)


def replace_in_two_steps(new: Path, target: Path) -> None:
    """What `put` does where two names can't be swapped; `new` lies in `beside(target)`. Raises OSError."""
    old = new.parent / BEFORE / target.name
    old.parent.mkdir()
    target.rename(old)
    new.rename(target)


def leftovers(folder: Path) -> list[Path]:
    """What processes of this user that are gone for certain have left in `folder`."""
    return [
        path
        for path in folder.glob(f"{PREFIX}*")
        if path.is_dir()
        and not path.is_symlink()
        and path.stat().st_uid == os.getuid()
        and is_alive(maker(path)) is False
    ]


def maker(folder: Path) -> str:
    """The process that made a folder of `beside`, as `process.identity()` says."""
    return folder.name.removeprefix(PREFIX).rpartition("-")[0]


def clear(folder: Path) -> list[Path]:
    """Remove the leftovers in `folder`, and return them; what one holds of a target that isn't there is put back.

    Raises OSError.
    """
    found = leftovers(folder)
    for path in found:
        remove(path)
    return found


def remove(folder: Path) -> None:
    """Remove a folder of `beside`; what it holds of a target that isn't there is put back first. Raises OSError."""
    for old in (folder / BEFORE).glob("*"):
        if not os.path.lexists(place := folder.parent / old.name):
            old.rename(place)
    shutil.rmtree(folder)


def _rename(new: Path, target: Path) -> None:
    """Rename, but not onto something; where the system can't promise that, by looking first."""
    if _rename_with(NEW, new, target):
        return
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    new.rename(target)


def _rename_with(flag: int, new: Path, target: Path) -> bool:
    """Linux's renameat2; False where this system or the file system has none."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    here = -100  # AT_FDCWD
    try:
        failed = libc.renameat2(here, os.fsencode(new), here, os.fsencode(target), flag)
    except AttributeError:  # an old C library
        return False
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}:
        return False
    raise OSError(number, os.strerror(number), str(target))
