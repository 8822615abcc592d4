"""Translate a class file: the names and templates in a JSON or YAML file."""

from __future__ import annotations

from pathlib import Path

from capivara_cli import artifacts, console, files
from capivara_cli.data import class_files
from capivara_cli.errors import CapivaraError
from capivara_cli.translation.checked import CheckedTranslator, on_one_line
from capivara_cli.translation.options import TranslateOptions
from capivara_cli.translation.translator import Failure

SHOWN = 5  # failures that the message names


def translate_class_file(
    path: Path, output: Path | None, translator: CheckedTranslator, options: TranslateOptions
) -> None:
    """Translate all texts of a class file into one language.

    Raises CapivaraError when one of them has no translation: a list of classes must not have gaps.
    """
    if len(options.to) > 1:
        raise CapivaraError(f"{path} is a class file: one language at a time", f"--to {options.to[0]}")
    if output is not None:
        files.check_writable(output, files.NEVER, overwrite=options.overwrite)
    (target,) = options.to
    content = class_files.read(path)
    has_languages = class_files.is_ours(content) or class_files.is_by_language(content)
    value = class_files.select_language(content, options.origin, path) if has_languages else content
    texts = list(dict.fromkeys(map(on_one_line, class_files.texts(value))))
    translations: dict[str, str] = {}
    failures: list[str] = []
    for text, result in translator.translate(texts, target).items():
        if isinstance(result, Failure):
            failures.append(f"{text}: {result.reason}")
        else:
            translations[text] = result
    if failures:
        raise CapivaraError(
            f"{len(failures)} of {len(texts)} texts of {path} could not be translated: {'; '.join(failures[:SHOWN])}",
            "nothing was written; the other translations are saved",
        )
    value = class_files.replaced(value, lambda text: translations[on_one_line(text)])
    if has_languages:
        value = class_files.with_language(content, value, target)
    serialised = class_files.dump(value, output or path)
    if output is None:
        console.answer(serialised.rstrip("\n"))
    else:
        artifacts.write_text(output, serialised)
        console.say(f"wrote {output}: {len(texts)} texts in {target}, {translator.requested} of them translated now")
