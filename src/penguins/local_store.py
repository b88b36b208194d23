"""An SQLite store: the file that its URI names, whether that can be used, and what comes along when it is moved."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import version
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from penguins.errors import StoreError, first_sentence

ARTIFACTS = "mlruns"
"""The folder beside the file in which artifacts are kept, MLflow's own usual name."""

BUSY = 5.0
"""Seconds to wait for another process that writes; MLflow's own transactions take milliseconds."""

LITTLE_SPACE = 1 << 20
"""Bytes; a run with its model takes some hundred thousand."""

QUICKLY_CHECKED = 64 << 20
"""Bytes up to which all pages of a file are looked at when a command starts, some tenths of a second."""

_URI = re.compile(r"(?P<driver>sqlite(\+\w+)?):///(?P<path>[^?]+)(?P<options>\?.*)?")

_LOCATIONS = (
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)
"""Where MLflow's tables hold the location of something that is kept, beside `experiments.artifact_location`."""

_log = logging.getLogger(__name__)


def file_of(uri: str) -> Path | None:
    """The file that an SQLite URI names; None for every other URI, and for a database in memory."""
    parts = _URI.fullmatch(uri)
    if parts is None or parts["path"] == ":memory:" or parts["path"].startswith("file:"):
        return None
    return Path(unquote(parts["path"]) if _is_unquoting() else parts["path"])


def uri_of(file: Path) -> str:
    """The URI of an SQLite file. Raises StoreError for a path that no such URI can hold."""
    path = str(file)
    if not _is_unquoting():
        if "?" in path:
            raise StoreError(f"{path} can't be a store, because its path has a question mark: name another place.")
        return f"sqlite:///{path}"
    quoted = path.replace("%", "%25").replace("?", "%3F")
    # Of a plain sqlite:/// MLflow makes the folder, under the name as it is quoted.
    return f"{'sqlite' if quoted == path else 'sqlite+pysqlite'}:///{quoted}"


def absolute(uri: str) -> str:
    """The URI, which means the same SQLite file in whatever folder a process runs; any other URI as it is."""
    parts, file = _URI.fullmatch(uri), file_of(uri)
    if parts is None or file is None or (file.is_absolute() and file == file.resolve()):
        return uri
    named = uri_of(file.resolve())
    driver = named.partition(":")[0] if parts["driver"] == "sqlite" else parts["driver"]
    return f"{driver}:{named.partition(':')[2]}{parts['options'] or ''}"


def require_usable(file: Path) -> None:
    """Raise StoreError unless the store can be written to; a file that isn't there needs a folder that can be."""
    folder = file.parent
    if not os.access(folder, os.W_OK):
        raise StoreError(f"{folder} is no folder that can be written to: name another place (--tracking-uri).")
    if file.is_dir():
        raise StoreError(f"{file} is a folder, and an SQLite store is a file: name another place (--tracking-uri).")
    if (free := shutil.disk_usage(folder).free) < LITTLE_SPACE:
        raise StoreError(f"There is no room for a run in {folder} ({free:,} bytes are free): make some.")
    if not _is_made(file):
        return
    if not os.access(file, os.W_OK):
        raise StoreError(f"{file} can't be written to: change its mode, or name another place (--tracking-uri).")
    with _opened(file) as connection:
        # Takes the lock that a write needs, and gives it back.
        connection.execute("BEGIN IMMEDIATE").execute("ROLLBACK")
        if file.stat().st_size < QUICKLY_CHECKED:
            [found] = connection.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(found)


def prepare(file: Path) -> None:
    """Bring a store that was made before to this MLflow and to this folder; one that isn't there stays so.

    An older schema is upgraded after the file was copied, and locations of a folder that was moved or copied are
    changed to where the artifacts lie now; the log of this module tells both. Raises StoreError for a store of a
    newer MLflow, for a file that isn't MLflow's, and for one that can't be read or written.
    """
    if not _is_made(file):
        return
    with _alone(file.parent):
        _upgrade(file)
        _relocate(file)


