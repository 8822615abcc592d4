"""The captions to learn from, tokenised once, and which of them each step takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from capivara_cli.data.records import Record, check_languages, languages
from capivara_cli.models.clip import tokenise
from capivara_cli.models.tokens import Tokens

if TYPE_CHECKING:
    import numpy as np

    from capivara_cli.models.clip import Clip


@dataclass(frozen=True)
class Captions:
    """Which texts each image has in each language.

    Attributes:
        tokens: all distinct texts.
        texts: (total,) int64, rows of `tokens`, image by image.
        offsets: language -> (N + 1,) int64: image i's are `texts[offsets[i]:offsets[i + 1]]`.
    """

    tokens: Tokens
    texts: Mapping[str, np.ndarray]
    offsets: Mapping[str, np.ndarray]

    @property
    def images(self) -> int:
        """How many images there are."""
        return len(next(iter(self.offsets.values()))) - 1

    def counts(self, images: np.ndarray, lang: str) -> np.ndarray:
        """(B,) captions of each of these images in a language."""
        return self.offsets[lang][images + 1] - self.offsets[lang][images]

    def draw(self, images: np.ndarray, lang: str, rng: np.random.Generator) -> np.ndarray:
        """One text of each image, (B,) rows of `tokens`; each image must have one in the language."""
        return self.texts[lang][self.offsets[lang][images] + rng.integers(self.counts(images, lang))]

    def vocabulary(self, langs: Sequence[str], clip: Clip) -> list[int]:
        """Tokens that occur in the captions of these languages, without the special ones."""
        import numpy as np

        rows = np.unique(np.concatenate([self.texts[lang] for lang in langs]))
        present = np.unique(
            np.concatenate([self.tokens.flat[self.tokens.offsets[r] : self.tokens.offsets[r + 1]] for r in rows])
        )
        special = set(clip.tokenizer.tokenizer.all_special_ids)
        return [int(token) for token in present if int(token) not in special]


def collect(records: Sequence[Record], langs: Sequence[str], clip: Clip) -> Captions:
    """Tokenise the records' captions in these languages, each distinct text once."""
    import numpy as np

    rows: dict[str, int] = {}
    texts: dict[str, np.ndarray] = {}
    offsets: dict[str, np.ndarray] = {}
    for lang in langs:
        by_image = [list(dict.fromkeys(record.texts(lang))) for record in records]
        texts[lang] = np.array([rows.setdefault(text, len(rows)) for own in by_image for text in own], np.int64)
        offsets[lang] = np.cumsum([0, *map(len, by_image)]).astype(np.int64)
    return Captions(tokenise(clip, list(rows)), texts, offsets)


def usable(records: Sequence[Record], langs: Sequence[str], keep: Sequence[str]) -> list[Record]:
    """Records with a caption in one of the languages.

    Raises CapivaraError, naming the languages that there are, when one of `langs` does not occur at all.
    """
    check_languages(languages(records), langs)
    wanted = {*langs, *keep}
    return [record for record in records if any(record.texts(lang) for lang in wanted)]


@dataclass(frozen=True)
class Sampler:
    """Which images and which of their captions a step takes: a function of the seed and the step alone.

    So a resumed run draws what the undisturbed one would have drawn, and nothing has to be saved for it.

    Attributes:
        langs: the languages to learn; an image's is drawn among those that it has.
        keep: language -> share of the batch whose captions come from it.
    """

    captions: Captions
    langs: Sequence[str]
    keep: Mapping[str, float]
    batch_size: int
    views: int
    seed: int

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Images, their texts (rows of the tokens) and their views, each (B,); no image twice."""
        import numpy as np

        images = self._images(step)
        rng = np.random.default_rng([self.seed, 1, step])
        texts = np.full(len(images), -1, np.int64)
        for lang, slots in self._assign(images, rng).items():
            texts[slots] = self.captions.draw(images[slots], lang, rng)
        return images, texts, rng.integers(self.views, size=len(images))

    def _images(self, step: int) -> np.ndarray:
        """The step's part of its epoch's permutation; what does not fill a batch waits for another epoch."""
        epoch, place = divmod(step, self.captions.images // self.batch_size)
        order = _permutation(self.seed, epoch, self.captions.images)
        return order[place * self.batch_size : (place + 1) * self.batch_size]

    def _assign(self, images: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Language -> slots of the batch. Images without a caption to learn go to the kept languages first."""
        import numpy as np

        has = {lang: self.captions.counts(images, lang) > 0 for lang in [*self.langs, *self.keep]}
        learns = np.any([has[lang] for lang in self.langs], axis=0)  # (B,)
        free = np.ones(len(images), bool)
        slots: dict[str, np.ndarray] = {}
        for lang, share in self.keep.items():
            able = rng.permutation(np.flatnonzero(free & has[lang]))
            able = able[np.argsort(learns[able], kind="stable")]
            only = int((~learns[able]).sum())  # these have nothing else to give
            slots[lang] = able[: max(round(share * len(images)), only)]
            free[slots[lang]] = False
        choice = rng.random((len(self.langs), len(images)))
        choice[~np.array([has[lang] for lang in self.langs])] = -1
        for number, lang in enumerate(self.langs):
            slots[lang] = np.flatnonzero(free & (choice.argmax(axis=0) == number))
        return slots


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, total: int) -> np.ndarray:
    import numpy as np

    return np.random.default_rng([seed, 0, epoch]).permutation(total)
