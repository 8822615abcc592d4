"""The translation memory."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from capivara_cli.errors import CapivaraError
from capivara_cli.translation.memory import Maker, Memory, default_path

MAKER = Maker("google", "google", "en", "hi")


def test_saved_translations_are_recalled_and_nothing_else(tmp_path: Path) -> None:
    translations = {f"text {n}": f"ए {n}" for n in range(2000)}
    with Memory(tmp_path / "new" / "m.sqlite") as memory:
        memory.add(MAKER, translations)
    with Memory(tmp_path / "new" / "m.sqlite") as memory:
        assert memory.recall(MAKER, [f"text {n}" for n in range(-3, 2003)]) == translations
        assert memory.recall(MAKER, []) == {}
        assert len(memory) == 2000


@pytest.mark.parametrize(
    "other", [("nllb", "m", "en", "hi"), ("google", "google", "en", "pt"), ("google", "x", "en", "hi")]
)
def test_translations_of_other_models_and_languages_are_kept_apart(other: tuple[str, str, str, str]) -> None:
    with Memory(None) as memory:
        memory.add(MAKER, {"a dog": "कुत्ता"})
        assert memory.recall(MAKER, ["a dog"]) == {"a dog": "कुत्ता"}
        assert memory.recall(Maker(*other), ["a dog"]) == {}


def test_texts_are_kept_as_they_are(tmp_path: Path) -> None:
    texts = ["'; DROP TABLE translation; --", "A", "a", "é", "e\u0301", " a", "", "\u200b", "🐕" * 300]
    with Memory(tmp_path / "m.sqlite") as memory:
        memory.add(MAKER, {text: f"<{text}>" for text in texts})
        assert memory.recall(MAKER, texts) == {text: f"<{text}>" for text in texts}


def test_a_saved_translation_is_not_replaced(tmp_path: Path) -> None:
    with Memory(tmp_path / "m.sqlite") as memory:
        memory.add(MAKER, {"a": "1"})
        memory.add(MAKER, {"a": "2", "b": "3"})
        assert memory.recall(MAKER, ["a", "b"]) == {"a": "1", "b": "3"}


def _add(path: Path, name: str) -> None:
    with Memory(path) as memory:
        for number in range(200):
            memory.add(MAKER, {f"{name} {number}": name, f"shared {number}": "same"})


def test_several_processes_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    running = [context.Process(target=_add, args=(tmp_path / "m.sqlite", name)) for name in "abc"]
    for process in running:
        process.start()
    for process in running:
        process.join()
        assert process.exitcode == 0
    with Memory(tmp_path / "m.sqlite") as memory:
        assert len(memory) == 800


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.sqlite").write_text("something else, long enough to be looked at" * 100)
    with pytest.raises(CapivaraError, match=r"m\.sqlite cannot be used: file is not a database") as error:
        Memory(tmp_path / "m.sqlite")
    assert "--memory none" in (error.value.hint or "")


@pytest.mark.parametrize("start", [0, 2, 200, 4096, 5000, 9000])
def test_a_damaged_memory_is_set_aside_and_begun_again(
    start: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CAPIVARA_CACHE", str(tmp_path))
    translations = {f"text {n}": f"ए {n}" for n in range(3000)}
    with Memory(default_path()) as memory:
        memory.add(MAKER, translations)
    content = default_path().read_bytes()
    damaged = content[:start] + b"\xa5" * (len(content) - start)
    default_path().write_bytes(damaged)
    with Memory(default_path()) as memory:
        memory.recall(MAKER, list(translations))
        memory.add(MAKER, {"a": "1"} | translations)
        assert memory.recall(MAKER, ["a"]) == {"a": "1"}
    assert capsys.readouterr().err.count("a new one is begun") == 1
    assert Path(f"{default_path()}.damaged").read_bytes() == damaged
    with Memory(default_path()) as memory:
        assert memory.recall(MAKER, list(translations)) == translations


def test_a_memory_that_another_process_has_set_aside_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    with Memory(path) as memory:
        memory.add(MAKER, {f"text {n}": "x" * 100 for n in range(3000)})
    path.write_bytes(path.read_bytes()[:8192] + b"\xa5" * 200_000)
    with Memory(path) as first, Memory(path) as second:
        texts = [f"text {n}" for n in range(3000)]
        for memory in (first, second):
            memory.recall(MAKER, texts)
            memory.add(MAKER, {"a": "1"})
    with Memory(path) as memory:
        assert memory.recall(MAKER, ["a"]) == {"a": "1"}


def test_none_is_a_memory_for_this_run_only() -> None:
    with Memory(None) as memory:
        memory.add(MAKER, {"a": "1"})
    with Memory(None) as memory:
        assert len(memory) == 0
