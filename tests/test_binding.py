"""An options class as the flags of a command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from capivara_cli.commands import app, main
from capivara_cli.commands.binding import FlagsOf, Output, bind
from typer.testing import CliRunner

from capivara_cli.data.languages import Langs
from capivara_cli.errors import BadOption
from capivara_cli.options import Machine, Options, flag, key
from capivara_cli.values import AutoOrCount


class Adam(Options):
    lr: float = flag("Rate.", default=0.5, above=0)


class Paint(Machine):
    section = "score"

    to: Langs = flag("Languages.", default=(), metavar="LANG", shown="all")
    size: AutoOrCount = flag("Size.", default=None, metavar="auto|N")
    metric: Literal["acc1", "map"] = flag("Metric.", default="acc1")
    adam: Adam = key("Optimiser.", default={})


SEEN: dict[str, Any] = {}


@bind  # type: ignore[untyped-decorator]  # mypy knows commands/ under another name
def paint(source: Annotated[str, typer.Argument()], options: Paint, output: Output = None) -> None:
    """Paint."""
    SEEN.update(source=source, options=options, output=output)


@bind  # type: ignore[untyped-decorator]
def show(flags: Annotated[dict[str, Any], FlagsOf(Paint)]) -> None:
    """Show."""
    SEEN.update(flags=flags)


small = typer.Typer(rich_markup_mode=None)
small.command("paint")(paint)
small.command("show")(show)


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*line: str) -> dict[str, Any]:
    SEEN.clear()
    result = CliRunner().invoke(small, line)
    if result.exception is not None:
        raise result.exception
    return SEEN


def test_flags_become_options_and_the_other_parameters_stay() -> None:
    line = ["--to", "hi,xh", "--to", "pt", "--size", "3", "--lr", "0.1", "--metric", "map", "-o", "b", "--seed", "4"]
    options = Paint(to=["hi", "xh", "pt"], size=3, metric="map", adam=Adam(lr=0.1), seed=4)
    assert run("paint", "a", *line) == {"source": "a", "options": options, "output": Path("b")}
    assert run("paint", "a") == {"source": "a", "options": Paint(), "output": None}


def test_only_typed_flags_go_over_capivara_yaml() -> None:
    Path("capivara.yaml").write_text("score: {size: 7, seed: 3, to: [hi]}")
    assert run("paint", "a", "--seed", "0")["options"] == Paint(size=7, seed=0, to=["hi"])
    assert run("paint", "a", "--size", "auto")["options"] == Paint(size=None, seed=3, to=["hi"])
    assert run("show", "--lr", "0.5", "--device", "auto") == {"flags": {"adam.lr": "0.5", "device": "auto"}}


def test_an_unknown_flag_is_a_usage_error_that_names_those_like_it() -> None:
    result = CliRunner().invoke(small, ["paint", "a", "--sead", "1"])
    assert result.exit_code == 2
    assert "--seed" in result.output


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["--size", "few"], "--size few: neither auto nor a number of at least 1"),
        (["--metric", "mapp"], "--metric mapp: not one of acc1, map, did you mean map?"),
        (["--seed", "-1"], "--seed -1: must be at least 0"),
        (["--seed", "x", "--lr", "0"], "--lr 0: must be above 0\n       --seed x: not a number"),
        (["--to", ","], "--to ,: no language in it"),
    ],
)
def test_values_that_do_not_fit_are_usage_errors_all_at_once(line: list[str], message: str) -> None:
    with pytest.raises(BadOption) as error:
        run("paint", "a", *line)
    assert error.value.message == message


def test_help_has_choices_bounds_and_defaults() -> None:
    said = " ".join(CliRunner().invoke(small, ["paint", "--help"], terminal_width=200).output.split())
    for text in (
        "--to LANG Languages. [default: all]",
        "--size auto|N Size. [default: auto]",
        "--metric acc1|map Metric. [default: acc1]",
        "Rate. [above 0; default: 0.5]",
        "Random seed. [at least 0; at most 4294967295; default: 0]",
        "File to write (JSONL). [default: standard output]",
    ):
        assert text in said, said


def test_the_shell_completes_choices() -> None:
    env = {"_CAPIVARA_COMPLETE": "complete_bash", "COMP_WORDS": "capivara classify-eval --metric ", "COMP_CWORD": "3"}
    result = CliRunner().invoke(app, [], prog_name="capivara", env=env)
    assert "mean_per_class_recall" in result.output.split()


def test_the_old_name_of_replay_is_hidden_and_still_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--keep" not in CliRunner().invoke(app, ["train", "--help"], terminal_width=200).output
    monkeypatch.setattr("sys.argv", ["capivara", "train", "--lora", "--lang", "hi", "--keep", "en:much"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: --replay en:much: 'much' is not a number, for example en:0.25\n"
