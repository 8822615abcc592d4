from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from capivara_cli.data.images import ImageRef
from capivara_cli.data.records import Record
from capivara_cli.errors import CapivaraError
from capivara_cli.models.clip import Clip
from capivara_cli.models.tokens import Tokens
from capivara_cli.training.sampler import Captions, Sampler, collect, usable


def captions(counts: Mapping[str, Sequence[int]]) -> Captions:
    """So many texts of each image in each language; every text is another one."""
    texts, offsets, total = {}, {}, 0
    for lang, numbers in counts.items():
        texts[lang] = np.arange(total, total + sum(numbers))
        offsets[lang] = np.cumsum([0, *numbers])
        total += sum(numbers)
    return Captions(Tokens(np.arange(total, dtype=np.int32), np.arange(total + 1), 0), texts, offsets)


def sampler(
    counts: Mapping[str, Sequence[int]],
    langs: Sequence[str] = ("hi",),
    keep: Mapping[str, float] | None = None,
    *,
    batch_size: int = 8,
    views: int = 1,
    seed: int = 0,
) -> Sampler:
    return Sampler(captions(counts), langs, keep or {}, batch_size, views, seed)


def languages_of(sampler: Sampler, step: int) -> list[str]:
    """The language of each text of a batch; each text must be one of its image's."""
    found = []
    images, texts, _ = sampler.batch(step)
    for image, text in zip(images, texts, strict=True):
        own = [
            lang
            for lang, rows in sampler.captions.texts.items()
            if text in rows[sampler.captions.offsets[lang][image] : sampler.captions.offsets[lang][image + 1]]
        ]
        assert len(own) == 1
        found += own
    return found


def record(**texts: list[str]) -> Record:
    found = [{"text": text, "lang": lang} for lang, own in texts.items() for text in own]
    return Record({"image": "1.jpg", "captions": found}, "a.jsonl:1", ImageRef("/1.jpg"))


def test_no_image_comes_twice_in_a_batch() -> None:
    drawn = sampler({"hi": [2] * 30})
    for step in range(20):
        assert len(np.unique(drawn.batch(step)[0])) == 8


def test_an_epoch_takes_each_image_once() -> None:
    drawn = sampler({"hi": [1] * 32})
    for epoch in range(3):
        images = np.concatenate([drawn.batch(4 * epoch + part)[0] for part in range(4)])
        assert sorted(images) == list(range(32))


def test_what_does_not_fill_a_batch_waits_for_another_epoch() -> None:
    drawn = sampler({"hi": [1] * 30})
    epochs = [np.concatenate([drawn.batch(3 * epoch + part)[0] for part in range(3)]) for epoch in range(12)]
    assert all(len(np.unique(images)) == 24 for images in epochs)
    assert len(np.unique(np.concatenate(epochs))) == 30


def test_epochs_differ_in_their_order() -> None:
    drawn = sampler({"hi": [1] * 8})
    assert drawn.batch(0)[0].tolist() != drawn.batch(1)[0].tolist()


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    counts = {"hi": [3] * 20, "en": [3] * 20}
    one, other = (sampler(counts, keep={"en": 0.25}, views=4, seed=5) for _ in range(2))
    expected = [one.batch(step) for step in range(6)]
    for step in (5, 0, 3):  # in whatever order they are asked for
        for left, right in zip(other.batch(step), expected[step], strict=True):
            np.testing.assert_array_equal(left, right)


def test_another_seed_draws_other_images_texts_and_views() -> None:
    one, other = (sampler({"hi": [9] * 64}, batch_size=64, views=9, seed=seed).batch(0) for seed in (0, 1))
    for left, right in zip(one, other, strict=True):
        assert left.tolist() != right.tolist()


def test_all_texts_of_an_image_come_up() -> None:
    drawn = sampler({"hi": [3] * 8})
    assert len({int(text) for step in range(60) for text in drawn.batch(step)[1]}) == 24


def test_a_text_is_one_of_its_image() -> None:
    counts = {"hi": [1, 4, 2, 3] * 4, "pt": [2, 1, 5, 1] * 4}
    drawn = sampler(counts, ("hi", "pt"))
    for step in range(20):
        assert len(languages_of(drawn, step)) == 8


@pytest.mark.parametrize(("share", "expected"), [(0.25, 2), (0.5, 4), (0.3, 2), (0.1, 1), (0.01, 0)])
def test_the_share_of_the_kept_language_is_exact(share: float, expected: int) -> None:
    drawn = sampler({"hi": [1] * 40, "en": [1] * 40}, keep={"en": share})
    assert {languages_of(drawn, step).count("en") for step in range(20)} == {expected}


def test_several_languages_are_kept_each_with_its_share() -> None:
    drawn = sampler({lang: [1] * 40 for lang in ("hi", "en", "pt")}, keep={"en": 0.25, "pt": 0.125})
    for step in range(10):
        found = languages_of(drawn, step)
        assert [found.count(lang) for lang in ("hi", "en", "pt")] == [5, 2, 1]


def test_the_kept_places_go_round_the_images() -> None:
    drawn = sampler({"hi": [1] * 8, "en": [1] * 8}, keep={"en": 0.25})
    kept = {
        int(image)
        for step in range(40)
        for image, lang in zip(drawn.batch(step)[0], languages_of(drawn, step), strict=True)
        if lang == "en"
    }
    assert kept == set(range(8))


