"""The command `hushfed`, and how every door prints: results, progress and refusals."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from ast import get_docstring, parse
from contextlib import contextmanager, suppress
from enum import IntEnum
from errno import ENOSPC, EPIPE
from functools import wraps
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from common.errors import Code, Refusal
from common.faults import refusal_of_system
from common.outlet import Unheard, prepare, say, silence
from common.printing import clean, hanging, near, show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ABOUT = "Federated learning whose every number about privacy can be checked."
GROUP = "hushfed.commands"
PACKAGES = frozenset({"server", "client", "common", "simulations", "deploy"})
EXTRA_OF = {
    "fairlearn": "audit",
    "pandas": "audit",
    "sklearn": "simulation",
    "jinja2": "simulation",
    "markupsafe": "simulation",
    "ray": "ray",
}

P = ParamSpec("P")
R = TypeVar("R")


class Exit(IntEnum):
    """How a command ended, as its exit code. Stable: scripts rely on these numbers."""

    DONE = 0  # done, or PASS
    FAIL = 1  # an audit or check says FAIL
    INCONCLUSIVE = 2  # the evidence does not decide
    REFUSED = 3  # a refusal or an error
    INTERRUPTED = 130  # Ctrl-C, or SIGTERM before a command had begun its work
    UNHEARD = 141  # standard output was closed by its reader: 128 + SIGPIPE, as shells see it of other programs


def guarded(door: Callable[P, R]) -> Callable[P, R]:
    """Wrap the function of a command so that it ends with an exit code of `Exit` and never with a traceback.

    The wrapped function may return an `Exit`; anything else counts as DONE. Its keyword `json` decides how a
    refusal is printed: readable on standard error, or as the last line of standard output.
    """

    @wraps(door)
    def opened(*args: P.args, **kwargs: P.kwargs) -> R:
        as_json = bool(kwargs.get("json", False))
        try:
            outcome = door(*args, **kwargs)
        except click.exceptions.Exit:
            raise
        except (Exception, KeyboardInterrupt) as error:
            raise typer.Exit(_ending(error, as_json=as_json)) from error
        raise typer.Exit(outcome if isinstance(outcome, Exit) else Exit.DONE)

    return opened


def emit(result: Mapping[str, Any], *, json: bool) -> None:
    """Print what a command found: one JSON object on the last line, or readable lines for a person.

    result  plain values, lists of them, or lists of mappings (printed as tables); NaN and infinity are faults:
            what is undefined is None.
    """
    if json:
        say(dumps(result, allow_nan=False, default=_plain) + "\n")
        return
    page = Console(soft_wrap=True)
    with page.capture() as shown:  # written by us: rich would end the process when nobody listens
        show(result, page)
    say(shown.get())


@contextmanager
def progress(label: str, total: float | None = None, *, json: bool = False) -> Iterator[Callable[..., None]]:
    """A progress bar on standard error; yields `step(count=1, note="")`. Silent when piped and with --json."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    quiet = json or not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet) as bar:
        task = bar.add_task(label, total=total)

        def step(count: float = 1, note: str = "") -> None:
            bar.update(task, advance=count, description=escape(clean(f"{label} {note}".rstrip())))

        yield step


