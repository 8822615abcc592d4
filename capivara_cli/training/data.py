"""What a run learns from and what it is validated on: records, images, and which of them are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from capivara_cli.console import say
from capivara_cli.data import records
from capivara_cli.data.images import ImageRef, Rejected
from capivara_cli.data.records import Record, collect_queries
from capivara_cli.errors import CapivaraError
from capivara_cli.models.embedding_cache import ImageTable, embed
from capivara_cli.options import Recipe
from capivara_cli.training.pixels import Decoder, PixelTable, check
from capivara_cli.training.sampler import Captions, usable
from capivara_cli.training.validation import Validation

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from capivara_cli.models.clip import Clip

MAX_HELD_OUT = 1000  # images: enough for a steady recall, and a validation stays a matter of seconds
WATCHED = "en"  # scored where there are captions in it, and shown: what a model forgets is what it knew best
MIN_HELD_OUT = 10  # fewer say nothing


@dataclass(frozen=True)
class Examples:
    """What was chosen.

    Attributes:
        train: records to learn from; image i of `images` is that of `train[i]`.
        val: records to validate on.
        validation: scores the model; None without records for it.
        rejected: images that could not be read.
    """

    train: list[Record]
    images: ImageTable | PixelTable
    val: list[Record]
    validation: Validation | None
    rejected: list[Rejected]

    def fingerprint(self, captions: Captions) -> str:
        """Changes with the images' names, the captions and their order."""
        digest = hashlib.blake2b(digest_size=16)
        for record in (*self.train, *self.val):
            digest.update(f"{record.image}\n".encode("utf-8", "surrogateescape"))
        for array in (
            captions.tokens.flat,
            captions.tokens.offsets,
            *captions.texts.values(),
            *captions.offsets.values(),
        ):
            digest.update(array.tobytes())
        return digest.hexdigest()


def read(recipe: Recipe, must_keep: bool) -> tuple[list[Record], dict[str, float]]:
    """The records with captions to learn or to keep, and the shares of the languages to keep.

    Args:
        must_keep: the person asked for the kept languages: one that does not occur is an error then, and
            otherwise passed over.
    """
    found = records.read_all(recipe.data.train)
    there = records.languages(found)
    keep = {
        lang: share for lang, share in recipe.keep.items() if lang not in recipe.lang and (must_keep or there[lang])
    }
    learn = usable(found, recipe.lang, list(keep))
    if must_keep:
        usable(found, list(keep), [])
    if len(learn) < recipe.batch_size:
        raise CapivaraError(
            f"{len(learn)} images with captions in {', '.join(recipe.lang)}:"
            f" fewer than the batch of {recipe.batch_size}",
            f"--batch-size {_smaller(len(learn))}",
        )
    return learn, keep


def _smaller(images: int) -> int:
    """The largest power of two of at most half the images."""
    return int(max(2 ** ((images // 2).bit_length() - 1), 2)) if images >= 4 else 2


def prepare(recipe: Recipe, clip: Clip, found: Sequence[Record], keep: dict[str, float]) -> Examples:
    """Encode the images (or see that they can be decoded) and hold some out.

    Raises CapivaraError when too few can be read.
    """
    load = _pixels if recipe.model.unlock_image else _embeddings
    images, kept, rejected = load(clip, [record.image for record in found], recipe.views, "images")
    good = [found[i] for i in kept]
    if len(good) < recipe.batch_size:
        first = f"; the first that cannot: {rejected[0].image}: {rejected[0].reason}" if rejected else ""
        raise CapivaraError(
            f"{len(good)} images can be read, fewer than the batch of {recipe.batch_size}{first}",
            f"--batch-size {_smaller(len(good))}" if len(good) >= 4 else None,
        )
    if recipe.data.val is not None:
        candidates = usable(records.read_all([recipe.data.val]), recipe.lang, list(keep))
        val_images, val_kept, val_rejected = load(clip, [record.image for record in candidates], 1, "validation images")
        val, train = [candidates[i] for i in val_kept], good
        rejected = rejected + val_rejected
    else:
        out, rest = _hold_out(len(good), recipe)
        val, train = [good[i] for i in out], [good[i] for i in rest]
        val_images, images = images.subset(out), images.subset(rest)
    queries = collect_queries(val, list(dict.fromkeys([*recipe.lang, *keep, WATCHED])))
    if not queries:
        say("no validation: too few images to hold any out; --val FILE names some")
    scored = Validation(clip, _features(clip, val_images), queries) if queries else None
    return Examples(train, images, val, scored, rejected)


def _hold_out(total: int, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """Rows to validate on and rows to train on, each ascending. A batch must be left to train on."""
    import numpy as np

    count = min(round(total * recipe.data.val_share), MAX_HELD_OUT, total - recipe.batch_size)
    order = np.random.default_rng([recipe.seed, 2]).permutation(total)
    count = count if count >= MIN_HELD_OUT else 0
    return np.sort(order[:count]), np.sort(order[count:])


def _embeddings(
    clip: Clip, refs: list[ImageRef], views: int, label: str
) -> tuple[ImageTable, list[int], list[Rejected]]:
    return embed(clip, refs, views=views, label=label)


def _pixels(clip: Clip, refs: list[ImageRef], views: int, label: str) -> tuple[PixelTable, list[int], list[Rejected]]:
    decoder = Decoder(clip, views)
    good, rejected = check(refs, decoder, label)
    return PixelTable([refs[i] for i in good], decoder), good, rejected


def _features(clip: Clip, images: ImageTable | PixelTable) -> Callable[[], Tensor]:
    """() -> (I, D) float32: once for a frozen image tower, at each call for one that trains."""
    import numpy as np
    import torch

    rows = np.arange(len(images))
    plain = np.zeros(len(images), np.int64)
    if isinstance(images, ImageTable):
        fixed = images.take(rows, plain) if len(images) else torch.empty(0)
        return lambda: fixed
    size = clip.image_batch_size()

    @torch.inference_mode()
    def encode() -> Tensor:
        parts = [images.take(rows[i : i + size], plain[i : i + size]) for i in range(0, len(rows), size)]
        return torch.cat([clip.encode_pixels(part).cpu() for part in parts])

    return encode
