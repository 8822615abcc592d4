"""Files that survive being killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from capivara_cli.artifacts import NO_ROOM
from capivara_cli.data.output import UNDECIDED, RecordResult
from capivara_cli.data.resumable import open_output
from capivara_cli.errors import CapivaraError
from tests.data.resumable_runs import ONE, SETTINGS, begun, both, names, put, records, run
from tests.forks import Forks


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
            run(path, stop=batches, window=size)
            partial = path.with_name("out.jsonl.partial")
            if partial.is_file():
                os.truncate(partial, int(left * partial.stat().st_size))
        run(path, window=size)
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


def test_what_is_done_is_skipped_unless_it_is_overwritten(tmp_path: Path) -> None:
    run(tmp_path / "out.jsonl", stop=2)
    with begun(tmp_path / "out.jsonl") as out:
        done, todo = out.skip_done(records())
        assert (done, next(todo).id) == (6, "n6")
    with begun(tmp_path / "out.jsonl", overwrite=True) as out:
        assert out.skip_done(records())[0] == 0


@pytest.mark.parametrize(
    ("before", "now", "named"),
    [
        ({}, {"model": "other"}, "--model m, now other"),
        ({"min_score": 0.2}, {"min_score": None}, "--min-score 0.2, now null"),
        ({"min_score": 0.2}, {}, "--min-score 0.2, now null"),
        (
            {},
            {"model": "m" * 100, "prefixes": ["there is"], "lang": "pt"},
            f'--lang null, now pt; --model m, now {"m" * 57}...; --prefixes ["a photo of"], now ["there is"]',
        ),
        ({}, {"window": 4}, "records per batch 3, now 4"),
        (
            {"batch_size": UNDECIDED},
            {"batch_size": UNDECIDED, "window": 5},
            "--batch-size 3, now 5; records per batch 3, now 5",
        ),
        ({"batch_size": UNDECIDED}, {"batch_size": 4}, "--batch-size 3, now 4"),
    ],
)
def test_other_settings_are_refused_by_name(
    before: dict[str, Any], now: dict[str, Any], named: str, tmp_path: Path
) -> None:
    run(tmp_path / "out.jsonl", stop=1, **before)
    with pytest.raises(CapivaraError) as error:
        run(tmp_path / "out.jsonl", **now)
    assert error.value.message == f"{tmp_path / 'out.jsonl'} was begun with other settings: {named}"
    assert "--overwrite" in (error.value.hint or "")
    run(tmp_path / "out.jsonl", overwrite=True, **now)
    assert (tmp_path / "out.jsonl").is_file()


def test_another_number_of_ranks_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "out.jsonl", stop=1)
    with pytest.raises(CapivaraError, match="the number of ranks 1, now 2"):
        open_output(tmp_path / "out.jsonl", SETTINGS, replace(ONE, world_size=2), overwrite=False)


def test_a_tuple_resumes_the_list_that_json_made_of_it(whole: tuple[bytes, bytes], tmp_path: Path) -> None:
    run(tmp_path / "out.jsonl", stop=1, prefixes=("a photo of",))
    run(tmp_path / "out.jsonl", prefixes=("a photo of",))
    assert both(tmp_path / "out.jsonl") == whole


def test_a_setting_that_is_open_was_decided_by_the_interrupted_run(tmp_path: Path) -> None:
    run(tmp_path / "out.jsonl", stop=1, batch_size=UNDECIDED)
    with open_output(tmp_path / "out.jsonl", SETTINGS | {"batch_size": UNDECIDED}, ONE, overwrite=False) as out:
        assert out.settings["batch_size"] == 3


def test_other_records_are_refused_by_their_number(tmp_path: Path) -> None:
    run(tmp_path / "out.jsonl", stop=2)
    with begun(tmp_path / "out.jsonl") as out:
        changed = (record for record in records() if record.id != "n4")
        with pytest.raises(CapivaraError, match=r"record 5 was n4, now n5 \(in\.jsonl:6\)"):
            out.skip_done(changed)
        with pytest.raises(CapivaraError, match=r"record 4 \(n3\) is missing"):
            out.skip_done(records(3))
        edited = (replace(record, data=record.data | {"captions": []}) for record in records())
        with pytest.raises(CapivaraError, match=r"record 1 \(n0, in\.jsonl:1\) has changed"):
            out.skip_done(edited)


@pytest.mark.parametrize("stop", [None, 1])
@pytest.mark.parametrize("overwrite", [False, True])
def test_only_one_process_writes_a_file(stop: int | None, overwrite: bool, tmp_path: Path) -> None:
    if stop is not None:
        run(tmp_path / "out.jsonl", stop=stop)
    with begun(tmp_path / "out.jsonl") as first:
        with pytest.raises(CapivaraError, match="written by another process"):
            begun(tmp_path / "out.jsonl", overwrite=overwrite)
        if stop is None:
            put(first, RecordResult({"id": "first"}))
            first.finish()
            assert (tmp_path / "out.jsonl").read_text() == '{"id": "first"}\n'
    if stop is not None:
        with begun(tmp_path / "out.jsonl") as second:
            assert second.skip_done(records())[0] == 3


LITTLE_DISK = """
import resource, sys
from pathlib import Path
from capivara_cli.errors import CapivaraError
from capivara_cli.data.images import ImageRef
from capivara_cli.data.output import RecordResult
from capivara_cli.data.records import Record
from capivara_cli.data.resumable import open_output
from capivara_cli.runtime import Runtime

