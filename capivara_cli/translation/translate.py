"""`translate`: add captions in other languages; each text is translated once, and implausible results are rejected."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from capivara_cli import console
from capivara_cli.data import class_files, pipeline, records
from capivara_cli.data.captions import REJECTED, Caption
from capivara_cli.data.languages import LIST_HINT, find, suggestion, variant
from capivara_cli.data.output import RecordResult, Tally, check_json, check_not_a_source, report
from capivara_cli.data.records import Record
from capivara_cli.data.resumable import open_output
from capivara_cli.errors import BadOption, CapivaraError
from capivara_cli.models import hub
from capivara_cli.runtime import Runtime, read_ranks
from capivara_cli.translation.checked import CheckedTranslator, on_one_line
from capivara_cli.translation.class_file import translate_class_file
from capivara_cli.translation.memory import Memory, default_path
from capivara_cli.translation.options import TranslateOptions
from capivara_cli.translation.translator import Failure, Translator

WINDOW = 512  # records: enough texts to sort by length or to join, few enough for the memory
SAMPLES = 3  # texts that are shown at the end

Wanted = list[tuple[int, str]]
"""Translations that a record lacks: index of the caption, and target."""


def translate(sources: Sequence[str | Path], output: str | Path | None, options: TranslateOptions) -> None:
    """Translate the captions of records, or the names and templates of a class file.

    Args:
        sources: JSONL files, folders, shards, `-`; or a single class file (.json, .yaml).
        output: file to write; None is standard output. An interrupted run is resumed.
        options: see `TranslateOptions`.

    Raises:
        CapivaraError: bad records, an unknown language or model, a service that gives no translations, other settings
            than those the output was begun with, or with `strict` a caption without a translation.
    """
    path = Path(output) if output is not None else None
    origin = options.origin
    _check_languages(options)
    options = options.replace(backend=_backend_of(options))
    is_class_file = len(sources) == 1 and class_files.is_class_file(sources[0])
    if is_class_file and options.json:
        raise BadOption("--json: a class file has no summary", "leave --json out")
    check_json(options, path)
    check_not_a_source(sources, path)
    runtime = _start_runtime(options)
    translators = _make_translators(options, runtime)
    with ExitStack() as stack:
        for translator in set(translators.values()):
            stack.callback(translator.close)
        if is_class_file:
            memory = stack.enter_context(_open_memory(options))
            checked = CheckedTranslator(translators, memory, origin)
            translate_class_file(Path(sources[0]), path, checked, options)
            return
        settings = options.settings() | {
            "sources": [str(source) for source in sources],
            "model": translators[options.to[0]].model,
            "model_files": hub.identity_of(options.model) if options.model else None,
        }
        total, languages = records.validate(sources)
        if total is not None:
            options = _with_origin_of(languages, sources, options)
        out = stack.enter_context(open_output(path, settings, runtime, overwrite=options.overwrite))
        out.begin(WINDOW)
        _note_licence(options)
        memory = stack.enter_context(_open_memory(options))
        checked = CheckedTranslator(translators, memory, origin)
        job = _TranslationJob(checked, options, out.folder, languages)
        stream = pipeline.read(sources, total, languages)
        tally = pipeline.run(job, stream, out, runtime, window=WINDOW, total=total, live=total is None)
    if tally is not None:
        job.show_summary(tally, path)
        report(tally, path, parts="translations", summary=job.as_json() if options.json else None)


def _check_languages(options: TranslateOptions) -> None:
    """Raise BadOption for languages that are not known, or are the same."""
    for code in (options.origin, *options.to):
        if find(code) is None:
            raise BadOption(f"the language {code} is not known{suggestion(code)}", LIST_HINT)
    if options.origin in options.to:
        raise BadOption(f"--to {options.origin} is the language of --from", "leave it out")


def _backend_of(options: TranslateOptions) -> str:
    """Return the backend: the one that was typed, that of the model, or Google's service."""
    if options.model is None:
        return options.backend or "google"
    from capivara_cli.translation.local import family_of

    if options.backend == "google":
        raise BadOption(f"--backend google is a service and takes no --model {options.model}", "leave --backend out")
    return options.backend or family_of(options.model)


def _with_origin_of(
    languages: Counter[str], sources: Sequence[str | Path], options: TranslateOptions
) -> TranslateOptions:
    """Return the options with `origin` as the captions have it: `pt-BR` for `pt`. Raises CapivaraError for none."""
    other = None if languages[options.origin] else variant(options.origin, languages)
    if other is not None:
        console.say(f"no captions in {options.origin}: using {other} ({languages[other]:,} captions)")
        return options.replace(origin=other)
    _check_origin(languages, sources, options)
    return options


def _check_origin(languages: Counter[str], sources: Sequence[str | Path], options: TranslateOptions) -> None:
    """Raise CapivaraError if there is nothing to translate, unless all is translated already."""
    if not languages[options.origin] and not any(languages[target] for target in options.to):
        names = [lang for lang, _ in languages.most_common(1)]
        line = f"capivara caption {shlex.join(map(str, sources))} -o FILE.jsonl describes the images"
        hint = f"--from {names[0]}" if names else line
        raise CapivaraError(f"no caption in {options.origin}: the data has {records.name_languages(languages)}", hint)


def _start_runtime(options: TranslateOptions) -> Runtime:
    if options.backend == "google" and read_ranks()[1] == 1:
        return Runtime("cpu", "fp32", options.seed)  # without torch, whose import takes seconds
    return Runtime.start(options.device, options.precision, options.seed)


