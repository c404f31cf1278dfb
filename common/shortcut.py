"""Groups of commands whose usual command may be left out: `hushfed report RUN` for `hushfed report build RUN`."""

from __future__ import annotations

import click
from typer.core import TyperGroup


def shortcut(command: str) -> type[TyperGroup]:
    """A group class that takes a first word it does not know as the first argument of `command`."""

    class Shortcut(TyperGroup):
        """See `shortcut`."""

        def resolve_command(
            self, ctx: click.Context, args: list[str]
        ) -> tuple[str | None, click.Command | None, list[str]]:
            """The command that `args` begin with, or the usual one."""
            known = not args or args[0] in self.commands or args[0].startswith("-")
            return super().resolve_command(ctx, args if known else [command, *args])

    return Shortcut
