"""`capivara doctor`."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show versions, device, memory, cache and missing extras, whether the hub answers, and which defaults fit.

    Examples:

        capivara doctor

        capivara doctor --json > machine.json
    """
    from capivara_cli.inspection.doctor import doctor

    doctor(as_json=as_json)
