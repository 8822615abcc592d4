"""Translate texts once: from the translation memory, or by a translator whose results are checked and saved."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from capivara_cli.data.languages import known
from capivara_cli.translation import checks
from capivara_cli.translation.memory import Maker, Memory
from capivara_cli.translation.translator import Failure, Translator

ATTEMPTS = 3  # per text
SAVE_SECONDS = 0.5  # translations are saved at least this often, so that a killed process loses little work


@dataclass
class CheckedTranslator:
    """Translators with a memory, and checks of what they return.

    Attributes:
        translators: target -> translator.
        memory: where translations are looked up and saved.
        origin: BCP-47 code of the texts' language.
        requested: number of texts that were sent to translators in this run; retries do not count.
        recalled: number of texts that were in the memory.
    """

    translators: Mapping[str, Translator]
    memory: Memory
    origin: str
    requested: int = 0
    recalled: int = 0

    def translate(
        self, texts: Sequence[str], target: str, refresh: Callable[[], None] = lambda: None
    ) -> dict[str, str | Failure]:
        """Return the translation of each text, or why there is none.

        Args:
            texts: distinct, each on one line.
            target: BCP-47 code.
            refresh: is called whenever a translation has come in.
        """
        translator = self.translators[target]
        maker = Maker(translator.backend, translator.identity(), self.origin, target)
        # Half a UTF-16 pair, as a JSON escape can write it: neither a tokenizer nor a request can hold it.
        results: dict[str, str | Failure] = {
            text: Failure("broken characters", final=True) for text in texts if checks.SURROGATE.search(text)
        }
        recalled = self.memory.recall(maker, [text for text in texts if text not in results])
        results |= recalled
        todo = [text for text in texts if text not in results]
        self.requested += len(todo)
        self.recalled += len(recalled)
        for attempt in range(ATTEMPTS):
            if not todo:
                break
            retry = []
            for text, result in self._attempt(translator, maker, todo, target, attempt):
                results[text] = result
                if isinstance(result, Failure) and not result.final:
                    retry.append(text)
                refresh()
            todo = retry
        return results

    def _attempt(
        self, translator: Translator, maker: Maker, texts: Sequence[str], target: str, attempt: int
    ) -> Iterator[tuple[str, str | Failure]]:
        """Yield texts and their checked translations as they come in, and save them."""
        unsaved: dict[str, str] = {}
        saved_at = time.monotonic()
        # The first attempt may have mangled placeholders. Later ones send numbers instead, which translators usually
        # copy.
        hidden = [checks.hide(text) if attempt else text for text in texts]
        try:
            for i, result in translator.translate(hidden, target, attempt):
                text = texts[i]
                if isinstance(result, str):
                    result = self._checked(text, checks.unhide(text, result) if attempt else result, target)
                if isinstance(result, str):
                    unsaved[text] = result
                if translator.saves_each or time.monotonic() - saved_at > SAVE_SECONDS:
                    self.memory.add(maker, unsaved)
                    unsaved.clear()
                    saved_at = time.monotonic()
                yield text, result
        finally:
            self.memory.add(maker, unsaved)

    def _checked(self, text: str, translation: str, target: str) -> str | Failure:
        translation = on_one_line(translation)
        reason = checks.problem(text, translation, known(self.origin), known(target))
        return Failure(reason) if reason else translation


def on_one_line(text: str) -> str:
    """Return the text with all white space as single spaces."""
    return " ".join(text.split())
