from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from capivara_cli.models.clip import Clip
from capivara_cli.models.tokens import Tokens
from capivara_cli.training.sampler import CaptionTable, Sampler, tokenise_captions
from tests.training.test_data import record

Counts = Mapping[str, Sequence[int]]


def make_sampler(
    counts: Counts,
    langs: Sequence[str] = ("hi",),
    replay: Mapping[str, float] | None = None,
    *,
    batch_size: int = 8,
    views: int = 1,
    seed: int = 0,
) -> Sampler:
    """Return a sampler over N images with this number of captions in each language; all captions differ."""
    text_ids, offsets, total = {}, {}, 0
    for lang, numbers in counts.items():
        text_ids[lang] = np.arange(total, total + sum(numbers))
        offsets[lang] = np.cumsum([0, *numbers])
        total += sum(numbers)
    tokens = Tokens(np.arange(total, dtype=np.int32), np.arange(total + 1), 0)
    return Sampler(CaptionTable(tokens, text_ids, offsets), langs, replay or {}, batch_size, views, seed)


def languages_of(sampler: Sampler, step: int) -> list[str]:
    """Return the language of each caption of a batch, and check that the caption is one of its image's."""
    langs = []
    images, text_ids, _ = sampler.batch(step)
    for image, text_id in zip(images, text_ids, strict=True):
        for lang, ids in sampler.captions.text_ids.items():
            start, end = sampler.captions.offsets[lang][image : image + 2]
            if text_id in ids[start:end]:
                langs.append(lang)
    assert len(langs) == len(images)
    return langs


@pytest.mark.parametrize("total", [32, 30])
def test_an_epoch_takes_each_image_at_most_once_and_all_come_up(total: int) -> None:
    """Images that do not fill a batch sit an epoch out, but not the same ones in each."""
    sampler = make_sampler({"hi": [1] * total})
    steps = total // 8
    epochs = [np.concatenate([sampler.batch(steps * epoch + i).images for i in range(steps)]) for epoch in range(12)]
    assert all(len(np.unique(images)) == 8 * steps for images in epochs)
    assert epochs[0].tolist() != epochs[1].tolist()
    assert len(np.unique(np.concatenate(epochs))) == total


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    counts = {"hi": [3] * 20, "en": [3] * 20}
    one, other = (make_sampler(counts, replay={"en": 0.25}, views=4, seed=5) for _ in range(2))
    expected = [one.batch(step) for step in range(6)]
    for step in (5, 0, 3):  # in any order
        for left, right in zip(other.batch(step), expected[step], strict=True):
            np.testing.assert_array_equal(left, right)


def test_another_seed_draws_other_images_captions_and_views() -> None:
    one, other = (make_sampler({"hi": [9] * 64}, batch_size=64, views=9, seed=seed).batch(0) for seed in (0, 1))
    for left, right in zip(one, other, strict=True):
        assert left.tolist() != right.tolist()


def test_all_captions_and_views_of_an_image_come_up() -> None:
    sampler = make_sampler({"hi": [1, 4, 2, 3] * 2, "pt": [2, 1, 5, 1] * 2}, ("hi", "pt"), views=3)
    batches = [sampler.batch(step) for step in range(100)]
    assert {int(text_id) for batch in batches for text_id in batch.text_ids} == set(range(38))
    assert {int(view) for batch in batches for view in batch.views} == {0, 1, 2}


@pytest.mark.parametrize(
    ("replay", "expected"),
    [
        ({"en": 0.25}, (6, 2, 0)),
        ({"en": 0.5}, (4, 4, 0)),
        ({"en": 0.3}, (6, 2, 0)),
        ({"en": 0.1}, (7, 1, 0)),
        ({"en": 0.01}, (8, 0, 0)),
        ({"en": 0.25, "pt": 0.125}, (5, 2, 1)),
    ],
)
def test_the_share_of_a_replayed_language_is_exact(replay: dict[str, float], expected: tuple[int, ...]) -> None:
    sampler = make_sampler({lang: [1] * 40 for lang in ("hi", "en", "pt")}, replay=replay)
    for step in range(20):
        langs = languages_of(sampler, step)
        assert tuple(langs.count(lang) for lang in ("hi", "en", "pt")) == expected