when, text = sys.argv[1], sys.argv[2]
def limit(now):
    if now == when:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))

try:
    with open_output(Path("out.jsonl"), {}, Runtime("cpu", "fp32"), overwrite=False) as out:
        out.begin(2)
        data = [{"id": str(number), "image": "x", "text": text} for number in range(100)]
        limit("write")
        done, todo = out.skip_done(Record(each, "", ImageRef("/x")) for each in data)
        for start in range(done, 100, 2):
            next(todo), next(todo)
            out.write([RecordResult(data[start]), RecordResult(data[start + 1], "torn")])
        limit("finish")
        out.finish()
except CapivaraError as error:
    print(error.message, error.hint, sep="|")
"""


@pytest.mark.parametrize(
    ("when", "what", "length"), [("write", "out.jsonl.partial", 100), ("finish", "out.jsonl", 200)]
)
def test_on_a_full_disk_the_run_stops_and_resumes_when_there_is_room(
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


RANKS = """
from itertools import islice
from pathlib import Path
from capivara_cli.data.pipeline import batched, share_by_rank
from capivara_cli.data.resumable import open_output
from capivara_cli.runtime import Runtime, leave_process_group
from tests.data.resumable_runs import SETTINGS, records, work

runtime = Runtime.start("cpu", "fp32")

def run(stop, done):
    out = open_output(Path("out.jsonl"), SETTINGS, runtime, overwrite=False)
    out.begin(3)
    skipped, todo = out.skip_done(share_by_rank(records(23), 3, runtime))
    assert skipped == done
    for batch in islice(batched(todo, 3), stop):
        out.write([work(record) for record in batch])
    return out

out = run(stop=runtime.rank, done=0)  # each rank is killed at another place, amid a batch
out.close()
with out.partial.open("ab") as file:
    file.write(b'+00000000{"id": "n7"}\\n~00000000{"id": "n8')
runtime.barrier()
out = run(stop=None, done=3 * runtime.rank)
tally = out.finish()
out.close()
assert (tally is not None) == runtime.is_main
if tally is not None:
    print(tally.kept, tally.rejected, tally.parts)
