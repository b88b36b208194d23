"""Paths of files and folders, as people write them, as this machine opens them, and as Spark takes them.

Spark hands a path to Hadoop, which reads it in its own way: it decodes no `%20`, takes `[`, `{`, `*` and `?` for a
pattern where something is read, and in a path without a scheme takes what stands before a colon for one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

from penguins.errors import DataError

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
FILE = re.compile(r"file:(?://(?:localhost)?(?=/))?(/(?:[^/].*)?)", re.IGNORECASE | re.DOTALL)

WITHOUT_CHECKSUMS = {"fs.file.impl": "org.apache.hadoop.fs.RawLocalFileSystem", "fs.file.impl.disable.cache": "true"}


def local(text: str | Path) -> Path | None:
    """The path on this machine that `text` names, as a path or as a `file:` URI; None for a URI of another place."""
    if not SCHEME.match(str(text)):
        return Path(text)
    if (written := FILE.fullmatch(str(text))) is None:
        return None
    decoded, raw = Path(unquote(written[1])), Path(written[1])
    # As Hadoop writes it, nothing is encoded.
    return raw if exists(raw) and not exists(decoded) else decoded


def exists(path: Path) -> bool:
    """Whether there is something to be opened; False as well, not an OSError, where this user can't look."""
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True


def is_file(path: Path | None) -> bool:
    """Whether there is a file, as `exists` says it."""
    return path is not None and exists(path) and path.is_file()


def uri(path: Path) -> str:
    """An absolute path as a URI that `local` turns into the same path again, and that people can read."""
    return "file:" + re.sub(r"%(?=[0-9A-Fa-f]{2})", "%25", str(path))


def to_write(path: Path) -> str:
    """An absolute path of this machine as Spark's writers take it. Raises DataError for one that Java can't open."""
    _require_text(path)
    # On a cluster, a path without a scheme would be looked for elsewhere; only Volumes have the same path there.
    return str(path) if path.parts[1:2] == ("Volumes",) else f"file:{path}"


def to_read(source: str | Path) -> str:
    """A path, pattern or URI as Spark's readers take it: what is there on this machine is meant literally.

    Raises DataError for a path that is there and that Spark passes over or can't open.
    """
    if (path := local(source)) is None:
        return str(source)
    taken = to_write(path) if isinstance(source, Path) or SCHEME.match(source) else source
    if not exists(path):
        return taken
    if path.is_file() and is_hidden(path.name):
        raise DataError(f"{source} can't be read: Spark passes over files whose names start with _ or .: rename it.")
    escaped = literal(taken)
    if escaped != taken and ":" in str(path):
        raise DataError(
            f"{source} can't be read: Spark takes no colon in a path that has any of []{{}}*?\\ in it: rename it."
        )
    return escaped


def literal(path: str) -> str:
    """A path for Spark's readers, which would take `[`, `{`, `*` and `?` in it for a pattern."""
    return re.sub(r"[\[\]{}*?\\]", r"\\\g<0>", path)


def is_hidden(name: str) -> bool:
    """Whether Spark passes over a file or a folder of this name, as over its own `_SUCCESS`."""
    return name.startswith(".") or (name.startswith("_") and "=" not in name) or name.endswith("._COPYING_")


def options(files: Iterable[Path]) -> dict[str, str]:
    """What Spark's readers need for these files of this machine: Hadoop's checksums can't be had with a colon."""
    return WITHOUT_CHECKSUMS if any(":" in file.name for file in files) else {}


def _require_text(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{str(path)!a} is no name in UTF-8, and Spark takes no other: rename it.") from error