def _make_translators(options: TranslateOptions, runtime: Runtime) -> dict[str, Translator]:
    """Return the translator of each target, usually one for all. Raises CapivaraError if it does not know one."""
    translators: dict[str, Translator]
    if options.backend == "google":
        from capivara_cli.translation.google import Google

        # The rate is shared, so that all ranks together ask no more often.
        translators = dict.fromkeys(options.to, Google(options, ranks=runtime.world_size))
    else:
        from capivara_cli.translation import local

        kind = local.CTranslate2 if options.engine == "ctranslate2" else local.Local
        if options.backend == "marian" and options.model is None:  # one model per pair of languages
            translators = {target: kind(options, target, runtime) for target in options.to}
        else:
            translators = dict.fromkeys(options.to, kind(options, options.to[0], runtime))
    for target, translator in translators.items():
        translator.check(target)
    return translators


def _open_memory(options: TranslateOptions) -> Memory:
    if str(options.memory) == "none":
        return Memory(None)
    return Memory(options.memory or default_path())


def _note_licence(options: TranslateOptions) -> None:
    from capivara_cli.translation.local import LICENCES

    if options.backend in LICENCES and options.model is None:
        console.say(f"note: {LICENCES[options.backend]}")


@dataclass
class _TranslationJob(pipeline.Job[Record]):
    """Add the captions that records lack.

    Attributes:
        translator: translates the texts, and counts them.
        captions: number of captions to translate; a caption counts once per target.
        languages: captions in each language; of a pipe they are complete at its end.
        rejected: number of captions without a translation.
        samples: text -> target -> translation, to be shown at the end.
    """

    label = "translating"
    columns = ("texts", "limit")

    translator: CheckedTranslator
    options: TranslateOptions
    folder: Path
    languages: Counter[str]
    captions: int = 0
    rejected: int = 0
    samples: dict[str, dict[str, str]] = field(default_factory=dict)

    def process(self, batches: Iterator[list[Record]], expected: int | None) -> Iterator[list[RecordResult]]:
        """See `pipeline.Job`."""
        for batch in batches:
            wanted = [self._wanted(record) for record in batch]
            translations = {}
            for target in self.options.to:
                distinct: dict[str, None] = {}  # in the order of the captions, which a set would not keep
                for record, pairs in zip(batch, wanted, strict=True):
                    captions = (record.captions[i] for i, lang in pairs if lang == target)
                    distinct |= dict.fromkeys(on_one_line(caption["text"]) for caption in captions)
                translations[target] = self.translator.translate(list(distinct), target, self.refresh)
            yield [self._result(record, pairs, translations) for record, pairs in zip(batch, wanted, strict=True)]
        if expected is None:
            _check_origin(self.languages, ["-"], self.options)

    def _wanted(self, record: Record) -> Wanted:
        existing = {(caption.get("parent"), caption["lang"]) for caption in record.captions}
        wanted = []
        for target in self.options.to:
            for i, caption in enumerate(record.captions):
                is_origin = caption["lang"] == self.options.origin and caption["text"].strip()
                if is_origin and REJECTED not in caption and (i, target) not in existing:
                    wanted.append((i, target))
        self.captions += len(wanted)
        return wanted

    def _result(
        self, record: Record, wanted: Wanted, translations: Mapping[str, Mapping[str, str | Failure]]
    ) -> RecordResult:
        data = record.for_folder(self.folder)
        captions, rejected = list(record.captions), []
        for i, target in wanted:
            text = on_one_line(record.captions[i]["text"])
            translation = translations[target][text]
            if isinstance(translation, Failure):
                reason = f"{translation.reason} ({target})"
                if self.options.strict:
                    raise CapivaraError(f"{record.where}: {text}: {reason}", "without --strict it is left out")
                rejected.append({"id": data["id"], REJECTED: reason, "text": text, "lang": target})
            else:
                captions.append(self._caption(translation, target, parent=i))
                self._keep_sample(text, target, translation)
        self.rejected += len(rejected)
        if captions or "captions" in data:
            data["captions"] = captions
        return RecordResult(data, parts=tuple(rejected))

    def _caption(self, text: str, target: str, *, parent: int) -> Caption:
        source = self.translator.translators[target].model
        return {"text": text, "lang": target, "source": source, "parent": parent}

    def _keep_sample(self, text: str, target: str, translation: str) -> None:
        if text in self.samples or len(self.samples) < SAMPLES:
            self.samples.setdefault(text, {})[target] = translation

    def figures(self) -> dict[str, str]:
        """See `pipeline.Job`."""
        count, known = self.translator.requested, self.translator.recalled
        return {
            "texts": f"{count:,} texts, {count / max(self.seconds, 1e-9):.0f}/s, {known:,} known",
            "rejected": f"{self.rejected:,} rejected" if self.rejected else "",
            "limit": next(iter(self.translator.translators.values())).status(),
        }

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints: of this session, a few translations too."""
        return {
            "captions": self.captions,
            "to": list(self.options.to),
            "texts_translated": self.translator.requested,
            "samples": self.samples,
        }

    def show_summary(self, tally: Tally, output: Path | None) -> None:
        """Say what was done, and show a few translations."""
        origin, to, count = self.options.origin, ", ".join(self.options.to), self.translator.requested
        saved = 1 - count / self.captions if self.captions else 1.0
        console.say(
            f"{console.counted(tally.kept, 'record')}{f' in {output}' if output is not None else ''}:"
            f" {console.counted(self.captions, 'caption')} to {to}, {console.counted(count, 'text')} translated,"
            f" {saved:.0%} from memory or repeated"
        )
        if self.samples:
            # Languages are below each other: two columns of sentences do not fit into a terminal.
            table = console.table()
            for text, translations in self.samples.items():
                table.add_row(origin, console.clean(text), style="dim")
                for lang, translation in translations.items():
                    table.add_row(lang, console.clean(translation))
            console.show(table)
