"""What a person sees: a bar in a real terminal, without the chatter of libraries; brackets as they are."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

import pandas as pd
import pytest
from rich.text import Text

from penguins import show
from penguins.search import Trial


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """The process's stderr is a terminal; the fixture tells what a person saw there, and closes it."""
    person, process = os.openpty()
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(process, "w") as stderr:
        monkeypatch.setattr(sys, "__stderr__", stderr)

        def read_all() -> str:
            # What was written may arrive in parts; a terminal that is closed says when that was all.
            stderr.close()
            parts = []
            with contextlib.suppress(OSError):
                while part := os.read(person, 100_000):
                    parts.append(part)
            return b"".join(parts).decode()

        yield read_all
    os.close(person)


def chatter(stream: TextIO) -> None:
    print("Successfully registered model", file=stream)


def test_a_bar_shows_the_step_and_no_chatter(seen: Callable[[], str]) -> None:
    with contextlib.redirect_stderr(io.StringIO()) as forgotten, show.progress(("Reading", "Fitting")) as report:
        report("Fitting")
        chatter(sys.stderr)
    shown = seen()
    assert "Fitting" in shown
    assert "Successfully" not in shown
    assert "Successfully" in forgotten.getvalue()


def test_with_verbose_the_chatter_stands_above_the_bar(seen: Callable[[], str]) -> None:
    assert sys.__stderr__ is not None
    with contextlib.redirect_stderr(sys.__stderr__), show.progress(("Reading", "Fitting")):
        chatter(sys.stderr)
    assert "Successfully registered model" in seen()


def test_a_trials_failure_is_shown_as_it_is(seen: Callable[[], str]) -> None:
    with show.search_progress(("Searching",), 2) as (_, on_trial):
        on_trial(Trial(0, {}, {}, None, 0.0, 0.1, "a [/strange] word"), None)
    assert "a [/strange] word" in seen()


def test_brackets_in_results_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    rows = pd.DataFrame([{"[bold]": "[/x]"}])
    show.answers(rows, pd.DataFrame([{"species": "[red]Gentoo", "probability_[1]": 1.0}]))
    shown = capsys.readouterr().out
    for text in ("[bold]", "[/x]", "[red]Gentoo", "[1]"):
        assert text in shown


EVIL = "Dream\x1b[2J\x1b]0;owned\x07\u202e\x9b"
SHOWN = r"Dream\x1b[2J\x1b"


def test_what_a_terminal_would_obey_is_shown_as_codes(capsys: pytest.CaptureFixture[str]) -> None:
    rows = pd.DataFrame({"Island": [EVIL], "Note\x1b[31m": ["new\nline"]})
    show.answers(rows, pd.DataFrame({"prediction": [0], f"spe{EVIL}": ["Ade\x1blie"]}))
    console = show._stdout()
    console.print(Text.assemble(("✗", "red"), f" {EVIL}"))
    out = capsys.readouterr().out
    assert not set(out) & set("\x1b\x07\x9b\u202e")
    assert out.count(SHOWN) >= 2
    assert r"\u202e\x9b" in out
    assert r"Ade\x1blie" in out
    # The codes are part of the text when the table is laid out: its lines end together.
    table = [line for line in out.splitlines() if line.startswith(("│", "┃", "┏", "└"))]
    assert len({len(line) for line in table}) == 1


def test_colours_and_the_bar_are_obeyed_still(seen: Callable[[], str]) -> None:
    with show.progress((f"Reading {EVIL}", "Done")) as report:
        report(f"Reading {EVIL}")
    told = seen()
    assert "\x1b[?25l" in told  # rich hides the cursor
    assert SHOWN in told
    assert "\x1b]0;" not in told
