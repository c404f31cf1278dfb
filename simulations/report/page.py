"""The report page: one file without scripts or network, the same bytes for the same run."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from simulations.audits.fairness import RATES, Tolerance
from simulations.audits.runs import Run, read_run
from simulations.report import figures, numbers
from simulations.report.attack_words import ATTACK_NAMES, attack_drawings, attack_words
from simulations.report.attacks import mark_of, settings_before
from simulations.report.card import TEMPLATES, card
from simulations.report.drawings import NAMES, drawings, learning_key, site_key
from simulations.report.findings import findings
from simulations.report.lying import lying_words
from simulations.report.open_words import engine_of
from simulations.report.words import words

_NO_TOLERANCE = Tolerance()


def build(run: Path, *, tolerance: Tolerance = _NO_TOLERANCE, sensitive: Sequence[str] = ()) -> Path:
    """Audit the run in the directory `run` and write audit.json, report.html and card.md into it.

    tolerance  what the reader accepts; without it the fairness verdict is INCONCLUSIVE
    sensitive  attributes to compare by; all that were counted if empty
    Results of attacks that were made on this very run stay.
    Returns the path of report.html. Each file is replaced whole or not at all; equal runs give equal bytes.
    Errors: Refusal as `read_run` and the audits say.
    """
    read = read_run(run)
    return _write(run, read, findings(read, tolerance, sensitive))


def _write(run: Path, read: Run, found: Mapping[str, Any]) -> Path:
    written = {
        "audit.json": json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n",
        "report.html": page(read, found),
        "card.md": card(read, found),
    }
    for name, text in written.items():
        replace_file(run / name, text)
    return run / "report.html"


def add(run: Path, name: str, attack: Mapping[str, Any]) -> Path:
    """Build the report again with the result of the attack `name`; what was asked of fairness stays as it was."""
    read = read_run(run)
    tolerance, sensitive = settings_before(run)
    return _write(run, read, findings(read, tolerance, sensitive) | {name: {**attack, "run_mark": mark_of(read)}})


def page(run: Run, found: Mapping[str, Any]) -> str:
    """The HTML of a run. Every value from outside is escaped."""
    job = run.facts["job"]
    return (
        environment()
        .get_template("page.html")
        .render(
            facts={"started": None, "ended": None, **run.facts},
            exact=run.exact,
            listed=run.listed,
            engine=engine_of(run.facts),
            signed_by=run.facts["world"].get("signed_by") if run.exact else None,
            job=job,
            job_text=json.dumps(job, indent=2, sort_keys=True, ensure_ascii=False),
            found=found,
            learning=found["learning"],
            words=words(run, found),
            drawings=drawings(run, found),
            bars=_bars(found["privacy"]),
            foremost=_foremost(found["privacy"]),
            names=NAMES,
            attacks=attack_words(run, found),
            attack_drawings=attack_drawings(found),
            attack_names=ATTACK_NAMES,
            lying=lying_words(run, found),
            learning_key=learning_key(run, found["learning"]),
            rates=_rates(found["fairness"]["groups"]),
            site_key=site_key(run),
            seeds=_pairs(run.facts.get("seeds")),
            versions=_pairs(run.facts.get("versions")),
            fingerprints=_pairs(run.facts.get("fingerprints")),
        )
    )


def environment() -> Environment:
    """Templates with escaping always on and the filters that write numbers."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = ("number", "percent", "count", "epsilon", "small", "share", "figure")
    made.filters.update({name: getattr(numbers, name) for name in names})
    made.globals["style"] = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))  # noqa: S704 - our own file
    return made


def replace_file(path: Path, text: str) -> None:
    """Write `text` to `path` whole or not at all: a reader sees the old file or the new one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _bars(privacy: Mapping[str, Any]) -> dict[str, Markup]:
    """One bar a site: how much of the epsilon that the job promised for this run the run cost it."""
    limit = privacy["promised"] or 0.0
    costs = {site["site"]: site["run_epsilon"] if limit else None for site in privacy["sites"]}
    return {
        site: Markup("") if cost is None else figures.bar(f"{site}: ε of this run", cost, limit)
        for site, cost in costs.items()
    }


def _foremost(privacy: Mapping[str, Any]) -> tuple[str, str]:
    """The claim of the site with the largest epsilon, its first sentence apart; no bound counts as the largest.

    Of a run whose sums were formed without masks, what was planned.
    """
    if privacy["planned"]:
        first, _, rest = privacy["planned"]["sentence"].partition(". ")
        return f"{first}.", " ".join([rest, *privacy["planned"]["conditions"]])
    costs = [math.inf if site["recomputed"] is None else site["recomputed"] for site in privacy["sites"]]
    claim = str(privacy["claims"][costs.index(max(costs))]) if costs else "No site took part."
    first, stop, rest = claim.partition(". ")
    return first + stop, rest


def _rates(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The rates that at least one group has."""
    listed = list(rows)
    return [rate for rate in RATES if any(row[rate] is not None for row in listed)]


def _pairs(table: object) -> list[tuple[str, object]]:
    return sorted(table.items()) if isinstance(table, Mapping) else []