def make(file: Path) -> None:
    """Make the store if it isn't there: whole or not at all, and once, of however many processes begin together."""
    if _is_made(file):
        return
    from mlflow.store.tracking import sqlalchemy_store

    file.parent.mkdir(parents=True, exist_ok=True)
    begin: Any = sqlalchemy_store.SqlAlchemyStore  # which has no types
    with _alone(file.parent):
        if _is_made(file):
            return
        fresh = file.with_name(f".{file.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        try:
            # The experiment that MLflow makes at once would keep its artifacts in whatever folder the process runs.
            begin(uri_of(fresh), (file.parent / ARTIFACTS).as_uri()).engine.dispose()
            fresh.rename(file)
        finally:
            fresh.unlink(missing_ok=True)


def _is_unquoting() -> bool:
    """Whether SQLAlchemy takes %20 in the path of an SQLite URI for a space; before 2.1 it didn't."""
    major, minor = version("sqlalchemy").split(".")[:2]
    return (int(major), int(minor)) >= (2, 1)


def _is_made(file: Path) -> bool:
    """Whether there is anything in the file; MLflow leaves an empty one where it fails at once."""
    return file.is_file() and file.stat().st_size > 0


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let no other process that asks for the same be in this block, where the file system knows such locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[sqlite3.Connection]:
    """A connection to the file, in which each statement stands for itself; SQLite's errors become StoreError."""
    try:
        uri = f"file:{quote(str(file))}?mode=rw"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=BUSY, isolation_level=None)) as connection:
            yield connection
    except sqlite3.DatabaseError as error:
        raise StoreError(_refusal(file, error)) from error


def _refusal(file: Path, error: sqlite3.DatabaseError) -> str:
    """What an error of SQLite means for a store, and what to do."""
    said = first_sentence(error)
    if "locked" in said or "busy" in said:
        return f"{file} is in use by another process ({said}): wait until that is done, or end it."
    if "readonly" in said or "unable to open" in said:
        return f"{file} can't be written to ({said}): change its mode, or name another place (--tracking-uri)."
    if "full" in said or "disk I/O" in said:
        return f"{file} can't be written to ({said}): make room on the disk."
    return (
        f"{file} is damaged, or no SQLite database ({said}): put a copy of it in its place, or move it away to begin "
        "a new store."
    )


def _upgrade(file: Path) -> None:
    """Upgrade the schema of an older MLflow by MLflow's own command, after a copy was made of the file."""
    with _opened(file) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "experiments" not in tables:
            raise StoreError(f"{file} is an SQLite database, but no store of MLflow: name another file.")
        found = connection.execute("SELECT * FROM alembic_version").fetchone() if "alembic_version" in tables else None
    known, newest = revisions()
    if not known or (found is not None and found[0] == newest):
        return
    if found is not None and found[0] not in known:
        raise StoreError(
            f"{file} is a store of a newer MLflow than {version('mlflow')} (its schema is {found[0]}): "
            "install that version of MLflow, or name another store (--tracking-uri)."
        )
    kept = file.with_name(f"{file.name}.{datetime.now():%Y%m%d-%H%M%S}.bak")
    _log.warning(
        "%s is a store of an older MLflow. Its schema is upgraded to that of MLflow %s, after which the older one "
        "can't read it; %s is a copy of what it was.",
        *(file, version("mlflow"), kept),
    )
    with _opened(file) as connection, contextlib.closing(sqlite3.connect(kept)) as copy:
        connection.backup(copy)
    from mlflow import db

    upgrade: Any = db.upgrade.callback  # what `mlflow db upgrade` does
    try:
        upgrade(uri_of(file))
    except Exception as error:  # each step of it has its own ways to fail
        kept.replace(file)
        raise StoreError(
            f"MLflow {version('mlflow')} can't upgrade {file} ({first_sentence(error)}); it is as it was: use the "
            "MLflow that made it."
        ) from error


