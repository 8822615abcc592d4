"""What is in the files of a run, and which files stay."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from capivara_cli.data.images import ImageRef
from capivara_cli.data.output import RecordResult, report
from capivara_cli.data.records import Record
from capivara_cli.data.resumable import open_output
from capivara_cli.errors import CapivaraError
from tests.data.resumable_runs import ONE, SETTINGS, begun, both, names, put, run


def test_the_file_has_the_records_in_order_and_nothing_else_is_left(tmp_path: Path) -> None:
    tally = run(tmp_path / "out.jsonl")
    assert tally is not None
    assert (tally.kept, tally.rejected, tally.parts) == (7, 4, 4)
    assert tally.first[0] == "n1: not an image"
    assert tally.first_parts[:2] == ["n0: empty", "n0: empty"]
    kept = [json.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().split(b"\n")[:-1]]
    assert [record["id"] for record in kept] == ["n0", "n2", "n3", "n5", "n6", "n8", "n9"]
    rejected = [json.loads(line) for line in (tmp_path / "out.jsonl.rejected.jsonl").read_text().splitlines()]
    assert [record["id"] for record in rejected] == ["n0", "n0", "n1", "n4", "n5", "n5", "n7", "n10"]
    assert next(iter(rejected[2])) == "rejected"
    assert names(tmp_path) == ["out.jsonl", "out.jsonl.rejected.jsonl"]


def test_a_file_that_exists_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text('{"id": "mine", "image": "a.png"}\n')
    with pytest.raises(CapivaraError, match="already exists"):
        run(tmp_path / "out.jsonl")
    run(tmp_path / "out.jsonl", stop=2, overwrite=True)
    assert (tmp_path / "out.jsonl").read_text() == '{"id": "mine", "image": "a.png"}\n'
    run(tmp_path / "out.jsonl")  # resumes it
    assert (tmp_path / "out.jsonl").read_bytes().startswith(b'{"id": "n0"')


@pytest.mark.parametrize(
    ("name", "message"),
    [("", "is a folder"), ("a.png", "not the name of a file of records"), ("a.tar", "not the name")],
)
def test_what_cannot_be_a_file_of_records_is_refused(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(CapivaraError, match=message):
        run(tmp_path / name)


def test_a_rejected_file_of_an_earlier_run_does_not_stay(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl.rejected.jsonl").write_text('{"rejected": "old", "id": "0", "image": "0.png"}\n')
    out = begun(tmp_path / "out.jsonl", overwrite=True)
    put(out, RecordResult({"id": "1", "rejected": "a reason of an earlier run"}))
    tally = out.finish()
    out.close()
    assert tally is not None
    report(tally, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == '{"id": "1"}\n'
    assert names(tmp_path) == ["out.jsonl"]


def test_what_is_rejected_again_has_its_new_reason_alone(tmp_path: Path) -> None:
    out = begun(tmp_path / "out.jsonl")
    put(out, RecordResult({"id": "1", "rejected": "old"}, "new"), RecordResult({"id": "2", "rejected": "old"}))
    out.finish()
    out.close()
    assert both(tmp_path / "out.jsonl") == (b'{"id": "2"}\n', b'{"rejected": "new", "id": "1"}\n')


def test_rejected_parts_are_in_a_file_when_no_record_was_rejected(tmp_path: Path) -> None:
    out = begun(tmp_path / "out.jsonl")
    put(out, RecordResult({"id": "1"}, parts=({"id": "1", "rejected": "empty"},)))
    out.finish()
    out.close()
    assert both(tmp_path / "out.jsonl") == (b'{"id": "1"}\n', b'{"id": "1", "rejected": "empty"}\n')


def test_when_nothing_is_left_there_is_no_file(tmp_path: Path) -> None:
    out = begun(tmp_path / "out.jsonl")
    put(out, *(RecordResult({"id": str(number)}, "torn") for number in range(7)))
    tally = out.finish()
    out.close()
    assert tally is not None
    with pytest.raises(CapivaraError, match="nothing was left: 7 of 7 rejected") as error:
        report(tally, tmp_path / "out.jsonl")
    assert "\n  4: torn\n  and 2 more" in error.value.message
    assert names(tmp_path) == ["out.jsonl.rejected.jsonl"]


def test_when_nothing_is_left_the_file_that_existed_stays(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text('{"id": "good", "image": "a.png"}\n')
    with begun(tmp_path / "out.jsonl", overwrite=True) as out:
        put(out, RecordResult({"id": "1"}, "torn"))
        out.finish()
    out.close()
    assert both(tmp_path / "out.jsonl") == (b'{"id": "good", "image": "a.png"}\n', b'{"rejected": "torn", "id": "1"}\n')


@pytest.mark.parametrize("path", [None, Path("-")])
def test_standard_output_gets_the_bytes_that_a_file_would(
    path: Path | None, whole: tuple[bytes, bytes], capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    tally = run(path)
    assert tally is not None
    assert (tally.kept, tally.rejected, tally.parts) == (7, 4, 4)
    assert capsysbinary.readouterr() == (whole[0], b"")


def test_ranks_cannot_share_standard_output() -> None:
    with pytest.raises(CapivaraError, match="several ranks") as error:
        open_output(None, SETTINGS, replace(ONE, world_size=2), overwrite=False)
    assert error.value.hint == "give -o FILE"


@pytest.mark.parametrize("text", ["\ud83d", "\udc80x", "one\ntwo\r\n", "\u2028\u2029\x85\v\f\0", "\ufeff", "\\ud800"])
def test_any_text_comes_back_from_a_run_that_was_interrupted(text: str, tmp_path: Path) -> None:
    part = {"id": text, "rejected": text, "text": text}
    results = [
        RecordResult({"id": text, text: [text]}, parts=(part,)),
        RecordResult({"id": "2"}, text),
        RecordResult({"id": "3"}),
    ]
    out = begun(tmp_path / "out.jsonl")
    put(out, *results)
    out.close()
    again = begun(tmp_path / "out.jsonl")
    same = (Record({"id": result.data["id"], "image": "x"}, "", ImageRef("/x")) for result in results)
    assert again.skip_done(same)[0] == 3
    again.finish()
    again.close()
    kept, rejected = (content.decode("utf-8").split("\n")[:-1] for content in both(tmp_path / "out.jsonl"))
    assert [json.loads(line) for line in kept] == [{"id": text, text: [text]}, {"id": "3"}]
    assert [json.loads(line) for line in rejected] == [part, {"rejected": text, "id": "2"}]
