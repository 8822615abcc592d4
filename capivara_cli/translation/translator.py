"""What translates: one interface, a file a family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Self


class Failure(str):
    """Why a text could not be translated.

    Attributes:
        final: whether it has been tried often enough.
    """

    final: bool

    def __new__(cls, reason: str, *, final: bool = False) -> Self:
        """The reason is the text."""
        made = super().__new__(cls, reason)
        made.final = final
        return made


class Translator(ABC):
    """Something that translates texts from one language.

    Attributes:
        backend: as it is typed: `google`, `nllb`.
        model: what captions say that they come from: a model's name, or the backend's.
        origin: BCP-47 code of the language that texts come in.
        costly: whether each reply is to be remembered at once, as asking again costs more than writing it down.
    """

    costly = False

    backend: str
    model: str
    origin: str

    @abstractmethod
    def translate(self, texts: Sequence[str], target: str, attempt: int = 0) -> Iterator[tuple[int, str | Failure]]:
        """Texts -> number of the text and its translation, as they come, each once.

        Args:
            texts: distinct, without line breaks.
            target: BCP-47 code.
            attempt: how often these texts have been tried before; what came out then was no translation.

        Raises:
            CapivaraError: nothing more can be translated: the service refuses, the model cannot be loaded.
        """

    @abstractmethod
    def check(self, target: str) -> None:
        """Raise CapivaraError when it does not know the language. Asks no service and loads no weights."""

    def identity(self) -> str:
        """What its translations are remembered by: another model in a folder of the same name is another one."""
        return self.model

    def status(self) -> str:
        """A few words for the progress bar: the present rate limit."""
        return ""

    def close(self) -> None:  # noqa: B027
        """Let go of connections."""
