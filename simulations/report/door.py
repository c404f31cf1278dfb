"""Write the report of a finished run: one page, one model card, one table of numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import click
import typer

from common import console
from simulations.audits.fairness import Tolerance
from simulations.report.comparison import compare
from simulations.report.page import build


class _Group(typer.core.TyperGroup):
    """`hushfed report RUN` means `hushfed report build RUN`."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[Any, Any, list[str]]:
        """The named command; a first word that is none of them is the run to build a report of."""
        known = not args or args[0] in self.commands or args[0].startswith("-")
        return super().resolve_command(ctx, args if known else ["build", *args])


app = typer.Typer(cls=_Group, help="The report page of a run: report.html, card.md and audit.json.")

Run = Annotated[Path, typer.Argument(help="Directory of a finished run.", show_default=False)]
Other = Annotated[Path, typer.Argument(help="Directory of the run to compare with.", show_default=False)]
Out = Annotated[Path, typer.Option("--out", help="File of the comparison.")]
Sensitive = Annotated[list[str] | None, typer.Option("--sensitive", help="Attribute to compare by; repeatable.")]
Difference = Annotated[float | None, typer.Option("--tolerance", help="Largest accepted difference of a rate.")]
Ratio = Annotated[float | None, typer.Option("--ratio-tolerance", help="Smallest accepted ratio of a rate, as 0.8.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object as the last line.")]


@app.command("build")
@console.guarded
def build_report(
    run: Run,
    *,
    tolerance: Difference = None,
    ratio_tolerance: Ratio = None,
    sensitive: Sensitive = None,
    json: Json = False,
) -> None:
    """Audit the run and write audit.json, report.html and card.md into its directory."""
    page = build(run, tolerance=Tolerance(difference=tolerance, ratio=ratio_tolerance), sensitive=sensitive or ())
    console.emit({"report": page, "card": run / "card.md", "audit": run / "audit.json"}, json=json)


@app.command("compare")
@console.guarded
def compare_runs(first: Run, second: Other, *, out: Out = Path("comparison.html"), json: Json = False) -> None:
    """Put two runs side by side on one page: accuracy, privacy, fairness, cost."""
    console.emit({"report": compare(first, second, out)}, json=json)
