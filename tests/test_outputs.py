"""Files that survive being killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from capivara_cli.errors import CapivaraError
from capivara_cli.images import ImageRef
from capivara_cli.outputs import Outcome, Output, Tally, open_output, report
from capivara_cli.records import Record
from capivara_cli.runtime import Runtime
from tests.test_distributed import torchrun

SETTINGS = {"model": "m", "prefixes": ["a photo of"], "batch_size": 3}
ONE = Runtime("cpu", "fp32")


def records(count: int = 11) -> Iterator[Record]:
    for number in range(count):
        yield Record({"id": f"n{number}", "image": f"{number}.png"}, f"in.jsonl:{number + 1}", ImageRef("/x"))


def work(record: Record) -> Outcome:
    """Every third record is rejected, and every fifth has a part that is."""
    number = int(record.id[1:])
    if number % 3 == 1:
        return Outcome(record.data, "not an image")
    part = {"id": record.id, "rejected": "empty", "text": "ए"}
    return Outcome(record.data | {"text": "ओ\n\u2028"}, parts=(part, part) if number % 5 == 0 else ())


def run(path: Path, *, stop: int | None = None, overwrite: bool = False, **settings: Any) -> Tally | None:
    """Work through the records; stop before a batch as if killed."""
    with open_output(path, SETTINGS | settings, ONE, overwrite=overwrite) as out:
        out.begin(batch_size=out.settings["batch_size"] or 3)
        rest = records()
        out.pass_over(rest)
        for number, batch in enumerate(iter(lambda: [r for _, r in zip(range(3), rest, strict=False)], [])):
            if number == stop:
                return None
            out.write([work(record) for record in batch])
        return out.finish()


def begun(path: Path) -> Output:
    out = open_output(path, SETTINGS, ONE, overwrite=False)
    out.begin(batch_size=3)
    return out


@pytest.fixture
def whole(tmp_path: Path) -> tuple[bytes, bytes]:
    run(tmp_path / "whole.jsonl")
    return (tmp_path / "whole.jsonl").read_bytes(), (tmp_path / "whole.jsonl.rejected.jsonl").read_bytes()


def test_the_file_has_the_records_in_order_and_nothing_else_is_left(tmp_path: Path) -> None:
    tally = run(tmp_path / "out.jsonl")
    assert tally is not None
    assert (tally.kept, tally.rejected, tally.parts) == (7, 4, 4)
    assert tally.first[:2] == ["n0: empty", "n0: empty"]
    kept = [json.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().split(b"\n")[:-1]]
    assert [record["id"] for record in kept] == ["n0", "n2", "n3", "n5", "n6", "n8", "n9"]
    rejected = [json.loads(line) for line in (tmp_path / "out.jsonl.rejected.jsonl").read_text().splitlines()]
    assert [record["id"] for record in rejected] == ["n0", "n0", "n1", "n4", "n5", "n5", "n7", "n10"]
    assert next(iter(rejected[2])) == "rejected"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "out.jsonl.rejected.jsonl"]


def test_cut_at_any_byte_it_ends_with_the_same_bytes(whole: tuple[bytes, bytes], tmp_path: Path) -> None:
    run(tmp_path / "out.jsonl", stop=3)
    partial = tmp_path / "out.jsonl.partial"
    content, settings = partial.read_bytes(), (tmp_path / "out.jsonl.partial.json").read_bytes()
    assert content.count(b"\n") > 9
    for length in range(len(content)):
        partial.write_bytes(content[:length])
        (tmp_path / "out.jsonl.partial.json").write_bytes(settings)
        run(tmp_path / "out.jsonl")
        for end, expected in zip(("", ".rejected.jsonl"), whole, strict=True):
            assert (tmp_path / f"out.jsonl{end}").read_bytes() == expected
            (tmp_path / f"out.jsonl{end}").unlink()
        assert not list(tmp_path.glob("out*"))


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    run(tmp_path / "out.jsonl", stop=2)
    out = begun(tmp_path / "out.jsonl")
    rest = records()
    assert out.pass_over(rest) == 6
    assert next(rest).id == "n6"
    out.close()


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    run(tmp_path / "out.jsonl", stop=1)
    with pytest.raises(CapivaraError, match="begun with other settings: --model m, now other") as error:
        run(tmp_path / "out.jsonl", model="other")
    assert "--overwrite" in (error.value.hint or "")
    run(tmp_path / "out.jsonl", model="other", overwrite=True)
    assert (tmp_path / "out.jsonl").is_file()


def test_what_is_left_open_is_what_was_chosen_before(tmp_path: Path) -> None:
    run(tmp_path / "out.jsonl", stop=1, batch_size=None)
    out = open_output(tmp_path / "out.jsonl", SETTINGS | {"batch_size": None}, ONE, overwrite=False)
    assert out.settings["batch_size"] == 3
    with pytest.raises(CapivaraError, match="--batch-size 3, now 4"):
        open_output(tmp_path / "out.jsonl", SETTINGS | {"batch_size": 4}, ONE, overwrite=False)


def test_other_records_are_refused_by_their_number(tmp_path: Path) -> None:
    run(tmp_path / "out.jsonl", stop=2)
    out = begun(tmp_path / "out.jsonl")
    changed = (record for record in records() if record.id != "n4")
    with pytest.raises(CapivaraError, match=r"number 5 was n4, now n5 \(in\.jsonl:6\)"):
        out.pass_over(changed)
    with pytest.raises(CapivaraError, match="number 4 was n3, and is no more"):
        out.pass_over(records(3))
    out.close()


def test_a_file_that_is_there_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(CapivaraError, match="is there already"):
        run(tmp_path / "out.jsonl")
    run(tmp_path / "out.jsonl", stop=2, overwrite=True)
    assert (tmp_path / "out.jsonl").read_text() == "mine"
    run(tmp_path / "out.jsonl")  # goes on with it
    assert (tmp_path / "out.jsonl").read_bytes().startswith(b'{"id": "n0"')


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(CapivaraError, match="is a folder"):
        run(tmp_path)


def test_a_rejected_file_of_an_earlier_run_does_not_stay(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl.rejected.jsonl").write_text("old")
    out = begun(tmp_path / "out.jsonl")
    out.write([Outcome({"id": "1", "rejected": "a reason of an earlier run"})])
    tally = out.finish()
    assert tally is not None
    report(tally, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == '{"id": "1"}\n'
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl"]


def test_when_nothing_is_left_there_is_no_file(tmp_path: Path) -> None:
    out = begun(tmp_path / "out.jsonl")
    out.write([Outcome({"id": str(number)}, "torn") for number in range(7)])
    tally = out.finish()
    assert tally is not None
    with pytest.raises(CapivaraError, match="nothing was left: 7 of 7 rejected") as error:
        report(tally, tmp_path / "out.jsonl")
    assert "\n  4: torn\n  and 2 more" in error.value.message
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl.rejected.jsonl"]


def test_no_records_at_all_are_an_error() -> None:
    with pytest.raises(CapivaraError, match="no records came in"):
        report(Tally(), None)


def test_what_is_rejected_is_told_with_the_first_names(capsys: pytest.CaptureFixture[str]) -> None:
    report(Tally(kept=5, rejected=1, parts=8, first=["a: torn", "b: empty"]), Path("o.jsonl"), parts="translations")
    said = capsys.readouterr().err
    assert "1 of 6 records rejected, 8 translations rejected; all are in o.jsonl.rejected.jsonl" in said
    assert "  a: torn\n  b: empty\n  and 7 more" in said


def test_only_one_process_writes_a_file(tmp_path: Path) -> None:
    run(tmp_path / "out.jsonl", stop=1)
    first = begun(tmp_path / "out.jsonl")
    second = open_output(tmp_path / "out.jsonl", SETTINGS, ONE, overwrite=False)
    with pytest.raises(CapivaraError, match="written by another process"):
        second.begin(batch_size=3)
    first.close()


def test_standard_output_gets_the_records_alone(capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> None:
    script = f"from tests.test_outputs import run; run(None)\nimport sys; sys.path.insert(0, {str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", script], check=True)
    out = capfdbinary.readouterr().out
    assert [json.loads(line)["id"] for line in out.split(b"\n")[:-1]] == ["n0", "n2", "n3", "n5", "n6", "n8", "n9"]


def test_text_that_is_no_unicode_stays_one_line(tmp_path: Path) -> None:
    out = begun(tmp_path / "out.jsonl")
    out.write([Outcome({"id": "a\ud800b", "text": "one\ntwo\r\x85"})])
    out.finish()
    (line,) = (tmp_path / "out.jsonl").read_bytes().split(b"\n")[:-1]
    assert json.loads(line.decode("utf-8"))["text"] == "one\ntwo\r\x85"


RANKS = """
import json, sys
from pathlib import Path
from capivara_cli.outputs import Outcome, open_output
from capivara_cli.runtime import Runtime, leave
from tests.test_outputs import SETTINGS, records, work

