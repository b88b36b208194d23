"""Results on a stdout that lacks characters, is full, is closed, or that nobody reads any more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

# What `cli.run` does around a command that prints, as `show` does, and ends with an exit code.
COMMAND = """
import sys
from rich.table import Table
from penguins import output, show
with output.lasting():
    table = Table()
    table.add_column("\\u2717 2 \\xd7 M\\xfcller")
    table.add_row("Gentoo \\u2014 \\udce9")
    show._stdout().print(table)
    sys.__stderr__ and sys.__stderr__.write("2 \\xd7 done\\n")
    if int(sys.argv[1]):
        sys.exit(int(sys.argv[1]))
"""


def run(code: int, redirected: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LC_", "LANG"))}
    command = f'set -o pipefail; "$0" -c "$1" {code} {redirected}'
    return subprocess.run(
        ["bash", "-c", command, sys.executable, COMMAND], env={**clean, **environment}, capture_output=True
    )


@pytest.mark.parametrize("code", [0, 3])
@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
)
def test_characters_that_ascii_lacks_are_spelled(code: int, environment: dict[str, str]) -> None:
    done = run(code, **environment)
    assert done.returncode == code
    rows = done.stdout.decode("ascii").splitlines()
    assert rows[0].strip("+-") == ""
    assert rows[1] == r"| x 2 x M\xfcller |"
    assert rows[3].rstrip("| ") == r"| Gentoo - \udce9"
    assert done.stderr == b"2 x done\n"


def test_utf_8_is_as_it_was() -> None:
    done = run(3, PYTHONIOENCODING="utf-8")
    assert done.returncode == 3
    assert "┃ ✗ 2 × Müller ┃" in done.stdout.decode()
    assert done.stderr.decode() == "2 × done\n"


@pytest.mark.parametrize(
    ("code", "redirected", "left", "said"),
    [
        # Nobody wants to know more: what was done is done.
        (0, "| true", 0, ""),
        (3, "| true", 3, ""),
        (3, ">&-", 3, ""),
        (3, "2>&-", 3, None),
        (3, "2>/dev/full", 3, None),
        # Somebody waits for it.
        (0, ">/dev/full", 1, "Error: The work is done, but its result can't be printed: No space left on device.\n"),
        (3, ">/dev/full", 3, "Error: The work is done, but its result can't be printed: No space left on device.\n"),
    ],
)
def test_work_is_not_lost_for_a_word(code: int, redirected: str, left: int, said: str | None) -> None:
    done = run(code, redirected, PYTHONIOENCODING="utf-8")
    assert done.returncode == left
    assert done.stderr.decode() == ("" if said is None else f"2 × done\n{said}")


def test_a_closed_stdout_is_no_place_for_the_next_file(tmp_path: Path) -> None:
    """The first free descriptor is what stdout was, and what is printed would go into the file."""
    code = "from penguins import output\nwith output.lasting():\n    import os, sys\n    f = open(sys.argv[1], 'w')\n"
    code += "    os.write(1, b'printed')\n"
    command = 'exec "$0" -c "$1" "$2" >&-'
    subprocess.run(["bash", "-c", command, sys.executable, code, tmp_path / "file"], check=True)
    assert (tmp_path / "file").read_text() == ""


def test_files_are_utf_8_whatever_the_locale_is() -> None:
    ruff = Path(sys.executable).with_name("ruff")
    rule = ["check", "--isolated", "--no-cache", "--preview", "--select", "PLW1514"]
    done = subprocess.run([ruff, *rule, ROOT / "src"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "All checks passed!\n"), done.stderr
