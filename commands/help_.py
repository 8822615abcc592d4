"""`capivara help`."""

from __future__ import annotations

from typing import Annotated

import typer

from capivara_cli.errors import BadOption, nearest


def command(
    context: typer.Context,
    topic: Annotated[str | None, typer.Argument(help="A guide or a command. [default: list the guides]")] = None,
) -> None:
    """Show a guide, or the help of a command. The guides are the pages of docs/.

    Examples:

        capivara help

        capivara help own-images

        capivara help train
    """
    from capivara_cli.inspection import guides

    commands = getattr(context.find_root().command, "commands", {})
    known = [*guides.titles(), *commands]
    if topic is None:
        guides.list_all()
    elif topic in guides.titles():
        guides.show(topic)
    elif topic in commands:
        typer.echo(commands[topic].get_help(typer.Context(commands[topic], info_name=topic, parent=context.parent)))
    else:
        raise BadOption(f"no guide or command is called {topic}{nearest(topic, known)}", f"one of {', '.join(known)}")
