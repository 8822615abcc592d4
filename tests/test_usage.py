"""What `--help` shows."""

from __future__ import annotations

import re

import pytest
import typer
from capivara_cli.commands import app, usage
from typer.testing import CliRunner

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # of a group


def help_of(name: str, width: int = 80) -> str:
    return CliRunner().invoke(app, [name, "--help"], terminal_width=width).output


@pytest.mark.parametrize("width", [60, 80, 120])
def test_every_option_is_shown_in_a_line_that_fits(width: int) -> None:
    for name, command in COMMANDS.items():
        shown = help_of(name, width)
        options = shown[shown.index("\nOptions:") if "\nOptions:" in shown else shown.rindex("Examples:") :]
        lines = [line for line in options.splitlines() if not line.startswith("    capivara ")]
        assert max(map(len, lines)) <= max(width, 66), name  # the longest spelling of an option is 66 wide
        for option in usage.options(command):
            assert re.search(rf"^  (-\w, )?{option.opts[-1]}\b", options, re.MULTILINE), (name, option.opts)


def test_options_stand_in_groups_and_those_of_the_command_come_first() -> None:
    shown = help_of("score")
    groups = re.findall(r"^(\w+):$", shown, re.MULTILINE)
    assert groups == ["Arguments", "Options", "Data", "Model", "Output", "Machine"]
    assert shown.index("--min-score") < shown.index("Model:") < shown.index("  --model") < shown.index("--device")


def test_defaults_of_the_recipe_are_shown() -> None:
    shown = " ".join(help_of("train").split())
    assert (
        "--batch-size N Images per step (contrastive batch size). [at least 2; default: from the recipe: 1000]" in shown
    )
    assert "[repeatable; default: from the recipe: en:0.25]" in shown


def test_every_flag_of_a_group_exists() -> None:
    known = {name for command in COMMANDS.values() for option in usage.options(command) for name in option.opts}
    assert {name for names in usage.GROUPS.values() for name in names} <= known


def test_capivara_alone_shows_the_job_in_order() -> None:
    shown = CliRunner().invoke(app, []).output
    order = [shown.index(f"\n  {name} ") for name in (*usage.CHAIN, "demo")]
    assert order == sorted(order)
