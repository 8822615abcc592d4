"""Files that survive being killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from capivara_cli.artifacts import NO_ROOM
from capivara_cli.data.images import ImageRef
from capivara_cli.data.output import OPEN, Outcome, Output, Tally, check_not_read, open_output, report, share
from capivara_cli.data.records import Record
from capivara_cli.errors import CapivaraError
from capivara_cli.runtime import Runtime
from tests.helpers import torchrun

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


def run(
    path: Path | None, *, stop: int | None = None, overwrite: bool = False, count: int = 11, **settings: Any
) -> Tally | None:
    """Work through the records; stop before a batch as if killed, or after the last one if there are no more."""
    with open_output(path, SETTINGS | settings, ONE, overwrite=overwrite) as out:
        size = 3 if out.settings["batch_size"] is OPEN else out.settings["batch_size"]
        out.begin(batch_size=size)
        _, rest = out.pass_over(records(count))
        for number, batch in enumerate(iter(lambda: list(islice(rest, size)), [])):
            if number == stop:
                return None
            out.write([work(record) for record in batch])
        return out.finish() if stop is None else None


def both(path: Path) -> tuple[bytes, bytes]:
    """What is in FILE and in its FILE.rejected.jsonl."""
    return path.read_bytes(), path.with_name(f"{path.name}.rejected.jsonl").read_bytes()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def begun(path: Path) -> Output:
    out = open_output(path, SETTINGS, ONE, overwrite=False)
    out.begin(batch_size=3)
    return out


def put(out: Output, *outcomes: Outcome) -> None:
    """Write what became of records with the outcomes' ids."""
    came = (Record({"id": outcome.data["id"], "image": "x"}, "", ImageRef("/x")) for outcome in outcomes)
    _, rest = out.pass_over(came)
    out.write([outcome for outcome, _ in zip(outcomes, rest, strict=True)])


@pytest.fixture
def whole(tmp_path: Path) -> tuple[bytes, bytes]:
    run(tmp_path / "whole.jsonl")
    return both(tmp_path / "whole.jsonl")


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
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "out.jsonl.rejected.jsonl"]


@pytest.mark.parametrize("batches", [3, 4])  # the fourth is smaller, and the last
def test_cut_at_any_byte_it_ends_with_the_same_bytes(batches: int, whole: tuple[bytes, bytes], tmp_path: Path) -> None:
    run(tmp_path / "out.jsonl", stop=batches)
    partial = tmp_path / "out.jsonl.partial"
    content, settings = partial.read_bytes(), (tmp_path / "out.jsonl.partial.json").read_bytes()
    assert content.count(b"\n") > 9
    for length in range(len(content) + 1):
        partial.write_bytes(content[:length])
        (tmp_path / "out.jsonl.partial.json").write_bytes(settings)
        run(tmp_path / "out.jsonl")
        for end, expected in zip(("", ".rejected.jsonl"), whole, strict=True):
            assert (tmp_path / f"out.jsonl{end}").read_bytes() == expected
            (tmp_path / f"out.jsonl{end}").unlink()
        assert names(tmp_path) == ["whole.jsonl", "whole.jsonl.rejected.jsonl"]


