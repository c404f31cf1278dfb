"""Measure what this software costs, beside what others cost for the same work."""

from __future__ import annotations

import itertools
import os
import platform
from contextlib import suppress
from enum import StrEnum
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import typer

from common import console
from common.config import one_of
from common.errors import Code, Refusal
from common.secagg.masks import BITS
from simulations.bench import secagg as own
from simulations.bench.accuracy.door import accuracy
from simulations.bench.chart import draw
from simulations.bench.results import written
from simulations.bench.rows import Case, Row
from simulations.finish import refuse_to_overwrite

app = typer.Typer(help="Measure what this software costs, beside what others cost.", no_args_is_help=True)
MANY = 300  # sites from which on eight of them unmask instead of five

app.command("privacy-accuracy")(accuracy)


class Peer(StrEnum):
    """Whom we are measured beside."""

    FLOWER = "flower"


@app.callback()
def _group() -> None:
    """Measure what this software costs, beside what others cost."""


@app.command("secagg")
@console.guarded
def secagg(
    *,
    peer: Annotated[Peer | None, typer.Option(help="Play the same rounds with this peer too.")] = None,
    d: Annotated[list[int] | None, typer.Option("--d", min=1, help="Parameters; repeatable [10^6].")] = None,
    n: Annotated[list[int] | None, typer.Option("--n", min=2, help="Sites; repeatable [100].")] = None,
    dropout: Annotated[
        list[float] | None, typer.Option(min=0, max=0.9, help="Share of sites that never report; repeatable [0].")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="d of 10^5 to 10^7, n of 10 to 1000, dropout to 0.3.")] = False,
    m: Annotated[int | None, typer.Option(min=2, max=64, help="Unmasking sites [5; 8 from 300 sites on].")] = None,
    bits: Annotated[int, typer.Option(help="Width of the ring.")] = 24,
    budget: Annotated[
        float, typer.Option(min=1, help="CPU seconds above which a round is computed from parts.")
    ] = 60.0,
    out: Annotated[Path | None, typer.Option(help="New or empty folder for rows.json and a figure.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> console.Exit:
    """CPU seconds and bytes of one round of secure aggregation, by role: site, unmasking site, server.

    One process and one thread play all roles in turn; transport and its envelopes are left out on both sides. The
    server "sends" what it receives. `~` marks what was computed from measured parts, `computed` in JSON.
    """
    if full and (d or n or dropout):
        raise Refusal(Code.CONFIG_INVALID, "--full", "it names all sizes itself", "Leave --d, --n and --dropout out")
    for option, values in (("--dropout", dropout or []), ("--budget", [budget])):
        if not all(map(isfinite, values)):  # a range of numbers lets NaN through
            raise Refusal(Code.CONFIG_INVALID, option, "it is no finite number", "Give a number such as 0.1 or 60")
    if bits not in BITS:
        known = ", ".join(map(str, BITS))
        raise Refusal(Code.CONFIG_INVALID, f"--bits {bits}", f"rings are {known} bits wide", "Choose one of these")
    if out is not None:
        refuse_to_overwrite(out)
    grid = (
        ([10**5, 10**6, 10**7], [10, 100, 1000], [0.0, 0.1, 0.3])
        if full
        else (d or [10**6], n or [100], [0.0] if dropout is None else dropout)
    )
    cases = [Case(d=each[0], n=each[1], dropout=each[2]) for each in itertools.product(*grid)]
    rows: list[Row] = []
    reports = sum(case.reporting for case in cases) * (2 if peer else 1)
    with console.progress("reports", reports, json=json) as step:
        for case in cases:
            settings = own.Settings(m=m or min(5 if case.n < MANY else 8, case.reporting), bits=bits)
            rows += own.measure(case, settings, budget, step)
            if peer is Peer.FLOWER:
                from simulations.bench import secagg_flower  # Flower takes seconds to import

                rows += secagg_flower.measure(case, budget, step)
    table = [row.as_dict() for row in rows]
    peaks = [row.peak_mb for row in rows if row.peak_mb is not None and row.peer == "hushfed"]
    result = {"rows": table, "exact": True, "peak_mb": max(peaks), "machine": _machine()}
    if out is not None:
        result["figure"] = str(written(out, result, "secagg.svg", draw(rows)))
    console.emit(result if json else {**result, "rows": [_readable(row) for row in rows]}, json=json)
    return console.Exit.DONE


@app.command("privacy")
@console.guarded
def privacy(
    *,
    model: Annotated[list[str] | None, typer.Option(help="cnn, resnet, transformer; repeatable [all].")] = None,
    engine: Annotated[list[str] | None, typer.Option(help="Rows beside plain steps; repeatable [all].")] = None,
    repeats: Annotated[int, typer.Option(min=1, max=1000, help="Steps of each engine.")] = 15,
    memory: Annotated[bool, typer.Option("--memory/--no-memory", help="Measure memory, in processes.")] = True,
    out: Annotated[Path | None, typer.Option(help="New or empty folder for rows.json and a figure.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> console.Exit:
    """CPU seconds and memory of one private training step, beside the same step without privacy.

    One thread; repetitions are interleaved and compared one by one. Engines of ours add the noise that sites add;
    rows "opacus-..." are Opacus as installed, with its own optimizer and torch's noise.
    """
    from simulations.bench import privacy_chart  # these import Opacus, which takes seconds
    from simulations.bench.privacy import measure
    from simulations.bench.privacy_models import SUBJECTS
    from simulations.bench.privacy_steps import ENGINES

    models, engines = model or list(SUBJECTS), engine or list(ENGINES)
    for name in models:
        one_of(name, "--model", SUBJECTS.keys())
    for name in engines:
        one_of(name, "--engine", ENGINES)
    if out is not None:
        refuse_to_overwrite(out)
    runs = len({"sgd", *engines}) if memory else 0
    with console.progress("steps", len(models) * (repeats + runs), json=json) as step:
        rows = [row for name in models for row in measure(name, engines, repeats, step, memory=memory)]
    result: dict[str, Any] = {"rows": [row.as_dict() for row in rows], "machine": _machine()}
    if out is not None:
        result["figure"] = str(written(out, result, "privacy.svg", privacy_chart.draw(rows)))
    console.emit(result if json else {**result, "rows": [row.readable() for row in rows]}, json=json)
    return console.Exit.DONE


@app.command("simulate")
@console.guarded
def simulate(
    *,
    work: Annotated[list[str] | None, typer.Option(help="W1, W1-DP, W1-LDP, W2, W2-DP; repeatable [all].")] = None,
    repeats: Annotated[int, typer.Option(min=1, max=1000, help="Rounds of each engine beside the first.")] = 5,
    memory: Annotated[
        bool, typer.Option("--memory/--no-memory", help="Measure memory and first rounds, in processes.")
    ] = True,
    peers: Annotated[
        Path | None, typer.Option(help="Measure pfl-research and Flower on Ray too: folder of their environments.")
    ] = None,
    scaling: Annotated[bool, typer.Option("--scaling", help="Curves over sites and parameters too; minutes.")] = False,
    out: Annotated[Path | None, typer.Option(help="New or empty folder for rows.json and a figure.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> console.Exit:
    """CPU seconds of one simulated round by each kernel, beside a bare loop over the same sites.

    W1: ten sites train a small convolutional network. W2: a thousand train two linear layers. Fifty records a site;
    "-DP": updates are clipped, and their sum gets noise. "-LDP": every record is clipped, and every step of a site gets
    noise; the bare loop beside it has neither. One thread; rounds are interleaved, the least is told.

    With --peers, pip builds an environment for each peer in that folder at the first call (gigabytes; a network is
    needed), and every peer plays the same rounds there, all its processes counted.
    """
    from simulations.bench import simulate_chart  # these import torch, which takes seconds
    from simulations.bench.simulate import engines_of, measure
    from simulations.bench.simulate_peers import measure_peers, peers_of
    from simulations.bench.simulate_scaling import measure_scaling, points
    from simulations.bench.simulate_works import WORKS

    works = work or list(WORKS)
    for name in works:
        one_of(name, "--work", WORKS.keys())
    if out is not None:
        refuse_to_overwrite(out)
    engines = {name: engines_of(WORKS[name]) for name in works}
    steps = sum(repeats + 1 + len(each) for each in engines.values()) + len(list(points())) * scaling
    steps += sum(len(peers_of(name)) for name in works) if peers else 0
    with console.progress("rounds", steps, json=json) as step:
        rows = [row for name in works for row in measure(name, engines[name], repeats, step, apart=memory)]
        rows += [row for name in works for row in measure_peers(name, peers, repeats, step)] if peers else []
        grown = measure_scaling(repeats, step) if scaling else []
    result: dict[str, Any] = {"rows": [row.as_dict() for row in rows], "machine": _machine()}
    result |= {"scaling": [row.as_dict() for row in grown]} if scaling else {}
    if out is not None:
        result["figure"] = str(written(out, result, "simulate.svg", simulate_chart.draw(rows, grown)))
    readable = {**result, "rows": [row.readable() for row in rows]}
    readable |= {"scaling": [row.readable() for row in grown]} if scaling else {}
    console.emit(result if json else readable, json=json)
    return console.Exit.DONE


def _machine() -> str:
    """What the figures were taken on: they are of no other machine."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        return f"{model}, one thread of {os.cpu_count()}"
    return platform.machine()


def _readable(row: Row) -> dict[str, Any]:
    """The row in units that a person reads; `~` for what was computed."""
    seconds = row.cpu_seconds
    return {
        "peer": row.peer,
        "role": row.role,
        "d": f"{row.d:,}".replace(",", " "),
        "n": row.n,
        "lost": f"{100 * row.dropout:.0f} %",
        "CPU": ("~" if row.computed else "") + (f"{1e3 * seconds:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"),
        "sends": f"{row.bytes_up / 1e6:.2f} MB",
    }
