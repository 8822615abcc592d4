"""Bounds of text generation: a model's generation_config.json may ask for any number of beams and tokens.

Memory and time would be gone before anything stops it, and the files of a model are not trusted (docs/security.md).
"""

from __future__ import annotations

from typing import Any

from capivara_cli.errors import CapivaraError

MAX_NEW_TOKENS = 4096  # a caption and its translation have some dozens
MAX_BEAMS = 64  # the library's defaults are 1 to 5, and each beam has a cache of its own

# Keys of a generation config that are counts, and the largest value of each. Others only change which token is chosen.
MAX_COUNTS = {
    "max_length": MAX_NEW_TOKENS,
    "max_new_tokens": MAX_NEW_TOKENS,
    "min_length": MAX_NEW_TOKENS,
    "min_new_tokens": MAX_NEW_TOKENS,
    "num_beams": MAX_BEAMS,
    "num_beam_groups": MAX_BEAMS,
    "num_return_sequences": 1,
    "no_repeat_ngram_size": MAX_NEW_TOKENS,
    "encoder_no_repeat_ngram_size": MAX_NEW_TOKENS,
    "top_k": 1 << 20,
}


def check_generation(config: Any, name: object) -> None:
    """Raise CapivaraError for a generation config with a count that is none, or larger than any that is of use.

    Args:
        config: a GenerationConfig of transformers.
        name: of the model, for the message.
    """
    for key, limit in MAX_COUNTS.items():
        value = getattr(config, key, None)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            raise CapivaraError(f"{name}: generation_config.json: {key} = {value!r} is not a whole number")
        if not 0 <= value <= limit:
            raise CapivaraError(f"{name}: generation_config.json: {key} = {value:,} is not between 0 and {limit:,}")
