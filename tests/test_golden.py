"""What the commands write is what they wrote before: `tests/golden/cases.py` has the command lines.

`make golden` records the files of `tests/golden/expected` again, where a change is meant, and shows what changed. Right
after that, `GOLDEN_EXACT=1 OMP_NUM_THREADS=1 pytest -n 0 tests/test_golden.py` compares without any tolerance.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden import runner
from tests.golden.cases import CASES
from tests.golden.inputs import write_inputs


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden") / "inputs"
    write_inputs(folder)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_a_command_writes_what_it_wrote_before(
    case: str, inputs: Path, tmp_path: Path, capivara: runner.Capivara
) -> None:
    written = runner.run(CASES[case], inputs, tmp_path / "case", capivara)
    different = [*runner.differences(runner.read(case), written)]
    assert not different, "\n".join([f"{len(different)} differences:", *different[:20]])


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ('{"id": "1", "score": 0.91}', '{"id": "1", "score": 0.9119}', ""),
        ('{"id": "1", "score": 0.91}', '{"id": "1", "score": 0.9121}', "x:1: score: expected 0.91, got 0.9121"),
        ('{"top": [{"score": 0.5}]}', '{"top": [{"score": 0.6}]}', "x:1: top.0.score: expected 0.5, got 0.6"),
        ('{"norm": 2.0, "values": [1.0]}', '{"norm": 2.001, "values": [0.9991]}', ""),
        (
            '{"norm": 2.0, "values": [1.0]}',
            '{"norm": 2.0, "values": [0.998]}',
            "x:1: values.0: expected 1.0, got 0.998",
        ),
        ('{"lr": 0.01}', '{"lr": 0.010001}', "x:1: lr: expected 0.01, got 0.010001"),
        ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}', "x:1: keys: expected ['a', 'b'], got ['b', 'a']"),
        ('{"a": {"b": [1, 2]}}', '{"a": {"b": [1]}}', "x:1: a.b: expected [1, 2], got [1]"),
        ('{"a": 1}', '{"a": 1.0}', "x:1: a: expected 1, got 1.0"),
        ('{"a": "é"}', '{"a": "\\u00e9"}', "x:1: the same JSON is written differently"),
        ("one\ntwo\n", "one\nthree\n", "x:2: expected 'two', got 'three'"),
        ("one", "one\ntwo", "x:2: expected None, got 'two'"),
        ("one\n", "one", "x:2: expected '', got None"),
    ],
)
def test_a_difference_is_named_by_line_and_key(
    before: str, now: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "EXACT", False)
    found = [*runner.differences({"x": before}, {"x": now})]
    assert len(found) == bool(said)
    assert "".join(found).startswith(said)


def test_a_file_that_is_missing_or_new_is_a_difference() -> None:
    assert [*runner.differences({"a": "", "b": ""}, {"b": "", "c": ""})] == [
        "a: was not written",
        "c: was not written before",
    ]


def test_every_recorded_case_is_run() -> None:
    assert {path.name for path in runner.EXPECTED.iterdir()} == set(CASES)
