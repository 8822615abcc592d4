from __future__ import annotations

from pathlib import Path

import pytest

from capivara_cli.data.readers import text_files
from capivara_cli.errors import CapivaraError


def rows(path: Path) -> list[list[str]]:
    return [row for _, row in text_files.rows(path)]


@pytest.mark.parametrize("rows_after", [0, 1, 500, 20_000])
def test_a_quote_that_is_not_closed_is_refused_with_its_line(rows_after: int, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rest = "".join(f"images/{n % 10}.png,{'more' * 300}\n" for n in range(rows_after))
    path.write_text(f'filepath,title\nimages/1.png,one\nimages/2.png,"open\n{rest}')
    with pytest.raises(CapivaraError, match=r"t\.csv:3: a quote is opened and not closed"):
        rows(path)


def test_a_quote_that_another_field_closes_is_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('filepath,title\n1.png,one\n2.png,"open\n3.png,three\n4.png,close" here\n')
    with pytest.raises(CapivaraError, match=r"t\.csv:3: a quote is opened and not closed"):
        rows(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('filepath\ttitle\n1.png\t"a 3" screen\n2.png\tother\n', ["1.png", '"a 3" screen']),
        ('filepath\ttitle\n1.png\t"a, ""b"""\n2.png\tother\n', ["1.png", 'a, "b"']),
        ('filepath\ttitle\n1.png\t"two\nlines"\n2.png\tother\n', ["1.png", "two\nlines"]),
        ('filepath\ttitle\n1.png\t"open\n2.png\tclose"\n', ["1.png", '"open']),
    ],
)
def test_quotes_of_a_tsv_count_only_where_its_fields_are_quoted(
    content: str, expected: list[str], tmp_path: Path
) -> None:
    (tmp_path / "t.tsv").write_text(content)
    assert rows(tmp_path / "t.tsv")[1] == expected


def test_a_stray_quote_within_a_line_costs_no_other_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('a,b\n1,"a 3" screen\n2,b "c" d\n')
    assert rows(tmp_path / "t.csv")[1:] == [["1", "a 3 screen"], ["2", 'b "c" d']]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_marks_and_ends_of_lines(encoding: str, end: str, tmp_path: Path) -> None:
    content = end.join(["filepath,title", "1.png,कुत्ता", "2.png,é", ""])
    mark = b"\xff\xfe" if encoding == "utf-16-le" else b""
    (tmp_path / "t.csv").write_bytes(mark + content.encode(encoding))
    assert rows(tmp_path / "t.csv") == [["filepath", "title"], ["1.png", "कुत्ता"], ["2.png", "é"]]
    assert list(text_files.lines(tmp_path / "t.csv"))[2] == "2.png,é"


def test_a_line_in_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes(b"one\ncaf\xe9\n")
    with pytest.raises(CapivaraError, match=r"t\.txt:2: not UTF-8") as error:
        list(text_files.lines(tmp_path / "t.txt"))
    assert "--encoding latin-1" in (error.value.hint or "")
    assert list(text_files.lines(tmp_path / "t.txt", "latin-1")) == ["one", "café"]
