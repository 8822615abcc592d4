"""What a run learns from and what it is validated on: records, their images, and which of them are held out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from capivara_cli.console import say
from capivara_cli.data import image_records, records
from capivara_cli.data.image_records import merge
from capivara_cli.data.images import Rejected
from capivara_cli.data.records import Record, check_languages, collect_queries, resolve_languages
from capivara_cli.errors import CapivaraError
from capivara_cli.models.clip import Clip
from capivara_cli.models.embedding_cache import ImageTable, embed
from capivara_cli.training.options import TrainOptions
from capivara_cli.training.pixels import PixelTable, load_pixels
from capivara_cli.training.validation import Validation

if TYPE_CHECKING:
    import numpy as np

Table = ImageTable | PixelTable

MAX_HELD_OUT = 1000  # images: enough for a steady recall, and a validation stays a matter of seconds
MIN_HELD_OUT = 10  # recall on fewer images says nothing
WATCHED = "en"  # always validated, where the data have captions in it: what a model forgets is what it knew best


@dataclass(frozen=True)
class TrainingData:
    """The records of a run, and their images.

    Attributes:
        train: records to train on.
        images: row i is the image of `train[i]`.
        val: records to validate on; none of them is trained on.
        validation: scores the model on `val`; None without any.
        held_out: whether `val` was held out of the training data; else it is `--val`.
        rejected: images that could not be read.
    """

    train: list[Record]
    images: Table
    val: list[Record]
    validation: Validation | None
    held_out: bool
    rejected: list[Rejected]


def read_records(options: TrainOptions) -> tuple[list[Record], list[str], dict[str, float]]:
    """Read the records that have a caption to learn or to replay.

    Returns:
        the records, the languages to learn as the data has them (pt-BR for pt), and the replay shares that apply. A
        language to learn is not replayed. A replay language without captions is dropped if `options.replay_missing` is
        `skip`, and is an error if it is `error`.
    """
    everything = image_records.read_all(options.data.train)
    counts = records.languages(everything)
    langs = resolve_languages(counts, options.lang, options.data.train)
    skip_missing = options.replay_missing == "skip"
    replay = {
        lang: share
        for lang, share in options.replay.items()
        if lang not in langs and (counts[lang] or not skip_missing)
    }
    usable = with_captions(everything, [*langs, *replay])
    return usable, langs, replay


def with_captions(
    candidates: Sequence[Record], required: Sequence[str], optional: Collection[str] = ()
) -> list[Record]:
    """Return the records with a caption in one of the languages.

    Raises CapivaraError, naming the languages of the data, when one of the required languages is in no record.
    """
    check_languages(records.languages(candidates), required)
    langs = {*required, *optional}
    return [record for record in candidates if any(record.texts(lang) for lang in langs)]


def load_training_data(
    options: TrainOptions, clip: Clip, candidates: list[Record], replay: Collection[str]
) -> TrainingData:
    """Encode the records' images, or check that they can be decoded, and hold some records out for validation.

    Args:
        candidates: records from `read_records`.
        replay: languages to replay.

    Raises:
        CapivaraError: when fewer images than a batch can be read.
    """
    load = load_pixels if options.model.unlock_image else embed
    # Load all images before some are held out: only images that can be read may be held out.
    images, readable, rejected = load(clip, [record.image for record in candidates], views=options.views)
    train, images = _merge_copies([candidates[i] for i in readable], images)
    first = f"; the first that cannot: {rejected[0].image}: {rejected[0].reason}" if rejected else ""
    check_enough(len(train), options, "images that can be read", first)
    if options.data.val is not None:
        val = with_captions(image_records.read_all([options.data.val]), options.lang, replay)
        val_images, readable, val_rejected = load(clip, [record.image for record in val], label="validation images")
        val, val_images = _merge_copies([val[i] for i in readable], val_images)
        rejected = rejected + val_rejected
    else:
        held_out, rest = _split(len(train), options)
        val_images, images = images.subset(held_out), images.subset(rest)
        val, train = [train[i] for i in held_out], [train[i] for i in rest]
    queries = collect_queries(val, list(dict.fromkeys([*options.lang, *replay, WATCHED])))
    if not queries:
        say("no validation: no image is held out, or none of --val can be read")
    validation = Validation(clip, val_images, queries) if queries else None
    return TrainingData(train, images, val, validation, options.data.val is None, rejected)


def _split(total: int, options: TrainOptions) -> tuple[np.ndarray, np.ndarray]:
    """Draw the rows to validate on and the rows to train on, each ascending. At least a batch is left to train on."""
    import numpy as np

    count = min(round(total * options.data.val_share), MAX_HELD_OUT, total - options.batch_size)
    count = count if count >= MIN_HELD_OUT else 0
    order = np.random.default_rng([options.seed, 2]).permutation(total)  # the sampler draws from streams 0 and 1
    return np.sort(order[:count]), np.sort(order[count:])


def _merge_copies(rows: list[Record], images: Table) -> tuple[list[Record], Table]:
    """Merge the records of images with the same content under several names: they are one image."""
    import numpy as np

    first_of: dict[bytes, int] = {}  # content -> the row where it came first
    merged: dict[int, Record] = {}
    for row, content in enumerate(np.ascontiguousarray(images.content).view("S16").ravel().tolist()):
        first = first_of.setdefault(content, row) if content else row  # empty: not known, of an old embedding
        merged[first] = rows[row] if first == row else merge(merged[first], rows[row])
    if len(merged) < len(rows):
        say(f"{len(rows) - len(merged):,} images are copies of others under another name: merged into one record each")
        images = images.subset(np.array([*merged]))
    return [*merged.values()], images


def check_enough(images: int, options: TrainOptions, what: str, detail: str = "") -> None:
    """Raise CapivaraError when the images do not fill a batch; the hint names a size that they fill twice."""
    if images < options.batch_size:
        size = max(2 ** ((images // 2).bit_length() - 1), 2) if images >= 2 else None
        raise CapivaraError(
            f"{images} {what}, fewer than the batch of {options.batch_size}{detail}",
            f"--batch-size {size}" if size else None,
        )
