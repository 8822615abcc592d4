"""The tables of the evaluations, as a terminal of a given width shows them."""

from __future__ import annotations

from typing import Any

import pytest

from capivara_cli.evaluation import tables

RECALLS = {
    f"{direction}_retrieval_recall@{k}": value
    for direction, values in (("image", (0.1, 0.2, 0.3)), ("text", (0.4, 0.5, 0.6)))
    for k, value in zip((1, 5, 10), values, strict=True)
}


def retrieval(lang: str, images: int = 500) -> dict[str, Any]:
    metrics = {**RECALLS, "mean_recall": 0.35}
    difference = {"mean_recall": 0.1, "low": 0.05, "high": 0.15}
    return {
        "dataset": "test",
        "role": "model",
        "task": "zeroshot_retrieval",
        "language": lang,
        "metrics": metrics,
        "n_texts": images,
        "n_images": images,
        "baseline": {"metrics": dict.fromkeys(metrics, 0.1), "difference": difference},
    }


def shown(
    width: int, contents: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch
) -> list[str]:
    patch.setenv("COLUMNS", str(width))
    tables.show(contents)
    return [line.rstrip() for line in capsys.readouterr().err.splitlines() if line.strip()]


def test_the_directions_stand_above_their_recalls(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = shown(80, [retrieval("hi"), retrieval("en")], capsys, monkeypatch)
    assert lines[0] == "test: 500 texts, 500 images; in %, chance 0.2"
    assert lines[1].split() == ["text", "to", "image", "image", "to", "text"]
    assert lines[2].split() == ["lang", "R@1", "R@5", "R@10", "R@1", "R@5", "R@10", "mean", "*"]
    assert [line.split()[-8:] for line in lines if "model" in line] == [
        ["model", "10.0", "20.0", "30.0", "40.0", "50.0", "60.0", "35.0"]
    ] * 2
    ends = [len(line) for line in lines[1:6]]
    assert ends[0] < max(ends) <= 80


def test_in_a_narrow_terminal_each_metric_gets_a_line_with_its_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = shown(60, [retrieval("hi"), retrieval("en")], capsys, monkeypatch)
    assert max(map(len, lines)) <= 60
    assert [line for line in lines if line.startswith(("hi", "en"))] == [
        f"{lang}, test: 500 texts, 500 images; in %, chance 0.2" for lang in ("hi", "en")
    ]
    [row, _] = [line.split() for line in lines if "image to text, R@10" in line]
    assert row == ["image", "to", "text,", "R@10", "10.0", "60.0", "+50.0"]
    assert sum("mean recall *" in line and "±5.0" in line for line in lines) == 2


@pytest.mark.parametrize(("images", "warning"), [(1, "1 image: too few"), (3, "3 images: too few"), (10, None)])
def test_a_handful_of_images_means_nothing(
    images: int, warning: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "\n".join(shown(80, [retrieval("hi", images)], capsys, monkeypatch))
    assert ("too few to mean anything" in text) == (warning is not None)
    assert (warning or "") in text
    assert ("1 text, 1 image;" in text) == (images == 1)


def test_no_gain_has_no_sign_of_a_loss(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    content = retrieval("hi")
    content["baseline"]["metrics"]["image_retrieval_recall@1"] = 0.1001
    [gain] = [line.split() for line in shown(80, [content], capsys, monkeypatch) if "gain" in line]
    assert gain[:3] == ["gain", "+0.0", "+10.0"]
