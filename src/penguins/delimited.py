"""What a CSV file must be, whoever reads it: UTF-8, values between commas, a header, gaps that everybody knows.

Nothing here needs Spark, so that all readers share the rules.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from penguins.errors import DataError, first_sentence, listed

GAPS = (
    *("NA", "N/A", "n/a", "<NA>", "#N/A", "#N/A N/A", "#NA"),
    *("NaN", "nan", "-NaN", "-nan", "NULL", "null", "None"),
    *("1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
)
"""Words that stand for a missing value, beside no text at all: those that pandas takes for one, R's NA among them."""

OPENERS: dict[str, Callable[..., Any]] = {"": open, ".gz": gzip.open, ".bz2": bz2.open}
"""How Python opens a file, by the suffix that says how it is compressed."""

COMPRESSED = (".gz", ".bz2", ".zst", ".snappy", ".lz4", ".deflate")
"""The suffixes of what Spark decompresses."""

BLOCK = 4 * 2**20
"""Bytes that are looked at at once."""

SAMPLE = 10_000
"""Characters of a file's start that are kept."""

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
"""What stands between values in files that are called CSV as well."""


@dataclass(frozen=True)
class Layout:
    """How a CSV file begins and what reading it takes.

    `header` has the first record's cells, none of a file without text; `start` the text that the file begins with.
    """

    header: tuple[str, ...]
    has_line_breaks: bool
    """Whether a value between quotes has a line break in it."""
    start: str


def suffixes(name: str) -> tuple[str, str]:
    """What a file's name says it is, and how it is compressed, in lower case: `.csv` and `.gz` of `BIRDS.CSV.gz`."""
    path = PurePosixPath(name.lower())
    return (path.with_suffix("").suffix, path.suffix) if path.suffix in COMPRESSED else (path.suffix, "")


def scan(file: Path) -> Layout:
    """Look at every byte of a CSV file on this machine.

    Raises DataError when the file can't be read, isn't UTF-8, or has quotes that can't be told apart.
    """
    lines, is_odd, start = 0, False, ""
    try:
        with OPENERS[suffixes(file.name)[1]](file, "rb") as stream:
            # Whole lines, so that neither a character nor a line is cut.
            while block := stream.read(BLOCK) + stream.readline():
                text = _decoded(block, str(file), lines)
                start = start or text.removeprefix("\ufeff").lstrip()
                is_odd = is_odd or has_odd_line(text)
                lines += block.count(b"\n")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} can't be read: {getattr(error, 'strerror', None) or first_sentence(error)}") from error
    return Layout(header(start, str(file)), is_odd and has_line_breaks(_lines(file), str(file)), start[:SAMPLE])


def records(file: Path, layout: Layout) -> Iterator[list[str]]:
    """The cells of each record below the header, as Spark reads them: without the spaces around what isn't quoted."""
    raw: list[str] = []

    def feed(line: str) -> str:
        raw.append(line)
        return line

    lines = map(feed, _lines(file))
    # Where no value has a line break, a quote that isn't closed ends with its line.
    readers = [lines] if layout.has_line_breaks else ([line] for line in lines)
    found = (cells for some in readers for cells in csv.reader(some, skipinitialspace=True))
    is_header = True
    for cells in found:
        text = "".join(raw)
        raw.clear()
        if not text.strip():
            continue
        if not is_header:
            yield [cell if f'{cell}"' in text else cell.rstrip() for cell in cells]
        is_header = False


def has_odd_line(text: str) -> bool:
    """Whether a line has an odd number of quotes: without one, no value has a line break in it."""
    return '"' in text and any(line.count('"') % 2 for line in text.splitlines())


def has_line_breaks(lines: Iterable[str], what: str) -> bool:
    """Whether a value of these lines, each with its end, has a line break between its quotes.

    A quote that isn't closed, or not doubled within a value, makes a line that doesn't fit the header; then the next
    line is looked at for itself. Raises DataError when there are both: a reader of whole lines would cut the values,
    and one that looks for the closing quote would swallow rows.
    """
    breaks, stray, number = False, 0, 0
    source, again, taken = iter(lines), deque[str](), list[str]()

    def feed() -> Iterator[str]:
        while (line := again.popleft() if again else next(source, None)) is not None:
            taken.append(line)
            yield line

    fed = feed()
    while True:
        try:
            for _ in csv.reader(fed, skipinitialspace=True, strict=True):
                breaks = breaks or len(taken) > 1
                number += len(taken)
                taken.clear()
        except csv.Error:
            number += 1
            stray = stray or number
            again.extendleft(reversed(taken[1:]))
            taken.clear()
            # What was fed to its end gives no more.
            fed = feed()
            continue
        break
    if breaks and stray:
        raise DataError(
            f"{what} has values with line breaks, and in line {stray:,} a quote that is neither closed nor doubled: "
            "correct that line."
        )
    return breaks