leave_process_group()
"""


def test_ranks_write_one_file_in_the_order_of_the_input(forks: Forks, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole.jsonl", count=23)
    assert whole is not None
    result = forks.run_ranks([], tmp_path, code=RANKS, ranks=3)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{whole.kept} {whole.rejected} {whole.parts}\n"
    assert both(tmp_path / "out.jsonl") == both(tmp_path / "whole.jsonl")
    assert not list(tmp_path.glob("*partial*"))


def test_settings_of_a_run_that_wrote_nothing_do_not_count(tmp_path: Path) -> None:
    begun(tmp_path / "out.jsonl").close()
    assert names(tmp_path) == []
    (tmp_path / "out.jsonl.partial").touch()  # as a killed process leaves it
    (tmp_path / "out.jsonl.partial.json").write_text(json.dumps(SETTINGS | {"ranks": 1, "window": 3}))
    run(tmp_path / "out.jsonl", model="other")
    assert names(tmp_path) == ["out.jsonl", "out.jsonl.rejected.jsonl"]


@pytest.mark.parametrize(
    "name", [f"out.jsonl.partial{end}" for end in (".bak", "-hi.jsonl", "-0-of-2.bak")] + [".out.jsonl.mine.tmp"]
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_with_a_similar_name_is_kept(name: str, overwrite: bool, tmp_path: Path) -> None:
    (tmp_path / name).write_text("precious")
    run(tmp_path / "out.jsonl", stop=1)
    run(tmp_path / "out.jsonl", overwrite=overwrite)
    assert (tmp_path / name).read_text() == "precious"
    assert names(tmp_path) == sorted([name, "out.jsonl", "out.jsonl.rejected.jsonl"])


@pytest.mark.parametrize("name", ["out.jsonl.partial", "out.jsonl.partial-0-of-2", "out.jsonl.partial.json"])
@pytest.mark.parametrize("content", ["precious", '{"id": "a", "image": "a.png"}\n', "+00000000{\nprecious\n"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_of_the_name_of_a_partial_file_with_other_content_is_refused(
    name: str, content: str, overwrite: bool, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(CapivaraError, match=f"{name} .*is kept"):
        run(tmp_path / "out.jsonl", overwrite=overwrite)
    assert names(tmp_path) == [name]
    assert (tmp_path / name).read_text() == content


def test_a_run_of_several_ranks_is_kept_when_one_process_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "out.jsonl", stop=2)
    (tmp_path / "out.jsonl.partial").rename(tmp_path / "out.jsonl.partial-0-of-2")
    settings = tmp_path / "out.jsonl.partial.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"ranks": 2}))
    with pytest.raises(CapivaraError, match="the number of ranks 2, now 1"):
        run(tmp_path / "out.jsonl")
    assert names(tmp_path) == ["out.jsonl.partial-0-of-2", "out.jsonl.partial.json"]


def test_a_file_of_rejected_records_is_replaced_only_with_overwrite(tmp_path: Path) -> None:
    rejected = tmp_path / "out.jsonl.rejected.jsonl"
    rejected.write_text('{"rejected": "old", "id": "a", "image": "a.png"}\n')
    with pytest.raises(CapivaraError, match="rejected.jsonl already exists") as error:
        run(tmp_path / "out.jsonl")
    assert error.value.hint == "--overwrite replaces it"
    assert names(tmp_path) == [rejected.name]
    run(tmp_path / "out.jsonl", overwrite=True)
    assert '"old"' not in rejected.read_text()
    rejected.write_text('{"rejected": "my notes", "id": 1}\n')
    with pytest.raises(CapivaraError, match="is not replaced, because it is not a file of rejected records"):
        run(tmp_path / "out.jsonl", overwrite=True)
    assert "my notes" in rejected.read_text()


@pytest.mark.parametrize("name", ["coco.json", "notes.ipynb", "a.tar", "a.png"])
def test_a_name_of_another_kind_of_file_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CapivaraError, match="is not the name of a file of records"):
        run(tmp_path / name, overwrite=True)
    assert names(tmp_path) == []