def test_the_kept_places_are_anywhere_in_a_batch() -> None:
    """A batch is cut into parts, for the memory or for several GPUs: no part may have all of them."""
    drawn = sampler({"hi": [1] * 8, "en": [1] * 8}, keep={"en": 0.25})
    found = [languages_of(drawn, step) for step in range(40)]
    assert all(any(langs[place] == "en" for langs in found) for place in range(8))


def test_images_without_the_kept_language_never_get_it() -> None:
    drawn = sampler({"hi": [1] * 8, "en": [1] * 1 + [0] * 7}, keep={"en": 0.5})
    assert languages_of(drawn, 0).count("en") == 1


def test_images_that_have_only_the_kept_language_get_it_even_beyond_its_share() -> None:
    drawn = sampler({"hi": [1] * 3 + [0] * 5, "en": [1] * 8}, keep={"en": 0.25})
    assert languages_of(drawn, 0).count("en") == 5


def test_images_that_have_only_the_kept_language_fill_its_share_first() -> None:
    drawn = sampler({"hi": [1] * 6 + [0] * 2, "en": [1] * 8}, keep={"en": 0.25})
    for step in range(10):
        assert languages_of(drawn, step).count("hi") == 6


def test_images_that_have_only_one_of_the_kept_languages_get_that() -> None:
    counts = {"hi": [1] * 4 + [0] * 4, "en": [0] * 4 + [1, 1, 0, 0], "pt": [0] * 4 + [0, 0, 1, 1]}
    found = languages_of(sampler(counts, keep={"en": 0.1, "pt": 0.1}), 0)
    assert [found.count(lang) for lang in ("hi", "en", "pt")] == [4, 2, 2]


def test_an_image_is_learnt_in_the_languages_that_it_has() -> None:
    counts = {"hi": [1, 0] * 8, "xh": [0, 1] * 8}
    drawn = sampler(counts, ("hi", "xh"), batch_size=16)
    found = dict(zip(drawn.batch(0)[0].tolist(), languages_of(drawn, 0), strict=True))
    assert found == {image: ("hi", "xh")[image % 2] for image in range(16)}


def test_languages_to_learn_are_drawn_evenly() -> None:
    drawn = sampler({"hi": [1] * 64, "xh": [5] * 64}, ("hi", "xh"), batch_size=64)
    share = np.mean([lang == "hi" for step in range(30) for lang in languages_of(drawn, step)])
    assert 0.45 < share < 0.55  # of 1,920 draws: more than four standard errors


def test_all_views_come_up_and_no_others() -> None:
    drawn = sampler({"hi": [1] * 8}, views=3)
    assert {int(view) for step in range(20) for view in drawn.batch(step)[2]} == {0, 1, 2}


def test_a_draw_is_from_the_images_own_texts() -> None:
    held = captions({"hi": [2, 0, 3]})
    drawn = [held.draw(np.array([2, 0]), "hi", np.random.default_rng(seed)).tolist() for seed in range(40)]
    assert {texts[0] for texts in drawn} == {2, 3, 4}
    assert {texts[1] for texts in drawn} == {0, 1}


def test_counts_are_those_of_the_images_asked_for() -> None:
    held = captions({"hi": [2, 0, 3], "en": [1, 1, 1]})
    assert held.images == 3
    assert held.counts(np.array([2, 1]), "hi").tolist() == [3, 0]


def test_each_distinct_text_is_tokenised_once(clip: Clip) -> None:
    found = [record(en=["a star", "a drop"], pt=["uma estrela"]), record(en=["a drop", "a drop"])]
    held = collect(found, ["en", "pt"], clip)
    assert len(held.tokens) == 3
    assert held.texts["en"].tolist() == [0, 1, 1]
    assert held.offsets["en"].tolist() == [0, 2, 3]
    assert held.texts["pt"].tolist() == [2]
    assert held.offsets["pt"].tolist() == [0, 1, 1]


def test_the_vocabulary_is_that_of_the_languages_without_special_tokens(clip: Clip) -> None:
    held = collect([record(en=["a star"], pt=["uma gota"])], ["en", "pt"], clip)
    both, portuguese = set(held.vocabulary(["en", "pt"], clip)), set(held.vocabulary(["pt"], clip))
    tokenizer = clip.tokenizer.tokenizer
    assert portuguese == set(tokenizer("uma gota", add_special_tokens=False)["input_ids"])
    assert both == portuguese | set(tokenizer("a star", add_special_tokens=False)["input_ids"])


def test_records_without_a_wanted_language_are_not_usable() -> None:
    hindi, english, portuguese, none = record(hi=["तारा"]), record(en=["a star"]), record(pt=["uma estrela"]), record()
    found = [hindi, english, portuguese, none]
    assert usable(found, ["hi"], []) == [hindi]
    assert usable(found, ["hi"], ["en"]) == [hindi, english]


def test_a_language_that_does_not_occur_is_told_with_those_that_do() -> None:
    with pytest.raises(CapivaraError, match=r"no caption in xh: the data has en \(2\), hi \(1\)") as caught:
        usable([record(en=["a", "b"], hi=["तारा"])], ["hi", "xh"], [])
    assert caught.value.hint == "capivara translate --to xh makes them"


def test_a_kept_language_may_be_missing() -> None:
    found = [record(hi=["तारा"])]
    assert usable(found, ["hi"], ["en"]) == found
