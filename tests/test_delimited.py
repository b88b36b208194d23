"""What a CSV file must be, looked at without Spark: its bytes, its quotes, its header, its gaps."""

from __future__ import annotations

import bz2
import gzip
import io
from pathlib import Path

import pandas as pd
import pytest

from penguins import delimited
from penguins.delimited import Layout
from penguins.errors import DataError

TEXT = "Island,By\nDream,Müller\nBiscoe,Ōe\n"


def refusal(file: Path) -> str:
    with pytest.raises(DataError) as refused:
        delimited.scan(file)
    assert "\0" not in str(refused.value)
    return str(refused.value)


def test_the_words_for_gaps_are_those_of_pandas() -> None:
    words = [*delimited.GAPS, "na", "none", "-", "?", "missing", "Nan"]
    read = pd.read_csv(io.StringIO("\n".join(["word", *words])))["word"]
    assert read.isna().to_list() == [True] * 18 + [False] * 6


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("birds.csv", (".csv", "")),
        ("BIRDS.CSV", (".csv", "")),
        ("v1.0/birds.Csv.GZ", (".csv", ".gz")),
        ("part-0.snappy.parquet", (".parquet", "")),
        ("birds.tar.gz", (".tar", ".gz")),
        ("birds", ("", "")),
    ],
)
def test_a_name_says_what_a_file_is_in_any_case(name: str, expected: tuple[str, str]) -> None:
    assert delimited.suffixes(name) == expected


@pytest.mark.parametrize(("name", "pack"), [("a.csv", bytes), ("a.csv.gz", gzip.compress), ("A.CSV.BZ2", bz2.compress)])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_utf8_is_read_with_a_byte_order_mark_or_without(tmp_path: Path, name: str, pack: type, encoding: str) -> None:
    (tmp_path / name).write_bytes(pack(TEXT.encode(encoding)))
    assert delimited.scan(tmp_path / name) == Layout(("Island", "By"), False, TEXT)


@pytest.mark.parametrize(("name", "pack"), [("a.csv", bytes), ("a.csv.gz", gzip.compress)])
def test_a_byte_that_is_no_utf8_is_named_with_its_line(tmp_path: Path, name: str, pack: type) -> None:
    file = tmp_path / name
    file.write_bytes(pack(TEXT.encode("latin-1", "replace")))
    assert refusal(file) == (
        f"{file} isn't UTF-8: line 2 has the byte 0xFC. "
        "Save it as UTF-8; if it is Latin-1, `iconv -f LATIN1 -t UTF-8` does that."
    )


def test_the_line_is_right_beyond_the_first_block_and_a_cut_character_is_seen(tmp_path: Path) -> None:
    line = "Dream,Ōe\n" * 1000
    blocks = delimited.BLOCK // len(line.encode()) + 2
    (tmp_path / "a.csv").write_bytes((line * blocks).encode() + b"Dream,\xc5")
    assert f"isn't UTF-8: line {blocks * 1000 + 1:,} has the byte 0xC5." in refusal(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("encoding", "told"),
    [("utf-16", "UTF-16"), ("utf-16-le", "UTF-16"), ("utf-16-be", "UTF-16"), ("utf-32", "UTF-32")],
)
def test_a_wide_encoding_is_called_by_its_name(tmp_path: Path, encoding: str, told: str) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(TEXT.encode(encoding))
    assert refusal(file) == f"{file} is {told}: save it as UTF-8, as `iconv -f {told} -t UTF-8` does."


def test_what_is_no_text_or_cut_or_not_packed_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"PK\3\4\0" + b"zip and so on")
    assert refusal(tmp_path / "a.csv").endswith(
        "a.csv is no text: it begins with zero bytes. Give a CSV file in UTF-8."
    )
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(TEXT.encode())[:-9])
    assert "b.csv.gz can't be read: " in refusal(tmp_path / "b.csv.gz")
    (tmp_path / "c.csv.gz").write_bytes(TEXT.encode())
    assert "c.csv.gz can't be read: Not a gzipped file" in refusal(tmp_path / "c.csv.gz")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ('a,"b\nc",d\n', True),
        ('a,b\n1, "x\r\ny"\r\n', True),
        ('"""x""\ny",b\n', True),
        # A quote in the middle of a value, and two that belong together, are no beginning of anything.
        ('a,5" nail\nb,6" nail\n', False),
        ('a,"b"\nc,"d""e"\n', False),
        # One that nothing closes leaves the lines below it as they are.
        ('a,"b\nc,d\ne,f\n', False),
        ('a,"b\nc,"d",e\n', False),
        ("", False),
    ],
)
def test_a_line_break_within_quotes_is_seen(lines: str, expected: bool) -> None:
    assert delimited.has_line_breaks(lines.splitlines(keepends=True), "birds.csv") is expected
    assert delimited.has_odd_line(lines) or not expected


def test_line_breaks_and_a_quote_that_isnt_closed_are_refused_together() -> None:
    broken = 'a,"b\nc,d\ne,f\n'
    whole = 'g,"h\ni"\n'
    for lines, place in ((broken + whole, 1), (whole + broken, 3), (whole + 'x,"5" nail"\n', 3)):
        with pytest.raises(DataError) as refused:
            delimited.has_line_breaks(lines.splitlines(keepends=True), "birds.csv")
        assert str(refused.value) == (
            f"birds.csv has values with line breaks, and in line {place} a quote that is neither closed nor doubled: "
            "correct that line."
        )


def test_a_value_of_any_length_that_isnt_closed_ends_somewhere() -> None:
    lines = ['a,"b\n', *["c,d\n"] * 100_000, 'e,"f\n']
    assert delimited.has_line_breaks(lines, "birds.csv") is False


@pytest.mark.parametrize(
    ("header", "names"),
    [
        (["", "Island", "By"], ["_c0", "Island", "By"]),
        (["Island", "By", ""], ["Island", "By", "_c2"]),
        (["By", "by", "By", "By_2"], ["By", "by_3", "By_4", "By_2"]),
        (["", "_c0", ""], ["_c0_2", "_c0", "_c2"]),
    ],
)
def test_each_column_gets_a_name_of_its_own(header: list[str], names: list[str]) -> None:
    assert delimited.column_names(header) == names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Island;BodyMass\nDream;3750\n",
         "birds.csv has semicolons between its values: save it with commas between them."),
        ("Island\tBodyMass\nDream\t3750\n",
         "birds.csv has tabs between its values: save it with commas between them."),
        ('"Island";"BodyMass"\nDream;"3750,5"\n', "birds.csv has semicolons between its values, and commas in its "
         "numbers: save it with commas between the values, and points in the numbers."),
    ],
)  # fmt: skip
def test_other_separators_are_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "birds.csv").write_text(text)
    with pytest.raises(DataError) as refused:
        delimited.require_header(delimited.scan(tmp_path / "birds.csv"), ["Island", "BodyMass"], "birds.csv")
    assert str(refused.value) == said


def test_of_many_columns_a_few_are_shown() -> None:
    many = [f"column_{n}" for n in range(500)]
    with pytest.raises(DataError) as refused:
        delimited.require_header(Layout(("a", "b"), False, "a,b"), many, "birds.csv")
    assert str(refused.value) == (
        "birds.csv lacks the columns column_0, column_1, column_2, column_3, column_4 and 495 more; "
        "its header has a, b."
    )