runtime = Runtime.pick("cpu", "fp32")
out = open_output(Path(sys.argv[1]), SETTINGS, runtime, overwrite=False)
out.begin(batch_size=3)
own = [r for n, r in enumerate(records()) if n // 3 % runtime.world_size == runtime.rank]
done = out.pass_over(iter(own))
for start in range(done, len(own), 3):
    out.write([work(record) for record in own[start : start + 3]])
tally = out.finish()
assert (tally is not None) == runtime.is_main
leave()
"""


def test_ranks_write_one_file_in_the_order_of_the_input(whole: tuple[bytes, bytes], tmp_path: Path) -> None:
    (tmp_path / "ranks.py").write_text(RANKS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.getcwd())
        result = torchrun("ranks.py", "out.jsonl", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out.jsonl").read_bytes() == whole[0]
    assert (tmp_path / "out.jsonl.rejected.jsonl").read_bytes() == whole[1]
    assert not list(tmp_path.glob("*partial*"))


def test_settings_with_which_nothing_was_done_bind_nobody(tmp_path: Path) -> None:
    begun(tmp_path / "out.jsonl").close()
    assert list(tmp_path.iterdir()) == []
    out = begun(tmp_path / "out.jsonl")
    out._drop_empty = lambda: None  # type: ignore[attr-defined]  # as if killed
    out.close()
    assert len(list(tmp_path.iterdir())) == 2
    run(tmp_path / "out.jsonl", model="other")
    assert (tmp_path / "out.jsonl").is_file()
