"""The interface of everything that translates; one module per family implements it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Failure:
    """Why a text could not be translated.

    Attributes:
        reason: for the user.
        final: whether trying again is pointless.
    """

    reason: str
    final: bool = False


class Translator(ABC):
    """Something that translates texts from one language.

    Attributes:
        backend: as the user types it: `google`, `nllb`.
        model: what captions have as their `source`: a model's name, or the backend's.
        saves_each: whether each translation is saved at once: asking a service again costs more than a write.
    """

    saves_each = False

    backend: str
    model: str

    @abstractmethod
    def translate(self, texts: Sequence[str], target: str, attempt: int = 0) -> Iterator[tuple[int, str | Failure]]:
        """Yield the index of each text and its translation, once per text, in any order.

        Args:
            texts: distinct, without line breaks.
            target: BCP-47 code.
            attempt: how often these texts were tried before; the results were not translations.

        Raises:
            CapivaraError: nothing more can be translated: the service refuses, the model cannot be loaded.
        """

    @abstractmethod
    def check(self, target: str) -> None:
        """Raise CapivaraError when it does not know the language. Asks no service and loads no weights."""

    def identity(self) -> str:
        """Return what its translations are cached under: it changes when the files in a model's folder do."""
        return self.model

    def status(self) -> str:
        """Return a few words for the progress bar: the present rate limit."""
        return ""

    def close(self) -> None:  # noqa: B027
        """Close connections."""
