"""`translate`: captions into other languages; each distinct text once ever, and none that cannot be right."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from capivara_cli import artifacts, console
from capivara_cli.data import class_files, records
from capivara_cli.data.languages import BACKENDS, Language, find
from capivara_cli.data.records import Record
from capivara_cli.data.output import RecordResult, Output, Tally, check_not_read, report
from capivara_cli.data.resumable import open_output
from capivara_cli.data.pipeline import share_by_rank, batched, drain, prefetch
from capivara_cli.data.captions import REJECTED
from capivara_cli.errors import CapivaraError
from capivara_cli.models import hub
from capivara_cli.runtime import Runtime
from capivara_cli.translation import checks
from capivara_cli.translation.memory import Memory, default_path
from capivara_cli.translation.translator import Failure, Translator

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

WINDOW = 512  # records at once: enough texts to sort by length or to join, few enough to hold
ATTEMPTS = 3  # at a text of which no translation came
KEEP_SECONDS = 0.5  # what came is remembered at least so often: a killed process has not paid in vain
SAMPLES = 3  # translations that are shown at the end
ENGINES = ("transformers", "ctranslate2")


@dataclass(frozen=True)
class Asked:
    """Who is to translate, and how."""

    to: tuple[str, ...]
    origin: str = "en"
    backend: str = "google"
    model: str | None = None
    engine: str = "transformers"
    google_url: str | None = None
    concurrency: int = 4
    rate: float = 5.0
    timeout: float = 30.0
    retries: int = 6
    batch_tokens: int | None = None


def translate(
    sources: Sequence[str | Path],
    output: Path | None = None,
    *,
    to: Sequence[str],
    origin: str = "en",
    backend: str = "google",
    model: str | None = None,
    engine: str = "transformers",
    memory: str | Path | None = None,
    google_url: str | None = None,
    concurrency: int = 4,
    rate: float = 5.0,
    timeout: float = 30.0,
    retries: int = 6,
    batch_tokens: int | None = None,
    strict: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    precision: str = "auto",
    seed: int = 0,
) -> None:
    """Translate the captions of records, or the names and templates of a class file.

    Args:
        sources: JSONL files, folders, shards, `-`; or one class file (.json, .yaml).
        output: file to write; None is standard output. What an interrupted run left is gone on with.
        to: BCP-47 codes of the targets.
        origin: code of the captions to translate.
        backend: google, nllb, m2m100, madlad or marian.
        model: name on the hub or folder; None is the backend's default.
        engine: transformers or ctranslate2.
        memory: SQLite file of what was translated before, `none`, or None for the one in the cache folder.
        google_url: `HOST[:PORT]` instead of Google's own.
        concurrency: requests under way at once.
        rate: requests a second, at most.
        timeout: seconds to wait for a reply.
        retries: how often a request that failed is made again.
        batch_tokens: padded source tokens that a model takes at once.
        strict: stop at the first caption that cannot be translated.
        overwrite: begin anew.
        device, precision, seed: see `Runtime`.

    Raises:
        CapivaraError: bad records, an unknown language or model, a service that gives no translations, other settings
            than those the output was begun with, or with `strict` a caption without a translation.
    """
    asked = Asked(
        tuple(dict.fromkeys(to)), origin, backend, model, engine, google_url, concurrency, rate, timeout, retries,
        batch_tokens,
    )  # fmt: skip
    languages = _check(asked, sources, output)
    runtime = _runtime(asked, device, precision, seed)
    # One for all languages, unless it is a model of one pair.
    apart = backend == "marian" and model is None
    first = _translator(asked, asked.to[0], runtime)
    translators = {target: _translator(asked, target, runtime) if apart else first for target in asked.to}
    for target, translator in translators.items():
        translator.check(target)
    try:
        if len(sources) == 1 and class_files.is_one(sources[0]):
            with _open_memory(memory) as known:
                job = _Job(translators, languages, known, asked, strict=True)
                _translate_classes(Path(sources[0]), output, job, overwrite=overwrite)
            return
        settings = {
            "sources": [str(source) for source in sources],
            "to": list(asked.to),
            "from": origin,
            "backend": backend,
            "model": translators[asked.to[0]].model,
            "model_files": hub.identity_of(model) if model else None,
            "engine": engine,
        }
        total = records.validate(sources)
        with open_output(output, settings, runtime, overwrite=overwrite) as out:
            out.begin(WINDOW)
            _note_licence(backend, model)
            with _open_memory(memory) as known:
                job = _Job(translators, languages, known, asked, strict=strict)
                tally = job.run(sources, out, total, runtime)
        if tally is not None:
            job.summary(tally, output)
    finally:
        for translator in set(translators.values()):
            translator.close()


def _check(asked: Asked, sources: Sequence[str | Path], output: Path | None) -> dict[str, Language]:
    """The languages by their codes. Raises CapivaraError for what can be known to be wrong at once."""
    from capivara_cli.errors import nearest

    if asked.backend not in BACKENDS:
        raise CapivaraError(
            f"--backend {asked.backend} is not known{nearest(asked.backend, list(BACKENDS))}",
            f"one of {', '.join(BACKENDS)}",
        )
    if asked.engine not in ENGINES:
        raise CapivaraError(f"--engine {asked.engine} is not known", f"one of {', '.join(ENGINES)}")
    if not asked.to:
        raise CapivaraError("no language to translate to", "--to hi, or --to hi,xh")
    for name in ("concurrency", "rate", "timeout", "batch_tokens"):
        value = getattr(asked, name)
        if value is not None and not value > 0:
            raise CapivaraError(f"--{name.replace('_', '-')} {value}: more than 0")
    if asked.retries < 0:
        raise CapivaraError(f"--retries {asked.retries}: 0 or more")
    found = {code: find(code) for code in (asked.origin, *asked.to)}
    for code, language in found.items():
        if language is None:
            raise CapivaraError(f"the language {code} is not known", "capivara translate --languages lists them")
    if asked.origin in asked.to:
        raise CapivaraError(f"--to {asked.origin} is the language of --from", "leave it out")
    check_not_read(sources, output)
    return {code: language for code, language in found.items() if language is not None}


def _runtime(asked: Asked, device: str, precision: str, seed: int) -> Runtime:
    """Torch is only asked for a device when a model runs here, or when there are other ranks."""
    if asked.backend == "google" and int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return Runtime("cpu", "fp32", seed)
    return Runtime.start(device, precision, seed)


def _translator(asked: Asked, target: str, runtime: Runtime) -> Translator:
    if asked.backend == "google":
        from capivara_cli.translation.google import Google

        return Google(
            asked.origin,
            url=asked.google_url,
            concurrency=asked.concurrency,
            rate=asked.rate / runtime.world_size,  # together the ranks ask no more often
            retries=asked.retries,
            timeout=asked.timeout,
            seed=runtime.seed,
        )
    from capivara_cli.translation.local import CTranslate2, Local

    kind = CTranslate2 if asked.engine == "ctranslate2" else Local
    return kind(asked.backend, asked.model, asked.origin, target, runtime, batch_tokens=asked.batch_tokens)


def _note_licence(backend: str, model: str | None) -> None:
    from capivara_cli.translation.local import LICENCES

    if backend in LICENCES and model is None:
        console.say(f"note: {LICENCES[backend]}")


def _open_memory(memory: str | Path | None) -> Memory:
    if str(memory) == "none":
        return Memory(None)
    return Memory(default_path() if memory is None else Path(memory))


@dataclass
class _Job:
    """One run over the records.

    Attributes:
        captions: captions that wanted a translation, and of them
        asked_for: texts that were translated in this run, each once;
        known: texts that the memory had;
        rejected: captions without one.
    """

    translators: dict[str, Translator]
    languages: dict[str, Language]
    memory: Memory
    asked: Asked
    strict: bool
    captions: int = 0
    asked_for: int = 0
    known: int = 0
    rejected: int = 0
    there: int = 0
    seconds: float = 0.0
    samples: dict[str, dict[str, str]] = field(default_factory=dict)
    changed: Callable[[], None] = lambda: None

    def run(self, sources: Sequence[str | Path], out: Output, total: int | None, runtime: Runtime) -> Tally | None:
        """Translate what is not translated yet. Gives the tally on the first rank."""
        found = records.stream(sources) if total is None else itertools.chain.from_iterable(map(records.read, sources))
        own = share_by_rank(found, WINDOW, runtime)
        passed, own = out.skip_done(own)
        begun = passed * runtime.world_size
        if begun:
            console.say(f"going on after {begun:,} records")
        if total is not None:
            found_windows = batched(own, WINDOW)
        elif out.streams:
            found_windows = drain(own, WINDOW)
        else:
            found_windows = batched(prefetch(own, WINDOW), WINDOW)
        started = time.monotonic()
        with console.progress("texts", "rejected", "limit") as bar:
            task = bar.add_task("translating", total=total, completed=begun, texts="", rejected="", limit="")

            def changed() -> None:
                self.seconds = time.monotonic() - started
                self._show(bar, task)

            self.changed = changed
            for window in found_windows:
                outcomes = self.window(window, out.folder)
                out.write(outcomes)
                bar.update(task, advance=len(outcomes) * runtime.world_size)
                changed()
        return out.finish()

    def window(self, window: Sequence[Record], folder: Path) -> list[RecordResult]:
        """Records -> records with the captions that they lacked."""
        wanted = [self._wanted(record) for record in window]
        texts: dict[str, dict[str, None]] = {target: {} for target in self.asked.to}
        for record, own in zip(window, wanted, strict=True):
            for i, target in own:
                texts[target][_flat(record.captions[i]["text"])] = None
        done = {target: self.translate(list(distinct), target) for target, distinct in texts.items()}
        return [self._outcome(record, own, done, folder) for record, own in zip(window, wanted, strict=True)]

    def _wanted(self, record: Record) -> list[tuple[int, str]]:
        """Which captions are to be translated, and to what."""
        there = {(caption.get("parent"), caption["lang"]) for caption in record.captions}
        wanted = [
            (i, target)
            for target in self.asked.to
            for i, caption in enumerate(record.captions)
            if caption["lang"] == self.asked.origin
            and caption["text"].strip()
            and (i, target) not in there
            and REJECTED not in caption
        ]
        self.there += sum(lang in self.asked.to for _, lang in there)
        self.captions += len(wanted)
        return wanted

    def translate(self, texts: Sequence[str], target: str) -> dict[str, str | Failure]:
        """Distinct texts -> their translations, from memory or made and remembered now; or why there is none."""
        translator = self.translators[target]
        maker = self.memory.maker(translator.backend, translator.identity(), self.asked.origin, target)
        known: dict[str, str | Failure] = dict(self.memory.recall(maker, texts))
        todo = [text for text in texts if text not in known]
        self.asked_for += len(todo)
        self.known += len(known)
        failed: dict[str, Failure] = {}
        for attempt in range(ATTEMPTS):
            if not todo:
                break
            for text, result in self._made(translator, maker, todo, target, attempt):
                if isinstance(result, Failure):
                    failed[text] = result
                else:
                    known[text] = result
                    failed.pop(text, None)
                self.changed()
            todo = [text for text, reason in failed.items() if not reason.final]
        return known | failed

    def _made(
        self, translator: Translator, maker: int, texts: Sequence[str], target: str, attempt: int
    ) -> Iterator[tuple[str, str | Failure]]:
        """Translations as they come, checked and remembered."""
        fresh: list[tuple[str, str]] = []
        kept = time.monotonic()
        # What was mangled once is hidden: a placeholder as a number is left alone by most.
        hidden = [checks.hide(text) if attempt else text for text in texts]
        try:
            for number, result in translator.translate(hidden, target, attempt):
                text = texts[number]
                found = result if isinstance(result, Failure) or not attempt else checks.unhide(text, result)
                if not isinstance(found, Failure):
                    found = _flat(found)
                    reason = checks.problem(text, found, self.languages[self.asked.origin], self.languages[target])
                    found = Failure(reason) if reason else found
                if not isinstance(found, Failure):
                    fresh.append((text, found))
                if translator.costly or time.monotonic() - kept > KEEP_SECONDS:
                    self.memory.add(maker, fresh)
                    fresh.clear()
                    kept = time.monotonic()
                yield text, found
        finally:
            self.memory.add(maker, fresh)

    def _outcome(
        self, record: Record, wanted: list[tuple[int, str]], done: dict[str, dict[str, str | Failure]], folder: Path
    ) -> RecordResult:
        data = record.for_folder(folder)
        captions, rejected = list(record.captions), []
        for i, target in wanted:
            text = _flat(record.captions[i]["text"])
            result = done[target][text]
            if isinstance(result, Failure):
                if self.strict:
                    raise CapivaraError(
                        f"{record.where}: {text}: {result} ({target})", "without --strict it is left out"
                    )
                rejected.append(
                    {"id": data["id"], REJECTED: f"{result} ({target})", "text": text, "lang": target}
                )
                continue
            captions.append({"text": result, "lang": target, "source": self.translators[target].model, "parent": i})
            sample = self.samples.get(text)
            if sample is not None or len(self.samples) < SAMPLES:
                self.samples.setdefault(text, {})[target] = result
        self.rejected += len(rejected)
        whole = data | ({"captions": captions} if captions or "captions" in data else {})
        return RecordResult(whole, parts=tuple(rejected))

    def _show(self, bar: Progress, task: TaskID) -> None:
        rate = self.asked_for / max(self.seconds, 1e-9)
        status = next(iter(self.translators.values())).status()
        bar.update(
            task,
            texts=f"{self.asked_for:,} texts, {rate:.0f}/s, {self.known:,} known",
            rejected=f"{self.rejected:,} rejected" if self.rejected else "",
            limit=status,
        )

    def summary(self, tally: Tally, output: Path | None) -> None:
        """What was done and saved, a few samples side by side, and what was rejected."""
        from rich.table import Table
        from rich.text import Text

        if tally.kept and not self.captions and not self.there:
            raise CapivaraError(f"no captions in {self.asked.origin} were found", "--from LANG")
        saved = 1 - self.asked_for / self.captions if self.captions else 1.0
        console.say(
            f"{tally.kept:,} records{f' in {output}' if output is not None else ''}: "
            f"{self.captions:,} captions to {', '.join(self.asked.to)}, {self.asked_for:,} texts translated, "
            f"{saved:.0%} from memory or repeated"
        )
        if self.samples:
            # Languages below each other: two columns of sentences would fit no terminal.
            table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
            for text, results in self.samples.items():
                for lang, line in ((self.asked.origin, text), *results.items()):
                    table.add_row(lang, Text(console.clean(line)), style="dim" if lang == self.asked.origin else None)
            console.show(table)
        report(tally, output, parts="translations")


def _flat(text: str) -> str:
    """The text on one line."""
    return " ".join(text.split())


def _translate_classes(path: Path, output: Path | None, job: _Job, *, overwrite: bool) -> None:
    """Translate a class file. Raises CapivaraError when a text has no translation: a class list has no gaps."""
    if len(job.asked.to) > 1:
        raise CapivaraError(f"{path} is a class file: one language at a time", f"--to {job.asked.to[0]}")
    if output is not None and output.exists() and not overwrite:
        raise CapivaraError(f"{output} is there already", "--overwrite replaces it")
    (target,) = job.asked.to
    value = class_files.read(path)
    ours = class_files.is_ours(value)
    if ours:  # names and what else there is by language; the rest is no text
        value = class_files.in_language(value, job.asked.origin, path)
    texts = list(dict.fromkeys(map(_flat, class_files.texts(value))))
    job.captions = len(texts)
    done = job.translate(texts, target)
    failed = {text: result for text, result in done.items() if isinstance(result, Failure)}
    if failed:
        first = "; ".join(f"{text}: {reason}" for text, reason in itertools.islice(failed.items(), 5))
        raise CapivaraError(
            f"{len(failed)} of {len(texts)} texts of {path} could not be translated: {first}",
            "nothing was written; the others are remembered",
        )
    made = class_files.replaced(value, lambda text: done[_flat(text)])
    if ours:
        made = class_files.with_language(class_files.read(path), made, target)
    shown = class_files.dump(made, output or path)
    if output is None:
        console.answer(shown.rstrip("\n"))
    else:
        artifacts.write_text(output, shown)
        console.say(f"wrote {output}: {len(texts)} texts in {target}, {job.asked_for} of them translated now")