def header(text: str, what: str) -> tuple[str, ...]:
    """The cells of the first record that isn't blank, without the spaces around them; none where there is no text."""
    try:
        for record in csv.reader(io.StringIO(text, newline=""), skipinitialspace=True):
            if len(record) > 1 or "".join(record).strip():
                return tuple(cell.strip() for cell in record)
    except csv.Error as error:
        raise DataError(f"{what} can't be read: its header is too long ({first_sentence(error)}).") from error
    return ()


def column_names(header: Sequence[str]) -> list[str]:
    """A name of its own for each column: `_c0` for the first where it is blank, `Note_2` for the second `Note`.

    Upper and lower case make no difference, as for Spark.
    """
    written = {name.lower() for name in header}
    taken: set[str] = set()
    names = []
    for place, cell in enumerate(header):
        wanted = name = cell or f"_c{place}"
        number = 1
        while name.lower() in taken or (name != cell and name.lower() in written):
            number += 1
            name = f"{wanted}_{number}"
        taken.add(name.lower())
        names.append(name)
    return names


def require_header(layout: Layout, required: Sequence[str], what: str) -> None:
    """Raise DataError when a CSV file has no header, lacks a column that is `required`, or names one of these twice."""
    found = layout.header
    if not found:
        raise DataError(f"{what} is empty: its first line must be a header with {listed(required, COLUMNS_SHOWN)}.")
    lower = [name.lower() for name in found]
    if twice := [name for name in required if lower.count(name.lower()) > 1]:
        raise DataError(f"{what} has {columns_named(twice)} more than once: name each column once.")
    missing = [name for name in required if name not in found]
    if missing:
        require_commas(layout, what)
    if len(missing) == len(required) and any(re.fullmatch(r"[-+]?\d+(\.\d*)?", name) for name in found):
        raise DataError(
            f"{what} has no header: its first line must name {listed(required, COLUMNS_SHOWN)}, "
            f"but reads {listed([','.join(found)], quoted=True)}."
        )
    if missing:
        raise DataError(f"{what} lacks {columns_named(missing)}; its header has {listed(found, COLUMNS_SHOWN)}.")


def require_commas(layout: Layout, what: str) -> None:
    """Raise DataError when something else than commas stands between the names of the header."""
    for separator, name in SEPARATORS.items():
        if len(layout.header) == 1 and separator in layout.header[0]:
            cell = rf"(?:^|{re.escape(separator)})\"?[-+]?\d+,\d+\"?\s*(?:{re.escape(separator)}|$)"
            if re.search(cell, layout.start, re.MULTILINE):
                raise DataError(
                    f"{what} has {name} between its values, and commas in its numbers: "
                    "save it with commas between the values, and points in the numbers."
                )
            raise DataError(f"{what} has {name} between its values: save it with commas between them.")


COLUMNS_SHOWN = 10
"""How many columns a sentence names: more than of values, because somebody looks for one of them."""


def columns_named(names: Sequence[str]) -> str:
    """`the column A`, or `the columns A, B`."""
    return f"the column{'s' if len(names) > 1 else ''} {listed(names, COLUMNS_SHOWN)}"


def not_utf8(what: str, place: str, byte: int) -> DataError:
    """The error of a file that has a byte which is no part of a text in UTF-8."""
    return DataError(
        f"{what} isn't UTF-8: {place} has the byte 0x{byte:02X}. "
        "Save it as UTF-8; if it is Latin-1, `iconv -f LATIN1 -t UTF-8` does that."
    )


def require_one_byte_units(start: bytes, what: str) -> None:
    """Raise DataError when a file begins as one in UTF-16 or UTF-32 does, or with bytes that no text has."""
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        encoding = "UTF-32"
    elif start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "UTF-16"
    elif b"\0" in start:
        zeros = max(start[::2].count(0), start[1::2].count(0))
        if zeros * 4 < len(start):
            raise DataError(f"{what} is no text: it begins with zero bytes. Give a CSV file in UTF-8.")
        encoding = "UTF-16"
    else:
        return
    raise DataError(f"{what} is {encoding}: save it as UTF-8, as `iconv -f {encoding} -t UTF-8` does.")


def _decoded(block: bytes, what: str, lines: int) -> str:
    """The block's text. `lines` stand before it."""
    if not lines:
        require_one_byte_units(block[:1000], what)
    try:
        return block.decode()
    except UnicodeDecodeError as error:
        line = lines + block.count(b"\n", 0, error.start) + 1
        raise not_utf8(what, f"line {line:,}", block[error.start]) from None


def _lines(file: Path) -> Iterator[str]:
    with OPENERS[suffixes(file.name)[1]](file, "rt", encoding="utf-8-sig", newline="") as lines:
        yield from lines
