"""googletrans against a server with real faults: nothing wrong is recorded, and nothing is requested twice."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from capivara_cli.errors import CapivaraError
from capivara_cli.translation.google import Google, _join
from capivara_cli.translation.limiter import Limiter
from capivara_cli.translation.options import TranslateOptions
from capivara_cli.translation.translate import translate
from tests import kills
from tests.conftest import command
from tests.forks import Forks
from tests.google_server import Fault, Handler, Server, certificate, serving, to_hindi
from tests.helpers import read_jsonl, write_jsonl


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = certificate(tmp_path_factory.mktemp("certificate"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(path))
        yield path


@pytest.fixture
def server(pem: Path) -> Iterator[Server]:
    with serving(pem) as running:
        yield running


WORDS = ["dog", "cat", "bird", "house", "tree", "river", "stone", "cloud", "lamp", "chair"]


def texts(count: int) -> list[str]:
    """Return distinct captions."""
    return [f"a photo of a {a} and the {b} number {n}" for n, (a, b) in zip(
        range(count), itertools.cycle(itertools.product(WORDS, WORDS)), strict=False)]  # fmt: skip


def write(path: Path, captions: list[str]) -> Path:
    """Write records with two captions each."""
    pairs = [captions[i : i + 2] for i in range(0, len(captions), 2)]
    return write_jsonl(path, (
        {"id": str(n), "image": f"{n}.jpg", "captions": [{"text": text, "lang": "en"} for text in pair]}
        for n, pair in enumerate(pairs)
    ))  # fmt: skip


def run(server: Server, source: Path, output: str = "out.jsonl", **others: Any) -> dict[str, str]:
    """Translate into Hindi, with a cache beside the source; return source -> translation."""
    path = source.parent / output
    fixed: dict[str, Any] = {"rate": 500, "memory": source.parent / "memory.sqlite", "timeout": 1, "retries": 4}
    translate([source], path, TranslateOptions(to=["hi"], google_url=server.url, **fixed | others))
    return made(path)


def made(path: Path) -> dict[str, str]:
    """Return source -> translation, for all records."""
    translations = {}
    for record in read_jsonl(path):
        captions = record["captions"]
        for caption in captions:
            if "parent" in caption:
                assert (caption["lang"], caption["source"]) == ("hi", "google")
                translations[captions[caption["parent"]]["text"]] = caption["text"]
    return translations


def in_hindi(captions: list[str]) -> dict[str, str]:
    return {text: to_hindi(text) for text in captions}


def remembered(path: Path) -> dict[str, str]:
    with sqlite3.connect(path) as connection:
        return dict(connection.execute("SELECT source, text FROM translation"))


def sometimes(share: float, fault: Fault, seed: int = 0) -> Fault:
    rng = random.Random(seed)
    return lambda handler, queries: rng.random() < share and fault(handler, queries)


def refuse(handler: Handler, _: list[str]) -> bool:
    return handler.reply(429, "slow down", {"Retry-After": "0"})


def break_down(handler: Handler, _: list[str]) -> bool:
    return handler.reply(500, "no", {"Retry-After": "0"})


def hang(handler: Handler, _: list[str]) -> bool:
    time.sleep(2.5)
    return handler.reset()


def reset(handler: Handler, _: list[str]) -> bool:
    return handler.reset()


def cut(handler: Handler, queries: list[str]) -> bool:
    handler.reply(200, json.dumps([[[to_hindi(queries[0]), queries[0]]]])[:-4], length=4000)
    return handler.reset()


def html(handler: Handler, _: list[str]) -> bool:
    return handler.reply(200, "<html><body>unusual traffic</body></html>")


def fewer(handler: Handler, queries: list[str]) -> bool:
    reply = json.dumps([[[to_hindi(" ".join(queries)), "", None]], None, "en"])
    return len(queries) > 1 and handler.reply(200, reply)


def echo(handler: Handler, queries: list[str]) -> bool:
    """Return the source; texts that are sent one by one are translated."""
    reply = json.dumps([[["\n".join(queries), "\n".join(queries), None]], None, "en"])
    return len(queries) > 1 and handler.reply(200, reply)


FAULTS = [refuse, break_down, hang, reset, cut, html, fewer, echo]


def test_captions_share_requests_and_get_their_own_translations(server: Server, tmp_path: Path) -> None:
    captions = texts(300)
    assert run(server, write(tmp_path / "in.jsonl", captions)) == in_hindi(captions)
    assert server.requests <= 4


@pytest.mark.parametrize("concurrency", [1, 3])
def test_requests_are_sent_at_once_up_to_the_limit(
    concurrency: int, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capivara_cli.translation.google.MAX_TEXTS", 10)
    together = threading.Barrier(concurrency)

    def wait_for_the_others(handler: Handler, queries: list[str]) -> bool:
        if server.served.total() < 90:  # of 120 texts: the last ones may be alone
            with contextlib.suppress(threading.BrokenBarrierError):
                together.wait(timeout=30)
        return False

    server.faults = [wait_for_the_others]
    captions = texts(120)
    translated = run(server, write(tmp_path / "in.jsonl", captions), concurrency=concurrency, timeout=60)
    assert translated == in_hindi(captions)
    assert not together.broken
    assert server.most_at_once == concurrency


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_with_faults_everything_is_translated_and_requested_once(
    fault: Fault, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capivara_cli.translation.google.MAX_TEXTS", 10)
    monkeypatch.setattr(Limiter, "slow_down", without_pauses)
    server.faults = [sometimes(0.3, fault)]
    captions = texts(200)
    assert run(server, write(tmp_path / "in.jsonl", captions)) == in_hindi(captions)
    assert remembered(tmp_path / "memory.sqlite") == in_hindi(captions)
    assert set(server.served.values()) == {1}


def without_pauses(self: Limiter, _: float | None) -> None:
    """Do not wait: the real one pauses for seconds, which other tests measure."""
    self.refusals += 1


@pytest.mark.parametrize("fault", [refuse, break_down, reset, html], ids=lambda fault: fault.__name__)
def test_a_service_that_is_down_stops_the_run_which_is_resumed_later(
    fault: Fault, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capivara_cli.translation.google.MAX_TEXTS", 10)
    monkeypatch.setattr(Limiter, "slow_down", without_pauses)
    captions = texts(200)
    source = write(tmp_path / "in.jsonl", captions)

    def after_some(handler: Handler, queries: list[str]) -> bool:
        return server.served.total() >= 50 and fault(handler, queries)

    server.faults = [after_some]
    with pytest.raises(CapivaraError, match="the translation service gives no translations") as error:
        run(server, source, concurrency=1, retries=2)
    assert "run the command again" in (error.value.hint or "")
    assert not (tmp_path / "out.jsonl").exists()
    before = remembered(tmp_path / "memory.sqlite")
    assert 50 <= len(before) < 200
    server.faults = []
    assert run(server, source, concurrency=1, retries=2) == in_hindi(captions)
    assert set(server.served.values()) == {1}


def test_a_text_that_the_service_fails_on_is_rejected_alone(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Limiter, "slow_down", without_pauses)
    captions = [*texts(30), "poison in a cup"]

    def poisoned(handler: Handler, queries: list[str]) -> bool:
        return "poison in a cup" in queries and break_down(handler, queries)

    server.faults = [poisoned]
    assert run(server, write(tmp_path / "in.jsonl", captions), retries=1) == in_hindi(captions[:-1])
    (rejected,) = read_jsonl(tmp_path / "out.jsonl.rejected.jsonl")
    assert (rejected["text"], rejected["lang"], rejected["id"]) == ("poison in a cup", "hi", "15")
    assert "status 500" in rejected["rejected"]


def test_what_is_always_echoed_is_never_recorded(server: Server, tmp_path: Path) -> None:
    captions = [*texts(10), "stays as it is in every language"]

    def stubborn(handler: Handler, queries: list[str]) -> bool:
        return handler.translated(queries, [text if text == captions[-1] else to_hindi(text) for text in queries])

    server.faults = [stubborn]
    assert captions[-1] not in run(server, write(tmp_path / "in.jsonl", captions))
    assert captions[-1] not in remembered(tmp_path / "memory.sqlite")
    assert "not translated" in (tmp_path / "out.jsonl.rejected.jsonl").read_text()


def test_the_second_run_sends_no_request(server: Server, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", texts(40))
    run(server, source, "one.jsonl")
    before = server.requests
    run(server, source, "two.jsonl")
    assert server.requests == before
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


def test_a_refusal_pauses_all_for_as_long_as_the_service_says(server: Server) -> None:
    times: list[float] = []

    def first(handler: Handler, _: list[str]) -> bool:
        times.append(time.monotonic())
        if len(times) > 1:
            return False
        return handler.reply(429, "", {"Retry-After": "2"})

    server.faults = [first]
    google = Google(TranslateOptions(to=["hi"], google_url=server.url, rate=100, concurrency=3))
    assert dict(google.translate(texts(3), "hi", attempt=1)) == {n: to_hindi(t) for n, t in enumerate(texts(3))}
    google.close()
    assert times[-1] - times[0] >= 2.0
    assert google.limiter.rate < 100.0


@given(st.lists(st.integers(0, 200), min_size=1, max_size=400))
@example([50] * 300)  # 100 texts of 50 characters are 5,000, and 99 ends of lines
@example([49] * 200)
def test_requests_of_many_texts_stay_below_the_limit_and_are_full(lengths: list[int]) -> None:
    sources = ["a" * length for length in lengths]
    groups = _join(sources)
    assert list(itertools.chain(*groups)) == list(range(len(sources)))
    joined = ["\n".join(sources[i] for i in group) for group in groups]
    assert all(len(text) <= 5000 and len(group) <= 100 for text, group in zip(joined, groups, strict=True))
    for (text, group), (_, following) in itertools.pairwise(zip(joined, groups, strict=True)):
        assert len(group) == 100 or len(text) + 1 + lengths[following[0]] + 1 > 5000


def test_a_request_has_at_most_5000_characters() -> None:
    assert _join(["a" * 1700] * 5 + ["b" * 9000, "c"]) == [[0, 1], [2, 3], [4], [5], [6]]
    assert max(map(len, _join(["a"] * 250))) == 100


@pytest.mark.usefixtures("pem")
def test_an_unreachable_service_is_named_in_one_line() -> None:
    google = Google(TranslateOptions(to=["hi"], google_url="localhost:1", retries=0))
    with pytest.raises(CapivaraError, match="gives no translations: ConnectError"):
        list(google.translate(["a dog"], "hi"))
    google.close()


@pytest.mark.usefixtures("pem")
def test_a_name_without_an_address_fails_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    google = Google(TranslateOptions(to=["hi"], google_url="no-such-host.invalid", retries=50))
    with pytest.raises(
        CapivaraError, match=r"no-such-host\.invalid has no address: this machine has no network"
    ) as error:
        list(google.translate(["a dog"], "hi"))
    google.close()
    assert "--backend nllb" in (error.value.hint or "")
    assert "trying again" not in capsys.readouterr().err


def test_tries_are_shown(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.faults = [lambda handler, queries: server.requests <= 3 and refuse(handler, queries)]
    google = Google(TranslateOptions(to=["hi"], google_url=server.url, rate=500))
    assert dict(google.translate(["a dog"], "hi")) == {0: to_hindi("a dog")}
    google.close()
    said = [line for line in capsys.readouterr().err.splitlines() if "trying again" in line]
    assert said == [f"status 429: trying again in 0 s, {number} of 6" for number in (2, 3)]


def test_half_a_character_in_a_reply_is_rejected(server: Server, tmp_path: Path) -> None:
    server.faults = [lambda handler, queries: handler.translated(queries, ["क\ud83d"] * len(queries))]
    captions = texts(2)
    source = write_jsonl(tmp_path / "in.jsonl", [{"image": "x", "captions": [{"text": captions[0], "lang": "en"}]}])
    assert run(server, source) == {}
    (rejected,) = read_jsonl(tmp_path / "out.jsonl.rejected.jsonl")
    assert rejected["rejected"] == "broken characters (hi)"


SETUP = """
from capivara_cli.translation.translate import translate
from capivara_cli.translation.options import TranslateOptions

