"""Attack a simulated run as an adversary would, and hold what the attack shows against what the run claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from common import console
from simulations.audits.intervals import Verdict
from simulations.audits.runs import Run, read_run

Folder = Annotated[Path, typer.Argument(help="Directory of a simulated run.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="One JSON object as the last line.")]

Shadows = Annotated[int, typer.Option("--shadows", help="Models to train for the likelihood ratios.")]

Records = Annotated[int, typer.Option("--records", help="Training records to attack; the report shows them.")]

EXITS = {
    Verdict.PASS: console.Exit.DONE,
    Verdict.FAIL: console.Exit.FAIL,
    Verdict.INCONCLUSIVE: console.Exit.INCONCLUSIVE,
}


@console.guarded
def audit_canaries(run: Folder, *, json: Json = False) -> console.Exit:
    """Prove a lower bound on epsilon from records that were planted by coins, and hold it against the claim."""
    from simulations.audits import canaries

    return _attack(run, "canaries", canaries.audit, json=json)


@console.guarded
def audit_membership(run: Folder, *, shadows: Shadows = 16, json: Json = False) -> console.Exit:
    """Tell members from held-out records by loss and by likelihood ratios, and hold the rates against the claim."""
    from simulations.audits import membership

    def attack(read: Run) -> dict[str, Any]:
        with console.progress("Shadow models", shadows, json=json) as step:
            return membership.audit(read, shadows, step)

    return _attack(run, "membership", attack, json=json)


@console.guarded
def audit_inversion(run: Folder, *, records: Records = 4, json: Json = False) -> console.Exit:
    """Rebuild training records from their gradients, without and with the run's protection, and show them."""
    from simulations.audits import inversion

    return _attack(run, "inversion", lambda read: inversion.audit(read, records), json=json)


def _attack(folder: Path, name: str, audit: Callable[[Run], dict[str, Any]], *, json: bool) -> console.Exit:
    """Make the attack, keep its result in the run's audit.json and page, and print it."""
    from simulations.report.attacks import refuse_unwritable
    from simulations.report.page import add

    torch.set_num_threads(1)  # these models are small: more threads only wait for each other
    run = read_run(folder)
    refuse_unwritable(folder)
    found = audit(run)
    add(folder, name, found)
    console.emit(found if json else _legible(found), json=json)
    return EXITS[Verdict(found["verdict"])]


def _legible(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a person wants to see of an attack: the verdict, its reason, and the figures as a table."""
    rows = [
        {
            "metric": name.replace("_", " "),
            **{key: metric[key] for key in ("value", "low", "high", "tolerance")},
            "verdict": "not judged" if metric["tolerance"] is None else metric["verdict"],
        }
        for name, metric in found["metrics"].items()
    ]
    why = {name: metric["reason"] for name, metric in found["metrics"].items()}
    return {"verdict": found["verdict"], "reason": found["reason"], "metrics": rows, "why": why}
