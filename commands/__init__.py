"""What a person can type. One file a command; this one puts them together."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from capivara_cli import __version__
from capivara_cli.console import clean
from capivara_cli.errors import CapivaraError
from capivara_cli.runtime import leave_process_group

from . import caption, classify_eval, demo, export, import_, merge_lora, retrieve_eval, score, train, translate

app = typer.Typer(
    name="capivara",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for module in (import_, caption, translate, score, train, merge_lora, retrieve_eval, classify_eval, export, demo):
    app.command(module.__name__.rpartition(".")[2].rstrip("_").replace("_", "-"))(module.command)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"capivara {__version__}")
        raise typer.Exit


@app.callback()
def capivara(
    _version_asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; at any place.")] = False,
) -> None:
    """Bring CLIP to a language that it hardly knows: train an adapter, merge it, prove the gain.

    Try it in a small world of its own: `capivara demo`
    """
    if debug:
        os.environ["CAPIVARA_DEBUG"] = "1"


def main() -> None:
    """The command's entry: one line for what the user can put right, a traceback only with --debug."""
    if "--debug" in sys.argv[1:]:  # at any place, as a person adds it to the line that failed
        sys.argv.remove("--debug")
        os.environ["CAPIVARA_DEBUG"] = "1"
    try:
        app()
    except CapivaraError as error:
        if os.environ.get("CAPIVARA_DEBUG"):
            raise
        _print_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:  # a disk that is full, a file that may not be read: the system says it best
        if os.environ.get("CAPIVARA_DEBUG"):
            raise
        _print_error(CapivaraError(str(error), "--debug shows where"))
        sys.exit(1)
    finally:
        leave_process_group()


def _print_error(error: CapivaraError) -> None:
    color = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    red, plain = ("\033[1;31m", "\033[0m") if color else ("", "")
    print(f"{red}error:{plain} {clean(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"hint: {clean(error.hint)}", file=sys.stderr)