def run(output, overwrite=False):
    memory = folder / f"{output.stem}.sqlite"
    options = TranslateOptions(to=["hi"], google_url=sys.argv[3], rate=500, memory=memory, overwrite=overwrite)
    translate([sys.argv[2]], output, options)
"""


def test_after_any_number_of_kills_the_bytes_are_those_of_an_undisturbed_run(
    server: Server, forks: Forks, tmp_path: Path
) -> None:
    server.latency = 0.03
    source = write(tmp_path / "in.jsonl", texts(1200))
    kills.survive(forks, SETUP, tmp_path / "out", source, server.url)


def test_two_processes_on_one_memory_lose_nothing(server: Server, tmp_path: Path) -> None:
    captions = texts(400)
    for name, part in (("a", captions[:250]), ("b", captions[150:])):
        write(tmp_path / f"{name}.jsonl", part)
    flags = ["--to", "hi", "--google-url", server.url, "--rate", "500", "--memory", str(tmp_path / "memory.sqlite")]
    lines = [command("translate", f"{name}.jsonl", *flags, "-o", f"{name}.out.jsonl") for name in "ab"]
    running = [subprocess.Popen(line, cwd=tmp_path, env=os.environ, stderr=subprocess.PIPE) for line in lines]
    for process in running:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said.decode()
    assert made(tmp_path / "a.out.jsonl") | made(tmp_path / "b.out.jsonl") == in_hindi(captions)
    assert remembered(tmp_path / "memory.sqlite") == in_hindi(captions)