def refusal_of(error: BaseException) -> Refusal:
    """Any error as a refusal a person can act on; only a fault of this software becomes INTERNAL, with a log file."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "hushfed"
        what = error.format_message().rstrip(".")
        return Refusal(Code.CONFIG_INVALID, what, "the command line cannot be read", f"See `{path} --help`")
    if isinstance(error, ModuleNotFoundError) and error.name and (top := error.name.split(".")[0]) not in PACKAGES:
        extra = EXTRA_OF.get(top, "dev")
        why = "this installation came without that part"
        return Refusal(Code.PART_MISSING, f"{top} is not installed", why, f"Run `pip install 'hushfed[{extra}]'`")
    if isinstance(error, OSError) and (refusal := refusal_of_system(error)):
        return refusal
    log = _log(error)
    what = f"Unexpected {type(error).__name__}"
    return Refusal(Code.INTERNAL, what, "this is a fault in hushfed", f"Please report it with the log {log}")


class Doors(click.Group):
    """The group `hushfed`: every door is imported when it is opened, so one broken door closes no other."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all registered doors."""
        return sorted({door.name for door in entry_points(group=GROUP)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one door; None if nobody registered it."""
        for door in entry_points(group=GROUP, name=cmd_name):
            return _opened(door)
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the doors by the caption of their module, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(door.name, _caption(door)) for door in sorted(entry_points(group=GROUP))])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with an exit code of `Exit`."""
    prepare()
    words = list(sys.argv[1:] if arguments is None else arguments)
    group = click.version_option(_version(), message="hushfed %(version)s")(Doors("hushfed", help=ABOUT))
    try:
        code = group.main(words, prog_name="hushfed", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as asked:
        click.echo(asked.format_message())
        code = Exit.DONE
    except SystemExit:  # rich's answer to a closed pipe, while it prints help
        code = Exit.UNHEARD
    except (Exception, KeyboardInterrupt) as error:
        code = _ending(error, as_json="--json" in words)
    sys.exit(code if isinstance(code, int) else Exit.DONE)


def _opened(door: EntryPoint) -> click.Command:
    """The command behind an entry point: a function, or a typer app whose one command bears the door's name."""
    found = door.load()
    if not isinstance(found, typer.Typer):
        app = typer.Typer(add_completion=False)
        app.command(door.name)(found)
        return typer.main.get_command(app)
    names = [info.name or getattr(info.callback, "__name__", "") for info in found.registered_commands]
    alone = not found.registered_groups and found.registered_callback is None
    if alone and names in ([door.name], ["command"]):
        return typer.main.get_command(found)
    group = typer.main.get_group(found)
    group.no_args_is_help = not group.invoke_without_command
    return group


def _caption(door: EntryPoint) -> str:
    """First docstring line of the door's module, read without importing it."""
    try:
        spec = find_spec(door.module)
        source = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
    except (ModuleNotFoundError, OSError):
        source = ""
    found = get_docstring(parse(source))
    caption = (found or "not in this installation").splitlines()[0].removeprefix(f"hushfed {door.name}: ")
    return caption[0].upper() + caption[1:] if found else caption


def _ending(error: BaseException, *, as_json: bool) -> Exit:
    """Say how a command failed, on the stream its reader listens to, and name the exit code."""
    if isinstance(error, OSError) and error.filename is None and error.errno in (EPIPE, ENOSPC):
        silence()  # only help is printed by others than `say`
        error = Unheard(error)
    if isinstance(error, Unheard):
        if error.closed:
            return Exit.UNHEARD
        error, as_json = _not_written(error), False
    try:
        return _told(error, as_json=as_json)
    except Unheard as deaf:
        return _ending(deaf, as_json=False)


def _told(error: BaseException, *, as_json: bool) -> Exit:
    """Print an interruption or a refusal. Errors: Unheard."""
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        if as_json:
            say(dumps({"status": "interrupted"}) + "\n")
        else:
            _warn(Text("interrupted"))
        return Exit.INTERRUPTED
    refusal = refusal_of(error)
    if refusal.code is Code.INTERNAL and os.environ.get("HUSHFED_DEBUG") == "1":
        traceback.print_exception(error, file=sys.stderr)
    if as_json:
        say(dumps({"refusal": refusal.as_dict()}) + "\n")
    else:
        what, why, do = (near(clean(text)) for text in (refusal.what, refusal.why, refusal.do))
        width = Console(stderr=True).width
        _warn(Text(hanging("refused: ", what, width), style="bold red"))
        _warn(Text("\n".join((hanging("    why: ", f"{why}.", width), hanging("     do: ", f"{do}.", width)))))
        _warn(Text(f"   code: {refusal.code.value}"))
    return Exit.REFUSED


def _warn(text: Text) -> None:
    """Print on standard error; where that takes nothing either, the exit code has to do."""
    with suppress(OSError):
        Console(stderr=True, soft_wrap=True).print(text)


def remark(text: str) -> None:
    """One line for a person beside what a command prints: on standard error, with nothing that moves the cursor."""
    _warn(Text(near(clean(text))))


def _not_written(error: Unheard) -> Refusal:
    return Refusal(Code.FILE_UNWRITABLE, "Result not printed", f"standard output: {error.why}", "Print it elsewhere")


def _log(error: BaseException) -> Path:
    """Write the traceback, without any values of variables, where only its owner reads it."""
    handle, name = tempfile.mkstemp(prefix="hushfed-", suffix=".log")  # mode 0600
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        traceback.print_exception(error, file=file)
    return Path(name)


def _version() -> str:
    """Version of the installed distribution."""
    try:
        return version("hushfed")
    except PackageNotFoundError:
        return "0 (not installed)"


def _plain(value: object) -> str:
    """Paths are printed as their text; every other unknown type is a fault of the caller."""
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no plain value")