def test_replay_goes_round_the_images_and_the_positions_of_a_batch() -> None:
    """A batch is cut into parts, for the memory or for several GPUs: no part may get all of the replay."""
    sampler = make_sampler({"hi": [1] * 8, "en": [1] * 8}, replay={"en": 0.25})
    images, positions = set(), set()
    for step in range(40):
        for position, lang in enumerate(languages_of(sampler, step)):
            if lang == "en":
                images.add(int(sampler.batch(step).images[position]))
                positions.add(position)
    assert images == positions == set(range(8))


@pytest.mark.parametrize(
    ("counts", "replay", "expected"),
    [
        # images without English are never replayed in it
        ({"hi": [1] * 8, "en": [1] + [0] * 7}, {"en": 0.5}, {"hi": 7, "en": 1}),
        # images with English alone are all replayed, even beyond the share
        ({"hi": [1] * 3 + [0] * 5, "en": [1] * 8}, {"en": 0.25}, {"hi": 3, "en": 5}),
        # and they fill the share first
        ({"hi": [1] * 6 + [0] * 2, "en": [1] * 8}, {"en": 0.25}, {"hi": 6, "en": 2}),
        # each in the language that it has
        (
            {"hi": [1] * 4 + [0] * 4, "en": [0] * 4 + [1, 1, 0, 0], "pt": [0] * 4 + [0, 0, 1, 1]},
            {"en": 0.1, "pt": 0.1},
            {"hi": 4, "en": 2, "pt": 2},
        ),
    ],
)
def test_images_that_lack_a_language(counts: Counts, replay: dict[str, float], expected: dict[str, int]) -> None:
    sampler = make_sampler(counts, replay=replay)
    for step in range(10):
        langs = languages_of(sampler, step)
        assert {lang: langs.count(lang) for lang in counts} == expected


def test_an_image_is_learnt_in_the_languages_that_it_has() -> None:
    sampler = make_sampler({"hi": [1, 0] * 8, "xh": [0, 1] * 8}, ("hi", "xh"), batch_size=16)
    langs = dict(zip(sampler.batch(0).images.tolist(), languages_of(sampler, 0), strict=True))
    assert langs == {image: ("hi", "xh")[image % 2] for image in range(16)}


def test_languages_to_learn_are_drawn_evenly() -> None:
    sampler = make_sampler({"hi": [1] * 64, "xh": [5] * 64}, ("hi", "xh"), batch_size=64)
    share = np.mean([lang == "hi" for step in range(30) for lang in languages_of(sampler, step)])
    assert 0.45 < share < 0.55  # of 1,920 draws: more than four standard errors


def test_each_distinct_text_is_tokenised_once(clip: Clip) -> None:
    records = [record(en=["a star", "a drop"], pt=["uma estrela"]), record(en=["a drop", "a drop"])]
    captions = tokenise_captions(records, ["en", "pt"], clip)
    assert (len(captions), len(captions.tokens)) == (2, 3)
    assert {lang: ids.tolist() for lang, ids in captions.text_ids.items()} == {"en": [0, 1, 1], "pt": [2]}
    assert {lang: ends.tolist() for lang, ends in captions.offsets.items()} == {"en": [0, 2, 3], "pt": [0, 1, 1]}
    assert captions.counts(np.array([1, 0]), "pt").tolist() == [0, 1]
    assert captions.totals() == {"en": 3, "pt": 1}


def test_the_vocabulary_is_that_of_the_languages_without_special_tokens(clip: Clip) -> None:
    captions = tokenise_captions([record(en=["a star"], pt=["uma gota"])], ["en", "pt"], clip)
    tokenizer = clip.tokenizer.tokenizer
    portuguese = set(tokenizer("uma gota", add_special_tokens=False)["input_ids"])
    english = set(tokenizer("a star", add_special_tokens=False)["input_ids"])
    assert captions.vocabulary(["pt"], clip) == sorted(portuguese)
    assert captions.vocabulary(["en", "pt"], clip) == sorted(portuguese | english)
