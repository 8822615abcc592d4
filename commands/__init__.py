"""The command line: one file per command; this one puts them together."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated

import typer

from capivara_cli import __version__
from capivara_cli.console import clean
from capivara_cli.errors import CapivaraError
from capivara_cli.interrupts import handled
from capivara_cli.runtime import leave_process_group

from . import (
    cache,
    caption,
    classify_eval,
    demo,
    doctor,
    export,
    help_,
    import_,
    merge_lora,
    retrieve_eval,
    score,
    train,
    translate,
    usage,
)

app = typer.Typer(
    name="capivara",
    cls=usage.Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": usage.WIDEST},
)

MODULES = (
    *(import_, caption, translate, score, train, merge_lora, retrieve_eval, classify_eval, export),
    *(demo, cache, doctor, help_),
)
for module in MODULES:
    app.command(module.__name__.rpartition(".")[2].rstrip("_").replace("_", "-"), cls=usage.Command)(module.command)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"capivara {__version__}")
        raise typer.Exit


@app.callback()
def capivara(
    _version_asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    _debug: Annotated[
        bool, typer.Option("--debug", help="Show full tracebacks (may be given anywhere on the line).")
    ] = False,
) -> None:
    """Bring CLIP to a language that it hardly knows: train an adapter, merge it, prove the gain.

    Try it in a small world: `capivara demo`
    """


def main() -> None:
    """Run the command line. An error that the user can put right is one line; `--debug` shows its traceback."""
    debug = "--debug" in sys.argv[1:]
    sys.argv[1:] = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        with handled(), warnings.catch_warnings():
            if not (debug or sys.warnoptions):
                _hide_deprecations()
            app()
    except (CapivaraError, OSError) as error:
        if debug:
            raise
        if not isinstance(error, CapivaraError):  # a full disk, a file that may not be read: the system says it best
            error = CapivaraError(str(error), "--debug shows where")
        _print_error(error)
        sys.exit(error.exit_code)
    finally:
        leave_process_group()


def _hide_deprecations() -> None:
    """Keep from users what packages tell programmers; tests list it, and `--debug` or `python -W` shows it."""
    for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
        warnings.simplefilter("ignore", category)


def _print_error(error: CapivaraError) -> None:
    color = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    red, plain = ("\033[1;31m", "\033[0m") if color else ("", "")
    print(f"{red}error:{plain} {clean(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"hint: {clean(error.hint)}", file=sys.stderr)
