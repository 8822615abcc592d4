"""The captions to train on, tokenised once, and the images and captions of each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from capivara_cli.data.records import Record
from capivara_cli.models.clip import Clip, tokenise
from capivara_cli.models.tokens import Tokens

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class CaptionTable:
    """The captions of N images in each language, as tokens.

    Attributes:
        tokens: all distinct texts.
        text_ids: language -> (total,) int64 indices into `tokens`, image by image.
        offsets: language -> (N + 1,) int64; image i has `text_ids[lang][offsets[lang][i] : offsets[lang][i + 1]]`.
    """

    tokens: Tokens
    text_ids: Mapping[str, np.ndarray]
    offsets: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(next(iter(self.offsets.values()))) - 1

    def totals(self) -> dict[str, int]:
        """Return how many captions there are in each language."""
        return {lang: len(text_ids) for lang, text_ids in self.text_ids.items()}

    def counts(self, images: np.ndarray, lang: str) -> np.ndarray:
        """Return how many captions each of these images has in a language, (B,)."""
        return self.offsets[lang][images + 1] - self.offsets[lang][images]

    def draw(self, images: np.ndarray, lang: str, rng: np.random.Generator) -> np.ndarray:
        """Draw one caption per image, (B,) indices into `tokens`. Each image must have one in the language."""
        return self.text_ids[lang][self.offsets[lang][images] + rng.integers(self.counts(images, lang))]

    def vocabulary(self, langs: Sequence[str], clip: Clip) -> list[int]:
        """Return the token ids that occur in the captions of these languages, ascending, without special tokens."""
        import numpy as np

        in_langs = np.zeros(len(self.tokens), bool)  # (distinct texts,) whether a text is in one of the languages
        for lang in langs:
            in_langs[self.text_ids[lang]] = True
        # `flat` has the tokens of all texts one after the other, so a text's flag is repeated for each of its tokens.
        present = np.unique(self.tokens.flat[np.repeat(in_langs, self.tokens.lengths)])
        special = set(clip.tokenizer.tokenizer.all_special_ids)
        return [token for token in present.tolist() if token not in special]


def tokenise_captions(records: Sequence[Record], langs: Sequence[str], clip: Clip) -> CaptionTable:
    """Tokenise the records' captions in these languages, each distinct text once."""
    import numpy as np

    ids: dict[str, int] = {}  # text -> its index in `tokens`
    text_ids: dict[str, np.ndarray] = {}
    offsets: dict[str, np.ndarray] = {}
    for lang in langs:
        # A text that an image has twice counts once, so that it is not drawn twice as often.
        by_image = [list(dict.fromkeys(record.texts(lang))) for record in records]
        text_ids[lang] = np.array([ids.setdefault(text, len(ids)) for texts in by_image for text in texts], np.int64)
        offsets[lang] = np.cumsum([0, *map(len, by_image)]).astype(np.int64)
    return CaptionTable(tokenise(clip, list(ids)), text_ids, offsets)


class Batch(NamedTuple):
    """The pairs of a step, or one rank's part of them.

    Attributes:
        images: (B,) int64, indices of the images, each at most once.
        text_ids: (B,) int64, the caption of each image, as an index into the caption table's tokens.
        views: (B,) int64, which view of each image; 0 is the one without augmentation.
    """

    images: np.ndarray
    text_ids: np.ndarray
    views: np.ndarray


@dataclass(frozen=True)
class Sampler:
    """Chooses the images, captions and views of a step, from the seed and the step's number alone.

    A resumed run therefore draws what an uninterrupted one draws, and no state has to be saved for it.

    Attributes:
        langs: the languages to learn; one is drawn for each image, among those that it has.
        replay: language -> share of the batch (0 to 1) whose captions come from it.
        batch_size: images per step, over all ranks; at most the number of images, which `data.check_enough` ensures.
        views: how many views each image has.
    """

    captions: CaptionTable
    langs: Sequence[str]
    replay: Mapping[str, float]
    batch_size: int
    views: int
    seed: int

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, counted from 0."""
        import numpy as np

        images = self._images(step)
        rng = np.random.default_rng([self.seed, 1, step])  # stream 1; the permutations are stream 0
        text_ids = np.full(len(images), -1, np.int64)  # all are set below: each image has a caption in some language
        for lang, positions in self._languages(images, rng).items():
            text_ids[positions] = self.captions.draw(images[positions], lang, rng)
        return Batch(images, text_ids, rng.integers(self.views, size=len(images)))

    def _images(self, step: int) -> np.ndarray:
        """Return the step's part of its epoch's permutation. Images left over at the end are not used in this epoch."""
        epoch, step_in_epoch = divmod(step, len(self.captions) // self.batch_size)  # // : whole batches only
        order = _permutation(self.seed, epoch, len(self.captions))
        return order[step_in_epoch * self.batch_size : (step_in_epoch + 1) * self.batch_size]

    def _languages(self, images: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Give each image of the batch a language. Return language -> positions in the batch.

        An image without a caption to learn can only be replayed, so such images are replayed first, and all of
        them are, even beyond the share. No position is preferred: a batch is cut into micro-batches and ranks, and
        no part may get all of the replay.
        """
        import numpy as np

        has = {lang: self.captions.counts(images, lang) > 0 for lang in [*self.langs, *self.replay]}  # (B,) each
        can_learn = np.any([has[lang] for lang in self.langs], axis=0)  # (B,)
        free = np.ones(len(images), bool)  # (B,) whether the image has no language yet
        positions: dict[str, np.ndarray] = {}
        for lang, share in self.replay.items():
            candidates = rng.permutation(np.flatnonzero(free & has[lang]))
            candidates = candidates[np.argsort(can_learn[candidates], kind="stable")]  # False sorts before True
            replay_only = int((~can_learn[candidates]).sum())
            positions[lang] = candidates[: max(round(share * len(images)), replay_only)]
            free[positions[lang]] = False
        # The largest random number wins, among the languages that the image has: each is equally likely.
        draws = rng.random((len(self.langs), len(images)))  # (langs, B)
        draws[~np.array([has[lang] for lang in self.langs])] = -1  # less than any random number
        for row, lang in enumerate(self.langs):
            positions[lang] = np.flatnonzero(free & (draws.argmax(axis=0) == row))
        return positions


@lru_cache(maxsize=2)  # the epoch that a step belongs to, and the next one, where prefetching reaches it
def _permutation(seed: int, epoch: int, total: int) -> np.ndarray:
    import numpy as np

    return np.random.default_rng([seed, 0, epoch]).permutation(total)