@examples(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.lists(st.tuples(st.integers(0, 11), st.floats(0, 1)), max_size=4))
def test_killed_again_and_again_it_ends_with_the_same_bytes(size: int, deaths: list[tuple[int, float]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "out.jsonl"
        for batches, left in deaths:
            run(path, stop=batches, batch_size=size)
            partial = path.with_name("out.jsonl.partial")
            if partial.is_file():
                os.truncate(partial, int(left * partial.stat().st_size))
        run(path, batch_size=size)
        run(path.with_name("whole.jsonl"))
        assert both(path) == both(path.with_name("whole.jsonl"))
        assert len(names(path.parent)) == 4


def test_killed_when_the_file_was_in_its_place_already(whole: tuple[bytes, bytes], tmp_path: Path) -> None:
    run(tmp_path / "out.jsonl", stop=4)
    left = {path: path.read_bytes() for path in tmp_path.glob("out.jsonl.partial*")}
    assert len(left) == 2
    run(tmp_path / "out.jsonl")
    for path, content in left.items():
        path.write_bytes(content)
    (tmp_path / ".out.jsonl.123.tmp").write_text("{")
    (tmp_path / ".out.jsonl.rejected.jsonl.123.tmp").write_text("{")
    run(tmp_path / "out.jsonl")
    assert both(tmp_path / "out.jsonl") == whole
    assert names(tmp_path) == ["out.jsonl", "out.jsonl.rejected.jsonl", "whole.jsonl", "whole.jsonl.rejected.jsonl"]


def test_a_name_is_no_pattern(tmp_path: Path) -> None:
    (tmp_path / "1.jsonl.partial").write_text("another's")
    run(tmp_path / "[1].jsonl", stop=2)
    run(tmp_path / "[1].jsonl")
    assert names(tmp_path) == ["1.jsonl.partial", "[1].jsonl", "[1].jsonl.rejected.jsonl"]


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    run(tmp_path / "out.jsonl", stop=2)
    out = begun(tmp_path / "out.jsonl")
    passed, rest = out.pass_over(records())
    assert passed == 6
    assert next(rest).id == "n6"
    out.close()


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    run(tmp_path / "out.jsonl", stop=1)
    with pytest.raises(CapivaraError, match="begun with other settings: --model m, now other") as error:
        run(tmp_path / "out.jsonl", model="other")
    assert "--overwrite" in (error.value.hint or "")
    run(tmp_path / "out.jsonl", model="other", overwrite=True)
    assert (tmp_path / "out.jsonl").is_file()


def test_a_flag_that_is_left_out_is_another_setting(tmp_path: Path) -> None:
    run(tmp_path / "out.jsonl", stop=1, min_score=0.2)
    with pytest.raises(CapivaraError, match=r"begun with other settings: --min-score 0\.2, now null"):
        run(tmp_path / "out.jsonl", min_score=None)
    with pytest.raises(CapivaraError, match=r"begun with other settings: --min-score 0\.2, now null"):
        run(tmp_path / "out.jsonl")


def test_all_settings_that_differ_are_named(tmp_path: Path) -> None:
    run(tmp_path / "out.jsonl", stop=1)
    changed: dict[str, Any] = {"model": "m" * 100, "prefixes": ["there is"], "lang": "pt"}
    with pytest.raises(CapivaraError) as error:
        run(tmp_path / "out.jsonl", **changed)
    assert error.value.message.endswith(
        f'--lang null, now pt; --model m, now {"m" * 57}...; --prefixes ["a photo of"], now ["there is"]'
    )
    two = Runtime("cpu", "fp32", rank=0, world_size=2)
    with pytest.raises(CapivaraError, match="the number of ranks 1, now 2"):
        open_output(tmp_path / "out.jsonl", SETTINGS, two, overwrite=False)


def test_a_tuple_goes_on_as_the_list_that_json_made_of_it(whole: tuple[bytes, bytes], tmp_path: Path) -> None:
    run(tmp_path / "out.jsonl", stop=1, prefixes=("a photo of",))
    run(tmp_path / "out.jsonl", prefixes=("a photo of",))
    assert both(tmp_path / "out.jsonl") == whole


def test_overwrite_begins_anew(tmp_path: Path) -> None:
    run(tmp_path / "out.jsonl", stop=2)
    with open_output(tmp_path / "out.jsonl", SETTINGS, ONE, overwrite=True) as out:
        out.begin(batch_size=3)
        assert out.pass_over(records())[0] == 0


def test_what_is_left_open_is_what_was_chosen_before(tmp_path: Path) -> None:
    run(tmp_path / "out.jsonl", stop=1, batch_size=OPEN)
    out = open_output(tmp_path / "out.jsonl", SETTINGS | {"batch_size": OPEN}, ONE, overwrite=False)
    assert out.settings["batch_size"] == 3
    with pytest.raises(CapivaraError, match="--batch-size 3, now 5"):
        out.begin(batch_size=5)
    out.close()
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
    edited = (replace(record, data=record.data | {"captions": []}) for record in records())
    with pytest.raises(CapivaraError, match=r"number 1 was n0, in\.jsonl:1, and has changed since"):
        out.pass_over(edited)
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
    put(out, Outcome({"id": "1", "rejected": "a reason of an earlier run"}))
    tally = out.finish()
    assert tally is not None
    report(tally, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == '{"id": "1"}\n'
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl"]


def test_parts_that_were_rejected_are_in_a_file_when_no_record_was(tmp_path: Path) -> None:
    out = begun(tmp_path / "out.jsonl")
    put(out, Outcome({"id": "1"}, parts=({"id": "1", "rejected": "empty"},)))
    out.finish()
    assert both(tmp_path / "out.jsonl") == (b'{"id": "1"}\n', b'{"id": "1", "rejected": "empty"}\n')


def test_when_nothing_is_left_there_is_no_file(tmp_path: Path) -> None:
    out = begun(tmp_path / "out.jsonl")
    put(out, *(Outcome({"id": str(number)}, "torn") for number in range(7)))
    tally = out.finish()
    assert tally is not None
    with pytest.raises(CapivaraError, match="nothing was left: 7 of 7 rejected") as error:
        report(tally, tmp_path / "out.jsonl")
    assert "\n  4: torn\n  and 2 more" in error.value.message
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl.rejected.jsonl"]


def test_when_nothing_is_left_the_file_that_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("good")
    with open_output(tmp_path / "out.jsonl", SETTINGS, ONE, overwrite=True) as out:
        out.begin()
        put(out, Outcome({"id": "1"}, "torn"))
        out.finish()
    assert both(tmp_path / "out.jsonl") == (b"good", b'{"rejected": "torn", "id": "1"}\n')


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
    with begun(tmp_path / "out.jsonl"):  # noqa: SIM117
        with pytest.raises(CapivaraError, match="written by another process"), begun(tmp_path / "out.jsonl"):
            pass
    with begun(tmp_path / "out.jsonl") as second:
        assert second.pass_over(records())[0] == 3


def test_only_one_process_writes_a_file_before_its_first_batch_is_done_too(tmp_path: Path) -> None:
    with begun(tmp_path / "out.jsonl") as first:
        with pytest.raises(CapivaraError, match="written by another process"), begun(tmp_path / "out.jsonl"):
            pass
        put(first, Outcome({"id": "first"}))
        first.finish()
    assert (tmp_path / "out.jsonl").read_text() == '{"id": "first"}\n'


def test_overwrite_does_not_take_a_file_from_the_process_that_writes_it(tmp_path: Path) -> None:
    def overwrite() -> None:
        with open_output(tmp_path / "out.jsonl", SETTINGS, ONE, overwrite=True) as second:
            second.begin(batch_size=3)

    with begun(tmp_path / "out.jsonl") as first:
        put(first, Outcome({"id": "first"}))
        with pytest.raises(CapivaraError, match="written by another process"):
            overwrite()
        first.finish()
    assert (tmp_path / "out.jsonl").read_text() == '{"id": "first"}\n'


def test_standard_output_gets_the_records_alone(capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> None:
    script = f"from tests.data.test_output import run; run(None)\nimport sys; sys.path.insert(0, {str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", script], check=True)
    out = capfdbinary.readouterr().out
    assert [json.loads(line)["id"] for line in out.split(b"\n")[:-1]] == ["n0", "n2", "n3", "n5", "n6", "n8", "n9"]


@pytest.mark.parametrize("path", [None, Path("-")])
def test_standard_output_gets_the_bytes_that_a_file_would(
    path: Path | None, whole: tuple[bytes, bytes], capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    tally = run(path)
    assert tally is not None
    assert (tally.kept, tally.rejected, tally.parts) == (7, 4, 4)
    assert capsysbinary.readouterr() == (whole[0], b"")


def test_several_ranks_cannot_share_standard_output() -> None:
    with pytest.raises(CapivaraError, match="several ranks") as error:
        open_output(None, SETTINGS, Runtime("cpu", "fp32", world_size=2), overwrite=False)
    assert error.value.hint == "give -o FILE"


def test_what_is_rejected_again_has_its_new_reason_alone(tmp_path: Path) -> None:
    out = begun(tmp_path / "out.jsonl")
    put(out, Outcome({"id": "1", "rejected": "old"}, "new"), Outcome({"id": "2", "rejected": "old"}))
    out.finish()
    assert both(tmp_path / "out.jsonl") == (b'{"id": "2"}\n', b'{"rejected": "new", "id": "1"}\n')


def test_text_that_is_no_unicode_stays_one_line(tmp_path: Path) -> None:
    out = begun(tmp_path / "out.jsonl")
    put(out, Outcome({"id": "a\ud800b", "text": "one\ntwo\r\x85"}))
    out.finish()
    (line,) = (tmp_path / "out.jsonl").read_bytes().split(b"\n")[:-1]
    assert json.loads(line.decode("utf-8"))["text"] == "one\ntwo\r\x85"


@pytest.mark.parametrize("text", ["\ud83d", "\udc80x", "one\ntwo\r\n", "\u2028\u2029\x85\v\f\0", "\ufeff", "\\ud800"])
def test_any_text_comes_back_from_a_run_that_was_interrupted(text: str, tmp_path: Path) -> None:
    part = {"id": text, "rejected": text, "text": text}
    outcomes = [Outcome({"id": text, text: [text]}, parts=(part,)), Outcome({"id": "2"}, text), Outcome({"id": "3"})]
    out = begun(tmp_path / "out.jsonl")
    put(out, *outcomes)
    out.close()
    again = begun(tmp_path / "out.jsonl")
    same = (Record({"id": outcome.data["id"], "image": "x"}, "", ImageRef("/x")) for outcome in outcomes)
    assert again.pass_over(same)[0] == 3
    again.finish()
    kept, rejected = (content.decode("utf-8").split("\n")[:-1] for content in both(tmp_path / "out.jsonl"))
    assert [json.loads(line) for line in kept] == [{"id": text, text: [text]}, {"id": "3"}]
    assert [json.loads(line) for line in rejected] == [part, {"rejected": text, "id": "2"}]


LITTLE_DISK = """
import resource, sys
from pathlib import Path
from capivara_cli.errors import CapivaraError
from capivara_cli.data.images import ImageRef
from capivara_cli.data.output import Outcome, open_output
from capivara_cli.data.records import Record
from capivara_cli.runtime import Runtime

when, text = sys.argv[1], sys.argv[2]
def limit(now):
    if now == when:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))

try:
    with open_output(Path("out.jsonl"), {"batch_size": 2}, Runtime("cpu", "fp32"), overwrite=False) as out:
        out.begin(batch_size=2)
        data = [{"id": str(number), "image": "x", "text": text} for number in range(100)]
        limit("write")
        passed, rest = out.pass_over(Record(each, "", ImageRef("/x")) for each in data)
        for start in range(passed, 100, 2):
            next(rest), next(rest)
            out.write([Outcome(data[start]), Outcome(data[start + 1], "torn")])
        limit("finish")
        out.finish()
except CapivaraError as error:
    print(error.message, error.hint, sep="|")
"""


@pytest.mark.parametrize(
    ("when", "what", "length"), [("write", "out.jsonl.partial", 100), ("finish", "out.jsonl", 200)]
)
def test_a_full_disk_is_told_and_the_run_goes_on_when_there_is_room(
    when: str, what: str, length: int, tmp_path: Path
) -> None:
    def call(folder: str, when: str) -> str:
        (tmp_path / folder).mkdir(exist_ok=True)
        line = [sys.executable, "-c", LITTLE_DISK, when, length * "x"]
        result = subprocess.run(line, cwd=tmp_path / folder, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert call("little", when) == f"cannot write {what}: File too large|{NO_ROOM}\n"
    assert names(tmp_path / "little") == ["out.jsonl.partial", "out.jsonl.partial.json"]
    assert call("little", "never") == call("large", "never") == ""
    assert both(tmp_path / "little" / "out.jsonl") == both(tmp_path / "large" / "out.jsonl")


def test_a_file_that_is_read_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").touch()
    (tmp_path / "link.jsonl").symlink_to("in.jsonl")
    check_not_read([tmp_path / "in.jsonl", tmp_path, "-", "gone.jsonl"], tmp_path / "out.jsonl")
    check_not_read([tmp_path / "in.jsonl"], None)
    with pytest.raises(CapivaraError, match=r"link\.jsonl is read and cannot be written too"):
        check_not_read(["-", tmp_path / "in.jsonl"], tmp_path / "link.jsonl")


def test_what_a_pattern_a_folder_or_an_earlier_run_names_is_not_written(tmp_path: Path) -> None:
    for name in ("p0.jsonl", "p1.jsonl", "metadata.jsonl", "z.jsonl.rejected.jsonl"):
        (tmp_path / name).touch()
    read: list[tuple[str, str]] = [
        ("p{0..1}.jsonl", "p1.jsonl"), (".", "metadata.jsonl"), ("z.jsonl.rejected.jsonl", "z.jsonl")
    ]  # fmt: skip
    for source, written in read:
        with pytest.raises(CapivaraError, match="is read and cannot be written too"):
            check_not_read([tmp_path / source], tmp_path / written)


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_ranks_share_the_records_by_whole_batches(ranks: int) -> None:
    shares = [
        [record.id for record in share(records(23), 3, Runtime("cpu", "fp32", rank=rank, world_size=ranks))]
        for rank in range(ranks)
    ]
    batches = [[f"n{number}" for number in range(start, min(start + 3, 23))] for start in range(0, 23, 3)]
    assert shares == [list(chain.from_iterable(batches[rank::ranks])) for rank in range(ranks)]


RANKS = """
from itertools import islice
from pathlib import Path
from capivara_cli.data.output import open_output, share
from capivara_cli.runtime import Runtime, leave_process_group
from tests.data.test_output import SETTINGS, records, work

runtime = Runtime.start("cpu", "fp32")

def run(stop, begun):
    out = open_output(Path("out.jsonl"), SETTINGS, runtime, overwrite=False)
    out.begin(batch_size=3)
    passed, own = out.pass_over(share(records(23), 3, runtime))
    assert passed == begun
    for batch in islice(iter(lambda: list(islice(own, 3)), []), stop):
        out.write([work(record) for record in batch])
    return out

out = run(stop=runtime.rank, begun=0)  # each rank is killed at another place, amid a batch
out.close()
with out.partial.open("ab") as file:
    file.write(b'+00000000{"id": "n7"}\\n~00000000{"id": "n8')
runtime.barrier()
tally = run(stop=None, begun=3 * runtime.rank).finish()
assert (tally is not None) == runtime.is_main
if tally is not None:
    print(tally.kept, tally.rejected, tally.parts)
leave_process_group()
"""


def test_ranks_write_one_file_in_the_order_of_the_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tmp_path / "whole.jsonl", count=23)
    assert whole is not None
    (tmp_path / "ranks.py").write_text(RANKS)
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    result = torchrun("--nproc-per-node=3", "ranks.py", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{whole.kept} {whole.rejected} {whole.parts}\n"
    assert both(tmp_path / "out.jsonl") == both(tmp_path / "whole.jsonl")
    assert not list(tmp_path.glob("*partial*"))


def test_settings_with_which_nothing_was_done_bind_nobody(tmp_path: Path) -> None:
    begun(tmp_path / "out.jsonl").close()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out.jsonl.partial").touch()  # as a killed process leaves it
    (tmp_path / "out.jsonl.partial.json").write_text(json.dumps(SETTINGS | {"ranks": 1}))
    run(tmp_path / "out.jsonl", model="other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "out.jsonl.rejected.jsonl"]