def revisions() -> tuple[set[str], str | None]:
    """The schemas that the installed MLflow knows, and the newest of them; read, as importing MLflow takes seconds."""
    found = find_spec("mlflow")
    places = found.submodule_search_locations if found is not None else None
    scripts = [path for place in places or () for path in Path(place, "store/db_migrations/versions").glob("*.py")]
    texts = [path.read_text(encoding="utf-8") for path in scripts]
    known = {name for text in texts for name in re.findall(r'^revision\b.*?=\s*"(\w+)"', text, re.MULTILINE)}
    former = {name for text in texts for name in re.findall(r'^down_revision\b.*?=\s*"(\w+)"', text, re.MULTILINE)}
    return known, next(iter(known - former), None)


def _relocate(file: Path) -> None:
    """Change the locations in a store whose folder was moved or copied to where its artifacts lie now.

    MLflow keeps absolute locations, so it would go on writing into the former folder, and not find what is kept here.
    """
    with _opened(file) as connection:
        experiments = connection.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall()
        formers = {former for _, location in experiments if (former := _former_folder(location, file.parent))}
        for former in sorted(formers):
            connection.execute("BEGIN IMMEDIATE")
            changed = _change_locations(connection, former, file)
            connection.execute("COMMIT")
            if changed:
                _log.warning(
                    "%s was in %s before: the artifacts of its runs and models are looked for in %s now, and new ones "
                    "are kept there.",
                    *(file, former, file.parent / ARTIFACTS),
                )


def _change_locations(connection: sqlite3.Connection, former: Path, file: Path) -> int:
    """Change what is below the folder `former` to what it is below the store's own; for how many runs and models.

    Experiments are changed when artifacts of the store lie here, when there is nothing at their location any more, or
    when the store that this one is a copy of stands there; otherwise somebody chose the location. A run or a model is
    changed when it lies here, or, if others do, when it lies nowhere: what was left behind stays readable.
    """
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    experiments, *kept = [
        [
            (table, column, location, new)
            for (location,) in connection.execute(f"SELECT DISTINCT {column} FROM {table}").fetchall()
            if (new := _moved_to(location, former, file.parent)) is not None
        ]
        for table, column in (("experiments", "artifact_location"), *_LOCATIONS)
        if table in tables
    ]
    items = list(chain.from_iterable(kept))
    is_here = any(_exists(new) for *_, new in items)
    is_copy = (former / file.name).exists()
    moved = [item for item in items if _exists(item[3]) or (is_here and not _exists(item[2]))]
    for table, column, location, new in (
        *(item for item in experiments if is_here or is_copy or not _exists(item[2])),
        *moved,
    ):
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (new, location))
    return len(moved)


def _path(location: str | None) -> Path | None:
    """The path of a location on this machine, which MLflow keeps with `file://` or without; None for any other."""
    if location is None or not location.startswith(("/", "file:")):
        return None
    return Path(unquote(urlsplit(location).path) if location.startswith("file:") else location)


def _former_folder(location: str | None, folder: Path) -> Path | None:
    """The folder in which the store was when it gave an experiment this location; None when that is `folder`."""
    path = _path(location)
    if path is None or path.is_relative_to(folder / ARTIFACTS):
        return None
    root = path if path.name == ARTIFACTS else path.parent
    if root.name != ARTIFACTS or root.resolve() == (folder / ARTIFACTS).resolve():
        return None
    return root.parent


def _moved_to(location: str | None, former: Path, folder: Path) -> str | None:
    """What a location below the folder `former` is below `folder`; None for any other location."""
    path = _path(location)
    if location is None or path is None or path.is_relative_to(folder) or not path.is_relative_to(former):
        return None
    moved = folder / path.relative_to(former)
    return moved.as_uri() if location.startswith("file:") else str(moved)


def _exists(location: str) -> bool:
    path = _path(location)
    return path is not None and path.exists()
