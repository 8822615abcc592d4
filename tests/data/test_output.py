from __future__ import annotations

from pathlib import Path

import pytest

from capivara_cli.data.images import ImageRef
from capivara_cli.data.output import KEPT, PART, REJECTED_MARK, SHOWN, RecordResult, Tally, check_not_a_source, report
from capivara_cli.data.records import Record
from capivara_cli.errors import CapivaraError


def test_a_rejected_record_is_as_it_came_and_strict_stops_at_it(tmp_path: Path) -> None:
    record = Record({"image": "1.png"}, "in.jsonl:1", ImageRef(str(tmp_path / "1.png")))
    result = RecordResult.rejected(record, tmp_path / "out", "torn", strict=False)
    assert result == RecordResult({"id": "1.png", "image": "../1.png"}, "torn")
    with pytest.raises(CapivaraError, match=r"in\.jsonl:1: .*1\.png: torn") as error:
        RecordResult.rejected(record, tmp_path, "torn", strict=True)
    assert error.value.hint == "without --strict it is left out"


def test_no_records_at_all_are_an_error() -> None:
    with pytest.raises(CapivaraError, match="no records came in"):
        report(Tally(), None)


def test_a_report_has_the_first_names(capsys: pytest.CaptureFixture[str]) -> None:
    report(Tally(kept=5, rejected=1, parts=8, first=["a: torn", "b: empty"]), Path("o.jsonl"), parts="translations")
    said = capsys.readouterr().err
    assert "1 of 6 records rejected, 8 translations rejected; all are in o.jsonl.rejected.jsonl" in said
    assert "  a: torn\n  b: empty\n  and 7 more" in said


def test_rejected_captions_are_named_after_rejected_records(capsys: pytest.CaptureFixture[str]) -> None:
    tally = Tally()
    for number in range(SHOWN + 1):
        tally.add(KEPT, b'{"id": "kept"}')
        tally.add(PART, b'{"id": "p%d", "rejected": "not\\ntranslated", "text": "a"}' % number)
    tally.add(REJECTED_MARK, b'{"id": "r", "rejected": "torn"}')
    report(tally, None)
    assert capsys.readouterr().err.splitlines() == [
        "warning: 1 of 7 records rejected, 6 captions rejected",
        "  r: torn",
        *(f"  p{number}: not\\ntranslated" for number in range(SHOWN - 1)),
        "  and 2 more",
    ]


def test_what_is_read_is_not_written(tmp_path: Path) -> None:
    for name in ("in.jsonl", "p0.jsonl", "p1.jsonl", "metadata.jsonl", "z.jsonl.rejected.jsonl"):
        (tmp_path / name).touch()
    (tmp_path / "link.jsonl").symlink_to("in.jsonl")
    check_not_a_source([tmp_path / "in.jsonl", tmp_path, "-", "gone.jsonl"], tmp_path / "out.jsonl")
    check_not_a_source([tmp_path / "in.jsonl"], None)
    read = {
        "in.jsonl": "link.jsonl",
        "p{0..1}.jsonl": "p1.jsonl",
        ".": "metadata.jsonl",
        "z.jsonl.rejected.jsonl": "z.jsonl",
    }
    for source, written in read.items():
        with pytest.raises(CapivaraError, match="is both input and output"):
            check_not_a_source(["-", tmp_path / source], tmp_path / written)
